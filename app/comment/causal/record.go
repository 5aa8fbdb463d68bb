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
	// Deps is what the region held of the post when it accepted the operation, which
	// is at least all that the writer's session had seen: no replica takes the
	// operation in before all that.
	Deps Vector
	// Key is the writer's idempotency key.
	Key string
	// Body is the text of an Add; empty once the comment is deleted.
	Body string
	// Grave is the place of a Delete by which an Add has no Body any more. It is not in
	// Hash: whoever blanks a record adds it. It says how far a replica has to be that the
	// session of who was shown the mark goes on at, see Thread.Ahead.
	Grave Entry
	// Hash is over what never changes of the record, see Sum. Equal ids with other
	// hashes mean that an id was given twice.
	Hash [sha256.Size]byte
}

// Sum gives the hash of a record whose body is still there. It is over all but the
// hash and the grave, each part after its length where that varies.
func (r *Record) Sum() [sha256.Size]byte {
	b := make([]byte, 0, 160+headEntryLen*len(r.Deps)+len(r.Key)+len(r.Body))
	b = append(b, "op2"...)
	b = append(b, r.Post[:]...)
	b = append(b, r.ID[:]...)
	b = binary.BigEndian.AppendUint64(b, r.Seq)
	b = append(b, byte(r.Kind))
	b = append(b, r.Writer[:]...)
	b = append(b, r.Parent[:]...)
	b = append(b, r.ReplyTo[:]...)
	b = binary.AppendUvarint(b, uint64(len(r.Deps)))
	b = r.Deps.append(b)
	b = binary.AppendUvarint(b, uint64(len(r.Key)))
	b = append(b, r.Key...)
	b = append(b, r.Body...)
	return sha256.Sum256(b)
}

// Fork reports whether two records claim one place in one post's log, an id or a
// region's sequence, but are not the same: a disk was set back, or an id given twice.
// Replicas agree on which of two records of one id they show, see Thread; the other
// stays in the log of who has it, and somebody must be told.
func (r *Record) Fork(other *Record) bool {
	place := r.ID == other.ID || r.ID.Region() == other.ID.Region() && r.Seq == other.Seq
	return r.Post == other.Post && place && (r.ID != other.ID || r.Hash != other.Hash)
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

// Join gives what v or w has seen. v and w stay as they are.
func (v Vector) Join(w Vector) Vector {
	for _, e := range w {
		v = v.With(e.Region, e.Seq)
	}
	return v
}

// Meet gives what both v and w have seen.
func (v Vector) Meet(w Vector) Vector {
	var both Vector
	for _, e := range v {
		if seq := min(e.Seq, w.Of(e.Region)); seq > 0 {
			both = append(both, Entry{e.Region, seq})
		}
	}
	return both
}

// Gaps gives what w has seen and v has not: what a replica at v asks one at w for.
func (v Vector) Gaps(w Vector) []Gap {
	var gaps []Gap
	for _, e := range w {
		if have := v.Of(e.Region); have < e.Seq {
			gaps = append(gaps, Gap{Region: e.Region, From: have + 1, To: e.Seq})
		}
	}
	return gaps
}

// Encode gives the bytes to store or send a vector in.
func (v Vector) Encode() []byte { return v.append(make([]byte, 0, headEntryLen*len(v))) }

// ParseVector reads what Encode gives and nothing else.
func ParseVector(b []byte) (Vector, error) {
	if len(b)%headEntryLen != 0 {
		return nil, fmt.Errorf("causal: %d bytes are no vector", len(b))
	}
	var v Vector
	for ; len(b) > 0; b = b[headEntryLen:] {
		e := Entry{Region: id.Region(binary.BigEndian.Uint16(b)), Seq: binary.BigEndian.Uint64(b[2:])}
		if e.Seq == 0 || len(v) > 0 && v[len(v)-1].Region >= e.Region {
			return nil, fmt.Errorf("causal: a vector with a bad entry for region %d", e.Region)
		}
		v = append(v, e)
	}
	return v, nil
}

func (v Vector) append(b []byte) []byte {
	for _, e := range v {
		b = binary.BigEndian.AppendUint16(b, uint16(e.Region))
		b = binary.BigEndian.AppendUint64(b, e.Seq)
	}
	return b
}

func (v Vector) find(r id.Region) (int, bool) {
	return slices.BinarySearchFunc(v, r, func(e Entry, r id.Region) int { return int(e.Region) - int(r) })
}

// Head is how far one replica is with one post's log.
type Head struct {
	Last int64 // greatest hybrid time seen, in ms
	Seen Vector
	// Sum is over all operations that Seen counts. Two replicas that have seen the same
	// and have other sums hold other operations: there is a fork, see Record.Fork. A log
	// that was begun before there were sums has none.
	Sum Sum
}

// Sum tells sets of operations apart, in whatever order they came. It is the exclusive
// or of the beginnings of their hashes: enough against accidents.
type Sum [16]byte

func (s Sum) with(r *Record) Sum {
	for i := range s {
		s[i] ^= r.Hash[i]
	}
	return s
}

// ErrTime means that hybrid time has no room left: a corrupt clock got into the log.
var ErrTime = errors.New("causal: hybrid time has reached the end of its range")

// ErrBehind means that the writer's session has seen what this replica lacks.
var ErrBehind = errors.New("causal: the session has seen what this replica has not")

// maxTime is the last time that fits an id, in the year 10889.
const maxTime = 1<<48 - 1

// Next places an operation after all that the replica has seen. Its caller has filled
// in who does what, and in Deps what the writer's session has seen: a replica that has
// seen less fails with ErrBehind. Fresh is an id that nobody has, made in the replica's
// region, whose time is replaced.
func (h Head) Next(r Record, fresh id.Comment, now time.Time) (Record, Head, error) {
	if !h.Seen.Covers(r.Deps) {
		return r, h, ErrBehind
	}
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
	r.Hash = r.Sum()
	return r, h.After(&r), nil
}

// After gives the head of a replica that has taken r in.
func (h Head) After(r *Record) Head {
	next := Head{Last: max(h.Last, r.ID.Time().UnixMilli()), Seen: h.Seen.With(r.ID.Region(), r.Seq)}
	if len(h.Seen) == 0 || h.Sum != (Sum{}) {
		next.Sum = h.Sum.with(r)
	}
	return next
}

// Beside gives the head of a replica that keeps r beside the operation that has r's
// place, with which it is a Fork.
func (h Head) Beside(r *Record) Head {
	h.Last = max(h.Last, r.ID.Time().UnixMilli())
	if h.Sum != (Sum{}) {
		h.Sum = h.Sum.with(r)
	}
	return h
}

// Differs reports whether two replicas that have seen the same hold other operations.
func (h Head) Differs(other Head) bool {
	return slices.Equal(h.Seen, other.Seen) && h.Sum != other.Sum && h.Sum != (Sum{}) && other.Sum != (Sum{})
}

// Ready says what a replica is to do with a record that has arrived, going by nothing
// but what it has seen.
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
	Due     Verdict = iota // all before it is here: take it in
	Known                  // it is here already
	Early                  // something before it is missing: hold it
	Refused                // it is not to be taken in: put it into quarantine
)

// The form of a head: version, time, sum, then region and sequence of each entry.
// Version 1 had no sum.
const (
	headVersion  = 2
	headSummed   = 1 + 8 + len(Sum{})
	headUnsummed = 1 + 8
	headEntryLen = 2 + 8
)

// Encode gives the bytes to store a head in.
func (h Head) Encode() []byte {
	b := make([]byte, 0, headSummed+headEntryLen*len(h.Seen))
	b = append(b, headVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Last))
	b = append(b, h.Sum[:]...)
	return h.Seen.append(b)
}

// ParseHead reads what Encode gives, or gave before there were sums, and nothing else.
func ParseHead(b []byte) (Head, error) {
	length := headSummed
	if len(b) > 0 && b[0] == 1 {
		length = headUnsummed
	}
	if len(b) < length || b[0] == 0 || b[0] > headVersion {
		return Head{}, fmt.Errorf("causal: %d bytes are no head of version 1 or %d", len(b), headVersion)
	}
	last := binary.BigEndian.Uint64(b[1:])
	if last > maxTime {
		return Head{}, fmt.Errorf("causal: head with time %d, past %d", last, int64(maxTime))
	}
	seen, err := ParseVector(b[length:])
	if err != nil {
		return Head{}, fmt.Errorf("causal: head: %w", err)
	}
	h := Head{Last: int64(last), Seen: seen}
	copy(h.Sum[:], b[headUnsummed:length])
	return h, nil
}
