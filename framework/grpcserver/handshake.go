// SPDX-License-Identifier: Apache-2.0

package grpcserver

import (
	"crypto/tls"
	"net"
	"net/url"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/sluice-rpc/sluice/framework/identity"
	"github.com/sluice-rpc/sluice/framework/internal/transport"
	"github.com/sluice-rpc/sluice/framework/metrics"
)

// protocol is what connections speak (ALPN).
const protocol = "h2"

// secures says whether the server's own certificates are used.
func (s *Server) secures() bool { return s.security != nil && s.cfg.TLS == nil && !s.cfg.Plaintext }

// credentials gives how connections are made secure, nil if they are not.
func (s *Server) credentials() credentials.TransportCredentials {
	cfg := s.cfg.TLS
	switch {
	case s.secures():
		// The files of the server's certificates may change: each connection gets its own.
		cfg = &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return s.security.Config(protocol), nil
		}}
	case cfg == nil:
		return nil
	}
	return counted{TransportCredentials: credentials.NewTLS(cfg), server: s}
}

// counted counts how handshakes end, and ends connections whose certificate does.
type counted struct {
	credentials.TransportCredentials
	server *Server
}

// expiredGrace is how long a connection goes on whose caller can no longer prove who it is:
// calls may still be answered.
const expiredGrace = 30 * time.Second

// ServerHandshake implements credentials.TransportCredentials.
func (c counted) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		c.server.items.Handshakes[transport.HandshakeFault(err)].Inc()
		return secured, info, err
	}
	c.server.items.Handshakes[metrics.HandshakeOK].Inc()
	tlsInfo, ok := info.(credentials.TLSInfo)
	if !ok {
		return secured, info, nil
	}
	tlsInfo.SPIFFEID = c.server.proved(tlsInfo.State)
	if own, ok := raw.(*conn); ok && len(tlsInfo.State.PeerCertificates) > 0 {
		own.endAt(tlsInfo.State.PeerCertificates[0].NotAfter.Add(expiredGrace))
	}
	return secured, tlsInfo, nil
}

// Clone implements credentials.TransportCredentials.
func (c counted) Clone() credentials.TransportCredentials {
	return counted{TransportCredentials: c.TransportCredentials.Clone(), server: c.server}
}

// proved gives who the caller has proved itself to be by a handshake. Of a server that has
// certificates of its own it is somebody whom these would let in: authorities that are
// believed here alone say nothing of its trust domain.
func (s *Server) proved(state tls.ConnectionState) *url.URL {
	switch {
	case len(state.PeerCertificates) == 0:
		return nil
	case s.secures(): // the handshake has kept the server's own rules
	case len(state.VerifiedChains) == 0:
		return nil
	case s.security != nil && s.security.Config(protocol).VerifyConnection(state) != nil:
		return nil
	}
	if _, err := identity.Of(state.PeerCertificates[0]); err != nil {
		return nil
	}
	return state.PeerCertificates[0].URIs[0]
}

// identityOf gives the identity that allow-lists see. The trust domain may have changed
// since the handshake.
func (s *Server) identityOf(auth credentials.AuthInfo) string {
	info, ok := auth.(credentials.TLSInfo)
	if !ok || info.SPIFFEID == nil {
		return ""
	}
	id := info.SPIFFEID.String()
	if s.security != nil && identity.Domain(id) != s.security.Domain() {
		return "" // it names nobody that an allow-list could mean
	}
	return id
}
