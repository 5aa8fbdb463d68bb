// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/gateway"
	"github.com/sluice-rpc/sluice/app/id"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "plain", "早上好 ☀️", "a\"\\/\b\f\n\r\t\x00\x1f\x7f", "<&>", "\u2028\u2029", "\xff\xc3", "a\xe2\x80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := gateway.AppendString([]byte("x"), s); string(got[1:]) != string(want) || got[0] != 'x' {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	})
}

// TestAppendStringEverywhere: each byte is escaped wherever it stands among plain ones.
func TestAppendStringEverywhere(t *testing.T) {
	for c := range 256 {
		for at := range 17 {
			b := []byte("0123456789abcdefg")
			b[at] = byte(c)
			want, err := json.Marshal(string(b))
			if err != nil {
				t.Fatal(err)
			}
			if got := gateway.AppendString(nil, string(b)); string(got) != string(want) {
				t.Errorf("byte %#x at %d: got %s, want %s", c, at, got, want)
			}
		}
	}
}

func BenchmarkAppendString(b *testing.B) {
	text := strings.Repeat("0123456789abcdef", 16)
	room := make([]byte, 0, 1024)
	for b.Loop() {
		room = gateway.AppendString(room[:0], text)
	}
}

func TestAppendTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.Int64Range(-62135596800000, 253402300799999).Draw(t, "ms") // years 1 to 9999
		want := time.UnixMilli(ms).UTC().Format(`"2006-01-02T15:04:05.000Z"`)
		if got := string(gateway.AppendTime(nil, ms)); got != want {
			t.Errorf("%d: got %s, want %s", ms, got, want)
		}
	})
}

// Whatever is done, the map holds at most twice its size, never a wrong value, and
// what was used within its life if there was room.
func TestGenerations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size, life = 8, time.Minute
		g := gateway.NewGenerations(size, life)
		now := time.Unix(1_000_000, 0)
		put, used := map[int]int{}, map[int]time.Time{}
		roomy := rapid.Bool().Draw(t, "roomy")
		keys := 40
		if roomy {
			keys = size / 2
		}
		for i := range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
			k := rapid.IntRange(0, keys).Draw(t, "key")
			v, ok := g.Get(k, now)
			if ok && v != put[k] {
				t.Fatalf("key %d: %d, want %d", k, v, put[k])
			}
			if last, was := used[k]; was && roomy && now.Sub(last) < life && !ok {
				t.Fatalf("key %d, used %v ago, is forgotten", k, now.Sub(last))
			}
			if !ok {
				put[k] = i
				g.Put(k, i, now)
			}
			used[k] = now
			if g.Len() > 2*size {
				t.Fatalf("%d entries", g.Len())
			}
		}
	})
}

// Over any stretch of time nobody gets more than burst + rate × time.
func TestLimitsLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const perMinute, burst = 30, 20
		take := gateway.NewLimits(perMinute, burst)
		start := time.Unix(1_000_000, 0)
		now, allowed := start, 0
		for range rapid.IntRange(1, 300).Draw(t, "tries") {
			now = now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
			if take("mary", now) == nil {
				allowed++
			}
			if most := burst + now.Sub(start).Minutes()*perMinute; float64(allowed) > most+0.001 {
				t.Fatalf("%d writes within %v", allowed, now.Sub(start))
			}
		}
	})
}

func TestPageFiles(t *testing.T) {
	g := newFake(t).gateway(t)
	paths := []string{
		"/", "/openapi.yaml", "/assets/app.js", "/assets/app.css", "/assets/theme.js", "/assets/icon.svg", "/assets/cover.svg",
		"/assets/vendor/htm-preact-3.1.1.js", "/assets/vendor/htm-LICENSE.txt",
	}
	for _, path := range paths {
		t.Run(path, func(t *testing.T) {
			w := httptest.NewRecorder()
			g.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			if w.Code != 200 || w.Body.Len() == 0 || w.Header().Get("Traceparent") == "" {
				t.Fatalf("status = %d, %d bytes", w.Code, w.Body.Len())
			}
			policy := w.Header().Get("Content-Security-Policy")
			if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") || w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("policy = %q", policy)
			}
			r := httptest.NewRequest("GET", path, nil)
			r.Header.Set("If-None-Match", w.Header().Get("ETag"))
			again := httptest.NewRecorder()
			g.ServeHTTP(again, r)
			if again.Code != 304 || again.Body.Len() != 0 {
				t.Errorf("again: status = %d, %d bytes", again.Code, again.Body.Len())
			}
			r = httptest.NewRequest("GET", path, nil)
			r.Header.Set("Accept-Encoding", "br;q=1.0, gzip")
			zipped := httptest.NewRecorder()
			g.ServeHTTP(zipped, r)
			if zipped.Header().Get("Content-Encoding") == "gzip" {
				zr, err := gzip.NewReader(zipped.Body)
				if err != nil {
					t.Fatal(err)
				}
				plain, err := io.ReadAll(zr)
				if err != nil || !bytes.Equal(plain, w.Body.Bytes()) || zipped.Header().Get("ETag") == w.Header().Get("ETag") {
					t.Errorf("the compressed file is another: %v", err)
				}
			}
			r.Header.Set("Accept-Encoding", "gzip;q=0")
			refused := httptest.NewRecorder()
			g.ServeHTTP(refused, r)
			if refused.Header().Get("Content-Encoding") != "" {
				t.Error("compressed although refused")
			}
		})
	}
	t.Run("what the page needs never changes and is light", func(t *testing.T) {
		get := func(path string) *httptest.ResponseRecorder {
			r := httptest.NewRequest("GET", path, nil)
			r.Header.Set("Accept-Encoding", "gzip")
			w := httptest.NewRecorder()
			g.ServeHTTP(w, r)
			if w.Code != 200 {
				t.Errorf("%s: status = %d", path, w.Code)
			}
			return w
		}
		page := httptest.NewRecorder()
		g.ServeHTTP(page, httptest.NewRequest("GET", "/", nil))
		if keep := page.Header().Get("Cache-Control"); keep != "no-cache" {
			t.Errorf("the page is kept: %s", keep)
		}
		needed := regexp.MustCompile(`"(/assets/[^"]+)"`).FindAllStringSubmatch(page.Body.String(), -1)
		weight := get("/").Body.Len()
		for _, m := range needed {
			w := get(m[1])
			weight += w.Body.Len()
			if keep := w.Header().Get("Cache-Control"); !strings.Contains(keep, "immutable") {
				t.Errorf("%s is not kept: %s", m[1], keep)
			}
		}
		if weight += get("/assets/cover.svg").Body.Len(); weight > 150<<10 || len(needed) < 15 {
			t.Errorf("the page weighs %d bytes in %d files, want at most 150 KiB", weight, len(needed))
		}
		t.Logf("%d bytes in %d files", weight, len(needed))
	})
	w := httptest.NewRecorder()
	g.ServeHTTP(w, httptest.NewRequest("GET", "/assets/../gateway.go", nil))
	if w.Code == 200 {
		t.Error("a source file is served")
	}
}

// timelineOf makes a gateway whose timeline has ten posts, each with five comments
// and five likes.
func timelineOf(b *testing.B) (*gateway.Gateway, string) {
	f := newFake(b)
	g := f.gateway(b)
	mary := &momentsv1.Profile{UserId: newID[id.User](f).String(), Name: "mary", DisplayName: "Mary"}
	f.profiles[mary.GetUserId()], f.tokens["token"] = mary, mary.GetUserId()
	for i := range 10 {
		p := &momentsv1.Post{Id: newID[id.Post](f).String(), AuthorId: mary.GetUserId(), TimeMs: time.Now().UnixMilli(), Text: strings.Repeat("lorem ips ", 25) + fmt.Sprint(i)}
		thread := &momentsv1.Thread{PostId: p.GetId()}
		for range 5 {
			thread.Comments = append(thread.Comments, &momentsv1.Comment{Id: newID[id.Comment](f).String(), WriterId: mary.GetUserId(), TimeMs: time.Now().UnixMilli(), Text: "a comment of forty characters or some more"})
			thread.LikeIds = append(thread.LikeIds, mary.GetUserId())
		}
		f.posts[p.GetId()], f.threads[p.GetId()] = p, thread
	}
	return g, "token"
}

// BenchmarkTimeline is the gateway's part of the most frequent request, from parsed
// head to last byte. The fake behind it costs some of it.
func BenchmarkTimeline(b *testing.B) {
	g, token := timelineOf(b)
	r := httptest.NewRequest("GET", "/timeline?limit=10", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatal(w.Code, w.Body)
		}
	}
}
