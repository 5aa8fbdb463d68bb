// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sluice-rpc/sluice/app/kv"
)

// ErrGone says that the records asked for are removed. The peer needs a snapshot of
// the slot.
var ErrGone = errors.New("outbox: the records have been removed")

// Peer is the cursor of a consumer in another region, which reads for itself. Its methods
// may be called concurrently.
type Peer struct {
	box  *Box
	name string
	wake chan struct{} // holds a token while news may not be empty

	// All guarded by box.mu.
	slots    [kv.Slots]peerSlot
	news     []kv.Slot // that have got records since Changed
	drops    uint64
	alarmed  int     // highest mark of fill that has been told of
	fullness float64 // see PeerStatus
}

// peerSlot is how far a peer is in one slot.
type peerSlot struct {
	known  bool // cursor holds; else the peer needs a snapshot
	cursor Pos  // what it has
	saved  struct {
		known  bool
		cursor Pos
	}
	holding bool // records after hold are kept for a snapshot under way
	hold    Pos
	oldest  int64 // when the first record that it has not was put, ms since 1970
	news    bool  // in news
}

func newPeer(b *Box, name string) *Peer {
	return &Peer{box: b, name: name, wake: make(chan struct{}, 1)}
}

// Peer gives the consumer of that name, nil if there is none.
func (b *Box) Peer(name string) *Peer {
	for _, p := range b.all() {
		if p.name == name {
			return p
		}
	}
	return nil
}

// all gives the peers that there are now.
func (b *Box) all() []*Peer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.peers
}

// Join adds a peer while the box works. It needs a snapshot of every slot; from when it
// asks for one (Hold) all records are kept for it. It fails if the peer is there already,
// or if the Config says that there never are any.
func (b *Box) Join(name string) (*Peer, error) {
	if !b.joined() {
		return nil, fmt.Errorf("outbox: %s cannot join: this box was made for its own region alone", name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.peers {
		if p.name == name {
			return nil, fmt.Errorf("outbox: %s has joined already", name)
		}
	}
	p := newPeer(b, name)
	b.peers = append(slices.Clone(b.peers), p)
	return p, nil
}

// Leave takes a peer out: nothing is kept for it any more, and what was kept is removed
// soon. Who still reads by it meets ErrGone then. If it joins again it needs a snapshot.
func (b *Box) Leave(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.peers)
	b.peers = slices.DeleteFunc(slices.Clone(b.peers), func(p *Peer) bool { return p.name == name })
	b.leaves += n - len(b.peers)
}

// recover takes over how far an earlier process has brought the peer, by the peer's row. A
// slot that has none needs a snapshot.
func (p *Peer) recover(ctx context.Context, slot kv.Slot, head Pos, it kv.Item) (err error) {
	var at peerSlot
	if len(it.Value) > 0 {
		if at.cursor, err = parsePos(it); err != nil {
			return err
		}
		at.known = true
	}
	at.saved.known, at.saved.cursor = at.known, at.cursor
	at.known = at.known && at.cursor.Seq <= head.Seq
	if at.known && at.cursor.Number < head.Number {
		at.oldest = p.box.cfg.Now().UnixMilli()
		recs, _, err := p.readTo(ctx, slot, at.cursor, head, 1, 1)
		switch {
		case errors.Is(err, ErrGone):
			at.known = false
		case err != nil:
			return err
		case len(recs) > 0:
			at.oldest = recs[0].At.UnixMilli()
		}
	}
	p.box.mu.Lock()
	defer p.box.mu.Unlock()
	s := &p.slots[slot]
	if s.known || s.holding { // a second try
		return nil
	}
	at.news = s.news
	if at.oldest == 0 && (!at.known || at.cursor.Number < p.box.slots[slot].head.Number) {
		at.oldest = s.oldest
	}
	*s = at
	return nil
}

// Found is closed when the records that an earlier process has left are known.
func (p *Peer) Found() <-chan struct{} { return p.box.found }

// Wake holds a token while Changed may have something to give.
func (p *Peer) Wake() <-chan struct{} { return p.wake }

// Changed adds the slots that have got records for peers since it was last called.
func (p *Peer) Changed(to []kv.Slot) []kv.Slot {
	p.box.mu.Lock()
	defer p.box.mu.Unlock()
	for _, slot := range p.news {
		p.slots[slot].news = false
	}
	to = append(to, p.news...)
	p.news = p.news[:0]
	return to
}

// markLocked says that a slot's log goes up to head.
func (p *Peer) markLocked(slot kv.Slot, head Pos) {
	s := &p.slots[slot]
	if s.known && s.cursor.Number == head.Number {
		s.cursor = head // nothing of it is for peers
		return
	}
	if s.oldest == 0 {
		s.oldest = p.box.cfg.Now().UnixMilli()
	}
	if !s.news {
		s.news = true
		p.news = append(p.news, slot)
		select {
		case p.wake <- struct{}{}:
		default: // a token is there already
		}
	}
}

// Slot tells how far a slot's log goes, and how far the peer is in it. It is not known
// if the peer needs a snapshot.
func (p *Peer) Slot(slot kv.Slot) (head, cursor Pos, known bool) {
	p.box.mu.Lock()
	defer p.box.mu.Unlock()
	s := &p.slots[slot]
	return p.box.slots[slot].head, s.cursor, s.known
}

// Ack says that the peer has all of a slot up to a position. The time is that of the
// first record after it, if there is one and it is known.
func (p *Peer) Ack(slot kv.Slot, at Pos, next time.Time) {
	p.box.mu.Lock()
	defer p.box.mu.Unlock()
	s := &p.slots[slot]
	if s.known && at.Seq < s.cursor.Seq {
		return
	}
	s.known, s.cursor = true, at
	s.holding = s.holding && at.Seq < s.hold.Seq
	switch head := p.box.slots[slot].head; {
	case at.Number == head.Number:
		s.cursor, s.oldest = head, 0
	case !next.IsZero():
		s.oldest = next.UnixMilli()
	}
}

// Hold keeps all records from now on for a peer that is sent a snapshot of the slot, and
// gives the position where they begin: what is read of the slot after this call has the
// effects of all before. It holds until the peer has passed that position, or is dropped.
func (p *Peer) Hold(slot kv.Slot) Pos {
	p.box.mu.Lock()
	defer p.box.mu.Unlock()
	s := &p.slots[slot]
	s.known, s.holding, s.hold = false, true, p.box.slots[slot].head
	s.oldest = p.box.cfg.Now().UnixMilli()
	return s.hold
}

// neededLocked gives the sequence up to which the peer does not need the log.
func (p *Peer) neededLocked(slot kv.Slot) uint64 {
	s := &p.slots[slot]
	need := uint64(math.MaxUint64)
	if s.holding {
		need = s.hold.Seq
	}
	if s.known {
		need = min(need, s.cursor.Seq)
	}
	if s.saved.known { // a crash takes it back to there
		need = min(need, s.saved.cursor.Seq)
	}
	return need
}

// Read gives the records for peers that follow a position, and the position after them.
// It stops after that many records or bytes, in any case after one record. There are
// none at the end of what is acknowledged.
func (p *Peer) Read(ctx context.Context, slot kv.Slot, from Pos, records, size int) ([]Record, Pos, error) {
	for {
		head, _ := p.past(slot, &from)
		out, to, err := p.readTo(ctx, slot, from, head, records, size)
		if errors.Is(err, ErrGone) {
			if _, moved := p.past(slot, &from); moved {
				continue // what has been removed meanwhile was nothing for peers
			}
		}
		return out, to, err
	}
}

// past moves a position over what follows it and is for the local consumer alone, as far as
// the peer's cursor has passed it: such rows may have been removed.
func (p *Peer) past(slot kv.Slot, at *Pos) (head Pos, moved bool) {
	p.box.mu.Lock()
	defer p.box.mu.Unlock()
	if s := &p.slots[slot]; s.known && s.cursor.Number == at.Number && s.cursor.Seq > at.Seq {
		*at, moved = s.cursor, true
	}
	return p.box.slots[slot].head, moved
}

// A scan looks at so many rows, at least and at most, unless the log ends before.
const minScan, maxScan = 8, kv.MaxScan

// rowsFor says how many rows after a position probably have that many records or bytes:
// what a scan reads beyond them is read in vain.
func rowsFor(from, head Pos, records, size int) int {
	rows := head.Seq - from.Seq // in the rest of the log
	want := uint64(records)
	if head.Bytes > from.Bytes { // else the log is older than its peers
		each := max(1, (head.Bytes-from.Bytes)/max(1, rows))
		want = min(want, uint64(size)/each+1)
	}
	return int(min(max(want, minScan), maxScan, rows))
}

func (p *Peer) readTo(ctx context.Context, slot kv.Slot, from, head Pos, records, size int) ([]Record, Pos, error) {
	var out []Record
	for size > 0 && len(out) < records && from.Number < head.Number {
		limit := rowsFor(from, head, records-len(out), size)
		r := kv.Range{From: recordKey(from.Seq + 1), To: recordKey(from.Seq + 1 + uint64(limit)), Limit: limit}
		items, _, err := p.box.cfg.Store.Scan(ctx, slot, r, kv.Local) // see Box.read
		if err != nil {
			return out, from, fmt.Errorf("outbox: read slot %d for %s: %w", slot, p.name, err)
		}
		if len(items) == 0 || !isRecord(items[0].Key, from.Seq+1) {
			return out, from, p.gap(ctx, slot, from)
		}
		out = slices.Grow(out, min(len(items), records-len(out)))
		for _, it := range items {
			rec, err := parse(slot, from.Seq+1, it)
			if err != nil {
				return out, from, err
			}
			if rec.Number != 0 && rec.Number != from.Number+1 {
				return out, from, fmt.Errorf("outbox: record %d of slot %d is number %d for peers, want %d: the store is damaged",
					rec.Seq, slot, rec.Number, from.Number+1)
			}
			from.Seq++
			from.Bytes += rowSize(it.Value)
			if rec.Number == 0 {
				continue
			}
			from.Number++
			rec.After = from
			out = append(out, rec)
			if size -= len(rec.Body); size <= 0 || len(out) == records {
				break
			}
		}
	}
	return out, from, nil
}

// gap tells why the record after a position is not there.
func (p *Peer) gap(ctx context.Context, slot kv.Slot, from Pos) error {
	it, err := p.box.cfg.Store.Get(ctx, slot, trimmedKey, kv.Linearizable)
	if err != nil {
		return fmt.Errorf("outbox: read how far slot %d is removed: %w", slot, err)
	}
	trimmed, err := parseSeq(it)
	switch {
	case err != nil:
		return err
	case trimmed > from.Seq:
		return fmt.Errorf("%w: slot %d after %d, for %s", ErrGone, slot, from.Seq, p.name)
	}
	return fmt.Errorf("outbox: slot %d after %d, for %s: %w", slot, from.Seq, p.name, kv.ErrUnavailable) // a lagging replica
}

// Find gives the position after the record of that number. It is ErrGone if what follows
// has been removed, or may have been.
func (p *Peer) Find(ctx context.Context, slot kv.Slot, number uint64) (Pos, error) {
	head, at, known := p.Slot(slot)
	switch {
	case number == head.Number:
		return head, nil
	case !known || number < at.Number || number > head.Number:
		return Pos{}, fmt.Errorf("%w: slot %d after number %d, for %s", ErrGone, slot, number, p.name)
	}
	for at.Number < number {
		var err error
		const plenty = 1 << 20
		if _, at, err = p.readTo(ctx, slot, at, head, int(min(number-at.Number, maxScan)), plenty); err != nil {
			return Pos{}, err
		}
	}
	return at, nil
}

// peerChange is what is to be saved of a peer in a slot.
type peerChange struct {
	peer   *Peer
	slot   kv.Slot
	known  bool
	cursor Pos
}

func (p *Peer) changeLocked(slot kv.Slot) (peerChange, bool) {
	s := &p.slots[slot]
	c := peerChange{peer: p, slot: slot, known: s.known, cursor: s.cursor}
	if s.known && s.saved.known {
		return c, s.cursor.Seq > s.saved.cursor.Seq
	}
	return c, s.known != s.saved.known
}

func (c *peerChange) put(slot kv.Slot) kv.SlotPut {
	row := kv.SlotPut{Slot: slot, Key: cursorKey(c.peer.name)}
	if c.known {
		row.Value = c.cursor.encode()
	}
	return row
}

func (c *peerChange) savedLocked() {
	s := &c.peer.slots[c.slot]
	s.saved.known, s.saved.cursor = c.known, c.cursor
}

// PeerStatus is how far a peer is.
type PeerStatus struct {
	Name    string
	Records uint64 // for peers, that it has not
	Bytes   uint64 // of the log in the store that are kept for it
	// Oldest is when the first record that it has not was put; zero if it has all.
	Oldest time.Time
	// Snapshots is how many slots it needs a snapshot of.
	Snapshots int
	// Full is how near it is to being dropped: 1 is the limit.
	Full float64
	// Drops is how often it was dropped, since the start.
	Drops uint64
}

func (p *Peer) statusLocked() PeerStatus {
	st := PeerStatus{Name: p.name, Drops: p.drops, Full: p.fullness}
	var oldest int64
	for i := range p.slots {
		s, head := &p.slots[i], p.box.slots[i].head
		switch {
		case s.known:
			st.Records += head.Number - s.cursor.Number
			st.Bytes += head.Bytes - s.cursor.Bytes
		case s.holding:
			st.Records += head.Number - s.hold.Number
			st.Bytes += head.Bytes - s.hold.Bytes
		}
		if !s.known {
			st.Snapshots++
		}
		if s.oldest != 0 && (oldest == 0 || s.oldest < oldest) {
			oldest = s.oldest
		}
	}
	if oldest != 0 {
		st.Oldest = time.UnixMilli(oldest)
	}
	return st
}

// marks are the parts of its limit at which a peer that is behind is told of.
var marks = []float64{0.5, 0.8}

// retain drops the peer if it is too far behind, and says so long before.
func (p *Peer) retain(now time.Time) {
	b := p.box
	b.mu.Lock()
	if !b.whole {
		b.mu.Unlock()
		return
	}
	st, limit := p.statusLocked(), b.cfg.Retain
	full := max(float64(st.Records)/float64(limit.Records), float64(st.Bytes)/float64(limit.Bytes))
	if st.Records > 0 && !st.Oldest.IsZero() {
		full = max(full, float64(now.Sub(st.Oldest))/float64(limit.Age))
	}
	p.fullness = full
	mark := 0
	for _, m := range marks {
		if full >= m {
			mark++
		}
	}
	louder := mark > p.alarmed
	p.alarmed = mark
	dropped := full >= 1
	if dropped {
		p.drops++
		for i := range p.slots {
			if s := &p.slots[i]; s.holding || s.cursor.Number < b.slots[i].head.Number {
				s.known, s.holding = false, false
			}
		}
	}
	b.mu.Unlock()
	what := []any{"peer", p.name, "records", st.Records, "bytes", st.Bytes, "oldest", st.Oldest, "full", full}
	switch {
	case dropped:
		b.cfg.Log.Error("a region is dropped: it has been away for longer than records are kept, and needs a snapshot when it is back", what...)
	case louder && mark > 1:
		b.cfg.Log.Error("a region is far behind; at 1 it is dropped and needs a snapshot: mend its line", what...)
	case louder:
		b.cfg.Log.Warn("a region is behind", what...)
	}
}
