// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/sluice-rpc/sluice/framework/identity"
	"github.com/sluice-rpc/sluice/framework/metrics"
)

// HandshakeFault tells why a handshake has failed, as items count it.
func HandshakeFault(err error) metrics.Handshake {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return metrics.HandshakeNotTLS
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return metrics.HandshakeExpired
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return metrics.HandshakeAuthority
	}
	switch {
	case errors.Is(err, identity.ErrNoCertificate):
		return metrics.HandshakeNoCertificate
	case errors.Is(err, identity.ErrNoIdentity), errors.Is(err, identity.ErrOtherDomain), errors.Is(err, identity.ErrNotExpected):
		return metrics.HandshakeIdentity
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return metrics.HandshakeLate
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return metrics.HandshakeHungUp
	case strings.Contains(err.Error(), "first record does not look like a TLS handshake"):
		return metrics.HandshakeNotTLS
	}
	return metrics.HandshakeOther
}
