// SPDX-License-Identifier: Apache-2.0

package kv

// Range is a stretch of keys: From <= key < To. An empty From is the first key of
// the slot, an empty To is past its last.
type Range struct {
	From, To []byte
	// Limit is the most items to return, at most MaxScan; zero means MaxScan.
	Limit int
}

// Prefix gives the range of all keys that start with p.
func Prefix(p []byte, limit int) Range {
	return Range{From: p, To: PrefixEnd(p), Limit: limit}
}

// One gives the range of one key, for sweeps over all slots.
func One(key []byte) Range { return Range{From: key, To: Next(key)} }

// PrefixEnd gives the first key after all keys that start with p, nil if there is
// none because p is empty or all 0xff.
func PrefixEnd(p []byte) []byte {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] != 0xff {
			end := append([]byte(nil), p[:i+1]...)
			end[i]++
			return end
		}
	}
	return nil
}

// Next gives the key that directly follows key: where a scan goes on.
func Next(key []byte) []byte {
	return append(append(make([]byte, 0, len(key)+1), key...), 0)
}
