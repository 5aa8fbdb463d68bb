// SPDX-License-Identifier: Apache-2.0

package idcqueue

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue/flow"
	"github.com/sluice-rpc/sluice/app/kv"
)

// Rows of a slot. A store that has a queue has nothing else under these letters.
//
//	R region                      -> incarnation, number    cursor of what came from that region
//	Q region number place part    -> piece of a message     what was refused: see quarantine.go
//
// And in slots of their own:
//
//	idcqueue/incarnation          -> incarnation            of this store's log
//	idcqueue/peer/N               -> incarnation, flags     what is known of region N's log
const (
	TableCursor     = 'R'
	TableQuarantine = 'Q'
)

// IncarnationKey is where the incarnation of a store's log is kept, in the slot of the
// same name.
var IncarnationKey = []byte("idcqueue/incarnation")

func cursorKey(from id.Region) []byte {
	return binary.BigEndian.AppendUint16([]byte{TableCursor}, uint16(from))
}

func metaKey(from id.Region) []byte { return fmt.Appendf(nil, "idcqueue/peer/%d", from) }

const incarnationLen = len(flow.Incarnation{})

// newIncarnation makes one that no other store has.
func newIncarnation() (i flow.Incarnation) {
	_, _ = rand.Read(i[:]) // it never fails
	return i
}

// incarnation gives that of a store's log, and makes it if there is none.
func incarnation(ctx context.Context, store kv.Store) (own flow.Incarnation, err error) {
	slot := kv.SlotOf(IncarnationKey)
	for range 10 { // each lost to another process's first start
		it, err := store.Get(ctx, slot, IncarnationKey, kv.Linearizable)
		if err != nil {
			return own, fmt.Errorf("idcqueue: read the incarnation of the store: %w", err)
		}
		if it.Ver != 0 {
			if len(it.Value) != incarnationLen {
				return own, fmt.Errorf("idcqueue: the incarnation of the store has %d bytes, want %d", len(it.Value), incarnationLen)
			}
			return flow.Incarnation(it.Value), nil
		}
		made := newIncarnation()
		_, err = store.Apply(ctx, slot, new(kv.Batch).IfAbsent(IncarnationKey).Put(IncarnationKey, made[:]))
		if err != nil && !errors.Is(err, kv.ErrConflict) && !errors.Is(err, kv.ErrUnknown) {
			return own, fmt.Errorf("idcqueue: store an incarnation: %w", err)
		}
	}
	return own, errors.New("idcqueue: the store does not keep an incarnation")
}

// Renew gives a store that was restored from a copy a new incarnation, if it had one: the
// copy's log has an end that other regions have gone beyond, and what is written after it
// is not what they have. They stop at the new one until somebody accepts it, and get a
// snapshot then.
func Renew(ctx context.Context, store kv.Store) error {
	slot := kv.SlotOf(IncarnationKey)
	it, err := store.Get(ctx, slot, IncarnationKey, kv.Linearizable)
	if err != nil {
		return fmt.Errorf("idcqueue: read the incarnation of the store: %w", err)
	}
	if it.Ver == 0 {
		return nil
	}
	made := newIncarnation()
	if _, err = store.Apply(ctx, slot, new(kv.Batch).Put(IncarnationKey, made[:])); err != nil {
		return fmt.Errorf("idcqueue: store a new incarnation: %w", err)
	}
	return nil
}

// cursor is how far a slot is in the log of a region, as it is stored.
type cursor struct {
	number  uint64
	present bool
	ver     uint64 // of its row
}

func appendCursor(log flow.Incarnation, number uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, incarnationLen+8), log[:]...), number)
}

// readCursor reads a slot's cursor.
func readCursor(ctx context.Context, store kv.Store, slot kv.Slot, from id.Region, log flow.Incarnation) (c cursor, err error) {
	it, err := store.Get(ctx, slot, cursorKey(from), kv.Linearizable)
	if err != nil {
		return c, fmt.Errorf("idcqueue: read how far region %d is applied in slot %d: %w", from, slot, err)
	}
	return parseCursor(it, slot, from, log)
}

// parseCursor takes a cursor from its row. One in another log counts as absent.
func parseCursor(it kv.Item, slot kv.Slot, from id.Region, log flow.Incarnation) (c cursor, err error) {
	c.ver = it.Ver
	switch {
	case it.Ver == 0:
	case len(it.Value) != incarnationLen+8:
		return c, fmt.Errorf("idcqueue: the cursor of region %d in slot %d has %d bytes, want %d", from, slot, len(it.Value), incarnationLen+8)
	case flow.Incarnation(it.Value[:incarnationLen]) == log:
		c.present, c.number = true, binary.BigEndian.Uint64(it.Value[incarnationLen:])
	}
	return c, nil
}

// meta is what is known of a region's log.
type meta struct {
	log   flow.Incarnation // zero if it was never met
	again bool             // an operator has accepted it in place of another: all of it must be sent
}

func readMeta(ctx context.Context, store kv.Store, from id.Region) (m meta, err error) {
	key := metaKey(from)
	it, err := store.Get(ctx, kv.SlotOf(key), key, kv.Linearizable)
	if err != nil {
		return m, fmt.Errorf("idcqueue: read what is known of region %d: %w", from, err)
	}
	if it.Ver == 0 {
		return m, nil
	}
	if len(it.Value) != incarnationLen+1 {
		return m, fmt.Errorf("idcqueue: what is known of region %d has %d bytes, want %d", from, len(it.Value), incarnationLen+1)
	}
	return meta{log: flow.Incarnation(it.Value[:incarnationLen]), again: it.Value[incarnationLen] != 0}, nil
}

func writeMeta(ctx context.Context, store kv.Store, from id.Region, m meta) error {
	key, value := metaKey(from), append(m.log[:], 0)
	if m.again {
		value[incarnationLen] = 1
	}
	if _, err := store.Apply(ctx, kv.SlotOf(key), new(kv.Batch).Put(key, value)); err != nil {
		return fmt.Errorf("idcqueue: store what is known of region %d: %w", from, err)
	}
	return nil
}
