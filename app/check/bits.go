// SPDX-License-Identifier: Apache-2.0

package check

import (
	"math/bits"
	"slices"
)

// set is a set of small numbers. It grows by copying, so that one which is kept stays
// as it was.
type set []uint64

func (s set) has(i int) bool { return i>>6 < len(s) && s[i>>6]&(1<<(i&63)) != 0 }

// add changes s, or a larger copy.
func (s set) add(i int) set {
	if i>>6 >= len(s) {
		s = append(s, make([]uint64, i>>6+1-len(s))...)
	}
	s[i>>6] |= 1 << (i & 63)
	return s
}

// join changes s, or a larger copy.
func (s set) join(t set) set {
	if len(t) > len(s) {
		s = append(s, make([]uint64, len(t)-len(s))...)
	}
	for i, w := range t {
		s[i] |= w
	}
	return s
}

func (s set) clone() set { return slices.Clone(s) }

// without gives s less t; s stays as it is.
func (s set) without(t set) set {
	s = s.clone()
	for i := range min(len(s), len(t)) {
		s[i] &^= t[i]
	}
	return s
}

// meet gives what s and t share; s stays as it is.
func (s set) meet(t set) set {
	both := s[:min(len(s), len(t))].clone()
	for i := range both {
		both[i] &= t[i]
	}
	return both
}

func (s set) empty() bool {
	for _, w := range s {
		if w != 0 {
			return false
		}
	}
	return true
}

// all gives the members, ascending.
func (s set) all(yield func(int) bool) {
	for i, w := range s {
		for ; w != 0; w &= w - 1 {
			if !yield(i<<6 + bits.TrailingZeros64(w)) {
				return
			}
		}
	}
}
