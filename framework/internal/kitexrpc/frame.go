// SPDX-License-Identifier: Apache-2.0

// Package kitexrpc carries calls over kitex's TTHeader wire with multiplexing of
// its own: kitex is the shell (listener, event loop, shutdown) and the format,
// netpoll the sockets. A stock kitex TTHeader client or server can talk to it.
package kitexrpc

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

// The wire, as kitex v0.16 reads and writes it (all numbers big-endian):
//
//	TTHeader:  length u32 (of all that follows) | magic 0x1000 | flags u16 | sequence u32 | header words u16
//	header:    protocol u8 | transforms u8 | info blocks | zero padding to 4 bytes
//	payload:   [length u32] | magic 0x9001 | type u16 | method length u32 | method | sequence u32 | message
//
// An info block is a map of 16-bit keys (id 0x10) or of strings (id 0x01).
const (
	ttMagic      = 0x1000
	payloadMagic = 0x9001
	prefixLen    = 14        // up to and with the header's word count
	minFrame     = prefixLen // what a reader must see before it knows anything

	infoPadding = 0x00
	infoStrings = 0x01
	infoNumbers = 0x10
	infoToken   = 0x11

	typeCall      = 1
	typeReply     = 2
	typeException = 3

	// headerKey is the 16-bit key of our header, on calls and on replies. Kitex's
	// own keys are small integers.
	headerKey = 0x534C
	// callerKey is kitex's key for the method that makes a call (transmeta.FromMethod).
	// Ours is the full name; a client without our header is not believed to say one.
	callerKey = 20
	// serviceKey is kitex's string key for the name of the called service.
	serviceKey = "isn"
	// resetKey is kitex's string key by which a server says that it will close
	// the connection (netpollmux, control frame with sequence 0).
	resetKey = "crrst"
	// bizStatusKey and bizMessageKey are kitex's string keys for an error that the
	// handler made (kerrors.BizStatusError).
	bizStatusKey  = "biz-status"
	bizMessageKey = "biz-message"
)

var be = binary.BigEndian

// frame is one message as it lies in the read buffer: nothing is copied, and all
// slices die with that buffer.
type frame struct {
	seq        int32
	kind       uint8
	reset      bool // the control frame of a server that is going away
	service    []byte
	method     []byte
	header     []byte // our own header, nil if there is none
	caller     []byte // the calling method, empty if it is not told
	bizStatus  []byte
	bizMessage []byte
	payload    []byte // what of it lies in the buffer
	size       int    // of the whole payload
}

var (
	errShort    = errors.New("kitexrpc: frame ends before its contents")
	errTooLarge = errors.New("kitexrpc: the frame is too large")
	errEncode   = errors.New("cannot encode")
)

// frameLen reads the length of the frame that p, at least minFrame bytes, begins
// with. It refuses what is not TTHeader and what is longer than limit.
func frameLen(p []byte, limit int) (int, error) {
	if be.Uint16(p[4:]) != ttMagic {
		return 0, fmt.Errorf("kitexrpc: not a TTHeader frame (magic %#04x)", be.Uint16(p[4:]))
	}
	n := int64(be.Uint32(p)) + 4
	if n < minFrame {
		return 0, errShort
	}
	if n > int64(limit) {
		return 0, fmt.Errorf("%w: %d bytes, max_frame_bytes is %d", errTooLarge, n, limit)
	}
	return int(n), nil
}

// parse reads a whole frame. It allocates nothing.
func (f *frame) parse(p []byte) error { return f.parseHead(p, len(p)) }

// parseHead reads a frame of n bytes that begins with p. It gives errShort if p ends
// before the payload begins.
func (f *frame) parseHead(p []byte, n int) error {
	*f = frame{}
	if len(p) < prefixLen+2 {
		return errShort
	}
	f.seq = int32(be.Uint32(p[8:]))
	headerLen := int(be.Uint16(p[12:])) * 4
	if headerLen < 2 || prefixLen+headerLen > len(p) {
		return errShort
	}
	if err := f.parseInfo(p[prefixLen : prefixLen+headerLen]); err != nil {
		return err
	}
	if f.seq == 0 { // control frame: its payload is of no interest
		return nil
	}
	if err := f.parsePayload(p[prefixLen+headerLen:]); err != nil {
		return err
	}
	f.size = len(f.payload) + n - len(p)
	return nil
}

func (f *frame) parsePayload(q []byte) error {
	if len(q) >= 4 && be.Uint16(q) != payloadMagic {
		q = q[4:] // framed: the length says nothing that the frame's does not
	}
	if len(q) < 8 || be.Uint16(q) != payloadMagic {
		return errors.New("kitexrpc: payload is not kitex protobuf")
	}
	f.kind = q[3]
	n := int64(be.Uint32(q[4:]))
	if n > int64(len(q)-12) {
		return errShort
	}
	f.method, f.payload = q[8:8+n], q[12+n:]
	return nil
}

func (f *frame) parseInfo(h []byte) error {
	for i := 2 + int(h[1]); i < len(h); {
		id := h[i]
		i++
		if id == infoPadding {
			continue
		}
		if id != infoStrings && id != infoNumbers && id != infoToken {
			return fmt.Errorf("kitexrpc: unknown header block %#02x", id)
		}
		count := 1
		if id != infoToken {
			if i+2 > len(h) {
				return errShort
			}
			count = int(be.Uint16(h[i:]))
			i += 2
		}
		for ; count > 0; count-- {
			var key, value []byte
			var number uint16
			var ok bool
			switch id {
			case infoNumbers:
				if i+2 > len(h) {
					return errShort
				}
				number = be.Uint16(h[i:])
				i += 2
			case infoStrings:
				if key, i, ok = shortString(h, i); !ok {
					return errShort
				}
			}
			if value, i, ok = shortString(h, i); !ok {
				return errShort
			}
			f.note(number, key, value)
		}
	}
	return nil
}

// note keeps the header values that mean something to us.
func (f *frame) note(number uint16, key, value []byte) {
	switch {
	case number == headerKey:
		f.header = value
	case number == callerKey:
		f.caller = value
	case key == nil:
	case string(key) == serviceKey:
		f.service = value
	case string(key) == resetKey:
		f.reset = true
	case string(key) == bizStatusKey:
		f.bizStatus = value
	case string(key) == bizMessageKey:
		f.bizMessage = value
	}
}

// shortString reads a string with a 16-bit length at p[i:].
func shortString(p []byte, i int) (s []byte, next int, ok bool) {
	if i+2 > len(p) {
		return nil, i, false
	}
	n := int(be.Uint16(p[i:]))
	i += 2
	if i+n > len(p) {
		return nil, i, false
	}
	return p[i : i+n : i+n], i + n, true
}

// replyHeaderLen is the length of our header on a reply:
// version u8 | flags u8 | level u16 | backlog u8, in ms. It is append-only like the call's,
// and the first servers sent no backlog and no flags.
const (
	replyHeaderLen   = 5
	replyHeaderLeast = 4
	// replyKept is the flag of a call of which the server makes a record, or of one that
	// it has made: the caller makes one, too, so that traces are whole.
	replyKept = 1 << 0
)

// replyHeader makes the header of a reply that tells a level and a backlog.
func replyHeader(level qos.Priority, backlog uint8) [replyHeaderLen]byte {
	return [...]byte{rpc.HeaderVersion, 0, byte(level >> 8), byte(level), backlog}
}

// A refusal is a reply made in advance, into which sequence and level are put: an
// overloaded server must refuse for next to nothing.
type refusal struct {
	err   *rpc.Error
	frame []byte
	seq   int // where the payload's sequence stands
}

// Where in a reply its own header has the level, and the prefix the sequence.
const (
	prefixSeq  = 8
	replyLevel = prefixLen + 2 + 1 + 2 + 2 + 2 + 2
)

func newRefusal(err *rpc.Error) refusal {
	payload := appendError(nil, err)
	header := replyHeader(qos.LastPriority, 0)
	// A client of kitex reads the name of an exception, and wants there to be one.
	b := appendPrefix(nil, 0, typeException, "", "refused", "", header[:], len(payload))
	return refusal{err: err, seq: len(b) - 4, frame: append(b, payload...)}
}

func (r *refusal) append(b []byte, seq int32, level qos.Priority, backlog uint8) []byte {
	start := len(b)
	b = append(grow(b, len(r.frame)), r.frame...)
	be.PutUint32(b[start+prefixSeq:], uint32(seq))
	be.PutUint32(b[start+r.seq:], uint32(seq))
	be.PutUint16(b[start+replyLevel:], uint16(level))
	b[start+replyLevel+2] = backlog
	return b
}

// appendPrefix appends everything before the message: size is the length the
// message will have. header is nil or our own header; with it goes
// the name of the calling method, if any.
func appendPrefix(b []byte, seq int32, kind uint8, service, method, caller string, header []byte, size int) []byte {
	info := 2
	if header != nil {
		info += 1 + 2 + 4 + len(header)
		if caller != "" {
			info += 4 + len(caller)
		}
	}
	if service != "" {
		info += 1 + 2 + 2 + len(serviceKey) + 2 + len(service)
	}
	padding := (4 - info%4) % 4
	info += padding
	payload := 12 + len(method) + size
	total := prefixLen + info + 4 + payload

	b = grow(b, total)
	b = be.AppendUint32(b, uint32(total-4))
	b = be.AppendUint16(b, ttMagic)
	b = be.AppendUint16(b, 1) // HeaderFlagSupportOutOfOrder
	b = be.AppendUint32(b, uint32(seq))
	b = be.AppendUint16(b, uint16(info/4))
	b = append(b, 0, 0) // default protocol, no transforms
	if header != nil {
		b = append(b, infoNumbers, 0, 1)
		b = be.AppendUint16(b, headerKey)
		b = be.AppendUint16(b, uint16(len(header)))
		b = append(b, header...)
		if caller != "" {
			b[len(b)-len(header)-5] = 2 // values in this block
			b = be.AppendUint16(b, callerKey)
			b = be.AppendUint16(b, uint16(len(caller)))
			b = append(b, caller...)
		}
	}
	if service != "" {
		b = append(b, infoStrings, 0, 1)
		b = be.AppendUint16(b, uint16(len(serviceKey)))
		b = append(b, serviceKey...)
		b = be.AppendUint16(b, uint16(len(service)))
		b = append(b, service...)
	}
	b = append(b, "\x00\x00\x00"[:padding]...)
	b = be.AppendUint32(b, uint32(payload))
	b = be.AppendUint32(b, payloadMagic<<16|uint32(kind))
	b = be.AppendUint32(b, uint32(len(method)))
	b = append(b, method...)
	return be.AppendUint32(b, uint32(seq))
}

// grow makes room for n more bytes, doubling so that a burst of frames costs few
// copies.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	g := make([]byte, len(b), 2*cap(b)+n)
	copy(g, b)
	return g
}

// appendMessage appends m, whose size was just computed by proto.Size. A message
// that someone changes meanwhile gives an error and not a broken frame.
func appendMessage(b []byte, m proto.Message, size int) (out []byte, err error) {
	defer func() {
		if r := recover(); r != nil { // protobuf panics when a slice shrinks under it
			err = fmt.Errorf("%w %T: it was changed while it was being sent: %v", errEncode, m, r)
		}
	}()
	start := len(b)
	out, err = proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, m)
	if err != nil {
		return out, fmt.Errorf("%w %T: %w", errEncode, m, err)
	}
	if len(out)-start != size {
		return out, fmt.Errorf("%w %T: it was changed while it was being sent", errEncode, m)
	}
	return out, nil
}

// appendReset appends the control frame by which kitex says that a server is going
// away: sequence 0, the string key crrst, and an empty thrift struct.
func appendReset(b []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = be.AppendUint16(b, ttMagic)
	b = be.AppendUint16(b, 0)
	b = be.AppendUint32(b, 0)
	b = be.AppendUint16(b, 4)
	b = append(b, 0, 0, infoStrings, 0, 1)
	b = be.AppendUint16(b, uint16(len(resetKey)))
	b = append(b, resetKey...)
	b = append(b, 0, 1, '1', 0) // one byte of padding makes four words
	// thrift binary: version 1, reply, method "none", sequence 0, empty struct
	b = be.AppendUint32(b, 0x80010002)
	b = be.AppendUint32(b, 4)
	b = append(b, "none"...)
	b = be.AppendUint32(b, 0)
	b = append(b, 0)
	be.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

// parseReport reads what a caller's header says of the calls that it has held back; n
// is zero if it says nothing.
func parseReport(header []byte) (n uint16, p qos.Priority, method uint32) {
	if len(header) < rpc.HeaderLen+rpc.ReportLen || header[0] == 0 {
		return 0, 0, 0
	}
	r := header[rpc.HeaderLen:]
	return be.Uint16(r), min(qos.Priority(be.Uint16(r[2:])), qos.LastPriority), be.Uint32(r[4:])
}

// appendReport adds what parseReport reads.
func appendReport(b []byte, r admission.Report) []byte {
	b = be.AppendUint16(b, r.Count)
	b = be.AppendUint16(b, uint16(r.Priority))
	return be.AppendUint32(b, uint32(r.Method))
}

// maxFrameOverhead bounds what a frame holds besides its message.
const maxFrameOverhead = 1 << 10
