// SPDX-License-Identifier: Apache-2.0

package path

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// Refusal is why a connection was not accepted, as counted in Status.
type Refusal string

// The refusals. The last two are no refusals of a connection, but counted beside them.
const (
	NotTLS       Refusal = "not-tls"       // plain text or garbage
	NoHello      Refusal = "no-hello"      // TLS, then something else than a line's greeting
	Authority    Refusal = "authority"     // no certificate, or not of the private authority
	Expired      Refusal = "expired"       // a certificate that is not valid now
	UnknownName  Refusal = "unknown-name"  // the certificate's name is not listed
	OtherName    Refusal = "other-name"    // the greeting says another region than the certificate
	OtherService Refusal = "other-service" // a peer, at the wrong door
	Late         Refusal = "late"          // the handshake was not over in time
	HungUp       Refusal = "hung-up"       // it went away in the middle
	TooMany      Refusal = "too-many"      // too many handshakes at a time
	Handshake    Refusal = "handshake"     // any other fault of TLS, for example an old version

	Tampered    Refusal = "tampered"     // bytes of a session were changed on the way
	OtherCipher Refusal = "other-cipher" // the connection is used, but not under AES-GCM
)

// refusedError is a refusal that we have decided.
type refusedError struct{ why Refusal }

func (e *refusedError) Error() string {
	return "path: the connection is refused: " + string(e.why)
}

func orElse(why, other Refusal) Refusal {
	if why != "" {
		return why
	}
	return other
}

// reasonOf sorts the error of a handshake.
func reasonOf(err error) Refusal {
	if refused, ok := errors.AsType[*refusedError](err); ok {
		return refused.why
	}
	if errors.Is(err, errNoHello) {
		return NoHello
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return NotTLS
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return Expired
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return Authority
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return Late
	case tampered(err):
		return Tampered
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return HungUp
	case strings.Contains(err.Error(), "didn't provide a certificate"): // crypto/tls has no other word for it
		return Authority
	}
	return Handshake
}

// tampered reports whether we have refused a record whose bytes are not those that were
// sent: crypto/tls ends the connection with an alert of its own.
func tampered(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "local error"
}
