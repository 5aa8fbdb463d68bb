// SPDX-License-Identifier: Apache-2.0

// Package devca is a small authority for tests, examples and machines of one's own: it
// issues certificates that package identity takes. Its key is in memory alone and ends
// with the process; what runs for others has an authority such as SPIRE.
package devca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-rpc/sluice/framework/identity"
)

// CA is an authority. It is safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New makes an authority that is good for ten years.
func New() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the authority's key: %w", err)
	}
	cert := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "sluice devca"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make the authority's certificate: %w", err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return &CA{cert: cert, key: key}, nil
}

// Issue writes ca.crt, NAME.crt and NAME.key into a directory, over what is there: a
// certificate of an identity that is good from one time to another.
func (ca *CA) Issue(dir, name, id string, from, until time.Time) (identity.Files, error) {
	if err := identity.Check(id); err != nil {
		return identity.Files{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity.Files{}, fmt.Errorf("make the key of %s: %w", id, err)
	}
	cert := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: until,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	cert.URIs = append(cert.URIs, identity.URI(id))
	der, err := x509.CreateCertificate(rand.Reader, cert, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		return identity.Files{}, fmt.Errorf("make the certificate of %s: %w", id, err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return identity.Files{}, fmt.Errorf("encode the key of %s: %w", id, err)
	}
	files := identity.Files{CA: filepath.Join(dir, "ca.crt"), Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}
	for _, f := range []struct {
		name, kind string
		content    []byte
	}{{files.CA, "CERTIFICATE", ca.cert.Raw}, {files.Key, "PRIVATE KEY", secret}, {files.Cert, "CERTIFICATE", der}} {
		if err := put(f.name, f.kind, f.content); err != nil {
			return identity.Files{}, err
		}
	}
	return files, nil
}

// put writes a file in one step: who reads meanwhile sees the old one or the new one.
func put(file, kind string, content []byte) error {
	var b bytes.Buffer
	if err := pem.Encode(&b, &pem.Block{Type: kind, Bytes: content}); err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails, by its documentation
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b)
}
