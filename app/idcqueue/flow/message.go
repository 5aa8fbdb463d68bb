// SPDX-License-Identifier: Apache-2.0

// Package flow decides what one region sends to another and what it takes: which
// records and when, what is a repetition, what is missing, how much may be on its way,
// and what both say to each other about it.
//
// It is pure: the two machines, Sender and Receiver, are told the time and what has
// happened, and answer what is to be done. They read no store and know no connection,
// so a simulation can run them as production does.
//
// Records of a slot are numbered without a gap. The receiver takes the one after the
// last and no other, and keeps the number with the effect; the sender begins where the
// receiver says that it stands. So a record has its effect once and in order, whatever
// is cut, repeated or comes late, and nobody has to guess what a repetition is. A lane
// is a group of slots that share messages.
package flow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/tracing"
)

// Lanes is how many lanes there are; a slot is in lane slot mod Lanes.
const Lanes = 64

// Limits of messages, in bytes.
const (
	MaxRecord  = 448 << 10 // body of a record as it is sent
	MaxMessage = 1 << 20   // a message as it is sent, and one unpacked
)

// Version of the messages.
const Version = 1

// compressFrom is from how many bytes on compressing is tried.
const compressFrom = 512

// ErrCorrupt says that what came is no message of this version.
var ErrCorrupt = errors.New("flow: corrupt message")

// Incarnation tells the log of a store from that of an older copy of it.
type Incarnation [16]byte

// IsZero reports whether it is none.
func (i Incarnation) IsZero() bool { return i == Incarnation{} }

// String gives it in hexadecimal.
func (i Incarnation) String() string { return fmt.Sprintf("%x", i[:]) }

// Message is one of Hello, Batch, Part, Ack, Resume and Bye. Batch and Part are data, the
// others control.
type Message interface{ kind() byte }

// Hello is the first message of both ends.
type Hello struct {
	Service     string // whose log it is; both must say the same
	Region      id.Region
	Incarnation Incarnation // of the sender's log, as the sender has it, or as the receiver knows it

	// Of the receiver only.
	Granted uint64   // see Ack
	Again   bool     // a slot without a cursor must be sent as a whole
	Cursors []Cursor // how far the receiver is, ascending by slot
}

// Cursor is how far the receiver is in a slot.
type Cursor struct {
	Slot   kv.Slot
	Number uint64 // of the last record applied
}

// Batch is records of one lane, those of each slot in order.
type Batch struct {
	Lane    int
	Records []Record
}

// Record is a record on its way.
type Record struct {
	Slot   kv.Slot
	Number uint64
	At     time.Time      // when it was put, by the sender's clock, in milliseconds
	Origin tracing.Origin // zero if there is nobody to trace it; only the trace of a sampled request crosses the line
	Body   []byte
}

// Part is a piece of a snapshot: all rows of a slot with Start <= key < End that the
// sender has to give, as of the record of that number or later.
type Part struct {
	Slot        kv.Slot
	Number      uint64
	First, Last bool
	Start, End  []byte // nothing in the first one's Start and in the last one's End
	Rows        []Row
}

// Row is a row of a snapshot.
type Row struct{ Key, Value []byte }

// Ack says what the receiver has applied and how much it bears.
type Ack struct {
	// Granted is how many bytes of data, unpacked, may have been sent altogether since
	// the session began.
	Granted uint64
	Clock   time.Time // of the receiver, in milliseconds
	Applied []Cursor  // of slots that have changed, or of which something came twice
}

// Resume asks for a slot's records after a number.
type Resume struct {
	Slot kv.Slot
	From uint64
}

// Mark is the sender's word that the receiver has all that was put before a time. Both
// times are by its clock, in milliseconds.
type Mark struct {
	At  time.Time
	Now time.Time // when it was said; At may be long before that while much is on its way
}

// Bye ends a session, and says why.
type Bye struct{ Text string }

// Kinds of messages, as they are sent.
const (
	kindHello byte = iota + 1
	kindBatch
	kindPart
	kindAck
	kindResume
	kindBye
	kindMark
)

func (*Hello) kind() byte  { return kindHello }
func (*Batch) kind() byte  { return kindBatch }
func (*Part) kind() byte   { return kindPart }
func (*Ack) kind() byte    { return kindAck }
func (*Resume) kind() byte { return kindResume }
func (*Bye) kind() byte    { return kindBye }
func (*Mark) kind() byte   { return kindMark }

// A message is: kind, flags, CRC-32C of both and of all that follows, length of the
// content, and the content, which may be compressed. Numbers are big-endian or uvarints.
const (
	headLen  = 10
	flagZstd = 1
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

func sum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:2], crcTable), crcTable, b[6:])
}

// Codec turns messages into bytes and back. It may be used concurrently.
type Codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// NewCodec makes a Codec.
func NewCodec() (*Codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(256<<10))
	if err != nil {
		return nil, fmt.Errorf("flow: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxMessage), zstd.WithDecoderMaxWindow(MaxMessage))
	if err != nil {
		return nil, fmt.Errorf("flow: %w", err)
	}
	return &Codec{enc: enc, dec: dec}, nil
}

// Encode gives the bytes of a message, and how many bytes its content has unpacked.
func (c *Codec) Encode(m Message) (b []byte, raw int, err error) {
	content := appendContent(nil, m)
	raw = len(content)
	if raw > MaxMessage {
		return nil, raw, fmt.Errorf("flow: a message has %d bytes, at most %d are possible", raw, MaxMessage)
	}
	b = make([]byte, headLen, headLen+raw)
	b[0] = m.kind()
	binary.BigEndian.PutUint32(b[6:], uint32(raw))
	if raw >= compressFrom {
		if packed := c.enc.EncodeAll(content, b); len(packed)-headLen <= raw-raw/10 {
			packed[1] |= flagZstd
			content, b = nil, packed
		}
	}
	b = append(b, content...)
	binary.BigEndian.PutUint32(b[2:], sum(b))
	return b, raw, nil
}

// Decode reads a message. The message keeps parts of b unless it was compressed.
func (c *Codec) Decode(b []byte) (m Message, raw int, err error) {
	if len(b) < headLen || len(b) > MaxMessage+headLen || binary.BigEndian.Uint32(b[2:]) != sum(b) {
		return nil, 0, fmt.Errorf("%w: %d bytes, kind and sum %x", ErrCorrupt, len(b), b[:min(len(b), headLen)])
	}
	kind, flags, content := b[0], b[1], b[headLen:]
	raw = int(binary.BigEndian.Uint32(b[6:]))
	if raw > MaxMessage {
		return nil, 0, fmt.Errorf("%w: %d bytes unpacked, at most %d are possible", ErrCorrupt, raw, MaxMessage)
	}
	if flags&flagZstd != 0 {
		if content, err = c.dec.DecodeAll(content, make([]byte, 0, raw)); err != nil {
			return nil, 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	if len(content) != raw {
		return nil, 0, fmt.Errorf("%w: %d bytes unpacked, want %d", ErrCorrupt, len(content), raw)
	}
	r := reader{b: content}
	m = r.message(kind)
	if r.bad || len(r.b) > 0 {
		return nil, 0, fmt.Errorf("%w: kind %d", ErrCorrupt, kind)
	}
	return m, raw, nil
}

func appendContent(b []byte, m Message) []byte {
	switch m := m.(type) {
	case *Hello:
		b = appendBytes(append(b, Version), []byte(m.Service))
		b = append(binary.BigEndian.AppendUint16(b, uint16(m.Region)), m.Incarnation[:]...)
		b = append(binary.AppendUvarint(b, m.Granted), flag(m.Again))
		b = appendCursors(b, m.Cursors)
	case *Batch:
		b = binary.AppendUvarint(append(b, byte(m.Lane)), uint64(len(m.Records)))
		for i := range m.Records {
			b = appendRecord(b, &m.Records[i])
		}
	case *Part:
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(m.Slot)), m.Number)
		b = append(b, flag(m.First), flag(m.Last))
		b = binary.AppendUvarint(appendBytes(appendBytes(b, m.Start), m.End), uint64(len(m.Rows)))
		for _, row := range m.Rows {
			b = appendBytes(appendBytes(b, row.Key), row.Value)
		}
	case *Ack:
		b = binary.AppendUvarint(b, m.Granted)
		b = appendCursors(appendTime(b, m.Clock), m.Applied)
	case *Resume:
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(m.Slot)), m.From)
	case *Bye:
		b = appendBytes(b, []byte(m.Text))
	case *Mark:
		b = appendTime(appendTime(b, m.At), m.Now)
	}
	return b
}

// recordCost is what a record needs in a Batch at most, without its body.
const recordCost = 3 + 10 + 10 + 1 + tracing.OriginLen + 5

func appendRecord(b []byte, r *Record) []byte {
	b = binary.AppendUvarint(b, uint64(r.Slot))
	b = appendTime(binary.AppendUvarint(b, r.Number), r.At)
	if from := sampled(r.Origin); from == (tracing.Origin{}) {
		b = append(b, 0)
	} else {
		b = from.Append(append(b, 1))
	}
	return appendBytes(b, r.Body)
}

// sampled leaves the identity of a request out that is not traced: nobody looks for it, and
// it is what does not compress.
func sampled(o tracing.Origin) tracing.Origin {
	if !o.Identity.Sampled {
		o.Identity = tracing.Identity{}
	}
	return o
}

func appendCursors(b []byte, cursors []Cursor) []byte {
	b = binary.AppendUvarint(b, uint64(len(cursors)))
	for _, c := range cursors {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(c.Slot)), c.Number)
	}
	return b
}

func appendTime(b []byte, t time.Time) []byte {
	return binary.AppendUvarint(b, uint64(max(t.UnixMilli(), 0)))
}

func appendBytes(b, s []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

// reader reads content. After the first mistake it gives zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.b, r.bad = nil, true }

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 { // in one way only
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if b := r.take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (r *reader) flag() bool {
	b := r.byte()
	if b > 1 {
		r.fail()
	}
	return b == 1
}

func (r *reader) bytes() []byte {
	if b := r.take(r.uvarint()); len(b) > 0 {
		return b
	}
	return nil
}

// count reads how many things follow, each of at least size bytes.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) slot() kv.Slot {
	v := r.uvarint()
	if v >= kv.Slots {
		r.fail()
		return 0
	}
	return kv.Slot(v)
}

// maxTime is the year 10889, the end of the time of an id.
const maxTime = 1<<48 - 1

func (r *reader) time() time.Time {
	v := r.uvarint()
	if v > maxTime {
		r.fail()
		return time.Time{}
	}
	return time.UnixMilli(int64(v))
}

func (r *reader) cursors() []Cursor {
	n := r.count(2)
	if n == 0 {
		return nil
	}
	if n > kv.Slots {
		r.fail()
		return nil
	}
	c := make([]Cursor, n)
	for i := range c {
		c[i] = Cursor{Slot: r.slot(), Number: r.uvarint()}
	}
	return c
}

func (r *reader) message(kind byte) Message {
	switch kind {
	case kindHello:
		if r.byte() != Version {
			r.fail()
			return nil
		}
		m := &Hello{Service: string(r.bytes())}
		if region := r.take(2); len(region) == 2 {
			m.Region = id.Region(binary.BigEndian.Uint16(region))
		}
		copy(m.Incarnation[:], r.take(16))
		m.Granted, m.Again = r.uvarint(), r.flag()
		m.Cursors = r.cursors()
		return m
	case kindBatch:
		m := &Batch{Lane: int(r.byte())}
		if m.Lane >= Lanes {
			r.fail()
		}
		const least = 5 // slot, number, time, flag, length
		if n := r.count(least); n > 0 {
			m.Records = make([]Record, n)
		}
		for i := range m.Records {
			m.Records[i] = r.record()
			if int(m.Records[i].Slot)%Lanes != m.Lane {
				r.fail()
			}
		}
		return m
	case kindPart:
		m := &Part{Slot: r.slot(), Number: r.uvarint(), First: r.flag(), Last: r.flag(), Start: r.bytes(), End: r.bytes()}
		if n := r.count(2); n > 0 {
			m.Rows = make([]Row, n)
		}
		for i := range m.Rows {
			m.Rows[i] = Row{Key: r.bytes(), Value: r.bytes()}
		}
		return m
	case kindAck:
		return &Ack{Granted: r.uvarint(), Clock: r.time(), Applied: r.cursors()}
	case kindResume:
		return &Resume{Slot: r.slot(), From: r.uvarint()}
	case kindBye:
		return &Bye{Text: string(r.bytes())}
	case kindMark:
		return &Mark{At: r.time(), Now: r.time()}
	}
	r.fail()
	return nil
}

func (r *reader) record() Record {
	rec := Record{Slot: r.slot(), Number: r.uvarint(), At: r.time()}
	if r.flag() {
		o, _ := tracing.ParseOrigin(r.take(tracing.OriginLen))
		rec.Origin = sampled(o)
	}
	rec.Body = r.bytes()
	if len(rec.Body) > MaxRecord {
		r.fail()
	}
	return rec
}
