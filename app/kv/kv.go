// SPDX-License-Identifier: Apache-2.0

// Package kv is the ordered key-value store that every service of Moments keeps
// its data in: a narrow contract that an embedded engine and a distributed one
// can both keep.
//
// Keys live in slots. A slot is the unit of atomicity and of placement: one batch
// changes one slot, all or nothing, and a distributed driver moves slots between
// machines. Deliberately absent, because one of the engines could only pretend:
// transactions over several slots, descending scans, watches, expiry, increments.
// Newest-first order is made by inverting a sequence number in the key.
//
// Drivers are pebblekv (embedded) and memkv (memory, with crashes on demand). Both
// pass the one suite in kvtest.
package kv

import (
	"context"
	"errors"
	"fmt"
)

// Limits of the contract. They are below etcd's defaults of 128 operations and
// 1.5 MiB per transaction, so that a batch accepted by one driver is accepted by
// all. Bytes count keys and values.
const (
	MaxKey       = 1 << 10   // bytes of one key
	MaxValue     = 256 << 10 // bytes of one value
	MaxOps       = 100       // operations of one Batch, conditions included
	MaxBatch     = 512 << 10 // bytes of one Batch
	MaxScan      = 1000      // items of one Scan
	MaxScanBytes = 4 << 20   // bytes after which a Scan stops early, saying that there is more
	MaxBulk      = 10_000    // puts of one BulkPut
	MaxBulkBytes = 4 << 20   // bytes of one BulkPut
)

// The errors of a Store, to be told apart with errors.Is. For each it is said
// whether a batch may have been applied.
var (
	// ErrConflict: a condition of the batch did not hold. Not applied. Read again
	// and decide again.
	ErrConflict = errors.New("kv: condition does not hold")
	// ErrUnavailable: the store cannot answer now. Not applied. Safe to try again,
	// later or elsewhere. A call whose context had already ended returns it together
	// with the context's error.
	ErrUnavailable = errors.New("kv: store unavailable")
	// ErrUnknown: the outcome was lost. The batch may have been applied, now or
	// soon. Repeat it only if repeating does no harm; otherwise read first.
	ErrUnknown = errors.New("kv: outcome unknown")
	// ErrTooLarge: the call exceeds a limit of this package. Not applied, and will
	// never be.
	ErrTooLarge = errors.New("kv: too large")
	// ErrInvalid: the call breaks a rule of this package, such as an empty key or a
	// key written twice by one batch. Not applied, and will never be.
	ErrInvalid = errors.New("kv: invalid call")
	// ErrQuota: the store is full. Not applied. Deletes may still be accepted.
	ErrQuota = errors.New("kv: store is full")
	// ErrClosed: the store was closed. Not applied. It is also an ErrUnavailable.
	ErrClosed = fmt.Errorf("%w: closed", ErrUnavailable)
)

// ReadMode says how fresh a read must be.
type ReadMode uint8

const (
	// Linearizable reads see every write acknowledged before they began, and nothing
	// that a crash could still take back: a caller may act on what it read.
	Linearizable ReadMode = iota
	// Local reads are answered from what is nearest and never wait for another
	// machine or for the disk. They may be old, and they may show a write that is not
	// durable yet. For pages that people look at.
	Local
)

// Item is a stored key. Its slices are for reading: many may have received the same
// memory. Nothing changes it as long as somebody holds it; appending to a slice copies
// it.
type Item struct {
	Key   []byte
	Value []byte
	// Ver is the version given by the write that stored the item. Versions of one
	// key only grow, and none is ever used for two writes. Zero means that the key
	// is absent.
	Ver uint64
}

// Store is a driver. All methods may be called concurrently, Close included. The
// slices of a call must stay unchanged until it returns; none is kept.
//
// An error that is none of this package's is a fault of the store itself, a damaged
// file for example.
type Store interface {
	// Get reads one key. An absent key is no error: the Item is the zero Item.
	Get(ctx context.Context, slot Slot, key []byte, mode ReadMode) (Item, error)
	// Scan reads the items of r in ascending order of their keys, as one snapshot.
	// More says that further items follow within r; go on from Next of the last key.
	Scan(ctx context.Context, slot Slot, r Range, mode ReadMode) (items []Item, more bool, err error)
	// Apply makes all changes of b, or none if a condition does not hold. On return
	// without error they are durable, and ver is the version of every item written.
	Apply(ctx context.Context, slot Slot, b *Batch) (ver uint64, err error)
	// BulkPut stores values in many slots at the cost of one write. Each slot's part
	// is all or nothing, the whole is not; on any error repeat all of it, which is
	// safe. On return without error all of it is durable. Of two puts of one key the
	// later wins.
	BulkPut(ctx context.Context, puts []SlotPut) error
	// Close waits for the calls in progress and gives everything back. Calls that
	// come later get ErrClosed; closing twice is no error.
	Close() error
}

// Stamper is a Store that says, for less than a Get costs, that nothing in a slot has
// changed. Whoever keeps what he has made of a row asks it instead of reading the row's
// version.
type Stamper interface {
	Store
	// Stamp gives a number of the slot's state: who takes one, reads in Local mode, and
	// later is given the same one would read the same again. Numbers hold as long as the
	// Store is open. Ok is false if there is none now.
	Stamp(slot Slot) (stamp uint64, ok bool)
}

// StampOf gives a store's Stamp, or one that never has any.
func StampOf(s Store) func(Slot) (stamp uint64, ok bool) {
	if s, ok := s.(Stamper); ok {
		return s.Stamp
	}
	return func(Slot) (uint64, bool) { return 0, false }
}

// Many is a Store that reads many keys for less than as many Gets cost.
type Many interface {
	Store
	// GetMany gives what Get would give of each place, in their order, and the first error.
	GetMany(ctx context.Context, places []Place, mode ReadMode) ([]Item, error)
}

// GetMany reads many keys, each as it is at some moment of the call.
func GetMany(ctx context.Context, s Store, places []Place, mode ReadMode) (items []Item, err error) {
	if s, ok := s.(Many); ok {
		return s.GetMany(ctx, places, mode)
	}
	items = make([]Item, len(places))
	for i, p := range places {
		if items[i], err = s.Get(ctx, p.Slot, p.Key, mode); err != nil {
			return nil, err
		}
	}
	return items, nil
}

// SlotPut is one put of a BulkPut.
type SlotPut struct {
	Slot  Slot
	Key   []byte
	Value []byte
}
