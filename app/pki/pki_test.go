// SPDX-License-Identifier: Apache-2.0

package pki_test

import (
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/pki"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestIssue(t *testing.T) {
	dir := pki.Dir(filepath.Join(t.TempDir(), "certs"))
	if err := dir.Init(now); err != nil {
		t.Fatal(err)
	}
	if err := dir.Issue("shanghai", pki.MaxLeafLife, now); err != nil {
		t.Fatal(err)
	}
	authority, err := pki.ReadCert(dir.Authority())
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := pki.ReadCert(dir.Cert("shanghai"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
			t.Errorf("use %v: %v", use, err)
		}
	}
	if got := pki.NameOf(leaf); got != "shanghai" {
		t.Errorf("it names %q", got)
	}
	if life := leaf.NotAfter.Sub(now); life > 30*24*time.Hour {
		t.Errorf("it is good for %v", life)
	}
	for _, file := range []string{dir.Authority(), dir.Cert("shanghai"), dir.Key("shanghai"), filepath.Join(string(dir), "authority.key")} {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", file, info.Mode())
		}
	}
	shown, err := dir.Show()
	if err != nil {
		t.Fatal(err)
	}
	if len(shown) != 2 || !shown[0].Authority || shown[1].Name != "shanghai" {
		t.Errorf("shown: %+v", shown)
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	dir := pki.Dir(t.TempDir())
	if err := dir.Init(now); err != nil {
		t.Fatal(err)
	}
	if err := dir.Issue("hk", time.Hour, now); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(dir.Key("hk"))
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.Init(now); !errors.Is(err, pki.ErrExists) {
		t.Errorf("a second authority: %v", err)
	}
	if err := dir.Issue("hk", time.Hour, now); !errors.Is(err, pki.ErrExists) {
		t.Errorf("a second leaf: %v", err)
	}
	if err := os.Remove(dir.Cert("hk")); err != nil {
		t.Fatal(err)
	}
	if err := dir.Issue("hk", time.Hour, now); !errors.Is(err, pki.ErrExists) {
		t.Errorf("with the key alone: %v", err)
	}
	after, err := os.ReadFile(dir.Key("hk"))
	if err != nil {
		t.Fatal(err)
	}
	if string(before) != string(after) {
		t.Error("the key has changed")
	}
}

func TestRefused(t *testing.T) {
	made := pki.Dir(t.TempDir())
	if err := made.Init(now); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		dir    pki.Dir
		region string
		life   time.Duration
		at     time.Time
		want   string
	}{
		{"no authority", pki.Dir(t.TempDir()), "hk", time.Hour, now, "certs init"},
		{"empty name", made, "", time.Hour, now, "lower-case"},
		{"a path for a name", made, "../hk", time.Hour, now, "lower-case"},
		{"the authority's name", made, "authority", time.Hour, now, "another one"},
		{"too long", made, "hk", pki.MaxLeafLife + 1, now, "at most"},
		{"no time at all", made, "hk", 0, now, "more than 0"},
		{"beyond the authority", made, "hk", time.Hour, now.Add(pki.AuthorityLife), "before the certificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.dir.Issue(tt.region, tt.life, tt.at)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want something about %q", err, tt.want)
			}
		})
	}
}
