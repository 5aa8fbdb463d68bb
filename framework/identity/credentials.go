// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Protocol is what both sides say they speak (ALPN): a certificate of ours cannot be led
// to a listener of something else.
const Protocol = "sluice/1"

// What is wrong with a peer whose certificate is good. ErrOtherDomain and ErrNotExpected
// are in the errors of handshakes.
var (
	ErrNoCertificate = errors.New("it has shown no certificate")
	ErrNoIdentity    = errors.New("its certificate names no identity")
	ErrOtherDomain   = errors.New("its identity is of another trust domain")
	ErrNotExpected   = errors.New("its identity is not one that is expected here")
)

// recheck is how often the files are looked at, by handshakes, which cost milliseconds.
const recheck = time.Second

// Credentials are the certificates in use. Handshakes look at the files again, at most once
// a second, see Store. They are safe for concurrent use.
type Credentials struct {
	store    *Store
	domain   string
	protocol string // that connections speak
	now      func() time.Time
}

// Open reads the files. The own certificate must be of the trust domain, which is its own
// if domain is empty. A nil log is slog.Default(), a nil now is time.Now.
func Open(files Files, domain string, log *slog.Logger, now func() time.Time) (*Credentials, error) {
	if now == nil {
		now = time.Now
	}
	c := &Credentials{domain: domain, protocol: Protocol, now: now}
	store, err := files.Open(Reading{Check: c.own, Every: recheck, Log: log, Now: now})
	if err != nil {
		return nil, err
	}
	c.store = store
	return c, nil
}

// own says what is wrong with an own certificate. The first decides on the trust domain if
// nobody has: Open calls it before there is anybody else.
func (c *Credentials) own(cert *x509.Certificate) error {
	id, err := Of(cert)
	switch {
	case err != nil:
		return err
	case c.domain == "":
		c.domain = Domain(id)
	case Domain(id) != c.domain:
		return fmt.Errorf("it is of %s, not of trust domain %s", id, c.domain)
	}
	return nil
}

// ID gives the own identity.
func (c *Credentials) ID() string {
	id, _ := Of(c.store.Leaf()) // was right when it was read
	return id
}

// Domain gives the trust domain of the peers.
func (c *Credentials) Domain() string { return c.domain }

// Until gives when the own certificate ends.
func (c *Credentials) Until() time.Time { return c.store.Leaf().NotAfter }

// Speaking gives the same credentials for connections that speak another protocol (ALPN)
// than Protocol.
func (c *Credentials) Speaking(protocol string) *Credentials {
	other := *c
	other.protocol = protocol
	return &other
}

// Server gives the configuration for one connection that was accepted, from whom peers
// has. Client gives that for one connection that was made.
func (c *Credentials) Server(peers *Set) *tls.Config {
	return c.config(peers, x509.ExtKeyUsageClientAuth)
}

// Client is Server for the other side.
func (c *Credentials) Client(peers *Set) *tls.Config {
	return c.config(peers, x509.ExtKeyUsageServerAuth)
}

func (c *Credentials) config(peers *Set, usage x509.ExtKeyUsage) *tls.Config {
	pool, own := c.store.Current()
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{c.protocol}, Time: c.now,
		Certificates: []tls.Certificate{own},
		// The usual checks are against a host's name, or give errors that say little. Ours
		// is against the identity, and just as strict.
		ClientAuth:             tls.RequestClientCert,
		InsecureSkipVerify:     true, //nolint:gosec // VerifyConnection does it
		VerifyConnection:       func(state tls.ConnectionState) error { return c.check(state, pool, peers, usage) },
		SessionTicketsDisabled: true, // every connection proves anew who it is
		// Else each connection begins with records of 1.4 KB, for browsers.
		DynamicRecordSizingDisabled: true,
	}
}

func (c *Credentials) check(state tls.ConnectionState, pool *x509.CertPool, peers *Set, usage x509.ExtKeyUsage) error {
	if len(state.PeerCertificates) == 0 {
		return ErrNoCertificate
	}
	if err := verify(state.PeerCertificates, pool, c.now(), usage); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
	}
	id, err := Of(state.PeerCertificates[0])
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrNoIdentity, err)
	case Domain(id) != c.domain:
		return fmt.Errorf("%s: %w, not of %s", id, ErrOtherDomain, c.domain)
	case !peers.Has(id):
		return fmt.Errorf("%s: %w", id, ErrNotExpected)
	case state.NegotiatedProtocol != c.protocol:
		return fmt.Errorf("%s speaks %q, want %s", id, state.NegotiatedProtocol, c.protocol)
	}
	return nil
}

// Peer gives the identity of the other side of a connection whose handshake is over, and
// until when its certificate is good.
func Peer(conn *tls.Conn) (id string, until time.Time) {
	leaf := conn.ConnectionState().PeerCertificates[0] // was verified
	id, _ = Of(leaf)
	return id, leaf.NotAfter
}
