// SPDX-License-Identifier: Apache-2.0

package grpcserver

import (
	"crypto/tls"
	"net"
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
	own, ok := raw.(*conn)
	if tlsInfo, isTLS := info.(credentials.TLSInfo); ok && isTLS && len(tlsInfo.State.PeerCertificates) > 0 {
		own.endAt(tlsInfo.State.PeerCertificates[0].NotAfter.Add(expiredGrace))
	}
	return secured, info, nil
}

// Clone implements credentials.TransportCredentials.
func (c counted) Clone() credentials.TransportCredentials {
	return counted{TransportCredentials: c.TransportCredentials.Clone(), server: c.server}
}

// identityOf gives what the caller has proved itself to be: somebody of the server's trust
// domain, if it has one.
func (s *Server) identityOf(auth credentials.AuthInfo) string {
	info, ok := auth.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return ""
	}
	if !s.secures() && len(info.State.VerifiedChains) == 0 { // else the server's own rules have been kept
		return ""
	}
	id, err := identity.Of(info.State.PeerCertificates[0])
	if err != nil || s.security != nil && identity.Domain(id) != s.security.Domain() {
		return "" // it names nobody that an allow-list could mean
	}
	return id
}
