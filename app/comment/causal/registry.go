// SPDX-License-Identifier: Apache-2.0

package causal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/sluice-rpc/sluice/app/id"
)

// Membership says whether a region still writes.
type Membership uint8

// The states of a region. They only go down this list.
const (
	Active Membership = iota // it writes
	Left                     // it has gone in order: all that it wrote is with the others
	Lost                     // it was given up: what it wrote last may be nowhere
)

// Member is a region that writes or has written.
type Member struct {
	Number id.Region
	State  Membership
	// Joined and Ended are the registry's epochs in which the region came and went;
	// Ended is 0 for an active one.
	Joined, Ended uint64
}

// Registry is the list of the regions that ever wrote. A number is never given again:
// a region whose disk is set back to an old copy has forgotten what it has given out,
// so it comes back under a new number (Replace), and its old one is lost. What was
// written under that and has reached others comes back from them.
//
// A Registry is immutable: each change gives another with a greater epoch. Of changes
// that follow each other the one with the greatest epoch counts; where regions may have
// changed it apart from each other, they go by the Union.
type Registry struct {
	epoch   uint64
	members []Member // ascending by number
}

// NewRegistry makes the registry of regions that begin together.
func NewRegistry(numbers ...id.Region) (*Registry, error) {
	g, err := new(Registry), error(nil)
	for _, n := range numbers {
		if g, err = g.Join(n); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// Epoch numbers the changes. Of two registries the one with the greater epoch counts.
func (g *Registry) Epoch() uint64 { return g.epoch }

// Members gives the regions ascending by number. The slice must not be changed.
func (g *Registry) Members() []Member { return g.members }

// Get gives a region, ok false if there never was one of that number.
func (g *Registry) Get(n id.Region) (m Member, ok bool) {
	i, ok := g.find(n)
	if !ok {
		return Member{}, false
	}
	return g.members[i], true
}

// Join gives the registry with one more region, whose number nobody has had.
func (g *Registry) Join(n id.Region) (*Registry, error) {
	i, ok := g.find(n)
	if ok || n == 0 {
		return nil, fmt.Errorf("causal: region number %d cannot be given: 0 is none, and a number is never given twice", n)
	}
	next := &Registry{epoch: g.epoch + 1}
	next.members = slices.Insert(slices.Clone(g.members), i, Member{Number: n, Joined: next.epoch})
	return next, nil
}

// End gives the registry with a region Left or Lost. It never comes back. A region
// that Left may still be found to be Lost.
func (g *Registry) End(n id.Region, state Membership) (*Registry, error) {
	i, ok := g.find(n)
	if !ok || state != Left && state != Lost || g.members[i].State >= state {
		return nil, fmt.Errorf("causal: region %d cannot end so: it is not there, or has ended before", n)
	}
	next := &Registry{epoch: g.epoch + 1, members: slices.Clone(g.members)}
	next.members[i].State, next.members[i].Ended = state, next.epoch
	return next, nil
}

// Replace gives the registry in which a region whose disk was set back goes on under a
// new number.
func (g *Registry) Replace(old, n id.Region) (*Registry, error) {
	next, err := g.End(old, Lost)
	if err != nil {
		return nil, err
	}
	return next.Join(n)
}

// Union gives the registry of who has heard what both say: a region that either has, in
// the later of its states. Changes that regions made apart from each other come to the
// same in this way, in whatever order they are heard of. It is g itself if o says
// nothing new.
func (g *Registry) Union(o *Registry) *Registry {
	if o == nil {
		return g
	}
	next := &Registry{epoch: max(g.epoch, o.epoch) + 1, members: slices.Clone(g.members)}
	changed := false
	for _, m := range o.members {
		i, ok := next.find(m.Number)
		switch {
		case !ok:
			next.members = slices.Insert(next.members, i, m)
		case next.members[i].State < m.State:
			next.members[i].State, next.members[i].Ended = m.State, m.Ended
		default:
			continue
		}
		changed = true
	}
	if !changed {
		return g
	}
	return next
}

// Encode gives the bytes to store or send a registry in.
func (g *Registry) Encode() []byte {
	b := binary.AppendUvarint([]byte{1}, g.epoch)
	b = binary.AppendUvarint(b, uint64(len(g.members)))
	for _, m := range g.members {
		b = append(binary.BigEndian.AppendUint16(b, uint16(m.Number)), byte(m.State))
		b = binary.AppendUvarint(binary.AppendUvarint(b, m.Joined), m.Ended)
	}
	return b
}

// ParseRegistry reads what Encode gives and nothing else.
func ParseRegistry(b []byte) (*Registry, error) {
	bad := fmt.Errorf("causal: registry %x is cut off, or of another version than 1", b)
	if len(b) == 0 || b[0] != 1 {
		return nil, bad
	}
	whole := b
	b = b[1:]
	number := func() uint64 {
		n, width := binary.Uvarint(b)
		b = b[max(width, 0):]
		return n
	}
	g := &Registry{epoch: number()}
	for n := number(); n > 0; n-- {
		if len(b) < 3 {
			return nil, bad
		}
		m := Member{Number: id.Region(binary.BigEndian.Uint16(b)), State: Membership(b[2])}
		b = b[3:]
		m.Joined, m.Ended = number(), number()
		if i := len(g.members); m.Number == 0 || m.State > Lost || i > 0 && g.members[i-1].Number >= m.Number {
			return nil, bad
		}
		g.members = append(g.members, m)
	}
	if !bytes.Equal(g.Encode(), whole) {
		return nil, bad
	}
	return g, nil
}

// lost reports whether a region was given up.
func (g *Registry) lost(n id.Region) bool {
	m, ok := g.Get(n)
	return ok && m.State == Lost
}

func (g *Registry) find(n id.Region) (int, bool) {
	if g == nil {
		return 0, false
	}
	return slices.BinarySearchFunc(g.members, n, func(m Member, n id.Region) int { return int(m.Number) - int(n) })
}

// Needed gives of what a session has seen, or an operation depends on, the part that
// can be waited for: all but what lost regions wrote.
func (g *Registry) Needed(v Vector) Vector {
	gone := func(e Entry) bool { return g.lost(e.Region) }
	if g == nil || !slices.ContainsFunc(v, gone) {
		return v
	}
	return slices.DeleteFunc(slices.Clone(v), gone)
}

// Stable gives what all active regions have taken in, going by what each has said last
// of one post's log; nothing while one of them has not spoken. Mine is the own
// replica's vector: as long as it lacks something that another has, an operation may be
// on its way whose writer knew less, so nothing is stable.
//
// What is stable nobody will reply to, or delete, in ignorance: see Thread.Collect.
func (g *Registry) Stable(mine Vector, said map[id.Region]Vector) Vector {
	stable := mine
	for _, m := range g.members {
		if m.State != Active {
			continue
		}
		theirs, ok := said[m.Number]
		if !ok || !mine.Covers(theirs) {
			return nil
		}
		stable = stable.Meet(theirs)
	}
	return stable
}
