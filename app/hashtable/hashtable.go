// SPDX-License-Identifier: Apache-2.0

// Package hashtable is a hash table for caches: what it holds is mostly in memory that
// nobody has touched for long, where each step from one place to another is a miss of the
// processor's cache. The built-in map takes three or four steps for a row; this one takes
// one for the tag, if that, and one for the row.
package hashtable

// Table holds rows by key, in one array with linear probing. The tags of all rows, 32 bits
// of the hash of each, stand side by side in another and are looked at first. New makes
// one; it must not be used concurrently.
type Table[K, R any] struct {
	is    func(*R, K) bool
	tags  []uint32 // of the row in each place, 0 if there is none
	rows  []R
	count int
}

// New makes an empty table. Is reports whether a row is that of a key.
func New[K, R any](is func(row *R, key K) bool) Table[K, R] { return Table[K, R]{is: is} }

// Tag gives a tag of a key's hash: its upper bits.
func Tag(hash uint64) uint32 { return uint32(hash>>32) | 1 }

// Len gives how many rows there are.
func (t *Table[K, R]) Len() int { return t.count }

// Places gives how many places there are for rows, taken or not.
func (t *Table[K, R]) Places() int { return len(t.tags) }

// Full reports whether no further row may be put before there are more places. A fifth
// stays free: fuller, and probing for a row that is not there would take long.
func (t *Table[K, R]) Full() bool { return t.count >= len(t.tags)*4/5 }

// Taken reports whether there is a row in a place.
func (t *Table[K, R]) Taken(i int) bool { return t.tags[i] != 0 }

// Row gives what is in a place. It is good until the table is changed.
func (t *Table[K, R]) Row(i int) *R { return &t.rows[i] }

// Touch brings the tags near that a search begins with. Who looks for many rows and touches
// all of them first waits for memory about once. What it gives says nothing.
func (t *Table[K, R]) Touch(tag uint32) uint32 {
	if t.count == 0 {
		return 0
	}
	return t.tags[t.home(tag)]
}

// Find gives the place of a key's row, -1 if there is none.
func (t *Table[K, R]) Find(tag uint32, key K) int {
	if t.count == 0 {
		return -1
	}
	for i := t.home(tag); t.tags[i] != 0; i = t.next(i) {
		if t.tags[i] == tag && t.is(&t.rows[i], key) {
			return i
		}
	}
	return -1
}

// Put takes a row that is not there, when the table is not full.
func (t *Table[K, R]) Put(tag uint32, r R) {
	i := t.home(tag)
	for t.tags[i] != 0 {
		i = t.next(i)
	}
	t.tags[i], t.rows[i] = tag, r
	t.count++
}

// Remove forgets the row in a place. Those behind it that were not in their first place
// move up (Knuth, The Art of Computer Programming, 6.4, algorithm R); if most places are
// free, half of them go.
func (t *Table[K, R]) Remove(i int) {
	for j := t.next(i); t.tags[j] != 0; j = t.next(j) {
		// The row at j may move to i unless its home lies behind i, up to j itself.
		if h := t.home(t.tags[j]); i < j && (h <= i || h > j) || i > j && h <= i && h > j {
			t.tags[i], t.rows[i] = t.tags[j], t.rows[j]
			i = j
		}
	}
	t.tags[i], t.rows[i] = 0, *new(R)
	t.count--
	if len(t.tags) > 64 && t.count < len(t.tags)/4 {
		t.Resize(len(t.tags) / 2)
	}
}

// Grown gives how many places there should be when there are too few.
func (t *Table[K, R]) Grown() int { return len(t.tags) + len(t.tags)/4 + 4 }

// Resize makes n places, in which there must be room for all rows.
func (t *Table[K, R]) Resize(n int) {
	tags, rows := t.tags, t.rows
	t.tags, t.rows, t.count = make([]uint32, n), make([]R, n), 0
	for i, tag := range tags {
		if tag != 0 {
			t.Put(tag, rows[i])
		}
	}
}

// home gives the place where the search for a tag begins.
func (t *Table[K, R]) home(tag uint32) int { return int(uint64(tag) * uint64(len(t.tags)) >> 32) }

func (t *Table[K, R]) next(i int) int {
	if i++; i < len(t.tags) {
		return i
	}
	return 0
}
