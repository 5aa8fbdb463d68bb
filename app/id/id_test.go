// SPDX-License-Identifier: Apache-2.0

package id_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
)

// TestTexts: the strings of many are those of each.
func TestTexts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOf(rapid.Custom(func(t *rapid.T) (p id.Post) {
			copy(p[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes"))
			return p
		})).Draw(t, "ids")
		texts := id.Texts(ids)
		for i, p := range ids {
			if back, err := id.ParsePost(texts[i]); err != nil || back != p || texts[i] != p.String() {
				t.Fatalf("%v became %q, read as %v, %v", p, texts[i], back, err)
			}
		}
	})
}

func anyID(t *rapid.T, label string) id.Post {
	// Few values per byte, so that ids often share their beginnings.
	return id.Post(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0x7f, 0x80, 0xff}), 16, 16).Draw(t, label))
}

func TestStringsSortAsBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyID(t, "a"), anyID(t, "b")
		want := bytes.Compare(a[:], b[:])
		if got := cmp.Compare(a.String(), b.String()); got != want || a.Compare(b) != want {
			t.Fatalf("%v and %v: strings compare %d, ids %d, bytes %d", a, b, got, a.Compare(b), want)
		}
	})
}

func TestStringsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := id.Post(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		if back, err := id.ParsePost(a.String()); err != nil || back != a {
			t.Fatalf("ParsePost(%v) = %v, %v", a, back, err)
		}
	})
}

// TestIdsAreInOrderOfMaking lets the wall clock go anywhere.
func TestIdsAreInOrderOfMaking(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wall := int64(0)
		region := id.Region(rapid.Uint16().Draw(t, "region"))
		epoch := id.Epoch(rapid.Uint32Range(0, 1<<24-1).Draw(t, "epoch"))
		gen, err := id.NewGenerator(region, epoch, func() time.Time { return time.UnixMilli(wall) })
		if err != nil {
			t.Fatal(err)
		}
		var last id.Post
		for i, ms := range rapid.SliceOf(rapid.Int64Range(-10, 1<<48-1)).Draw(t, "clock") {
			wall = ms
			next, err := id.New[id.Post](gen)
			if err != nil {
				t.Fatal(err)
			}
			if i > 0 && (next.Compare(last) <= 0 || next.String() <= last.String()) {
				t.Fatalf("%v was made after %v and is not above it", next, last)
			}
			if next.Region() != region || next.Epoch() != epoch || next.Seq() != uint64(i) || next.Time().UnixMilli() < max(ms, 0) {
				t.Fatalf("%v says region %d, epoch %d, sequence %d, time %v; want %d, %d, %d, at least %d ms", next,
					next.Region(), next.Epoch(), next.Seq(), next.Time(), region, epoch, i, ms)
			}
			last = next
		}
	})
}

func TestLayout(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 123e6, time.UTC)
	gen, err := id.NewGenerator(0x0102, 0x030405, func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	var u id.User
	for range 3 {
		if u, err = id.New[id.User](gen); err != nil {
			t.Fatal(err)
		}
	}
	want := id.User{0x01, 0xa2, 0x02, 0xb2, 0xc5, 0x7b, 1, 2, 3, 4, 5, 0, 0, 0, 0, 2}
	if u != want {
		t.Errorf("id = % x, want % x", u[:], want[:])
	}
	if !u.Time().Equal(at) || u.IsZero() || !(id.User{}).IsZero() {
		t.Errorf("id of %v says %v", at, u.Time())
	}
	if s := u.String(); len(s) != id.Len {
		t.Errorf("String = %q of %d characters", s, len(s))
	}
	if s := (id.User{}).String(); s != strings.Repeat("0", 26) {
		t.Errorf("the zero id is %q", s)
	}
	if s := id.User(bytes.Repeat([]byte{0xff}, 16)).String(); s != "7"+strings.Repeat("Z", 25) {
		t.Errorf("the last id is %q", s)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, test := range []struct{ name, text, says string }{
		{"nothing", "", "user id has 0 characters, want 26"},
		{"too short", strings.Repeat("0", 25), "25 characters"},
		{"too long", strings.Repeat("0", 27), "27 characters"},
		{"above 128 bits", "8" + strings.Repeat("0", 25), `starts with "8"`},
		{"lower case", strings.Repeat("0", 25) + "a", `"a" at position 26`},
		{"letter that is not used", strings.Repeat("0", 10) + "O" + strings.Repeat("0", 15), `"O" at position 11`},
		{"not ASCII", strings.Repeat("0", 24) + "é", "position 25"},
		{"space", strings.Repeat("0", 25) + " ", "position 26"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if u, err := id.ParseUser(test.text); err == nil || !strings.Contains(err.Error(), test.says) || !u.IsZero() {
				t.Errorf("ParseUser = %v, %v; want an error with %q", u, err, test.says)
			}
		})
	}
}

func TestEveryKindParses(t *testing.T) {
	const text = "01JDXYZ0000000000000000001"
	for name, parse := range map[string]func(string) (string, error){
		"user":    func(s string) (string, error) { v, err := id.ParseUser(s); return v.String(), err },
		"post":    func(s string) (string, error) { v, err := id.ParsePost(s); return v.String(), err },
		"comment": func(s string) (string, error) { v, err := id.ParseComment(s); return v.String(), err },
		"session": func(s string) (string, error) { v, err := id.ParseSession(s); return v.String(), err },
		"media":   func(s string) (string, error) { v, err := id.ParseMedia(s); return v.String(), err },
		"notice":  func(s string) (string, error) { v, err := id.ParseNotice(s); return v.String(), err },
		"tag":     func(s string) (string, error) { v, err := id.ParseTag(s); return v.String(), err },
	} {
		if got, err := parse(text); err != nil || got != text {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if _, err := parse("?"); err == nil || !strings.HasPrefix(err.Error(), name+" id") {
			t.Errorf("%s: the error %q does not name it", name, err)
		}
	}
}

func TestJSON(t *testing.T) {
	type page struct {
		Author id.User
		Likes  map[id.User]int
	}
	u, err := id.ParseUser("01JDXYZ0000000000000000001")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(page{u, map[id.User]int{u: 1}})
	if want := `{"Author":"01JDXYZ0000000000000000001","Likes":{"01JDXYZ0000000000000000001":1}}`; err != nil || string(text) != want {
		t.Fatalf("Marshal = %s, %v; want %s", text, err, want)
	}
	var back page
	if err := json.Unmarshal(text, &back); err != nil || back.Author != u || back.Likes[u] != 1 {
		t.Errorf("Unmarshal = %+v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`{"Author":"me"}`), &back); err == nil || back.Author != u {
		t.Errorf("Unmarshal of a bad id = %v, and left %v", err, back.Author)
	}
}

func TestGeneratorConcurrently(t *testing.T) {
	const workers, each = 8, 500
	gen, err := id.NewGenerator(1, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	made := make([][]id.Comment, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range each {
				c, err := id.New[id.Comment](gen)
				if err != nil {
					t.Error(err)
				}
				made[w] = append(made[w], c)
			}
		})
	}
	wg.Wait()
	seen := map[id.Comment]bool{}
	for _, ids := range made {
		if !slices.IsSortedFunc(ids, id.Comment.Compare) {
			t.Error("ids of one goroutine are not in order")
		}
		for _, c := range ids {
			seen[c] = true
		}
	}
	if len(seen) != workers*each {
		t.Errorf("%d different ids of %d", len(seen), workers*each)
	}
}

func TestGeneratorRefuses(t *testing.T) {
	if _, err := id.NewGenerator(1, 1<<24, nil); err == nil {
		t.Error("an epoch of 25 bits was accepted")
	}
	gen, err := id.NewGenerator(1, 1, func() time.Time { return time.UnixMilli(1 << 48) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := id.New[id.Post](gen); err == nil {
		t.Error("a time of 49 bits was accepted")
	}
}

func TestNextEpoch(t *testing.T) {
	ctx := t.Context()
	s := memkv.New()
	for want := id.Epoch(1); want <= 5; want++ {
		if got, err := id.NextEpoch(ctx, s); err != nil || got != want {
			t.Fatalf("NextEpoch = %d, %v; want %d", got, err, want)
		}
		s.Crash()
		var err error
		if s, err = s.Reopen(); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	seen := map[id.Epoch]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			epoch, err := id.NextEpoch(ctx, s)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			seen[epoch] = true
		})
	}
	wg.Wait()
	if len(seen) != 8 {
		t.Errorf("8 starts at once got %d epochs", len(seen))
	}
}

func TestNextEpochWithFaults(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault memkv.Fault
		want  id.Epoch
		err   error
	}{
		{"outcome lost, applied", memkv.UnknownApplied, 2, nil}, // one is skipped
		{"outcome lost, not applied", memkv.UnknownLost, 1, nil},
		{"unavailable", memkv.Unavailable, 0, kv.ErrUnavailable},
		{"full", memkv.Full, 0, kv.ErrQuota},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := memkv.New()
			first := true
			s.SetFaults(func(c memkv.Call) memkv.Fault {
				if c.Method != memkv.Apply || !first {
					return memkv.None
				}
				first = false
				return test.fault
			})
			if got, err := id.NextEpoch(t.Context(), s); got != test.want || !errors.Is(err, test.err) {
				t.Errorf("NextEpoch = %d, %v; want %d, %v", got, err, test.want, test.err)
			}
		})
	}
	t.Run("never answers", func(t *testing.T) {
		s := memkv.New()
		s.SetFaults(func(c memkv.Call) memkv.Fault {
			if c.Method == memkv.Apply {
				return memkv.UnknownLost
			}
			return memkv.None
		})
		if _, err := id.NextEpoch(t.Context(), s); err == nil {
			t.Error("NextEpoch found an epoch")
		}
	})
}

func TestNextEpochOfADamagedStore(t *testing.T) {
	for name, value := range map[string][]byte{"short": {1}, "the last epoch": {0, 0xff, 0xff, 0xff}} {
		t.Run(name, func(t *testing.T) {
			s := memkv.New()
			if _, err := s.Apply(t.Context(), kv.SlotOf(id.EpochKey), new(kv.Batch).Put(id.EpochKey, value)); err != nil {
				t.Fatal(err)
			}
			if epoch, err := id.NextEpoch(t.Context(), s); err == nil {
				t.Errorf("NextEpoch = %d, want an error", epoch)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("01JDXYZ0000000000000000001")
	f.Add("7ZZZZZZZZZZZZZZZZZZZZZZZZZ")
	f.Add("8ZZZZZZZZZZZZZZZZZZZZZZZZZ")
	f.Add("01jdxyz0000000000000000001")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := id.ParseUser(text)
		if err == nil && u.String() != text {
			t.Fatalf("ParseUser(%q).String() = %q", text, u)
		}
		if err != nil && !u.IsZero() {
			t.Fatalf("ParseUser(%q) = %v with error %v", text, u, err)
		}
	})
}

func BenchmarkNew(b *testing.B) {
	gen, err := id.NewGenerator(1, 1, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := id.New[id.Post](gen); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkString(b *testing.B) {
	var p id.Post
	b.ReportAllocs()
	for b.Loop() {
		_ = p.String()
	}
}
