// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/tracing"
)

// Record is one record on its way out.
type Record struct {
	Slot   kv.Slot
	Seq    uint64         // within the slot
	Number uint64         // among the slot's records for peers; 0 if it is none
	At     time.Time      // when it was put, by the wall clock; known only of records for peers
	After  Pos            // where the log goes on after it; known only by Peer.Read
	Body   []byte         // for reading only
	Origin tracing.Origin // the request that caused it

	local bool // for the local consumer
}

// form is the first byte of a record's row:
//
//	form, whom, [number, time in ms since 1970,] length of the body, body, origin
//
// Numbers are uvarints; number and time are there if it is for peers.
const form = 2

// Whom a record is for.
const (
	forLocal = 1 << iota
	forPeers
)

// encode gives the row of a record.
func (r *Record) encode() []byte {
	b := make([]byte, 0, 2+2*binary.MaxVarintLen64+binary.MaxVarintLen32+len(r.Body)+tracing.OriginLen)
	b = append(b, form, 0)
	if r.local {
		b[1] |= forLocal
	}
	if r.Number > 0 {
		b[1] |= forPeers
		b = binary.AppendUvarint(b, r.Number)
		b = binary.AppendUvarint(b, uint64(max(r.At.UnixMilli(), 0)))
	}
	b = binary.AppendUvarint(b, uint64(len(r.Body)))
	return r.Origin.Append(append(b, r.Body...))
}

// rowSize is what a row counts for in Pos.Bytes.
func rowSize(row []byte) uint64 { return uint64(len(row)) + 9 }

var errRow = errors.New("it is of no form that this release knows")

// parse reads the row of the record that follows seq-1.
func parse(slot kv.Slot, seq uint64, it kv.Item) (Record, error) {
	r := Record{Slot: slot, Seq: seq}
	err := errRow
	if isRecord(it.Key, seq) && len(it.Value) >= 2 && it.Value[0] == form {
		err = r.decode(it.Value)
	}
	if err != nil {
		return r, fmt.Errorf("outbox: read record %d of slot %d, %.64x: %w", seq, slot, it.Value, err)
	}
	return r, nil
}

func (r *Record) decode(row []byte) error {
	whom, rest := row[1], row[2:]
	next := func() (v uint64) {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			rest = nil
			return 0
		}
		rest = rest[n:]
		return v
	}
	r.local = whom&forLocal != 0
	if whom&forPeers != 0 {
		if r.Number = next(); r.Number == 0 {
			return errRow
		}
		r.At = time.UnixMilli(int64(next()))
	}
	n := next()
	if n > uint64(len(rest)) {
		return errRow
	}
	r.Body = rest[:n:n]
	r.Origin, _ = tracing.ParseOrigin(rest[n:])
	return nil
}
