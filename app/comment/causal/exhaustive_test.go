// SPDX-License-Identifier: Apache-2.0

package causal_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
)

// small is a state of three regions and the operations made so far. Operations are made
// in a fixed order of the script; what is searched is when, and in which order they
// arrive where.
type small struct {
	records []causal.Record // made so far
	heads   [3]causal.Head
	logs    [3][]int // records taken in, in order
	held    [3][]int
	arrived [3]uint8 // bits of records that have been offered
}

// act is one operation of a script.
type act struct {
	region int
	kind   causal.Kind // Add answers the last comment seen, Delete deletes it
}

// state tells states apart: what each operation's writer had seen, and what has been
// offered to whom.
type state [4*4 + 3]byte

func (s *small) state() (k state) {
	for i := range s.records {
		k[4*i] = 1
		for _, e := range s.records[i].Deps {
			k[4*i+int(e.Region)] = byte(e.Seq)
		}
	}
	copy(k[16:], s.arrived[:])
	return k
}

// TestAllOrders tries three regions with four operations, in all places and of all
// kinds, made at all moments and arriving in all orders. In every state, every region
// holds causes before effects; at the end of every path all show the same.
func TestAllOrders(t *testing.T) {
	kinds := []causal.Kind{causal.Add, causal.Delete, causal.Like}
	scripts, states := 0, 0
	script := make([]act, 4)
	var fill func(n, used int)
	fill = func(n, used int) {
		if n == len(script) {
			if scripts++; !raceDetector || scripts%40 == 0 { // nothing runs side by side here
				states += search(t, script)
			}
			return
		}
		for region := range min(used+1, 3) { // regions are alike: the next new one is the least
			for _, kind := range kinds {
				if n == 0 && kind == causal.Delete {
					continue
				}
				script[n] = act{region, kind}
				fill(n+1, max(used, region+1))
			}
		}
	}
	fill(0, 0)
	t.Logf("%d scripts, %d states", scripts, states)
}

// search goes through all states of a script.
func search(t *testing.T, script []act) int {
	seen := map[state]bool{{}: true}
	ends := 0
	todo := []*small{{}}
	add := func(s *small) {
		if k := s.state(); !seen[k] {
			seen[k] = true
			todo = append(todo, s)
		}
	}
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		moved := false
		if n := len(s.records); n < len(script) {
			add(s.make(t, script[n]))
			moved = true
		}
		for i := range s.records {
			for at := range s.heads {
				if int(s.records[i].ID.Region()) != at+1 && s.arrived[at]&(1<<i) == 0 {
					add(s.arrive(t, i, at))
					moved = true
				}
			}
		}
		if !moved {
			s.same(t, script)
			ends++
		}
	}
	if ends == 0 {
		t.Fatalf("%v comes to no end", script)
	}
	return len(seen)
}

func (s *small) clone() *small {
	c := *s
	c.records = slices.Clone(s.records)
	for i := range s.logs {
		c.logs[i], c.held[i] = slices.Clone(s.logs[i]), slices.Clone(s.held[i])
	}
	return &c
}

// make lets a region make an operation on what it holds.
func (s *small) make(t *testing.T, a act) *small {
	c := s.clone()
	r := causal.Record{Kind: a.kind, Writer: user(a.region)}
	var last id.Comment
	for _, i := range c.logs[a.region] {
		if rec := &c.records[i]; rec.Kind == causal.Add && rec.ID.Compare(last) > 0 {
			last = rec.ID
		}
	}
	switch {
	case a.kind == causal.Add:
		r.Body, r.Parent = "x", last
	case a.kind == causal.Delete && last.IsZero():
		r.Kind = causal.Unlike
	case a.kind == causal.Delete:
		r.Parent = last
	}
	// One clock stands still: only what was seen puts an operation later.
	r, head, err := c.heads[a.region].Next(r, at(0, id.Region(a.region+1)), time.UnixMilli(1))
	if err != nil {
		t.Fatal(err)
	}
	c.heads[a.region] = head
	c.logs[a.region] = append(c.logs[a.region], len(c.records))
	c.records = append(c.records, r)
	return c
}

// arrive offers a record to a region, and checks what it then holds.
func (s *small) arrive(t *testing.T, i, at int) *small {
	c := s.clone()
	c.arrived[at] |= 1 << i
	early := make([]causal.Record, len(c.held[at]))
	for k, j := range c.held[at] {
		early[k] = c.records[j]
	}
	m := causal.RestoreHold(10, nil, early).Merge(c.heads[at], causal.Rules{}, time.UnixMilli(1), []causal.Record{c.records[i]})
	if len(m.Refused) > 0 || m.Dropped > 0 {
		t.Fatalf("%+v is refused: %v", c.records[i], m.Refused)
	}
	c.heads[at] = m.Head
	number := func(r *causal.Record) int {
		return slices.IndexFunc(c.records, func(o causal.Record) bool { return o.ID == r.ID })
	}
	for k := range m.Due {
		r := &m.Due[k]
		for _, e := range r.Deps {
			for seq := uint64(1); seq <= e.Seq; seq++ {
				if !slices.ContainsFunc(c.logs[at], func(j int) bool {
					o := &c.records[j]
					return o.ID.Region() == e.Region && o.Seq == seq && o.ID.Compare(r.ID) < 0
				}) {
					t.Fatalf("region %d takes %v in before its cause %d of region %d", at+1, r.ID, seq, e.Region)
				}
			}
		}
		c.logs[at] = append(c.logs[at], number(r))
	}
	c.held[at] = slices.DeleteFunc(c.held[at], func(j int) bool {
		return slices.ContainsFunc(m.Freed, func(r causal.Record) bool { return r.ID == c.records[j].ID })
	})
	for k := range m.Held {
		c.held[at] = append(c.held[at], number(&m.Held[k]))
	}
	slices.Sort(c.held[at])
	return c
}

// same checks that all regions have everything and show the same.
func (s *small) same(t *testing.T, script []act) {
	var first folded
	for at := range s.logs {
		if len(s.logs[at]) != len(s.records) || len(s.held[at]) > 0 {
			t.Fatalf("%v: region %d has %v of %d and holds %v", script, at+1, s.logs[at], len(s.records), s.held[at])
		}
		var th causal.Thread
		for _, i := range s.logs[at] {
			th.Fold(&s.records[i])
		}
		if th.Torn() {
			t.Fatalf("%v: region %d has a reply before what it answers", script, at+1)
		}
		f := folded{th.Comments(), th.Likes()}
		if at == 0 {
			first = f
		} else if !same(first, f) || s.heads[at].Differs(s.heads[0]) {
			t.Fatalf("%v: region %d shows %+v, region 1 %+v", script, at+1, f, first)
		}
	}
}
