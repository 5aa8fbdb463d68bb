// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/link"
)

var (
	noon   = time.Date(2026, 3, 4, 12, 0, 17, 0, time.UTC)
	signer = link.NewSigner(link.Key{1})
	photo  = id.Media{1, 2, 3}
)

// parts takes a link apart.
func parts(t *testing.T, l link.Link, form link.Form) (path, expires, tag string) {
	t.Helper()
	u, err := url.Parse(string(l.Append(nil, form)))
	if err != nil {
		t.Fatal(err)
	}
	return u.Path, u.Query().Get("e"), u.Query().Get("s")
}

func TestALinkHoldsForItsTime(t *testing.T) {
	path, expires, tag := parts(t, signer.New(photo, noon), link.Feed)
	if want := link.Prefix + photo.String() + "/feed"; path != want {
		t.Errorf("its path is %s, want %s", path, want)
	}
	for _, c := range []struct {
		after time.Duration
		want  error
	}{{0, nil}, {9 * time.Minute, nil}, {link.Valid + time.Second, link.ErrExpired}, {48 * time.Hour, link.ErrExpired}} {
		if _, err := signer.Check(photo, expires, tag, noon.Add(c.after)); !errors.Is(err, c.want) {
			t.Errorf("after %v: %v, want %v", c.after, err, c.want)
		}
	}
}

func TestALinkIsTheSameForAMinute(t *testing.T) {
	first := string(signer.New(photo, noon).Append(nil, link.Full))
	if again := string(signer.New(photo, noon.Add(40*time.Second)).Append(nil, link.Full)); again != first {
		t.Errorf("%s is not %s", again, first)
	}
	if later := string(signer.New(photo, noon.Add(time.Minute)).Append(nil, link.Full)); later == first {
		t.Error("it never changes")
	}
}

func TestForged(t *testing.T) {
	_, expires, tag := parts(t, signer.New(photo, noon), link.Full)
	_, _, foreign := parts(t, link.NewSigner(link.Key{2}).New(photo, noon), link.Full)
	for name, c := range map[string]struct {
		media        id.Media
		expires, tag string
	}{
		"of another medium": {id.Media{9}, expires, tag},
		"lasting longer":    {photo, "9" + expires, tag},
		"of another key":    {photo, expires, foreign},
		"without a tag":     {photo, expires, ""},
		"a short tag":       {photo, expires, tag[:16]},
		"a long tag":        {photo, expires, tag + tag},
		"no base64":         {photo, expires, strings.Repeat("!", len(tag))},
		"a sign before":     {photo, "+" + expires, tag},
		"zeros before":      {photo, "00" + expires, tag},
		"no time":           {photo, "", tag},
	} {
		if _, err := signer.Check(c.media, c.expires, c.tag, noon); !errors.Is(err, link.ErrForged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseKey(t *testing.T) {
	good := strings.Repeat("0a", link.KeySize)
	if k, err := link.ParseKey(good); err != nil || k[0] != 10 {
		t.Errorf("%v, %v", k, err)
	}
	for _, bad := range []string{"", good[2:], good + "00", strings.Repeat("zz", link.KeySize)} {
		if _, err := link.ParseKey(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestFormsHaveNames(t *testing.T) {
	for _, f := range []link.Form{link.Full, link.Feed, link.Thumbnail} {
		if link.FormOf(f.Variant()) != f {
			t.Errorf("%s is not found again", f)
		}
	}
	if link.Form("../x").Variant() != 0 || link.FormOf(0) != "" {
		t.Error("what is no form has a name")
	}
}

func BenchmarkNew(b *testing.B) {
	text := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		text = signer.New(photo, noon).Append(text[:0], link.Full)
	}
}

// FuzzCheck: a link that is taken is one that was made, as it was made.
func FuzzCheck(f *testing.F) {
	u, err := url.Parse(string(signer.New(photo, noon).Append(nil, link.Full)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(u.Query().Get("e"), u.Query().Get("s"))
	f.Add("-1", strings.Repeat("A", 32))
	f.Add("9223372036854775807", strings.Repeat("_", 32))
	f.Fuzz(func(t *testing.T, expires, tag string) {
		end, err := signer.Check(photo, expires, tag, noon)
		if errors.Is(err, link.ErrForged) {
			return
		}
		_, e, s := parts(t, signer.New(photo, end.Add(-link.Valid)), link.Full)
		if e != expires || s != tag {
			t.Errorf("e=%s&s=%s was taken, %v: it is made as e=%s&s=%s", expires, tag, err, e, s)
		}
	})
}
