// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"encoding/binary"
	"time"

	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

// Header is what travels with a request from its entry to every leaf. On the wire
// it is one value of HeaderLen bytes, or HeaderLen + ReportLen:
//
//	0 version   1 flags    2 class   3 user level
//	4 ticket (2)           6 reserved (2)
//	8 entry (4)           12 remaining budget in µs (4)
//	16 trace id (16)      32 span id (8)
//	40 held back (2)      42 priority (2)         44 method (4)
//
// The last three are not the request's: they report how many calls the sender has
// held back since it last told, see admission.Report, and may be left out.
//
// Numbers are big-endian. New fields are appended: a reader takes the bytes it
// knows and ignores the rest. Time is carried as what remains, never as a time of
// day, so that clocks need not agree.
type Header struct {
	Flags     Flags
	Class     qos.Class
	UserLevel uint8
	Ticket    uint16
	Entry     tracing.Entry
	Budget    time.Duration // what remains of the deadline; 0 means none was set
	Trace     tracing.TraceID
	Span      tracing.SpanID
}

// Flags are the boolean facts of a header.
type Flags uint8

// FlagSampled says that spans of this request are recorded.
const FlagSampled Flags = 1 << 0

const (
	// HeaderLen is the length in bytes of an encoded header.
	HeaderLen = 40
	// ReportLen is the length in bytes of the report that may follow it.
	ReportLen = 8
	// HeaderVersion is the version that this package writes.
	HeaderVersion = 1
	// maxBudget is the longest budget the wire can carry, about 71 minutes.
	maxBudget = time.Duration(1<<32-1) * time.Microsecond
)

// Put writes the header into b, which holds at least HeaderLen bytes. A positive
// budget below a microsecond is written as one: zero would mean none.
func (h *Header) Put(b []byte) {
	_ = b[HeaderLen-1]
	b[0] = HeaderVersion
	b[1] = byte(h.Flags)
	b[2] = byte(h.Class)
	b[3] = h.UserLevel
	binary.BigEndian.PutUint16(b[4:], h.Ticket)
	b[6], b[7] = 0, 0
	binary.BigEndian.PutUint32(b[8:], uint32(h.Entry))
	budget := min(max(h.Budget, 0), maxBudget)
	micros := uint32(budget / time.Microsecond)
	if micros == 0 && h.Budget > 0 {
		micros = 1
	}
	binary.BigEndian.PutUint32(b[12:], micros)
	copy(b[16:32], h.Trace[:])
	copy(b[32:40], h.Span[:])
}

// Parse reads a header. It reports false, and leaves h as it was, when b is too
// short or of version zero: the call then has no header, which is not an error.
func (h *Header) Parse(b []byte) bool {
	if len(b) < HeaderLen || b[0] == 0 {
		return false
	}
	h.Flags = Flags(b[1])
	h.Class = min(qos.Class(b[2]), qos.MaxClass)
	h.UserLevel = min(b[3], qos.UserLevels-1)
	h.Ticket = binary.BigEndian.Uint16(b[4:])
	h.Entry = tracing.Entry(binary.BigEndian.Uint32(b[8:]))
	h.Budget = time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Microsecond
	copy(h.Trace[:], b[16:32])
	copy(h.Span[:], b[32:40])
	return true
}
