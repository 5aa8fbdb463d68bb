// SPDX-License-Identifier: Apache-2.0

package homes

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"sync"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
)

// Rows of a store that has a Book, in the slot of their user but for the last, which are
// together in one slot and say at whom a start must look:
//
//	M user        -> Home    where he is at home
//	z user        -> epoch   all that his old home had of him at that epoch is here
//	Homes/ user   -> nothing
//
// M sorts before all copied rows of a service, and z after them, so whoever gets a slot as
// a whole knows first whose rows he gets, and last that these were all.
const (
	TableHome  = 'M'
	TableWhole = 'z'
)

var indexKey = []byte("Homes/")

// Book is a Table of one service, kept in its store.
type Book struct {
	Table
	store kv.Store

	more    sync.Mutex
	indexed map[id.User]bool   // guarded by more
	whole   map[id.User]uint32 // guarded by more
}

// Key gives where somebody's home is kept, in his slot.
func Key(u id.User) []byte { return append([]byte{TableHome}, u[:]...) }

// WholeKey gives where it is kept that all of somebody is here, in his slot.
func WholeKey(u id.User) []byte { return append([]byte{TableWhole}, u[:]...) }

// WholeValue is what stands there.
func WholeValue(epoch uint32) []byte { return binary.BigEndian.AppendUint32(nil, epoch) }

// Open reads who has moved.
func Open(ctx context.Context, store kv.Store) (*Book, error) {
	b := &Book{store: store, indexed: make(map[id.User]bool), whole: make(map[id.User]uint32)}
	r := kv.Prefix(indexKey, kv.MaxScan)
	for {
		items, more, err := store.Scan(ctx, kv.SlotOf(indexKey), r, kv.Linearizable)
		if err != nil {
			return nil, fmt.Errorf("homes: read who has moved: %w", err)
		}
		for _, it := range items {
			if len(it.Key) != len(indexKey)+16 {
				return nil, fmt.Errorf("homes: row %x is damaged", it.Key)
			}
			if err := b.load(ctx, id.User(it.Key[len(indexKey):])); err != nil {
				return nil, err
			}
		}
		if !more || len(items) == 0 {
			return b, nil
		}
		r.From = kv.Next(items[len(items)-1].Key)
	}
}

func (b *Book) load(ctx context.Context, u id.User) error {
	b.indexed[u] = true
	slot := kv.SlotOf(u[:])
	it, err := b.store.Get(ctx, slot, Key(u), kv.Linearizable)
	if err == nil && it.Ver != 0 {
		var h Home
		if h, err = Parse(it.Value); err == nil {
			b.Learn(h)
		}
	}
	if err != nil {
		return fmt.Errorf("homes: read where %v is at home: %w", u, err)
	}
	if it, err = b.store.Get(ctx, slot, WholeKey(u), kv.Linearizable); err != nil {
		return fmt.Errorf("homes: read how much of %v is here: %w", u, err)
	}
	if len(it.Value) == 4 {
		b.LearnWhole(u, binary.BigEndian.Uint32(it.Value))
	}
	return nil
}

// Prepare makes sure that a start finds what will be kept of somebody. It comes before the
// batch that keeps it.
func (b *Book) Prepare(ctx context.Context, u id.User) error {
	b.more.Lock()
	known := b.indexed[u]
	b.more.Unlock()
	if known {
		return nil
	}
	key := append(append([]byte(nil), indexKey...), u[:]...)
	if _, err := b.store.Apply(ctx, kv.SlotOf(indexKey), new(kv.Batch).Put(key, nil)); err != nil {
		return fmt.Errorf("homes: note that %v moves: %w", u, err)
	}
	b.more.Lock()
	defer b.more.Unlock()
	b.indexed[u] = true
	return nil
}

// LearnWhole notes that all of somebody is here, once that is durable.
func (b *Book) LearnWhole(u id.User, epoch uint32) {
	b.more.Lock()
	defer b.more.Unlock()
	b.whole[u] = max(b.whole[u], epoch)
}

// Whole reports whether all is here that somebody's old home had of him when it was fenced.
func (b *Book) Whole(h Home) bool {
	b.more.Lock()
	defer b.more.Unlock()
	return h.Epoch > 0 && b.whole[h.User] >= (h.Epoch-1)/steps*steps+1
}

// Moving gives those who are being moved.
func (b *Book) Moving() (moving []Home) {
	for h := range maps.Values(b.All()) {
		if h.Next != 0 {
			moving = append(moving, h)
		}
	}
	return moving
}
