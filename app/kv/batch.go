// SPDX-License-Identifier: Apache-2.0

package kv

// Batch is a set of changes to one slot under conditions. The zero Batch is empty
// and ready. Conditions look at the state before the batch. A key is written at most
// once, and not inside a range deleted by the same batch, so that order within a
// batch does not matter. A Batch keeps the slices it is given.
type Batch struct {
	conds  []Cond
	writes []Write
}

// Cond is a condition of a Batch: Key has version Ver, or is absent if Ver is 0.
type Cond struct {
	Key []byte
	Ver uint64
}

// WriteKind says what a Write does.
type WriteKind uint8

// The kinds of writes.
const (
	PutKey WriteKind = iota
	DeleteKey
	DeleteKeys // Key <= k < To
)

// Write is a change in a Batch, for drivers to read.
type Write struct {
	Kind  WriteKind
	Key   []byte
	Value []byte // of PutKey
	To    []byte // of DeleteKeys
}

// usualWrites is how many writes a batch has room for from the first: those of a change
// with its head, its idempotency key and a record that tells of it.
const usualWrites = 6

// Put stores value under key.
func (b *Batch) Put(key, value []byte) *Batch {
	if b.writes == nil {
		b.writes = make([]Write, 0, usualWrites)
	}
	b.writes = append(b.writes, Write{Kind: PutKey, Key: key, Value: value})
	return b
}

// Delete removes key if it is there.
func (b *Batch) Delete(key []byte) *Batch {
	b.writes = append(b.writes, Write{Kind: DeleteKey, Key: key})
	return b
}

// DeleteRange removes all keys with from <= key < to. Empty bounds are those of the
// slot, as in Range.
func (b *Batch) DeleteRange(from, to []byte) *Batch {
	b.writes = append(b.writes, Write{Kind: DeleteKeys, Key: from, To: to})
	return b
}

// IfVer lets the batch apply only if key has version ver; 0 means absent.
func (b *Batch) IfVer(key []byte, ver uint64) *Batch {
	b.conds = append(b.conds, Cond{Key: key, Ver: ver})
	return b
}

// IfAbsent lets the batch apply only if key is absent.
func (b *Batch) IfAbsent(key []byte) *Batch { return b.IfVer(key, 0) }

// Conds gives the conditions. They must not be changed.
func (b *Batch) Conds() []Cond { return b.conds }

// Writes gives the changes. They must not be changed.
func (b *Batch) Writes() []Write { return b.writes }

// Len gives the number of operations, conditions included.
func (b *Batch) Len() int { return len(b.conds) + len(b.writes) }

// Size gives the bytes of all keys and values, what MaxBatch limits.
func (b *Batch) Size() int {
	n := 0
	for _, c := range b.conds {
		n += len(c.Key)
	}
	for _, w := range b.writes {
		n += len(w.Key) + len(w.Value) + len(w.To)
	}
	return n
}

// Reset empties the batch for another use.
func (b *Batch) Reset() {
	clear(b.conds)
	clear(b.writes)
	b.conds, b.writes = b.conds[:0], b.writes[:0]
}
