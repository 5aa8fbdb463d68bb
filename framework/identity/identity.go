// SPDX-License-Identifier: Apache-2.0

// Package identity proves to services who the other side of a connection is: by a
// certificate of a private authority whose only URI is a SPIFFE id, as in
// spiffe://example.org/shop/cart (https://github.com/spiffe/spiffe, X509-SVID). Names of
// hosts and common names mean nothing here.
package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

const (
	scheme    = "spiffe"
	prefix    = scheme + "://"
	maxLength = 2048 // of an id, by the standard
	maxDomain = 255
)

// Check says what is wrong with an id: it is spiffe://DOMAIN/PATH with a trust domain of
// lower-case letters, digits, dots, hyphens and underscores, and a path of one or more
// segments of letters, digits, dots, hyphens and underscores, none of them "." or "..".
func Check(id string) error {
	if len(id) > maxLength {
		return fmt.Errorf("identity of %d bytes: at most %d", len(id), maxLength)
	}
	rest, ok := strings.CutPrefix(id, prefix)
	if !ok {
		return fmt.Errorf("identity %q: write %sDOMAIN/PATH", id, prefix)
	}
	domain, path, ok := strings.Cut(rest, "/")
	if err := CheckDomain(domain); err != nil {
		return fmt.Errorf("identity %q: %w", id, err)
	}
	if !ok {
		return fmt.Errorf("identity %q has no path: it names a trust domain and nobody in it", id)
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." || !all(segment, func(c byte) bool { return isLower(c) || 'A' <= c && c <= 'Z' }) {
			return fmt.Errorf("identity %q: segment %q of the path: use letters, digits, dots, hyphens and underscores", id, segment)
		}
	}
	return nil
}

// CheckDomain says what is wrong with the name of a trust domain.
func CheckDomain(domain string) error {
	if domain == "" || len(domain) > maxDomain || !all(domain, isLower) {
		return fmt.Errorf("trust domain %q: use 1 to %d lower-case letters, digits, dots, hyphens and underscores", domain, maxDomain)
	}
	return nil
}

func isLower(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_'
}

func all(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

// Domain gives the trust domain of an id that is right.
func Domain(id string) string {
	domain, _, _ := strings.Cut(strings.TrimPrefix(id, prefix), "/")
	return domain
}

// Of gives the id that a certificate names. It is not verified by that. A certificate
// with several URIs, or that may sign others, names nobody.
func Of(cert *x509.Certificate) (string, error) {
	switch {
	case cert.IsCA || cert.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return "", errors.New("the certificate is an authority's: it names nobody")
	case len(cert.URIs) != 1:
		return "", fmt.Errorf("the certificate has %d URIs: want one, %sDOMAIN/PATH", len(cert.URIs), prefix)
	}
	id := cert.URIs[0].String()
	return id, Check(id)
}

// URI gives an id that is right as certificates hold it.
func URI(id string) *url.URL {
	domain, path, _ := strings.Cut(strings.TrimPrefix(id, prefix), "/")
	return &url.URL{Scheme: scheme, Host: domain, Path: "/" + path}
}

// A Set is whose ids are meant: some, all below a path, or everybody of the trust domain.
// The zero Set is nobody. It is read-only, so that it is safe for concurrent use.
type Set struct {
	everybody bool
	exact     map[string]struct{}
	below     []string // each ends in a slash
	named     []string // each begins with one
}

// Everybody is the pattern for all that have proved an identity.
const Everybody = "*"

// NewSet reads patterns: an id, an id whose path ends in /* for all below it, */NAME for
// all whose path ends in that name, or * for everybody. An error names the pattern that is
// none.
func NewSet(patterns []string) (Set, error) {
	var s Set
	var errs []error
	for _, p := range patterns {
		path, below := strings.CutSuffix(p, "/*")
		switch {
		case p == Everybody:
			s.everybody = true
		case below && (Check(path) == nil || CheckDomain(strings.TrimPrefix(path, prefix)) == nil && strings.HasPrefix(path, prefix)):
			s.below = append(s.below, path+"/")
		case strings.HasPrefix(p, "*/") && Check(prefix+"d"+p[1:]) == nil:
			s.named = append(s.named, p[1:])
		default:
			if err := Check(p); err != nil {
				errs = append(errs, fmt.Errorf("%w; or end in /* for all below, or write */NAME, or %s for everybody", err, Everybody))
				continue
			}
			if s.exact == nil {
				s.exact = map[string]struct{}{}
			}
			s.exact[p] = struct{}{}
		}
	}
	return s, errors.Join(errs...)
}

// Has says whether an id is meant. An empty id, of who has proved none, never is.
func (s *Set) Has(id string) bool {
	if id == "" {
		return false
	}
	if s.everybody {
		return true
	}
	if _, ok := s.exact[id]; ok {
		return true
	}
	for _, path := range s.below {
		if strings.HasPrefix(id, path) {
			return true
		}
	}
	for _, name := range s.named {
		if strings.HasSuffix(id, name) {
			return true
		}
	}
	return false
}
