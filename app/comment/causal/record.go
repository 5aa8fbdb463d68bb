// SPDX-License-Identifier: Apache-2.0

// Package causal holds what the comments and likes of one post are: operations with
// an order that all replicas share and in which causes come first, and the state
// that they fold to in whatever order they arrive.
//
// It is pure: time and ids are arguments, and nothing is read or written. An
// operation is placed by a hybrid logical clock (Kulkarni et al., "Logical Physical
// Clocks", OPODIS 2014): its time is the wall's or one more than the latest seen,
// whichever is later, so an operation is later than all that its region had seen
// when it was made, however far clocks are apart.
package causal

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
)

// Kind is what an operation does. The values are stored.
type Kind uint8

// The kinds of operations.
const (
	Add    Kind = 1 // a new comment
	Delete Kind = 2 // the tombstone of a comment
	Like   Kind = 3 // the writer likes the post
	Unlike Kind = 4 // the writer does not like the post any more
)

// Record is one operation of one post's log.
type Record struct {
	Post id.Post
	// ID places the operation: records are ordered by it, in all replicas alike. Its
	// parts are hybrid time, region, epoch of the region, and a number that the epoch
	// gives once.
	ID id.Comment
	// Seq numbers the operations of one region on one post from 1 without a gap, so
	// that a replica can tell what it lacks.
	Seq    uint64
	Kind   Kind
	Writer id.User
	// Parent is the comment replied to (Add, zero for none) or deleted (Delete).
	Parent id.Comment
	// ReplyTo is the writer of the comment replied to, zero for none.
	ReplyTo id.User
	// Deps is what the region held of the post when it accepted the operation: no
	// replica shows the operation before all that.
	Deps Vector
	// Key is the writer's idempotency key.
	Key string
	// Body is the text of an Add; empty once the comment is deleted.
	Body string
	// Hash is over what never changes of the record, see Sum. Equal ids with other
	// hashes mean that an id was given twice.
	Hash [sha256.Size]byte
}

// Sum gives the hash of a record whose body is still there.
func (r *Record) Sum() [sha256.Size]byte {
	b := make([]byte, 0, 128+len(r.Body))
	b = append(b, "op1"...)
	b = append(b, r.Post[:]...)
	b = append(b, r.ID[:]...)
	b = binary.BigEndian.AppendUint64(b, r.Seq)
	b = append(b, byte(r.Kind))
	b = append(b, r.Writer[:]...)
	b = append(b, r.Parent[:]...)
	b = append(b, r.ReplyTo[:]...)
	b = append(b, r.Body...)
	return sha256.Sum256(b)
}

// Vector is a version vector of one post's log: the last sequence seen of each
// region, ascending by region, regions without any left out.
type Vector []Entry

// Entry is what a Vector holds of one region.
type Entry struct {
	Region id.Region
	Seq    uint64
}

// Of gives the last sequence of a region, 0 if there is none.
func (v Vector) Of(r id.Region) uint64 {
	if i, ok := v.find(r); ok {
		return v[i].Seq
	}
	return 0
}

// With gives the vector with a region's sequence raised to seq. v stays as it is.
func (v Vector) With(r id.Region, seq uint64) Vector {
	i, ok := v.find(r)
	if ok && v[i].Seq >= seq {
		return v
	}
	v = slices.Clone(v)
	if ok {
		v[i].Seq = seq
		return v
	}
	return slices.Insert(v, i, Entry{r, seq})
}

// Covers reports whether all that w has seen v has seen too.
func (v Vector) Covers(w Vector) bool {
	for _, e := range w {
		if v.Of(e.Region) < e.Seq {
			return false
		}
	}
	return true
}

func (v Vector) find(r id.Region) (int, bool) {
	return slices.BinarySearchFunc(v, r, func(e Entry, r id.Region) int { return int(e.Region) - int(r) })
}

// Head is how far one replica is with one post's log.
type Head struct {
	Last int64 // greatest hybrid time seen, in ms
	Seen Vector
}

// ErrTime means that hybrid time has no room left: a corrupt clock got into the log.
var ErrTime = errors.New("causal: hybrid time has reached the end of its range")

// maxTime is the last time that fits an id, in the year 10889.
const maxTime = 1<<48 - 1

// Next places an operation after all that the replica has seen. Its caller has filled
// in who does what; fresh is an id that nobody has, made in the replica's region, whose
// time is replaced. The record's hash is left to the caller's Sum, taken last.
func (h Head) Next(r Record, fresh id.Comment, now time.Time) (Record, Head, error) {
	at := max(now.UnixMilli(), h.Last+1)
	if at > maxTime {
		return r, h, ErrTime
	}
	r.ID = fresh
	for i := range 6 {
		r.ID[i] = byte(at >> (40 - 8*i))
	}
	r.Deps = h.Seen
	r.Seq = h.Seen.Of(r.ID.Region()) + 1
	return r, h.After(&r), nil
}

// After gives the head of a replica that has taken r in.
func (h Head) After(r *Record) Head {
	return Head{Last: max(h.Last, r.ID.Time().UnixMilli()), Seen: h.Seen.With(r.ID.Region(), r.Seq)}
}

// Ready says what a replica is to do with a record that has arrived.
func (h Head) Ready(r *Record) Verdict {
	switch have := h.Seen.Of(r.ID.Region()); {
	case r.Seq <= have:
		return Known
	case r.Seq > have+1 || !h.Seen.Covers(r.Deps):
		return Early
	}
	return Due
}

// Verdict is what becomes of a record that has arrived.
type Verdict uint8

// The verdicts.
const (
	Due   Verdict = iota // all before it is here: take it in
	Known                // it is here already
	Early                // something before it is missing: hold it
)

// The form of a head: version, time, then region and sequence of each entry.
const (
	headVersion  = 1
	headLen      = 1 + 8
	headEntryLen = 2 + 8
)

// Encode gives the bytes to store a head in.
func (h Head) Encode() []byte {
	b := make([]byte, 0, headLen+headEntryLen*len(h.Seen))
	b = append(b, headVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Last))
	for _, e := range h.Seen {
		b = binary.BigEndian.AppendUint16(b, uint16(e.Region))
		b = binary.BigEndian.AppendUint64(b, e.Seq)
	}
	return b
}

// ParseHead reads what Encode gives and nothing else.
func ParseHead(b []byte) (Head, error) {
	if len(b) < headLen || (len(b)-headLen)%headEntryLen != 0 || b[0] != headVersion {
		return Head{}, fmt.Errorf("causal: %d bytes are no head of version %d", len(b), headVersion)
	}
	last := binary.BigEndian.Uint64(b[1:])
	if last > maxTime {
		return Head{}, fmt.Errorf("causal: head with time %d, past %d", last, int64(maxTime))
	}
	h := Head{Last: int64(last)}
	for b = b[headLen:]; len(b) > 0; b = b[headEntryLen:] {
		e := Entry{Region: id.Region(binary.BigEndian.Uint16(b)), Seq: binary.BigEndian.Uint64(b[2:])}
		if e.Seq == 0 || len(h.Seen) > 0 && h.Seen[len(h.Seen)-1].Region >= e.Region {
			return Head{}, fmt.Errorf("causal: head with a bad entry for region %d", e.Region)
		}
		h.Seen = append(h.Seen, e)
	}
	return h, nil
}
