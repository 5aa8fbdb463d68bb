// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/tracing"
)

// A region makes its comments under a number. It begins with its own, which is at most
// maxRegion. A store that was set back to an old copy has forgotten what it has given
// out under its number, and goes on under another one: the region is the lower eight
// bits of all its numbers. So whose a number is needs nobody to be asked, and a region
// that comes back writes at once, whatever the others do.
//
// The registry says which numbers there have been, and which are given up. Each region
// keeps it; whoever changes it tells the others, and what they know is joined.

// MaxRegion is the greatest number that a region with comments may have of its own.
const MaxRegion = 1<<8 - 1

// homeOf gives the region behind a number of comments.
func homeOf(n id.Region) id.Region { return n & MaxRegion }

// What is kept of regions, all in the slot of regionsKey.
var regionsKey, numberKey = []byte("k/regions"), []byte("k/number")

// relayKey says that the operations of a number that was given up are still to be told to
// the others.
func relayKey(n id.Region) []byte {
	return binary.BigEndian.AppendUint16([]byte("k/relay/"), uint16(n))
}

// members is the registry as it is known now.
type members struct {
	now   atomic.Pointer[causal.Registry]
	ahead time.Duration // see Config
	tasks chan struct{} // holds a token when something is to be written or told
	told  atomic.Bool   // the others have been told since the start
}

func (m *members) rules() causal.Rules { return causal.Rules{Regions: m.now.Load(), Ahead: m.ahead} }

// needed gives what of a session's vector can be waited for.
func (m *members) needed(v causal.Vector) causal.Vector { return m.now.Load().Needed(v) }

// learn takes in what another registry knows, and reports whether that is news. It is
// written soon.
func (m *members) learn(o *causal.Registry) bool {
	for {
		have := m.now.Load()
		next := have.Union(o)
		if next == have {
			return false
		}
		if m.now.CompareAndSwap(have, next) {
			m.wake()
			return true
		}
	}
}

func (m *members) wake() {
	select {
	case m.tasks <- struct{}{}:
	default: // a token is there already
	}
}

// readRegions gives what a store knows of regions: the number that comments are made
// under, and the registry.
func readRegions(ctx context.Context, store kv.Store, region id.Region) (number id.Region, reg *causal.Registry, err error) {
	slot := kv.SlotOf(regionsKey)
	row, err := store.Get(ctx, slot, numberKey, kv.Linearizable)
	if err != nil {
		return 0, nil, fmt.Errorf("comment: read the number of comments: %w", err)
	}
	if number = region; row.Ver != 0 {
		if len(row.Value) != 2 {
			return 0, nil, fmt.Errorf("comment: the number of comments has %d bytes, want 2", len(row.Value))
		}
		number = id.Region(binary.BigEndian.Uint16(row.Value))
	}
	if region != 0 && homeOf(number) != region {
		return 0, nil, fmt.Errorf("comment: the store is region %d's, and this is region %d: give it the right directory", homeOf(number), region)
	}
	row, err = store.Get(ctx, slot, regionsKey, kv.Linearizable)
	if err != nil {
		return 0, nil, fmt.Errorf("comment: read the registry of regions: %w", err)
	}
	if row.Ver == 0 {
		reg, err = causal.NewRegistry()
		return number, reg, err
	}
	reg, err = causal.ParseRegistry(row.Value)
	return number, reg, err
}

// openRegions gives the number to make comments under, and the registry with the regions
// that there are now. A store that was given up takes another number.
func openRegions(ctx context.Context, cfg Config) (number id.Region, reg *causal.Registry, err error) {
	if cfg.Region == 0 || cfg.Region > MaxRegion {
		return 0, nil, fmt.Errorf("comment: region number %d: want 1 to %d", cfg.Region, MaxRegion)
	}
	if number, reg, err = readRegions(ctx, cfg.Store, cfg.Region); err != nil {
		return 0, nil, err
	}
	if m, ok := reg.Get(number); ok && m.State != causal.Active {
		cfg.Log.ErrorContext(ctx, "the other regions have given this one up: it goes on under another number", "region", cfg.Region, "number", number)
		if err := Renew(ctx, cfg.Store); err != nil {
			return 0, nil, err
		}
		if number, reg, err = readRegions(ctx, cfg.Store, cfg.Region); err != nil {
			return 0, nil, err
		}
	}
	for _, n := range append([]id.Region{number}, cfg.Peers...) {
		if n > MaxRegion && n != number {
			return 0, nil, fmt.Errorf("comment: peer number %d: want 1 to %d", n, MaxRegion)
		}
		if _, known := reg.Get(n); !known {
			if reg, err = reg.Join(n); err != nil {
				return 0, nil, err
			}
		}
	}
	return number, reg, nil
}

// Renew has a store that was set back to an old copy make its comments under a number
// that the region has not had, if it was joined to others ever: they know of comments
// that the copy has not, and would take what comes now for those. What the copy lacks
// comes back from them.
//
// Whoever restores one copy twice has a chance of 1 in 254 of getting the same number
// again. The others see it by the hashes.
func Renew(ctx context.Context, store kv.Store) error {
	slot := kv.SlotOf(regionsKey)
	row, err := store.Get(ctx, slot, regionsKey, kv.Linearizable)
	if err != nil || row.Ver == 0 {
		return err
	}
	old, reg, err := readRegions(ctx, store, 0)
	if err != nil {
		return err
	}
	if old == 0 {
		return errors.New("comment: a store that was joined to other regions does not say which one it is of")
	}
	const copies = 1 << 8
	at := 1 + rand.IntN(copies-1) //nolint:gosec // nobody gains by guessing it
	for range copies - 1 {
		n := homeOf(old) | id.Region(at)<<8
		if _, had := reg.Get(n); !had {
			return putNumber(ctx, store, row.Ver, reg, old, n)
		}
		at = at%(copies-1) + 1
	}
	return fmt.Errorf("comment: region %d has used up its numbers by being restored %d times: give it a new one", homeOf(old), copies-1)
}

func putNumber(ctx context.Context, store kv.Store, ver uint64, reg *causal.Registry, old, n id.Region) (err error) {
	if m, ok := reg.Get(old); ok && m.State != causal.Lost {
		if reg, err = reg.End(old, causal.Lost); err != nil {
			return err
		}
	}
	if reg, err = reg.Join(n); err != nil {
		return err
	}
	b := new(kv.Batch).IfVer(regionsKey, ver).Put(regionsKey, reg.Encode())
	b.Put(numberKey, binary.BigEndian.AppendUint16(nil, uint16(n))).Put(relayKey(old), nil)
	if _, err := store.Apply(ctx, kv.SlotOf(regionsKey), b); err != nil {
		return fmt.Errorf("comment: store a new number for comments: %w", err)
	}
	return nil
}

// End gives a region up, or lets it go: all numbers that it has had end as Left or Lost.
// What depends on operations of a lost region that nobody has is shown without them, and
// what others have of it they tell each other. The other regions hear of it.
func (s *Service) End(ctx context.Context, region id.Region, state causal.Membership) error {
	if region == s.region {
		return fmt.Errorf("comment: region %d cannot end itself: say so in another one", region)
	}
	found := false
	defer s.members.wake()
	err := s.changeRegions(ctx, func(reg *causal.Registry) (*causal.Registry, error) {
		for _, m := range reg.Members() {
			if homeOf(m.Number) != region {
				continue
			}
			found = true
			if m.State >= state {
				continue
			}
			var err error
			if reg, err = reg.End(m.Number, state); err != nil {
				return nil, err
			}
		}
		return reg, nil
	})
	if err == nil && !found {
		return fmt.Errorf("comment: no region has the number %d", region)
	}
	return err
}

// Meet takes a region in that is about to join, before anything of it comes and before it
// is told anything: from then on nothing is forgotten that it may not have heard of. One
// that has left, or was given up, does not come back under its number. The other regions
// hear of it.
func (s *Service) Meet(ctx context.Context, region id.Region) error {
	if region == s.region || region == 0 || region > MaxRegion {
		return fmt.Errorf("comment: region number %d cannot join: want another one than %d, from 1 to %d", region, s.region, MaxRegion)
	}
	return s.changeRegions(ctx, func(reg *causal.Registry) (*causal.Registry, error) {
		known := false
		for _, m := range reg.Members() {
			if homeOf(m.Number) != region {
				continue
			}
			if known = true; m.State == causal.Active {
				return reg, nil
			}
		}
		if known {
			return nil, fmt.Errorf("comment: region %d has left or was given up, and its number is never given again: give the region that joins another one", region)
		}
		return reg.Join(region)
	})
}

// Registry gives the regions that make comments or have made some.
func (s *Service) Registry() *causal.Registry { return s.members.now.Load() }

// Number gives what this region makes its comments under.
func (s *Service) Number() id.Region { return s.number }

// changeRegions changes the registry here, and tells the other regions.
func (s *Service) changeRegions(ctx context.Context, change func(*causal.Registry) (*causal.Registry, error)) error {
	const tries = 5
	err := error(kv.ErrConflict)
	for range tries {
		if err = s.tryRegions(ctx, change); !errors.Is(err, kv.ErrConflict) && !errors.Is(err, kv.ErrUnknown) {
			break
		}
	}
	return err
}

func (s *Service) tryRegions(ctx context.Context, change func(*causal.Registry) (*causal.Registry, error)) error {
	slot := kv.SlotOf(regionsKey)
	out, err := s.outbox.Open(ctx, slot)
	if err != nil {
		return err
	}
	defer out.Close()
	stored, ver, err := s.storedRegistry(ctx)
	if err != nil {
		return err
	}
	next, err := change(stored.Union(s.members.now.Load()))
	if err != nil {
		return err
	}
	if next == stored && s.members.told.Load() {
		return nil
	}
	b := new(kv.Batch)
	s.putRegistry(b, ver, stored, next)
	out.PutPeers(b, []byte{entryRegions}, tracing.Origin{})
	if err := out.Seal(b); err != nil {
		return err
	}
	at, err := s.store.Apply(ctx, slot, b)
	if err != nil {
		return err
	}
	out.Applied(at)
	s.members.told.Store(true)
	s.heard(next)
	return nil
}

// heard goes by a registry that is stored.
func (s *Service) heard(reg *causal.Registry) {
	s.members.learn(reg)
	s.releases.lookAgain() // what was waited for may not be any more
	s.arrivals.tell()
}

// putRegistry adds a registry to the batch, in place of the one that is stored, and what
// is to be done for the regions that are lost by it.
func (s *Service) putRegistry(b *kv.Batch, ver uint64, stored, next *causal.Registry) {
	b.IfVer(regionsKey, ver).Put(regionsKey, next.Encode())
	if ver == 0 {
		b.Put(numberKey, binary.BigEndian.AppendUint16(nil, uint16(s.number)))
	}
	lost := 0
	for _, m := range next.Members() {
		was, _ := stored.Get(m.Number)
		if m.State == causal.Lost && was.State != causal.Lost && lost < maxLost {
			b.Put(relayKey(m.Number), nil)
			lost++
		}
	}
}

// storedRegistry gives the registry that is stored, and the version of its row.
func (s *Service) storedRegistry(ctx context.Context) (reg *causal.Registry, ver uint64, err error) {
	row, err := s.store.Get(ctx, kv.SlotOf(regionsKey), regionsKey, kv.Linearizable)
	if err != nil {
		return nil, 0, fmt.Errorf("comment: read the registry of regions: %w", err)
	}
	if row.Ver == 0 {
		reg, err = causal.NewRegistry()
		return reg, 0, err
	}
	reg, err = causal.ParseRegistry(row.Value)
	return reg, row.Ver, err
}

// hearRegions takes in what another region says of regions.
func (s *Service) hearRegions(ctx context.Context, in *idcqueue.In, said []byte) error {
	reg, err := causal.ParseRegistry(said)
	if err != nil || in.Slot != kv.SlotOf(regionsKey) {
		return idcqueue.Refuse("a registry of regions in slot %d: %v", in.Slot, err)
	}
	stored, ver, err := s.storedRegistry(ctx)
	if err != nil {
		return err
	}
	if next := stored.Union(reg); next != stored {
		s.putRegistry(in.Batch, ver, stored, next)
	}
	in.After(func(uint64) {
		s.heard(reg)
		s.members.wake()
	})
	return nil
}

// maxLost bounds the regions that are given up in one batch. The others are told of by
// their rows alone.
const maxLost = 32

// keepRegions writes what was heard of regions, and does what follows from it, until ctx
// ends.
func (s *Service) keepRegions(ctx context.Context) {
	s.members.wake() // an earlier process may have left something
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.members.tasks:
		}
		if err := s.SettleRegions(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "what was heard of other regions is not settled yet", "error", err)
			s.members.wake()
			t := time.NewTimer(releaseAgain)
			select {
			case <-ctx.Done():
			case <-t.C:
			}
			t.Stop()
		}
	}
}

// SettleRegions writes the registry as it is known, and tells the others what is here of
// regions that were given up. Run does it when there is need.
func (s *Service) SettleRegions(ctx context.Context) error {
	err := s.changeRegions(ctx, func(reg *causal.Registry) (*causal.Registry, error) { return reg, nil })
	if err != nil {
		return err
	}
	slot := kv.SlotOf(regionsKey)
	prefix := []byte("k/relay/")
	items, _, err := s.store.Scan(ctx, slot, kv.Prefix(prefix, kv.MaxScan), kv.Linearizable)
	if err != nil {
		return err
	}
	for _, it := range items {
		if len(it.Key) != len(prefix)+2 {
			return fmt.Errorf("comment: row %x of slot %d is damaged", it.Key, slot)
		}
		var from kv.Place
		if len(it.Value) > 0 {
			if from, err = kv.ParsePlace(it.Value); err != nil {
				return fmt.Errorf("comment: row %x of slot %d is damaged: %w", it.Key, slot, err)
			}
		}
		if err := s.relay(ctx, id.Region(binary.BigEndian.Uint16(it.Key[len(prefix):])), from); err != nil {
			return err
		}
		if _, err := s.store.Apply(ctx, slot, new(kv.Batch).Delete(it.Key)); err != nil {
			return err
		}
	}
	return nil
}

// relayed is how many operations are told in one batch.
const relayed = 64

// relay tells the other regions all that is here of a number that was given up, and
// deletes again what it alone had deleted. It reads all logs from a place on: that hardly
// ever happens. How far it is stays in the row, so that what fails and is done again, once
// a second, does not fill the outbox with what has been told.
func (s *Service) relay(ctx context.Context, n id.Region, at kv.Place) error {
	var blank id.Post // the last with a comment that the number may have deleted
	for at.Slot < kv.Slots {
		items, next, err := kv.ScanSlots(ctx, s.store, at, kv.Prefix([]byte{tableLog}, 0), kv.Linearizable)
		if err != nil {
			return err
		}
		entries := map[kv.Slot][]entry{}
		for _, it := range items {
			rec, err := parseRecord(it.Value)
			if err != nil {
				return err
			}
			if rec.Grave.Region == n && rec.Post != blank {
				blank = rec.Post
				if err := s.bury(ctx, rec.Post); err != nil {
					return err
				}
			}
			if rec.ID.Region() == n {
				entries[it.Slot] = append(entries[it.Slot], entry{kind: rec.Kind, post: rec.Post, region: n, seq: rec.Seq})
			}
		}
		for slot, some := range entries {
			if err := s.putEntries(ctx, slot, some); err != nil {
				return err
			}
		}
		at = next
		if len(entries) > 0 && at.Slot < kv.Slots {
			if _, err := s.store.Apply(ctx, kv.SlotOf(regionsKey), new(kv.Batch).Put(relayKey(n), at.Encode())); err != nil {
				return err
			}
		}
	}
	return nil
}

// putEntries puts operations of this or other regions into the outbox for the peers.
func (s *Service) putEntries(ctx context.Context, slot kv.Slot, entries []entry) error {
	for len(entries) > 0 {
		n := min(len(entries), relayed)
		err := s.putPeers(ctx, slot, func(put func([]byte)) {
			for _, e := range entries[:n] {
				put(e.encode())
			}
		})
		if err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// putPeers puts records for the peers into a batch of their own.
func (s *Service) putPeers(ctx context.Context, slot kv.Slot, fill func(put func(body []byte))) error {
	out, err := s.outbox.Open(ctx, slot)
	if err != nil {
		return err
	}
	defer out.Close()
	b := new(kv.Batch)
	fill(func(body []byte) { out.PutPeers(b, body, tracing.Origin{}) })
	if err := out.Seal(b); err != nil || b.Len() == 0 {
		return err
	}
	ver, err := s.store.Apply(ctx, slot, b)
	if err != nil {
		return err
	}
	out.Applied(ver)
	return nil
}

// bury deletes again what was deleted on a post by an operation that was lost with its
// region: others may have the text.
func (s *Service) bury(ctx context.Context, p id.Post) error {
	head, err := s.store.Get(ctx, kv.SlotOf(p[:]), headKey(p), kv.Linearizable)
	if err != nil {
		return err
	}
	var left []causal.Comment
	err = s.threads.with(ctx, p, head, func(t *thread) error {
		for _, c := range t.fold.Dangling(t.head.Seen, s.members.now.Load()) {
			found, _ := t.fold.Get(c)
			left = append(left, found)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, c := range left {
		o := &op{rec: causal.Record{Kind: causal.Delete, Post: p, Writer: c.Writer, Parent: c.ID}, err: errNotRun, bury: true}
		if err := s.writes.Do(ctx, p, o); err != nil {
			return err
		}
		if o.err != nil {
			return o.err
		}
	}
	return nil
}

// knows decides whether operations of a number may come by way of a region: its own, and
// those of others that this region knows of. Whatever number a peer makes its comments
// under is its own.
func (s *Service) knows(n, from id.Region) error {
	if _, known := s.members.now.Load().Get(n); known {
		return nil
	}
	if homeOf(n) != from {
		return idcqueue.Refuse("nobody has told of a region %d, which operations come of by way of region %d", n, from)
	}
	joined, err := s.members.now.Load().Join(n)
	if err != nil {
		return idcqueue.Refuse("%v", err)
	}
	s.members.learn(joined)
	return nil
}

// Causality is how this region stands to what others make. Counts are since the start of
// the process.
type Causality struct {
	Number  id.Region `json:"number"`  // that comments are made under here
	Held    int64     `json:"held"`    // operations that wait for their causes
	Orphans uint64    `json:"orphans"` // shown though a cause was lost with its region
	Forks   uint64    `json:"forks"`   // that claim a place which another one has: an alarm
	Late    int       `json:"late"`    // posts of which something lacks
}

// Causality tells how this region stands to what others make.
func (s *Service) Causality() Causality {
	s.pulls.mu.Lock()
	defer s.pulls.mu.Unlock()
	return Causality{
		Number: s.number, Held: s.held.Load(), Orphans: s.orphans.Load(), Forks: s.forks.Load(), Late: len(s.pulls.posts),
	}
}
