// SPDX-License-Identifier: Apache-2.0

// Package outbox lets a service tell others what it has written, surely and in order:
// a record goes into the batch that has the effect, and is delivered afterwards until
// that has succeeded, whatever crashes in between.
//
// Records are numbered without a gap in each slot, and delivered in that order; slots
// do not wait for each other. A record may be delivered twice, after a crash, so who
// takes it must know it again.
//
// One record has several consumers, each with a cursor of its own: at most one in the
// service's own region, which the Box calls, and one for each other region, which reads
// by a Peer as far as its line bears. What all have passed is removed. A peer that stays
// away for too long does not hold records back for ever: it is dropped, loudly, and
// needs a snapshot when it is back; the local consumer never is.
package outbox

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/framework"
)

// Rows of a slot. A store that has an outbox has nothing else under these letters.
//
//	c          -> seq       how far the log has been removed
//	c consumer -> seq       how far the local consumer is
//	c peer     -> position  how far a peer is; empty if it needs a snapshot
//	o seq      -> record    what to tell
//	q          -> position  the last record's; only its seq in a store that never had peers
//
// Numbers are big-endian. A position is three of them: see Pos.
const (
	TableCursor = 'c'
	TableRecord = 'o'
	TableSeq    = 'q'
)

// BatchOps is what an outbox needs of a batch: so many operations, and one more for
// each record.
const BatchOps = 2

// MaxBody is the longest body of a record in bytes: it names what has changed rather
// than repeating it.
const MaxBody = 64 << 10

var seqKey, trimmedKey = []byte{TableSeq}, []byte{TableCursor}

const recordKeyLen = 9

func recordKey(seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, recordKeyLen), TableRecord), seq)
}

// isRecord reports whether a key is the recordKey of a sequence.
func isRecord(key []byte, seq uint64) bool {
	return len(key) == recordKeyLen && key[0] == TableRecord && binary.BigEndian.Uint64(key[1:]) == seq
}

func cursorKey(consumer string) []byte { return append([]byte{TableCursor}, consumer...) }

func appendSeq(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// parseSeq reads a sequence; an absent one is 0.
func parseSeq(it kv.Item) (uint64, error) {
	if it.Ver == 0 {
		return 0, nil
	}
	if len(it.Value) != 8 {
		return 0, fmt.Errorf("outbox: the sequence under %q has %d bytes, want 8", it.Key, len(it.Value))
	}
	return binary.BigEndian.Uint64(it.Value), nil
}

// Pos is a place in the log of a slot: after how many records it is, from the first that
// was ever put there.
type Pos struct {
	Seq    uint64 // records of any kind: the sequence of the last one
	Number uint64 // those for peers, who number them without a gap, too
	Bytes  uint64 // their size in the store, counted since there are peers
}

const posLen = 24

func (p Pos) encode() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, posLen), p.Seq)
	if p.Number == 0 && p.Bytes == 0 {
		return b // as in a store that has no peers
	}
	b = binary.BigEndian.AppendUint64(b, p.Number)
	return binary.BigEndian.AppendUint64(b, p.Bytes)
}

// parsePos reads a position; an absent one is the beginning.
func parsePos(it kv.Item) (p Pos, err error) {
	if it.Ver == 0 || len(it.Value) != posLen {
		p.Seq, err = parseSeq(it)
		return p, err
	}
	p.Seq = binary.BigEndian.Uint64(it.Value)
	p.Number = binary.BigEndian.Uint64(it.Value[8:])
	p.Bytes = binary.BigEndian.Uint64(it.Value[16:])
	return p, nil
}

// Config is what a Box is made of. Fields without a default are required.
type Config struct {
	// Store is where the records are, beside what they tell of.
	Store kv.Store
	// Queue is the outbox in call graphs and traces.
	Queue *framework.Queue

	// Consumer names who is told in the own region: it never changes, for the cursor is
	// stored under it.
	Consumer string
	// Deliver tells the local consumer; nil if there is none.
	Deliver Deliver
	// Timeout bounds one Deliver; 0 means 30 s.
	Timeout time.Duration
	// Workers is how many Delivers are under way at a time; 0 means 2.
	Workers int
	// Linger is how long a worker waits for more records to share a call; 0 means 20 ms.
	Linger time.Duration
	// Group is the most records of one Deliver; 0 means 100.
	Group int

	// Peers names the consumers in other regions that there are at first. Like Consumer,
	// they are stored. Nil means that there never are any; with an empty list Join may add
	// some, and records for peers are numbered already.
	Peers []string
	// Retain is how far a peer may stay behind.
	Retain Retention

	// Log takes what operators should see; nil means slog.Default.
	Log *slog.Logger
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
}

// Retention is how far a peer may stay behind before it is dropped. Zero fields mean
// the defaults.
type Retention struct {
	Records uint64        // in all slots together; 0 means 10 million
	Bytes   uint64        // in the store; 0 means 4 GiB
	Age     time.Duration // of the oldest record; 0 means 72 h
}

// Box is the outbox of one store. Its methods may be called concurrently.
type Box struct {
	cfg   Config
	lanes [kv.Slots]lane
	wake  chan struct{} // holds a token while ready may not be empty
	ready []kv.Slot     // guarded by mu; queued slots, first come first served
	found chan struct{} // closed when an earlier process's records have been found

	mu        sync.Mutex
	peers     []*Peer            // guarded by mu; replaced, its elements are never changed
	leaves    int                // guarded by mu; peers that have left
	swept     int                // guarded by mu; of them, those whose records have been removed
	slots     [kv.Slots]progress // guarded by mu
	whole     bool               // guarded by mu; found is closed
	delivered uint64             // guarded by mu
	failures  uint64             // guarded by mu
}

// New makes a Box. Run delivers.
func New(cfg Config) *Box {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 2
	}
	if cfg.Linger <= 0 {
		cfg.Linger = 20 * time.Millisecond
	}
	if cfg.Group <= 0 {
		cfg.Group = 100
	}
	if cfg.Retain.Records == 0 {
		cfg.Retain.Records = 10_000_000
	}
	if cfg.Retain.Bytes == 0 {
		cfg.Retain.Bytes = 4 << 30
	}
	if cfg.Retain.Age <= 0 {
		cfg.Retain.Age = 72 * time.Hour
	}
	b := &Box{cfg: cfg, wake: make(chan struct{}, 1), found: make(chan struct{})}
	for _, name := range cfg.Peers {
		b.peers = append(b.peers, newPeer(b, name))
	}
	return b
}

// joined reports whether there may be peers: then records for them are numbered, also
// while there are none, so that who joins misses none that is put while it does.
func (b *Box) joined() bool { return b.cfg.Peers != nil }

// Status is how far delivery is.
type Status struct {
	Delivered uint64 // records, since the start
	Pending   uint64 // records; at least that many while an earlier process's are looked for
	Failures  uint64 // failed Delivers, each of which was or will be repeated
	Peers     []PeerStatus
}

// Status tells how far delivery is.
func (b *Box) Status() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Status{Delivered: b.delivered, Failures: b.failures}
	if !b.whole && b.cfg.Deliver != nil {
		s.Pending++
	}
	for i := range b.slots {
		switch p := &b.slots[i]; {
		case !p.loaded && p.queued:
			s.Pending++
		case p.loaded && p.head.Seq > p.cursor:
			s.Pending += p.head.Seq - p.cursor
		}
	}
	for _, p := range b.peers {
		s.Peers = append(s.Peers, p.statusLocked())
	}
	return s
}

// Settled reports that the local consumer has been told all records of a slot, and has
// been for at least d. It relies on this process being the only one that writes the
// store.
func (b *Box) Settled(slot kv.Slot, d time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := &b.slots[slot]
	return b.whole && !p.queued && p.cursor >= p.head.Seq && b.cfg.Now().Sub(p.reached) > d
}
