// SPDX-License-Identifier: Apache-2.0

package idcqueue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue/flow"
	"github.com/sluice-rpc/sluice/app/kv"
)

// A refused record, or part of a snapshot, is stored as it came, in rows of at most
// pieceBytes. The first begins with the time, in ms since 1970, and the reason.
const pieceBytes = 200 << 10

// maxReason bounds a reason in bytes.
const maxReason = 1 << 10

// Quarantined is a record, or a part of a snapshot, that was refused.
type Quarantined struct {
	From   id.Region
	Slot   kv.Slot
	Seq    uint64 // of the record, or of the snapshot
	Part   bool   // of a snapshot
	At     time.Time
	Reason string
	Body   []byte // of a record
}

func quarantinePrefix(from id.Region) []byte {
	return binary.BigEndian.AppendUint16([]byte{TableQuarantine}, uint16(from))
}

// quarantineKey tells parts of one snapshot apart by where they begin; the place of a
// record is "".
func quarantineKey(from id.Region, number uint64, place string, piece int) []byte {
	k := binary.BigEndian.AppendUint64(quarantinePrefix(from), number)
	var sum uint64
	if place != "" {
		h := fnv.New64a()
		_, _ = h.Write([]byte(place)) // it never fails
		sum = h.Sum64()
	}
	return append(binary.BigEndian.AppendUint64(k, sum), byte(piece))
}

// putAside moves the cursor over what was refused, and keeps that.
func (r *receiver) putAside(ctx context.Context, slot kv.Slot, number uint64, place string, m flow.Message, reason string, next, c *cursor) error {
	content, _, err := r.q.codec.Encode(m)
	if err != nil {
		return err
	}
	reason = reason[:min(len(reason), maxReason)]
	first := binary.BigEndian.AppendUint64(nil, uint64(r.q.cfg.Now().UnixMilli()))
	first = append(binary.BigEndian.AppendUint16(first, uint16(len(reason))), reason...)
	content = append(first, content...)
	b := new(kv.Batch)
	for piece := 0; len(content) > 0; piece++ {
		n := min(len(content), pieceBytes)
		b.Put(quarantineKey(r.region, number, place, piece), content[:n])
		content = content[n:]
	}
	// A part of a snapshot that was cut comes again, and its rows may be there.
	there, err := r.q.cfg.Store.Get(ctx, slot, quarantineKey(r.region, number, place, 0), kv.Linearizable)
	if err != nil {
		return err
	}
	key := cursorKey(r.region)
	if b.IfVer(key, c.ver); next.present {
		b.Put(key, r.cursorValue(next.number))
	}
	before := c.ver
	ver, err := r.q.cfg.Store.Apply(ctx, slot, b)
	switch {
	case errors.Is(err, kv.ErrUnknown) && !next.present: // the cursor does not tell
		now, again := r.q.cfg.Store.Get(ctx, slot, quarantineKey(r.region, number, place, 0), kv.Linearizable)
		if again != nil || now.Ver == there.Ver {
			return err // it is refused again, under the same key
		}
	case errors.Is(err, kv.ErrConflict), errors.Is(err, kv.ErrUnknown):
		if again := r.reload(ctx, slot, c); again != nil {
			return again
		}
		if !next.present || c.number != next.number || c.ver == before {
			return err // likewise
		}
	case err != nil:
		return err
	case next.present:
		*c = cursor{number: next.number, present: true, ver: ver}
	}
	r.take(func(st *receiveState) {
		st.quarantined++
		if there.Ver == 0 {
			st.held++
		}
	})
	r.log.ErrorContext(ctx, "a record of another region is refused and put into quarantine", "slot", slot, "number", number, "reason", reason)
	return nil
}

// isFirstPiece reports whether a row is the first of what it is a piece of.
func isFirstPiece(key []byte) bool { return key[len(key)-1] == 0 }

// pieces puts what is in quarantine together from its rows, which it is given in order,
// and calls do with the key of the first row of each.
type pieces struct {
	codec        *flow.Codec
	do           func(key []byte, q Quarantined, m flow.Message) error
	slot         kv.Slot
	key, content []byte
}

func (p *pieces) add(slot kv.Slot, it kv.Item) error {
	if isFirstPiece(it.Key) {
		if err := p.flush(); err != nil {
			return err
		}
		p.slot, p.key, p.content = slot, it.Key, nil
	}
	p.content = append(p.content, it.Value...)
	return nil
}

// flush hands over what is there, after the last row.
func (p *pieces) flush() error {
	if p.key == nil {
		return nil
	}
	const head = 10
	if len(p.key) < 11 || len(p.content) < head || len(p.content) < head+int(binary.BigEndian.Uint16(p.content[8:])) {
		return fmt.Errorf("idcqueue: the quarantined record under %x of slot %d is cut off", p.key, p.slot)
	}
	reason := p.content[head : head+int(binary.BigEndian.Uint16(p.content[8:]))]
	m, _, err := p.codec.Decode(p.content[head+len(reason):])
	if err != nil {
		return fmt.Errorf("idcqueue: the quarantined record under %x of slot %d: %w", p.key, p.slot, err)
	}
	q := Quarantined{
		From: id.Region(binary.BigEndian.Uint16(p.key[1:])), Slot: p.slot, Seq: binary.BigEndian.Uint64(p.key[3:]),
		At: time.UnixMilli(int64(binary.BigEndian.Uint64(p.content))), Reason: string(reason),
	}
	switch m := m.(type) {
	case *flow.Batch:
		if len(m.Records) == 1 {
			q.Body = m.Records[0].Body
		}
	case *flow.Part:
		q.Part = true
	}
	return p.do(p.key, q, m)
}

// eachQuarantined calls do with the key of the first row of each that a slot has.
func (p *peer) eachQuarantined(ctx context.Context, slot kv.Slot, do func(key []byte, q Quarantined, m flow.Message) error) error {
	all := &pieces{codec: p.q.codec, do: do}
	r := kv.Prefix(quarantinePrefix(p.region), 0)
	for {
		items, more, err := p.q.cfg.Store.Scan(ctx, slot, r, kv.Linearizable)
		if err != nil {
			return fmt.Errorf("idcqueue: look for quarantined records in slot %d: %w", slot, err)
		}
		for _, it := range items {
			if err := all.add(slot, it); err != nil {
				return err
			}
			r.From = kv.Next(it.Key)
		}
		if !more {
			return all.flush()
		}
	}
}

// maxQuarantined bounds one answer of Quarantine.
const maxQuarantined = 1000

// Quarantine gives what was refused and is kept, of all peers, at most 1,000.
func (q *Queue) Quarantine(ctx context.Context) ([]Quarantined, error) {
	var all []Quarantined
	rows := &pieces{codec: q.codec, do: func(_ []byte, one Quarantined, _ flow.Message) error {
		if len(all) < maxQuarantined {
			all = append(all, one)
		}
		return nil
	}}
	err := q.each(ctx, *q.peers.Load(), TableQuarantine, func(_ *peer, slot kv.Slot, it kv.Item) error { return rows.add(slot, it) })
	if err == nil {
		err = rows.flush()
	}
	if err != nil {
		return nil, fmt.Errorf("idcqueue: look for quarantined records: %w", err)
	}
	return all, nil
}

// ErrNotHeld says that there is nothing of that number in quarantine.
var ErrNotHeld = errors.New("idcqueue: not in quarantine")

// Release gives what was refused to the service again, and removes it from quarantine in
// the batch that has the effect. It stays if the service refuses it still.
func (q *Queue) Release(ctx context.Context, from id.Region, slot kv.Slot, seq uint64) error {
	return q.letGo(ctx, from, slot, seq, func(p *peer, b *removal, m flow.Message) error {
		switch m := m.(type) {
		case *flow.Batch:
			return p.release(ctx, b, toRecords(m.Records))
		case *flow.Part:
			return p.releasePart(ctx, b, m)
		}
		return fmt.Errorf("idcqueue: %T in quarantine", m)
	})
}

// Drop gives up what was refused.
func (q *Queue) Drop(ctx context.Context, from id.Region, slot kv.Slot, seq uint64) error {
	return q.letGo(ctx, from, slot, seq, func(p *peer, b *removal, _ flow.Message) error {
		batch := new(kv.Batch)
		b.add(batch)
		_, err := q.cfg.Store.Apply(ctx, slot, batch)
		return err
	})
}

// removal removes the rows of one quarantined thing.
type removal struct {
	slot kv.Slot
	key  []byte // of the first
}

func (d *removal) add(b *kv.Batch) {
	end := append([]byte(nil), d.key...)
	end[len(end)-1] = 0xff
	b.DeleteRange(d.key, end)
}

func (q *Queue) letGo(ctx context.Context, from id.Region, slot kv.Slot, seq uint64, do func(*peer, *removal, flow.Message) error) error {
	p := q.peer(from)
	if p == nil {
		return fmt.Errorf("%w: region %d is no peer", ErrNotHeld, from)
	}
	type held struct {
		removal removal
		m       flow.Message
	}
	var all []held
	err := p.eachQuarantined(ctx, slot, func(key []byte, one Quarantined, m flow.Message) error {
		if one.Seq == seq {
			all = append(all, held{removal{slot: slot, key: key}, m})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("%w: record %d of slot %d of region %d", ErrNotHeld, seq, slot, from)
	}
	for i := range all {
		if err := do(p, &all[i].removal, all[i].m); err != nil {
			return fmt.Errorf("idcqueue: let record %d of slot %d of region %d go: %w", seq, slot, from, err)
		}
		p.take(func(st *receiveState) { st.held-- })
	}
	return nil
}

func (p *peer) release(ctx context.Context, d *removal, records []Record) error {
	out, err := p.q.cfg.Outbox.Open(ctx, d.slot)
	if err != nil {
		return err
	}
	defer out.Close()
	in := &In{From: p.region, Slot: d.slot, Records: records, Released: true, Batch: new(kv.Batch), Out: out}
	if _, err := p.q.cfg.Side.Apply(ctx, in); err != nil {
		return err
	}
	d.add(in.Batch)
	if err := out.Seal(in.Batch); err != nil {
		return err
	}
	ver, err := p.q.cfg.Store.Apply(ctx, d.slot, in.Batch)
	if err != nil {
		return err
	}
	out.Applied(ver)
	in.Applied(ver)
	return nil
}

func (p *peer) releasePart(ctx context.Context, d *removal, m *flow.Part) error {
	for {
		more, err := p.tryReleasePart(ctx, d, m)
		if err != nil || !more {
			return err
		}
	}
}

func (p *peer) tryReleasePart(ctx context.Context, d *removal, m *flow.Part) (more bool, err error) {
	out, err := p.q.cfg.Outbox.Open(ctx, d.slot)
	if err != nil {
		return false, err
	}
	defer out.Close()
	part := &Part{From: p.region, Slot: d.slot, Start: m.Start, End: m.End, Rows: m.Rows, Batch: new(kv.Batch), Out: out, Released: true}
	if more, err = p.q.cfg.Side.Merge(ctx, part); err != nil {
		return false, err
	}
	if !more {
		d.add(part.Batch)
	}
	if err := out.Seal(part.Batch); err != nil {
		return false, err
	}
	if part.Batch.Len() == 0 {
		return more, nil
	}
	ver, err := p.q.cfg.Store.Apply(ctx, d.slot, part.Batch)
	if err != nil {
		return false, err
	}
	out.Applied(ver)
	part.Applied(ver)
	return more, nil
}

// Accept takes the log that a peer was stopped for in place of the one that is known:
// the peer's store was restored. All of it is sent again.
func (q *Queue) Accept(ctx context.Context, from id.Region) error {
	p := q.peer(from)
	if p == nil {
		return fmt.Errorf("idcqueue: region %d is no peer of region %d", from, q.cfg.Region)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	st := &p.taking
	if st.offered.IsZero() {
		return fmt.Errorf("idcqueue: region %d offers no other log than the one that is known", from)
	}
	next := meta{log: st.offered, again: true}
	if err := writeMeta(ctx, q.cfg.Store, from, next); err != nil {
		return err
	}
	st.known, st.offered = next, flow.Incarnation{}
	st.m.Forget()
	select {
	case p.look <- struct{}{}:
	default: // a token is there already
	}
	return nil
}
