// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"crypto/x509"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/identity"
	"github.com/sluice-rpc/sluice/framework/identity/devca"
)

func TestCheck(t *testing.T) {
	for id, says := range map[string]string{
		"spiffe://example.org/shop/cart":              "",
		"spiffe://a_b-c.9/X.y_z-1":                    "",
		"":                                            "write spiffe://",
		"https://example.org/cart":                    "write spiffe://",
		"spiffe://example.org":                        "has no path",
		"spiffe://example.org/":                       "segment",
		"spiffe:///cart":                              "trust domain",
		"spiffe://Example.org/cart":                   "trust domain",
		"spiffe://example.org:443/cart":               "trust domain",
		"spiffe://me@example.org/cart":                "trust domain",
		"spiffe://example.org/shop//cart":             "segment",
		"spiffe://example.org/shop/":                  "segment",
		"spiffe://example.org/../cart":                "segment",
		"spiffe://example.org/./cart":                 "segment",
		"spiffe://example.org/cart?x=1":               "segment",
		"spiffe://example.org/cart#x":                 "segment",
		"spiffe://example.org/c%61rt":                 "segment",
		"spiffe://example.org/*":                      "segment",
		"spiffe://" + strings.Repeat("a", 256) + "/x": "trust domain",
		"spiffe://a/" + strings.Repeat("x", 2048):     "at most 2048",
	} {
		err := identity.Check(id)
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%.60q: got %v, want %q", id, err, says)
		}
	}
}

func TestSet(t *testing.T) {
	const cart, other = "spiffe://example.org/shop/cart", "spiffe://example.org/shopping"
	for pattern, has := range map[string][3]bool{ // cart, other, nobody
		"*":                           {true, true, false},
		cart:                          {true, false, false},
		"spiffe://example.org/*":      {true, true, false},
		"spiffe://example.org/shop/*": {true, false, false},
		"spiffe://example.or/*":       {false, false, false},
		"*/cart":                      {true, false, false},
		"*/art":                       {false, false, false},
		"*/shopping":                  {false, true, false},
	} {
		s, err := identity.NewSet([]string{pattern})
		if err != nil {
			t.Fatal(err)
		}
		if got := [3]bool{s.Has(cart), s.Has(other), s.Has("")}; got != has {
			t.Errorf("%s: got %v, want %v", pattern, got, has)
		}
	}
	for _, pattern := range []string{"", "cart", "*/", "*/a/../b", "/*", "spiffe://Example.org/*", "*cart", "spiffe:///*"} {
		if _, err := identity.NewSet([]string{pattern}); err == nil {
			t.Errorf("pattern %q was taken", pattern)
		}
	}
	var nobody identity.Set
	if nobody.Has(cart) {
		t.Error("the zero set has somebody")
	}
}

func TestOf(t *testing.T) {
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	good := uri("spiffe://example.org/cart")
	for name, c := range map[string]struct {
		cert x509.Certificate
		ok   bool
	}{
		"one id":          {x509.Certificate{URIs: []*url.URL{good}}, true},
		"none":            {x509.Certificate{DNSNames: []string{"cart"}}, false},
		"two":             {x509.Certificate{URIs: []*url.URL{good, good}}, false},
		"of an authority": {x509.Certificate{URIs: []*url.URL{good}, IsCA: true}, false},
		"that may sign":   {x509.Certificate{URIs: []*url.URL{good}, KeyUsage: x509.KeyUsageCertSign}, false},
		"another scheme":  {x509.Certificate{URIs: []*url.URL{uri("idc://hk")}}, false},
		"with a query":    {x509.Certificate{URIs: []*url.URL{uri("spiffe://example.org/cart?x")}}, false},
		"with a user":     {x509.Certificate{URIs: []*url.URL{uri("spiffe://u:p@example.org/cart")}}, false},
	} {
		if _, err := identity.Of(&c.cert); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReread changes the files: good ones count after a second of the clock that it is
// given, bad ones never.
func TestReread(t *testing.T) {
	ca, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	dir, now := t.TempDir(), time.Now()
	issue := func(life time.Duration) identity.Files {
		t.Helper()
		files, err := ca.Issue(dir, "cart", "spiffe://example.org/cart", now.Add(-time.Hour), now.Add(life))
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	files := issue(time.Hour)
	clock := now
	c, err := identity.Open(files, "", nil, func() time.Time { return clock })
	if err != nil {
		t.Fatal(err)
	}
	everybody, err := identity.NewSet([]string{identity.Everybody})
	if err != nil {
		t.Fatal(err)
	}
	until := func() time.Duration {
		c.Server(&everybody) // a handshake
		return c.Until().Sub(now).Round(time.Minute)
	}
	issue(2 * time.Hour)
	if got := until(); got != time.Hour {
		t.Errorf("the files were looked at too soon: until %v", got)
	}
	clock = clock.Add(time.Second)
	if got := until(); got != 2*time.Hour {
		t.Errorf("the new certificate does not count: until %v", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "cart.key"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	clock = clock.Add(time.Second)
	if got := until(); got != 2*time.Hour {
		t.Errorf("a key that is none: until %v", got)
	}
	issue(3 * time.Hour)
	clock = clock.Add(time.Second)
	if got := until(); got != 3*time.Hour {
		t.Errorf("the files are right again: until %v", got)
	}
	if got := c.ID(); got != "spiffe://example.org/cart" {
		t.Errorf("it is %s", got)
	}
}

// TestEnded opens a certificate that has ended, and lets one end: the log says so once of
// each.
func TestEnded(t *testing.T) {
	ca, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	dir, clock := t.TempDir(), time.Now().Add(2*time.Hour) // within the life of the authority
	issue := func(from, until time.Duration) identity.Files {
		t.Helper()
		files, err := ca.Issue(dir, "cart", "spiffe://example.org/cart", clock.Add(from), clock.Add(until))
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	var log strings.Builder
	files := issue(-2*time.Hour, -time.Hour)
	c, err := identity.Open(files, "", slog.New(slog.NewTextHandler(&log, nil)), func() time.Time { return clock })
	if err != nil {
		t.Fatal(err)
	}
	everybody, err := identity.NewSet([]string{identity.Everybody})
	if err != nil {
		t.Fatal(err)
	}
	told := func(want int) {
		t.Helper()
		for range 2 {
			clock = clock.Add(time.Second)
			c.Server(&everybody) // a handshake
		}
		if got := strings.Count(log.String(), "the own certificate is not good"); got != want {
			t.Errorf("told %d times, want %d:\n%s", got, want, log.String())
		}
	}
	told(1)
	issue(-time.Hour, time.Hour)
	told(1)
	clock = clock.Add(2 * time.Hour)
	told(2)
	issue(time.Hour, 2*time.Hour)
	told(2) // it is not good yet, as it was not before
	clock = clock.Add(90 * time.Minute)
	told(2)
}

func FuzzCheck(f *testing.F) {
	f.Add("spiffe://example.org/shop/cart")
	f.Add("spiffe://a/../b")
	f.Fuzz(func(t *testing.T, id string) {
		if identity.Check(id) != nil {
			return
		}
		// What is right survives a certificate, and is the same URI for everybody.
		u, err := url.Parse(id)
		if err != nil || u.String() != id || identity.URI(id).String() != id || u.Host != identity.Domain(id) {
			t.Errorf("%q: parsed %v, %v", id, u, err)
		}
	})
}
