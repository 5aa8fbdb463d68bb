// SPDX-License-Identifier: Apache-2.0

package path

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sluice-rpc/sluice/app/pki"
	"github.com/sluice-rpc/sluice/framework/identity"
)

// The protocols under a region's certificates: that of a line, with its version, and what
// gateways and edges speak. One cannot be led into the other's listener.
const (
	alpnLine = "idcq/1"
	alpnHTTP = "http/1.1"
)

// Files are where the certificates are, in PEM. They are read again when they change:
// connections from then on use the new ones.
type Files struct {
	CA   string // of the private authority; several during a change of it
	Cert string // the own certificate
	Key  string // its key
}

// credentials are the certificates in use.
type credentials struct {
	store *identity.Store
	proto string
	now   func() time.Time
}

func openCredentials(files Files, name, proto string, log *slog.Logger, now func() time.Time) (*credentials, error) {
	if files.CA == "" || files.Cert == "" || files.Key == "" {
		return nil, certificatesError(errors.New("peers need the files of the authority, the certificate and its key"))
	}
	// Handshakes are rare: the files are read at each.
	store, err := identity.Files(files).Open(identity.Reading{Log: log, Now: now, Check: func(own *x509.Certificate) error {
		if said := pki.NameOf(own); said != name {
			return fmt.Errorf("it names region %q, this is %q", said, name)
		}
		return nil
	}})
	if err != nil {
		return nil, certificatesError(err)
	}
	return &credentials{store: store, proto: proto, now: now}, nil
}

func certificatesError(err error) error {
	return fmt.Errorf("the certificates of a line: %w; moments certs --help says how to make them", err)
}

// until gives when the own certificate ends.
func (c *credentials) until() time.Time { return c.store.Leaf().NotAfter }

func (c *credentials) base() (*tls.Config, *x509.CertPool) {
	pool, own := c.store.Current()
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{c.proto},
		Certificates:           []tls.Certificate{own},
		Time:                   c.now,
		SessionTicketsDisabled: true, // every connection proves anew who it is
	}, pool
}

// client gives the configuration for dialling a peer.
func (c *credentials) client(name string) *tls.Config {
	cfg, pool := c.base()
	// The usual check is against a host's name. Ours is against the region's, and just as
	// strict.
	cfg.InsecureSkipVerify = true //nolint:gosec // VerifyConnection does it
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		leaf := state.PeerCertificates[0]
		if _, err := leaf.Verify(x509.VerifyOptions{
			Roots: pool, CurrentTime: c.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}); err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
		}
		if said := pki.NameOf(leaf); said != name {
			return fmt.Errorf("its certificate names region %q: %w", said, &refusedError{OtherName})
		}
		return c.checkProtocol(state)
	}
	return cfg
}

// server gives the configuration for who connects. Named knows who may.
func (c *credentials) server(named func(string) bool) *tls.Config {
	cfg, pool := c.base()
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	cfg.ClientCAs = pool
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		if said := pki.NameOf(state.PeerCertificates[0]); said == "" || !named(said) {
			return fmt.Errorf("its certificate names region %q: %w", said, &refusedError{UnknownName})
		}
		return c.checkProtocol(state)
	}
	return cfg
}

func (c *credentials) checkProtocol(state tls.ConnectionState) error {
	if state.NegotiatedProtocol != c.proto {
		return fmt.Errorf("it speaks %q, want %s", state.NegotiatedProtocol, c.proto)
	}
	return nil
}

// nameOf gives the region of a connection that has been verified.
func nameOf(conn *tls.Conn) string { return pki.NameOf(conn.ConnectionState().PeerCertificates[0]) }
