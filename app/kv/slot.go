// SPDX-License-Identifier: Apache-2.0

package kv

// Slots is the number of slots. It never changes: stored keys, and sequences agreed
// with other regions, are per slot.
const Slots = 4096

// Slot is a part of a store, 0 to Slots-1.
type Slot uint16

// SlotOf gives the slot of whatever id names: all that must change together hangs on
// one id. The hash is FNV-1a of 64 bits, folded; like Slots it never changes and is
// the same in every region.
func SlotOf(id []byte) Slot {
	const offset, prime = 0xcbf29ce484222325, 0x100000001b3
	h := uint64(offset)
	for _, c := range id {
		h = (h ^ uint64(c)) * prime
	}
	h ^= h >> 32
	h ^= h >> 16
	return Slot(h % Slots)
}
