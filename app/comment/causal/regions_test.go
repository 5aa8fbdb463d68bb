// SPDX-License-Identifier: Apache-2.0

package causal_test

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
)

// at gives an id of a region at a time, in ms.
func at(ms int64, region id.Region) id.Comment {
	var c id.Comment
	for i := range 6 {
		c[i] = byte(ms >> (40 - 8*i))
	}
	c[6], c[7] = byte(region>>8), byte(region)
	return c
}

// made gives a record as a region makes it.
func made(ms int64, region id.Region, deps causal.Vector, kind causal.Kind, parent id.Comment) causal.Record {
	r := causal.Record{ID: at(ms, region), Seq: deps.Of(region) + 1, Deps: deps, Kind: kind, Parent: parent, Writer: user(0)}
	if kind == causal.Add {
		r.Body = "text"
	}
	r.Hash = r.Sum()
	return r
}

// TestRefused: what no region would have made, what is of no region, and what a wrong
// clock made is not taken in, and says why.
func TestRefused(t *testing.T) {
	now := time.UnixMilli(1_000)
	day := int64(24 * time.Hour / time.Millisecond)
	regions, err := causal.NewRegistry(1, 2)
	if err != nil {
		t.Fatal(err)
	}
	sound := made(500, 1, nil, causal.Add, id.Comment{})
	changed := func(f func(*causal.Record)) causal.Record {
		r := sound
		f(&r)
		return r
	}
	for name, c := range map[string]struct {
		record causal.Record
		want   causal.Verdict
		err    error
	}{
		"sound":                    {sound, causal.Due, nil},
		"a day ahead":              {made(1_000+day, 1, nil, causal.Add, id.Comment{}), causal.Due, nil},
		"more than a day ahead":    {made(1_001+day, 1, nil, causal.Add, id.Comment{}), causal.Refused, causal.ErrAhead},
		"a year ahead and early":   {made(1_001+365*day, 1, causal.Vector{{Region: 1, Seq: 4}}, causal.Add, id.Comment{}), causal.Refused, causal.ErrAhead},
		"unknown region":           {made(500, 3, nil, causal.Add, id.Comment{}), causal.Refused, causal.ErrRegion},
		"text changed on the way":  {changed(func(r *causal.Record) { r.Body = "test" }), causal.Refused, causal.ErrRecord},
		"text gone with a delete":  {changed(func(r *causal.Record) { r.Body = "" }), causal.Due, nil},
		"sequence 0":               {changed(func(r *causal.Record) { r.Seq = 0 }), causal.Refused, causal.ErrRecord},
		"unknown kind":             {made(500, 1, nil, 9, id.Comment{}), causal.Refused, causal.ErrRecord},
		"answer before question":   {made(500, 1, nil, causal.Add, at(501, 2)), causal.Refused, causal.ErrRecord},
		"does not follow its own":  {changed(func(r *causal.Record) { r.Seq = 2; r.Hash = r.Sum() }), causal.Refused, causal.ErrRecord},
		"before its cause":         {made(500, 1, causal.Vector{{Region: 2, Seq: 1}}, causal.Add, id.Comment{}), causal.Early, nil},
		"after one of its region":  {made(500, 1, causal.Vector{{Region: 1, Seq: 1}}, causal.Add, id.Comment{}), causal.Early, nil},
		"a like ten hours ahead":   {made(1_000+day/2, 2, nil, causal.Like, id.Comment{}), causal.Due, nil},
		"deleting what is not yet": {made(500, 2, causal.Vector{{Region: 1, Seq: 1}}, causal.Delete, at(400, 1)), causal.Early, nil},
	} {
		t.Run(name, func(t *testing.T) {
			rules := causal.Rules{Regions: regions}
			got, err := rules.Judge(causal.Head{}, &c.record, now)
			if got != c.want || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Fatalf("verdict %v, %v; want %v, %v", got, err, c.want, c.err)
			}
			m := causal.NewHold(10).Merge(causal.Head{}, rules, now, []causal.Record{c.record})
			if len(m.Due) != count(c.want == causal.Due) || len(m.Refused) != count(c.want == causal.Refused) || len(m.Held) != count(c.want == causal.Early) {
				t.Fatalf("merged to %+v, want verdict %v", m, c.want)
			}
		})
	}
}

func count(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// TestFollowsAYearAhead: where a post is in next year, what follows there is not refused for
// that; what a clock has put further still is.
func TestFollowsAYearAhead(t *testing.T) {
	now, year := time.UnixMilli(1_000), int64(365*24*time.Hour/time.Millisecond)
	head := causal.Head{Last: year, Seen: causal.Vector{{Region: 1, Seq: 3}, {Region: 2, Seq: 1}}}
	both := func(one, two uint64) causal.Vector {
		return causal.Vector{{Region: 1, Seq: one}, {Region: 2, Seq: two}}
	}
	for _, c := range []struct {
		name string
		ms   int64
		deps causal.Vector
		want causal.Verdict
	}{
		{"the next", year + 1, both(3, 1), causal.Due},
		{"later than it follows", year + 2, both(3, 1), causal.Refused},
		{"beside the next", year, both(3, 0)[:1], causal.Due},
		{"after two that are missing", year + 3, both(5, 1), causal.Early},
		{"later than it can be by those", year + 4, both(5, 1), causal.Refused},
		{"after one of either region", year + 3, both(4, 2), causal.Early},
		{"after more than there can be", 1<<48 - 1, both(1<<62, 1<<62), causal.Early},
		{"by a day", year + int64(24*time.Hour/time.Millisecond), both(3, 1), causal.Refused},
	} {
		r := made(c.ms, 1, c.deps, causal.Like, id.Comment{})
		if got, err := (causal.Rules{}).Judge(head, &r, now); got != c.want || (got == causal.Refused) != errors.Is(err, causal.ErrAhead) {
			t.Errorf("%s: verdict %v, %v; want %v", c.name, got, err, c.want)
		}
	}
}

// TestQuarantineHealsWithTime: a record that was too far ahead is taken in when it is
// not any more, or when an operator allows more.
func TestQuarantineHealsWithTime(t *testing.T) {
	r := made(int64(48*time.Hour/time.Millisecond), 1, nil, causal.Add, id.Comment{})
	h := causal.NewHold(10)
	for _, c := range []struct {
		rules causal.Rules
		now   time.Time
		due   int
	}{
		{causal.Rules{}, time.UnixMilli(0), 0},
		{causal.Rules{Ahead: 50 * time.Hour}, time.UnixMilli(0), 1},
		{causal.Rules{}, time.UnixMilli(0).Add(24 * time.Hour), 1},
	} {
		if m := h.Merge(causal.Head{}, c.rules, c.now, []causal.Record{r}); len(m.Due) != c.due {
			t.Errorf("at %v with %v allowed: %+v, want %d due", c.now, c.rules.Ahead, m, c.due)
		}
	}
}

func TestRegistry(t *testing.T) {
	g, err := causal.NewRegistry(3, 1)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() (*causal.Registry, error){
		"a number again":     func() (*causal.Registry, error) { return g.Join(3) },
		"no number":          func() (*causal.Registry, error) { return g.Join(0) },
		"none of that":       func() (*causal.Registry, error) { return g.End(2, causal.Left) },
		"back to life":       func() (*causal.Registry, error) { return g.End(1, causal.Active) },
		"replaced by itself": func() (*causal.Registry, error) { return g.Replace(1, 1) },
	} {
		if got, err := f(); err == nil {
			t.Errorf("%s: gives %+v", name, got)
		}
	}
	next, err := g.Replace(1, 7)
	if err != nil {
		t.Fatal(err)
	}
	want := []causal.Member{{Number: 1, State: causal.Lost, Joined: 2, Ended: 3}, {Number: 3, Joined: 1}, {Number: 7, Joined: 4}}
	if !reflect.DeepEqual(next.Members(), want) || next.Epoch() != 4 || len(g.Members()) != 2 {
		t.Errorf("registry %+v of epoch %d, want %+v", next.Members(), next.Epoch(), want)
	}
	v := causal.Vector{{Region: 1, Seq: 4}, {Region: 3, Seq: 2}}
	if got := next.Needed(v); !slices.Equal(got, v[1:]) || !slices.Equal(g.Needed(v), v) {
		t.Errorf("needed of %v: %v", v, got)
	}
	if left, err := next.End(3, causal.Left); err != nil {
		t.Error(err)
	} else if _, err := left.End(3, causal.Lost); err != nil {
		t.Errorf("a region that left cannot be given up: %v", err)
	}
}

// TestLostRegion: what depends on a lost region's records is shown without them, and
// they still come in if somebody has them.
func TestLostRegion(t *testing.T) {
	first := made(10, 1, nil, causal.Add, id.Comment{})
	second := made(20, 1, causal.Vector{{Region: 1, Seq: 1}}, causal.Add, first.ID)
	reply := made(30, 2, causal.Vector{{Region: 1, Seq: 2}}, causal.Add, second.ID)
	now := time.UnixMilli(1_000)
	g, _ := causal.NewRegistry(1, 2, 3)
	h := causal.NewHold(10)
	m := h.Merge(causal.Head{}, causal.Rules{Regions: g}, now, []causal.Record{reply})
	if len(m.Held) != 1 || len(m.Due) != 0 {
		t.Fatalf("before: %+v", m)
	}
	g, _ = g.End(1, causal.Lost)
	rules := causal.Rules{Regions: g}
	m = h.Merge(m.Head, rules, now, nil)
	if len(m.Due) != 1 || m.Orphans != 1 || len(m.Freed) != 1 {
		t.Fatalf("given up: %+v", m)
	}
	var th causal.Thread
	th.Fold(&reply)
	if shown, _ := causal.View(th.Comments(), func(*causal.Comment) bool { return true }); len(shown) != 1 || !shown[0].ParentLost || shown[0].ParentShown {
		t.Fatalf("shown: %+v", shown)
	}
	m = h.Merge(m.Head, rules, now, []causal.Record{second, first})
	if len(m.Due) != 2 || m.Orphans != 0 || h.Missing(m.Head) != nil {
		t.Fatalf("found again: %+v", m)
	}
	th.Fold(&first)
	th.Fold(&second)
	if shown, _ := causal.View(th.Comments(), func(*causal.Comment) bool { return true }); len(shown) != 3 || shown[2].ParentLost || !shown[2].ParentShown {
		t.Fatalf("shown at last: %+v", shown)
	}
}

// TestSum: two logs have one sum exactly if they hold the same, in whatever order it
// came; a fork shows in it, and both sides keep both.
func TestSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := play(t)
		if len(w.all) == 0 {
			return
		}
		a, b := &log{hold: causal.NewHold(1000)}, &log{hold: causal.NewHold(1000)}
		a.take(w.all...)
		b.take(rapid.Permutation(w.all).Draw(t, "order")...)
		if a.head.Differs(b.head) || a.head.Sum == (causal.Sum{}) {
			t.Fatalf("sums %x and %x of one set", a.head.Sum, b.head.Sum)
		}
		twin := rapid.SampledFrom(w.all).Draw(t, "record")
		first := twin
		twin.Key = "another"
		twin.Hash = twin.Sum()
		c := &log{hold: causal.NewHold(1000)}
		for _, r := range w.all {
			if r.ID == twin.ID {
				r = twin
			}
			c.take(r)
		}
		if !c.head.Differs(a.head) {
			t.Fatal("a fork does not show in the sums")
		}
		if x, y := a.head.Beside(&twin), c.head.Beside(&first); x.Differs(y) || x.Sum != y.Sum {
			t.Fatalf("both have both, and sums %x and %x", x.Sum, y.Sum)
		}
	})
}

// TestHoldSurvives: a hold that is stored as Merged says, and restored at any moment,
// goes on as one that is not.
func TestHoldSurvives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := play(t)
		limit := rapid.IntRange(0, 5).Draw(t, "room")
		h, stored := causal.NewHold(limit), []causal.Record(nil)
		var head causal.Head
		whole := &log{hold: causal.NewHold(limit)}
		rest := rapid.Permutation(append(slices.Clone(w.all), w.all...)).Draw(t, "order")
		for len(rest) > 0 {
			n := rapid.IntRange(1, min(4, len(rest))).Draw(t, "packet")
			m := h.Merge(head, causal.Rules{}, time.UnixMilli(0), rest[:n])
			whole.take(rest[:n]...)
			rest = rest[n:]
			stored = slices.DeleteFunc(append(stored, m.Held...), func(r causal.Record) bool {
				return slices.ContainsFunc(m.Freed, func(f causal.Record) bool { return f.ID == r.ID })
			})
			head = m.Head
			want, err := causal.ParseVector(h.Want().Encode())
			if err != nil {
				t.Fatal(err)
			}
			if len(stored) != h.Len() {
				t.Fatalf("%d stored, %d held", len(stored), h.Len())
			}
			h = causal.RestoreHold(limit, want, slices.Clone(stored))
			if !reflect.DeepEqual(head, whole.head) || !slices.Equal(h.Missing(head), whole.hold.Missing(whole.head)) {
				t.Fatalf("heads %v and %v, missing %v and %v", head, whole.head, h.Missing(head), whole.hold.Missing(whole.head))
			}
		}
	})
}

// TestCollectLaw: whenever replicas collect what is stable, nobody sees a difference,
// then or later.
func TestCollectLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 3).Draw(t, "regions")
		numbers := []id.Region{1, 2, 3}[:n]
		g, err := causal.NewRegistry(numbers...)
		if err != nil {
			t.Fatal(err)
		}
		type replica struct {
			log
			thread, whole causal.Thread
			said          map[id.Region]causal.Vector
		}
		var all []causal.Record
		rs := make([]*replica, n)
		for i := range rs {
			rs[i] = &replica{log: log{hold: causal.NewHold(1000)}, said: make(map[id.Region]causal.Vector)}
		}
		fold := func(r *replica, from int) {
			for _, rec := range r.all[from:] {
				r.thread.Fold(&rec)
				r.whole.Fold(&rec)
			}
		}
		everybody := func(*causal.Comment) bool { return true }
		collected := 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			r := rs[rapid.IntRange(0, n-1).Draw(t, "at")]
			me := numbers[slices.Index(rs, r)]
			from := len(r.all)
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1: // write on what can be seen
				shown, _ := causal.View(r.thread.Comments(), everybody)
				shown = slices.DeleteFunc(shown, func(s causal.Shown) bool { return s.Mark })
				op := causal.Record{Kind: causal.Add, Writer: user(0), Body: "x"}
				if len(shown) > 0 {
					op.Parent = rapid.SampledFrom(shown).Draw(t, "parent").ID
					if rapid.Bool().Draw(t, "delete") {
						op.Kind, op.Body = causal.Delete, ""
					}
				}
				op, head, err := r.head.Next(op, at(0, me), time.UnixMilli(1))
				if err != nil {
					t.Fatal(err)
				}
				r.head, r.all, all = head, append(r.all, op), append(all, op)
			case 2: // something arrives
				if len(all) > 0 {
					r.take(rapid.SampledFrom(all).Draw(t, "record"))
				}
			case 3: // somebody says how far he is
				o := rapid.IntRange(0, n-1).Draw(t, "who")
				r.said[numbers[o]] = rs[o].head.Seen
			case 4:
				r.said[me] = r.head.Seen
				collected += r.thread.Collect(g.Stable(r.head.Seen, r.said))
			}
			fold(r, from)
		}
		for _, r := range rs {
			from := len(r.all)
			r.take(all...)
			fold(r, from)
			got, gotLive := causal.View(r.thread.Comments(), everybody)
			want, wantLive := causal.View(r.whole.Comments(), everybody)
			if !slices.EqualFunc(got, want, func(a, b causal.Shown) bool { return a.ID == b.ID && a.Mark == b.Mark && a.ParentLost == b.ParentLost }) || gotLive != wantLive {
				t.Fatalf("%d collected; shown\n%+v, want\n%+v", collected, got, want)
			}
			for _, m := range numbers {
				r.said[m] = r.head.Seen
			}
			r.thread.Collect(g.Stable(r.head.Seen, r.said))
			if after, _ := causal.View(r.thread.Comments(), everybody); len(after) != len(got) {
				t.Fatalf("collecting all changed what is seen from %d to %d", len(got), len(after))
			}
			if len(r.thread.Comments()) != len(got) {
				t.Fatalf("%d comments are kept, %d shown", len(r.thread.Comments()), len(got))
			}
		}
	})
}

// TestBlankRecord: a record that comes without its text, because it was deleted where it
// comes from, is shown as deleted at once, and who saw that has seen the deletion.
func TestBlankRecord(t *testing.T) {
	add := made(10, 1, nil, causal.Add, id.Comment{})
	del := made(20, 2, causal.Vector{{Region: 1, Seq: 1}}, causal.Delete, add.ID)
	blank := add
	blank.Body, blank.Grave = "", causal.Entry{Region: 2, Seq: 1}
	m := causal.NewHold(1).Merge(causal.Head{}, causal.Rules{}, time.UnixMilli(0), []causal.Record{blank})
	if len(m.Due) != 1 {
		t.Fatalf("merged to %+v", m)
	}
	var th causal.Thread
	th.Fold(&blank)
	if c := th.Comments(); len(c) != 1 || !c[0].Deleted || !slices.Equal(th.Ahead(), causal.Vector{{Region: 2, Seq: 1}}) {
		t.Fatalf("comments %+v, ahead %v", c, th.Ahead())
	}
	again, err := causal.Restore(th.Snapshot(1))
	if err != nil || !slices.Equal(again.Ahead(), th.Ahead()) {
		t.Fatalf("restored: ahead %v, %v", again.Ahead(), err)
	}
	th.Fold(&del)
	if th.Collect(causal.Vector{{Region: 1, Seq: 1}}) != 0 || th.Collect(m.Head.After(&del).Seen) != 1 {
		t.Fatal("not collected when the deletion is stable, and not before")
	}
	if th.Torn() {
		t.Fatal("torn")
	}
	reply := made(30, 1, causal.Vector{{Region: 1, Seq: 1}}, causal.Add, add.ID)
	if th.Fold(&reply); !th.Torn() {
		t.Fatal("a reply to what was collected does not show")
	}
}
