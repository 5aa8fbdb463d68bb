// SPDX-License-Identifier: Apache-2.0

package causal_test

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
)

// world is a few replicas that write, with clocks that disagree, and pass records on
// in any order.
type world struct {
	t     *rapid.T
	gens  []*id.Generator
	heads []causal.Head
	have  [][]causal.Record
	now   []int64
	all   []causal.Record
}

func newWorld(t *rapid.T) *world {
	n := rapid.IntRange(1, 4).Draw(t, "regions")
	w := &world{t: t, heads: make([]causal.Head, n), have: make([][]causal.Record, n), now: make([]int64, n)}
	for i := range n {
		w.now[i] = rapid.Int64Range(1_000, 100_000).Draw(t, "clock")
		g, err := id.NewGenerator(id.Region(i+1), 1, func() time.Time { return time.UnixMilli(w.now[i]) })
		if err != nil {
			t.Fatal(err)
		}
		w.gens = append(w.gens, g)
	}
	return w
}

func user(n int) id.User { return id.User{15: byte(n + 1)} }

// write makes one operation in a region.
func (w *world) write(at int) {
	w.now[at] += rapid.Int64Range(-500, 500).Draw(w.t, "tick") // clocks jump back, too
	w.now[at] = max(w.now[at], 1)
	r := causal.Record{Kind: causal.Kind(rapid.IntRange(1, 4).Draw(w.t, "kind")), Writer: user(rapid.IntRange(0, 3).Draw(w.t, "writer")), Body: "x"}
	var adds []causal.Record
	for _, h := range w.have[at] {
		if h.Kind == causal.Add {
			adds = append(adds, h)
		}
	}
	switch {
	case r.Kind == causal.Delete && len(adds) == 0:
		r.Kind = causal.Add
	case r.Kind == causal.Delete, r.Kind == causal.Add && len(adds) > 0 && rapid.Bool().Draw(w.t, "reply"):
		p := rapid.SampledFrom(adds).Draw(w.t, "parent")
		r.Parent = p.ID
		if r.Kind == causal.Add {
			r.ReplyTo = p.Writer
		}
	}
	fresh, err := id.New[id.Comment](w.gens[at])
	if err != nil {
		w.t.Fatal(err)
	}
	r, head, err := w.heads[at].Next(r, fresh, time.UnixMilli(w.now[at]))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, seen := range w.have[at] {
		if seen.ID.Compare(r.ID) >= 0 {
			w.t.Fatalf("%v was made after %v was seen, but comes before it", r.ID, seen.ID)
		}
	}
	w.heads[at] = head
	w.have[at] = append(w.have[at], r)
	w.all = append(w.all, r)
}

// pass offers some record to some region, as a queue would.
func (w *world) pass() {
	if len(w.all) == 0 {
		return
	}
	at := rapid.IntRange(0, len(w.heads)-1).Draw(w.t, "to")
	r := rapid.SampledFrom(w.all).Draw(w.t, "record")
	held := slices.ContainsFunc(w.have[at], func(h causal.Record) bool { return h.ID == r.ID })
	switch v := w.heads[at].Ready(&r); v {
	case causal.Known:
		if !held {
			w.t.Fatalf("region %d says it knows %v, which it does not hold", at+1, r.ID)
		}
	case causal.Due:
		if held {
			w.t.Fatalf("region %d takes %v twice", at+1, r.ID)
		}
		w.heads[at] = w.heads[at].After(&r)
		w.have[at] = append(w.have[at], r)
	}
}

func play(t *rapid.T) *world {
	w := newWorld(t)
	for range rapid.IntRange(1, 40).Draw(t, "steps") {
		if rapid.Bool().Draw(t, "write") {
			w.write(rapid.IntRange(0, len(w.heads)-1).Draw(t, "at"))
		} else {
			w.pass()
		}
	}
	return w
}

// TestCausesFirst: whatever a replica holds, it holds the causes of, and they come
// first; ids are unique over all replicas.
func TestCausesFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := play(t)
		ids := map[id.Comment]bool{}
		for _, r := range w.all {
			if ids[r.ID] {
				t.Fatalf("id %v given twice", r.ID)
			}
			ids[r.ID] = true
		}
		for at, have := range w.have {
			place := map[id.Comment]int{}
			for i, r := range have {
				place[r.ID] = i
			}
			for i, r := range have {
				if r.Parent.IsZero() {
					continue
				}
				if j, ok := place[r.Parent]; !ok || j >= i || r.Parent.Compare(r.ID) >= 0 {
					t.Fatalf("region %d holds %v without its cause %v before it", at+1, r.ID, r.Parent)
				}
			}
		}
	})
}

type folded struct {
	comments []causal.Comment
	likes    []causal.Approval
}

func fold(rs []causal.Record) folded {
	var t causal.Thread
	for i := range rs {
		t.Fold(&rs[i])
	}
	return folded{t.Comments(), t.Likes()}
}

// TestFoldLaws: order and repetition of operations do not matter.
func TestFoldLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := play(t)
		want := fold(w.all)
		shuffled := rapid.Permutation(append(slices.Clone(w.all), w.all...)).Draw(t, "order")
		if got := fold(shuffled); !same(got, want) {
			t.Fatalf("folded in another order and twice: %v, want %v", got, want)
		}
		if !slices.IsSortedFunc(want.comments, func(a, b causal.Comment) int { return a.ID.Compare(b.ID) }) {
			t.Fatal("comments are not in order")
		}
		// The likes by their definition: of each user the act with the greatest id.
		last := map[id.User]causal.Record{}
		for _, r := range w.all {
			if (r.Kind == causal.Like || r.Kind == causal.Unlike) && r.ID.Compare(last[r.Writer].ID) > 0 {
				last[r.Writer] = r
			}
		}
		n := 0
		for _, r := range last {
			if r.Kind == causal.Like {
				n++
			}
		}
		if len(want.likes) != n {
			t.Fatalf("%d likes, want %d", len(want.likes), n)
		}
		// What was deleted anywhere is deleted everywhere and has no text.
		for _, r := range w.all {
			if r.Kind != causal.Delete {
				continue
			}
			for _, c := range want.comments {
				if c.ID == r.Parent && (!c.Deleted || c.Body != "") {
					t.Fatalf("%v was deleted and shows %+v", c.ID, c)
				}
			}
		}
	})
}

func same(a, b folded) bool {
	return slices.Equal(a.comments, b.comments) && slices.Equal(a.likes, b.likes)
}

// TestTakenSlicesStay: what a reader has taken does not change under him.
func TestTakenSlicesStay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := play(t)
		var th causal.Thread
		type taken struct{ got, copied folded }
		var all []taken
		for _, r := range rapid.Permutation(w.all).Draw(t, "order") {
			th.Fold(&r)
			f := folded{th.Comments(), th.Likes()}
			all = append(all, taken{f, folded{slices.Clone(f.comments), slices.Clone(f.likes)}})
		}
		for _, x := range all {
			if !same(x.got, x.copied) {
				t.Fatal("a slice taken before has changed")
			}
		}
	})
}

// TestViewIsClosed: a reply that is shown names its parent only if that is shown, and
// marks are there only for replies.
func TestViewIsClosed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		comments := fold(play(t).all).comments
		knows := rapid.SliceOfN(rapid.Bool(), 4, 4).Draw(t, "knows")
		sees := func(c *causal.Comment) bool {
			return knows[c.Writer[15]-1] && (c.ReplyTo.IsZero() || knows[c.ReplyTo[15]-1])
		}
		shown, live := causal.View(comments, sees)
		at := map[id.Comment]causal.Shown{}
		for _, s := range shown {
			at[s.ID] = s
		}
		n := 0
		for _, c := range comments {
			s, ok := at[c.ID]
			needed := slices.ContainsFunc(shown, func(r causal.Shown) bool { return r.Parent == c.ID })
			want := sees(&c) && (!c.Deleted || needed)
			if ok != want || ok && s.Mark != c.Deleted {
				t.Fatalf("%+v: shown %v as mark %v, want %v", c, ok, s.Mark, want)
			}
			if !ok {
				continue
			}
			if !s.Mark {
				n++
			}
			if _, parent := at[c.Parent]; parent != s.ParentShown {
				t.Fatalf("%+v: parent shown %v, says %v", c, parent, s.ParentShown)
			}
		}
		if n != live {
			t.Fatalf("%d live, says %d", n, live)
		}
	})
}

func TestNextRefusesEndOfTime(t *testing.T) {
	h := causal.Head{Last: 1<<48 - 1}
	if _, _, err := h.Next(causal.Record{}, id.Comment{}, time.Now()); err == nil {
		t.Error("time beyond an id's range is accepted")
	}
}

func TestVector(t *testing.T) {
	var v causal.Vector
	v1 := v.With(3, 5)
	v2 := v1.With(1, 2).With(3, 4)
	if v1.Of(1) != 0 || v2.Of(3) != 5 || !v2.Covers(v1) || v1.Covers(v2) || !v1.Covers(nil) {
		t.Errorf("vectors %v, %v", v1, v2)
	}
	if want := (causal.Vector{{Region: 1, Seq: 2}, {Region: 3, Seq: 5}}); !reflect.DeepEqual(v2, want) {
		t.Errorf("vector %v, want %v", v2, want)
	}
}

func FuzzHead(f *testing.F) {
	f.Add(causal.Head{}.Encode())
	f.Add(causal.Head{Last: 7, Seen: causal.Vector{{Region: 1, Seq: 2}, {Region: 9, Seq: 1}}, Sum: causal.Sum{1}}.Encode())
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := causal.ParseHead(b)
		if err != nil {
			return
		}
		if again, err := causal.ParseHead(h.Encode()); err != nil || !reflect.DeepEqual(again, h) {
			t.Fatalf("%x is accepted but comes out as %v, %v", b, again, err)
		}
		if b[0] == 2 && !bytes.Equal(h.Encode(), b) {
			t.Fatalf("%x is accepted but encodes as %x", b, h.Encode())
		}
	})
}

// log is a replica as its owner keeps one: what was merged, in order, and its hold.
type log struct {
	head  causal.Head
	hold  *causal.Hold
	all   []causal.Record
	known int
}

func (l *log) take(rs ...causal.Record) {
	m := l.hold.Merge(l.head, causal.Rules{}, time.UnixMilli(0), rs)
	l.all, l.head, l.known = append(l.all, m.Due...), m.Head, l.known+len(m.Known)
}

// TestMergeLaws: merging is commutative, associative and idempotent: whatever packets
// the records come in, in whatever order, again and again, a replica ends alike. No
// record is taken in before its causes.
func TestMergeLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := play(t)
		deliver := func(label string) *log {
			l := &log{hold: causal.NewHold(1000)}
			rest := rapid.Permutation(append(slices.Clone(w.all), w.all...)).Draw(t, label)
			for len(rest) > 0 {
				n := rapid.IntRange(1, len(rest)).Draw(t, "packet")
				l.take(rest[:n]...)
				rest = rest[n:]
			}
			l.take(w.all...) // once more
			return l
		}
		a, b := deliver("one order"), deliver("another")
		if !reflect.DeepEqual(a.head, b.head) || !same(fold(a.all), fold(b.all)) || !same(fold(a.all), fold(w.all)) {
			t.Fatalf("heads %v and %v, threads %v and %v", a.head, b.head, fold(a.all), fold(b.all))
		}
		if len(a.all) != len(w.all) || a.hold.Len() != 0 || a.hold.Missing(a.head) != nil {
			t.Fatalf("%d of %d records taken in, %d held, %v missing", len(a.all), len(w.all), a.hold.Len(), a.hold.Missing(a.head))
		}
		var head causal.Head
		for _, r := range a.all {
			if !head.Seen.Covers(r.Deps) {
				t.Fatalf("%v was taken in before its causes %v at %v", r.ID, r.Deps, head.Seen)
			}
			head = head.After(&r)
		}
	})
}

// TestHoldRepulls: however small the hold is, and however the line loses records, who
// asks for what is missing gets everything in the end, and nothing is skipped.
func TestHoldRepulls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := play(t)
		l := &log{hold: causal.NewHold(rapid.IntRange(0, 3).Draw(t, "room"))}
		for _, r := range rapid.Permutation(w.all).Draw(t, "order") {
			if rapid.Bool().Draw(t, "arrives") {
				l.take(r)
			}
			if l.hold.Len() > 3 {
				t.Fatalf("%d records held", l.hold.Len())
			}
		}
		// Of each region the last record comes: the others are asked for.
		for i := range w.heads {
			for _, r := range w.all {
				if r.ID.Region() == id.Region(i+1) && r.Seq == w.heads[i].Seen.Of(r.ID.Region()) {
					l.take(r)
				}
			}
		}
		for range 10 * len(w.all) {
			gaps := l.hold.Missing(l.head)
			if len(gaps) == 0 {
				break
			}
			for _, g := range gaps {
				for _, r := range w.all {
					if r.ID.Region() == g.Region && r.Seq >= g.From && r.Seq <= g.To {
						l.take(r)
					}
				}
			}
		}
		if len(l.all) != len(w.all) || l.hold.Len() != 0 || !same(fold(l.all), fold(w.all)) {
			t.Fatalf("%d of %d records, %d held, missing %v", len(l.all), len(w.all), l.hold.Len(), l.hold.Missing(l.head))
		}
	})
}

// TestForks: one id with two hashes, as by a disk that was set back, is noticed, and
// folds alike in every order.
func TestForks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := play(t)
		if len(w.all) == 0 {
			return
		}
		twin := rapid.SampledFrom(w.all).Draw(t, "record")
		first := twin
		twin.Writer, twin.Body = user(7), "twin"
		twin.Hash = twin.Sum()
		if !twin.Fork(&first) || !first.Fork(&twin) || first.Fork(&first) {
			t.Fatal("a fork is not told from the same record")
		}
		moved := first
		moved.ID[15]++
		if !moved.Fork(&first) {
			t.Fatal("two records of one sequence are no fork")
		}
		all := append(slices.Clone(w.all), twin)
		want := fold(all)
		got := fold(rapid.Permutation(append(slices.Clone(all), all...)).Draw(t, "order"))
		if !same(got, want) {
			t.Fatalf("a fork folds to %v and to %v", got, want)
		}
		if first.Kind == causal.Add {
			var th causal.Thread
			if th.Fold(&first) || !th.Fold(&twin) {
				t.Fatal("folding does not tell of the fork")
			}
		}
		// A replica that has one of them is told of the other.
		l := &log{hold: causal.NewHold(1000)}
		l.take(w.all...)
		known := l.hold.Merge(l.head, causal.Rules{}, time.UnixMilli(0), []causal.Record{twin}).Known
		if len(known) != 1 || !known[0].Fork(&first) {
			t.Fatalf("the twin came out as %v", known)
		}
	})
}

// TestSessionBehind: a writer who has seen more than a replica is not taken there.
func TestSessionBehind(t *testing.T) {
	seen := causal.Vector{{Region: 2, Seq: 1}}
	if _, _, err := (causal.Head{}).Next(causal.Record{Deps: seen}, id.Comment{6: 0, 7: 1}, time.Now()); !errors.Is(err, causal.ErrBehind) {
		t.Errorf("got %v", err)
	}
	r, _, err := causal.Head{Seen: seen.With(3, 1)}.Next(causal.Record{Deps: seen}, id.Comment{7: 1}, time.Now())
	if err != nil || !r.Deps.Covers(seen) {
		t.Errorf("%v, %v", r.Deps, err)
	}
}

// TestSnapshotLaw: a thread that went through a snapshot at any moment goes on as one
// that did not.
func TestSnapshotLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := play(t)
		var through, whole causal.Thread
		at := rapid.IntRange(0, len(w.all)).Draw(t, "at")
		th := &through
		for i, r := range rapid.Permutation(w.all).Draw(t, "order") {
			if i == at {
				parts := th.Snapshot(rapid.IntRange(1, 500).Draw(t, "size"))
				again, err := causal.Restore(parts)
				if err != nil {
					t.Fatal(err)
				}
				if second := again.Snapshot(1 << 20); !slices.EqualFunc(second, th.Snapshot(1<<20), bytes.Equal) {
					t.Fatal("a snapshot of the restored thread is another")
				}
				th = again
			}
			th.Fold(&r)
			whole.Fold(&r)
		}
		if got, want := (folded{th.Comments(), th.Likes()}), (folded{whole.Comments(), whole.Likes()}); !same(got, want) {
			t.Fatalf("with a snapshot %v, without %v", got, want)
		}
		for n := range 4 {
			var since id.Comment
			for _, c := range whole.Comments() {
				if c.Writer == user(n) && !c.Deleted && (since.IsZero() || c.ID.Compare(since) < 0) {
					since = c.ID
				}
			}
			for _, l := range whole.Likes() {
				if l.User == user(n) && (since.IsZero() || l.ID.Compare(since) < 0) {
					since = l.ID
				}
			}
			for _, x := range []*causal.Thread{th, &whole} {
				if got, ok := x.Since(user(n)); got != since || ok == since.IsZero() {
					t.Fatalf("user %d takes part since %v, want %v", n, got, since)
				}
			}
			if th.EverLiked(user(n)) != whole.EverLiked(user(n)) {
				t.Fatalf("user %d has ever liked: %v", n, th.EverLiked(user(n)))
			}
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	var t causal.Thread
	f.Add(t.Snapshot(1)[0])
	c := causal.Record{Kind: causal.Add, ID: id.Comment{1}, Seq: 1, Body: "text"}
	t.Fold(&c)
	t.Fold(&causal.Record{Kind: causal.Delete, ID: id.Comment{3}, Parent: id.Comment{2}})
	t.Fold(&causal.Record{Kind: causal.Like, ID: id.Comment{4}, Writer: id.User{5}})
	f.Add(t.Snapshot(1 << 20)[0])
	f.Fuzz(func(t *testing.T, b []byte) {
		th, err := causal.Restore([][]byte{b})
		if err != nil {
			return
		}
		again, err := causal.Restore(th.Snapshot(1 << 20))
		if err != nil || !same(folded{th.Comments(), th.Likes()}, folded{again.Comments(), again.Likes()}) {
			t.Fatalf("%x is accepted but does not come out again: %v", b, err)
		}
	})
}
