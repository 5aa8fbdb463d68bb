// SPDX-License-Identifier: Apache-2.0

// Package once makes a write with an idempotency key happen once: what the key was
// used for, and the answer, is stored in the batch that has the effect, is found by
// every repetition for 24 hours, and is gone after 50.
package once

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
)

// Table is the first byte of every row of this package. A store that it is used on
// has nothing else there.
//
//	d period scope key -> sum of the request, answer
const Table = 'd'

// Rows are kept by the period they are written in, so that forgetting is a matter of
// ranges. A period is as long as the stretch of time that a row which counts may come
// from: from Keep ago, by a clock that is behind, until now, by one that is ahead.
// So that stretch always touches two periods, and a look-up is two reads.
const (
	// Keep is for how long, at least, a use of a key is known.
	Keep = 24 * time.Hour
	// skew is how far apart the clocks of two processes may be, and how long a request
	// may wait for its write: what Kerberos allows by custom (RFC 4120, section 8.2).
	skew   = 5 * time.Minute
	period = Keep + 2*skew
)

// MaxKey is the most bytes of an idempotency key.
const MaxKey = 64

// CheckKey refuses, in words for users, a key that is too long. None is fine.
func CheckKey(key string) error {
	if len(key) > MaxKey {
		return problem.Invalid("idempotency_key", "has %d bytes, want at most %d", len(key), MaxKey)
	}
	return nil
}

// NeedKey is CheckKey where there must be a key.
func NeedKey(key string) error {
	if key == "" {
		return problem.Invalid("idempotency_key", "is empty, want 1 to %d bytes", MaxKey)
	}
	return CheckKey(key)
}

// ErrReused says that a key came with another request before. It is what users see.
var ErrReused = problem.KeyReused()

// Use is one use of an idempotency key, or of none: the zero Use is never found and
// leaves no record. It is immutable.
type Use struct {
	rows [2][]byte // where a record of the key may lie, the older period first
	at   int       // the one of them that belongs to now
	sum  [sha256.Size]byte
}

// New gives the use of a key, now, for a request of which sum is told by Sum. An empty
// key is none. Scope is whose the key is, an id or several; scopes of one slot that
// mean different things have different lengths.
func New(now time.Time, scope []byte, key string, sum [sha256.Size]byte) Use {
	if key == "" {
		return Use{}
	}
	u := Use{sum: sum}
	first := periodOf(now.Add(-Keep - skew))
	u.at = int(periodOf(now) - first)
	name := sha256.Sum256([]byte(key))
	for i := range u.rows {
		row := append(make([]byte, 0, 5+len(scope)+16), prefix(first+uint32(i))...)
		u.rows[i] = append(append(row, scope...), name[:16]...)
	}
	return u
}

func periodOf(t time.Time) uint32 { return uint32(t.Unix() / int64(period/time.Second)) }

// prefix gives what the rows of a period begin with. Those of earlier ones are before.
func prefix(p uint32) []byte { return binary.BigEndian.AppendUint32([]byte{Table}, p) }

// Sum gives what two requests must share to be the same one. It is stored, so what is
// summed up stays: a part that a later version knows is added only where it is used.
func Sum(parts ...string) [sha256.Size]byte {
	var b []byte
	for _, p := range parts { // each after its length, so that no two lists look alike
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	return sha256.Sum256(b)
}

// IsZero reports whether there is no key.
func (u Use) IsZero() bool { return u.rows[0] == nil }

// Same reports whether two uses are of the same key, be it for different requests.
func (u Use) Same(v Use) bool {
	return !u.IsZero() && !v.IsZero() && bytes.Equal(u.rows[0][5:], v.rows[0][5:])
}

// Answer gives what the key was answered before in a slot, if it was. It fails with
// ErrReused if that was another request, or as the store does.
func (u Use) Answer(ctx context.Context, store kv.Store, slot kv.Slot) (answer []byte, found bool, err error) {
	for _, row := range u.rows {
		if row == nil {
			break
		}
		it, err := store.Get(ctx, slot, row, kv.Linearizable)
		switch {
		case err != nil:
			return nil, false, err
		case it.Ver == 0:
		case len(it.Value) < len(u.sum):
			return nil, false, fmt.Errorf("once: the record under %x is damaged: it has %d bytes, want at least %d", row, len(it.Value), len(u.sum))
		case !bytes.Equal(it.Value[:len(u.sum)], u.sum[:]):
			return nil, false, ErrReused
		default:
			return it.Value[len(u.sum):], true, nil
		}
	}
	return nil, false, nil
}

// Record adds the use and its answer to the batch that has the effect. The batch needs
// a condition that fails if the key has been used since Answer was asked: IfNew, or
// one of its own on a row that all such batches of the slot write.
func (u Use) Record(b *kv.Batch, answer []byte) {
	if !u.IsZero() {
		b.Put(u.rows[u.at], append(u.sum[:], answer...))
	}
}

// IfNew lets a batch apply only if the key has not been used in its slot.
func (u Use) IfNew(b *kv.Batch) {
	if !u.IsZero() {
		b.IfAbsent(u.rows[0]).IfAbsent(u.rows[1])
	}
}
