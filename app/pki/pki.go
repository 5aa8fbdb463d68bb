// SPDX-License-Identifier: Apache-2.0

// Package pki makes the certificates by which regions know each other: a private
// authority that is used for nothing else, and for each region a leaf of a few weeks
// that names it in a URI, idc://NAME.
package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// Scheme is that of the URI which names a region in its certificate.
const Scheme = "idc"

// How long certificates are good. A leaf that was stolen is of use for a month at
// most; nobody needs a list of revoked ones.
const (
	AuthorityLife = 5 * 365 * 24 * time.Hour
	MaxLeafLife   = 30 * 24 * time.Hour

	// startEarly lets a certificate be good on a machine whose clock is a little behind.
	startEarly = 5 * time.Minute
)

// Names of files in a directory of certificates. A leaf has NAME.crt and NAME.key.
const (
	authorityCert = "authority.crt"
	authorityKey  = "authority.key"
	certSuffix    = ".crt"
	keySuffix     = ".key"
)

// ErrExists means that a file is there already. Nothing is ever overwritten.
var ErrExists = errors.New("exists already")

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// CheckName says what is wrong with the name of a region: at most 32 lower-case
// letters, digits and inner hyphens, and not that of the authority's own files.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("region %q: use at most 32 lower-case letters, digits and inner hyphens", name)
	}
	if name+certSuffix == authorityCert {
		return fmt.Errorf("region %q: the authority's own files have that name; use another one", name)
	}
	return nil
}

// Dir is a directory of certificates and keys.
type Dir string

// Authority gives the file of the authority's certificate.
func (d Dir) Authority() string { return filepath.Join(string(d), authorityCert) }

// Cert gives the file of a region's certificate.
func (d Dir) Cert(name string) string { return filepath.Join(string(d), name+certSuffix) }

// Key gives the file of a region's key.
func (d Dir) Key(name string) string { return filepath.Join(string(d), name+keySuffix) }

// Init makes the authority. It fails with ErrExists if there is one.
func (d Dir) Init(now time.Time) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("make the directory of certificates: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the authority's key: %w", err)
	}
	cert := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "moments regions"},
		NotBefore:             now.Add(-startEarly),
		NotAfter:              now.Add(AuthorityLife),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // it signs leaves only
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		return fmt.Errorf("make the authority's certificate: %w", err)
	}
	return writePair(d.Authority(), filepath.Join(string(d), authorityKey), der, key)
}

// Issue makes the key and certificate of a region, good for life, which is at most
// MaxLeafLife. It fails with ErrExists if they are there: move them away first, and
// the processes read the new ones without a restart.
func (d Dir) Issue(name string, life time.Duration, now time.Time) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if life <= 0 || life > MaxLeafLife {
		return fmt.Errorf("a certificate for %v: use more than 0 and at most %v", life, MaxLeafLife)
	}
	authority, sign, err := d.authority()
	if err != nil {
		return err
	}
	end := now.Add(life)
	if end.After(authority.NotAfter) {
		return fmt.Errorf("the authority in %s ends on %v, before the certificate would: make a new one in another directory", d.Authority(), authority.NotAfter.Format(time.DateOnly))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the key of %s: %w", name, err)
	}
	cert := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-startEarly),
		NotAfter:     end,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs:         []*url.URL{URI(name)},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, authority, &key.PublicKey, sign)
	if err != nil {
		return fmt.Errorf("make the certificate of %s: %w", name, err)
	}
	return writePair(d.Cert(name), d.Key(name), der, key)
}

// URI gives how a certificate names a region.
func URI(name string) *url.URL { return &url.URL{Scheme: Scheme, Host: name} }

// authority reads the authority's certificate and key.
func (d Dir) authority() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	cert, err := ReadCert(d.Authority())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s has no authority: make one with moments certs init --dir %s", string(d), string(d))
	}
	if err != nil {
		return nil, nil, err
	}
	file := filepath.Join(string(d), authorityKey)
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, fmt.Errorf("read the authority's key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, nil, fmt.Errorf("%s holds no PEM block", file)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, fmt.Errorf("%s is not the key of %s", file, d.Authority())
	}
	return cert, key, nil
}

// Shown is a certificate as people see it.
type Shown struct {
	File      string
	Name      string // of the region; empty for the authority
	From      time.Time
	Until     time.Time
	Authority bool
}

// Show gives the certificates of a directory, the authority's first.
func (d Dir) Show() ([]Shown, error) {
	files, err := filepath.Glob(filepath.Join(string(d), "*"+certSuffix)) // sorted
	if err != nil {
		return nil, fmt.Errorf("look into %s: %w", string(d), err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no certificates: begin with moments certs init --dir %s", string(d), string(d))
	}
	shown := make([]Shown, 0, len(files))
	for _, file := range files {
		cert, err := ReadCert(file)
		if err != nil {
			return nil, err
		}
		s := Shown{File: file, From: cert.NotBefore, Until: cert.NotAfter, Authority: cert.IsCA}
		if !cert.IsCA {
			s.Name = NameOf(cert)
		}
		if s.Authority {
			shown = append([]Shown{s}, shown...)
		} else {
			shown = append(shown, s)
		}
	}
	return shown, nil
}

// NameOf gives the region that a certificate names, empty if it names none or is not
// of the form that Issue makes.
func NameOf(cert *x509.Certificate) string {
	if len(cert.URIs) != 1 {
		return ""
	}
	u := cert.URIs[0]
	if u.Scheme != Scheme || CheckName(u.Host) != nil || u.String() != URI(u.Host).String() {
		return ""
	}
	return u.Host
}

// ReadCert reads the first certificate of a PEM file.
func ReadCert(file string) (*x509.Certificate, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read a certificate: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s holds no PEM certificate", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return cert, nil
}

// serial gives a number that nobody else has: 128 random bits, with the highest one
// set, which every reader takes for positive.
func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails, by its documentation
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b)
}

// writePair writes a certificate and its key, both or none, and neither over another.
func writePair(certFile, keyFile string, der []byte, key *ecdsa.PrivateKey) error {
	for _, file := range []string{certFile, keyFile} {
		if _, err := os.Lstat(file); err == nil {
			return fmt.Errorf("%s: %w; move it away to have a new one", file, ErrExists)
		}
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode a key: %w", err)
	}
	if err := writeNew(keyFile, "PRIVATE KEY", secret); err != nil {
		return err
	}
	if err := writeNew(certFile, "CERTIFICATE", der); err != nil {
		return errors.Join(err, os.Remove(keyFile))
	}
	return nil
}

func writeNew(file, kind string, content []byte) error {
	var b bytes.Buffer
	if err := pem.Encode(&b, &pem.Block{Type: kind, Bytes: content}); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w; move it away to have a new one", file, ErrExists)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	_, err = f.Write(b.Bytes())
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", file, err), os.Remove(file))
	}
	return nil
}
