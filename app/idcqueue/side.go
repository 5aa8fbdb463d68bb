// SPDX-License-Identifier: Apache-2.0

// Package idcqueue carries what a service writes in one region to the same service in
// the others: durably, in the order of each slot, with its effect once, whatever the
// ocean does meanwhile.
//
// It is a library inside the service's process. What is to be told is a record in the
// service's outbox, written in the batch that has the effect; see package outbox. Each
// other region is a consumer of it with a cursor. The far side applies a record and
// the cursor that says so in one batch, so that a record has its effect exactly once.
// What to send and what to take is decided in package flow, without clock and disk.
//
// Nothing here is ever waited for by a local read or write. A peer that cannot be
// reached costs disk, up to the outbox's limit; beyond it the peer gets a snapshot when
// it is back. A record that the service refuses is put aside in quarantine, with the
// cursor, and the slot goes on. What cannot be mended by trying again stops the peer and
// raises an alarm: see Status.
package idcqueue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue/flow"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/outbox"
	"github.com/sluice-rpc/sluice/tracing"
)

// Consumer gives the name that a region has among the consumers of an outbox.
func Consumer(r id.Region) string { return fmt.Sprintf("idc/%d", r) }

// Consumers gives the names of several regions; nil for nil.
func Consumers(regions []id.Region) []string {
	if regions == nil {
		return nil
	}
	names := make([]string, len(regions))
	for i, r := range regions {
		names[i] = Consumer(r)
	}
	return names
}

// MaxOps and MaxBytes are what Apply and Merge may put into a batch, the records of the
// outbox included.
const (
	MaxOps   = kv.MaxOps - 2 - outbox.BatchOps // without the cursor and its condition
	MaxBytes = kv.MaxBatch - 32<<10
)

// Side is what a service does for the queue. Its functions may be called concurrently,
// but not two of Apply and Merge for one slot.
type Side struct {
	// Expand gives what is sent for records of the own outbox, which may only name what
	// has changed: result i is of records[i]. Nil sends bodies as they are. It reads
	// kv.Linearizable, so that nothing is sent that a crash could take back.
	Expand func(ctx context.Context, slot kv.Slot, records []outbox.Record) ([][]byte, error)

	// Apply puts what the first n of in.Records change into in.Batch, and what the own
	// local consumer has to know into in.Out; n is at least 1, and as many as fit. The
	// queue adds the cursor and applies; if that fails, it calls again.
	//
	// An error made by Refuse says that in.Records[n] is wrong for ever: the first n are
	// applied, that one goes into quarantine, and the line goes on. After any other error
	// nothing is applied, and it is tried again. It never waits for another region.
	Apply func(ctx context.Context, in *In) (n int, err error)

	// Rows reads a page of what a peer, to, must have of a slot that has missed records:
	// the rows of replicated tables that belong to the own region, by ascending keys, from
	// a key on, nil for the start. Next is where the next page begins, nil after the
	// last. A page has at most 64 rows, and not many more than 128 KiB. What a peer is not
	// to know must not be among them: a part that it refuses is kept there as it came.
	Rows func(ctx context.Context, to id.Region, slot kv.Slot, from []byte) (rows []Row, next []byte, err error)

	// Merge puts into part.Batch what makes the rows of region part.From whose keys are in
	// the part what part.Rows say. More asks to be called again after that was applied,
	// for a batch takes only so much. A refused part goes into quarantine as a whole.
	Merge func(ctx context.Context, part *Part) (more bool, err error)
}

// In is a stretch of another region's records of one slot, in their order.
type In struct {
	From    id.Region
	Slot    kv.Slot
	Records []Record
	// Batch has room for MaxOps operations, those of Out's records included, and MaxBytes.
	Batch *kv.Batch
	// Out takes records for the own outbox. It is the queue's to seal and close.
	Out *outbox.Turn
	// Released: an operator has let it go out of quarantine, so later records may have
	// been applied before.
	Released bool

	hooks
}

// Record is one record of another region.
type Record struct {
	Seq    uint64         // dense in the slot
	Body   []byte         // for reading only
	At     time.Time      // when it was put, by the sender's clock
	Origin tracing.Origin // the request that caused it
}

// Part is a stretch of another region's rows of one slot.
type Part struct {
	From       id.Region
	Slot       kv.Slot
	Start, End []byte // Start <= key < End; empty for no bound
	Rows       []Row  // by ascending keys
	Batch      *kv.Batch
	Out        *outbox.Turn
	Released   bool // as of In

	hooks
}

// Row is one row of a store.
type Row = flow.Row

// hooks is what follows from a batch.
type hooks struct{ after []func(ver uint64) }

// After has f called once the batch has been applied, with its version. What was asked
// for in a try that failed is forgotten.
func (h *hooks) After(f func(ver uint64)) { h.after = append(h.after, f) }

// Applied calls what After was given. It is for who applies the batch.
func (h *hooks) Applied(ver uint64) {
	for _, f := range h.after {
		f(ver)
	}
}

// ErrRefused is the root of the errors that Refuse makes.
var ErrRefused = errors.New("idcqueue: refused")

// ErrWhole is what Expand gives for records among which is one that stands for all rows of
// its slot: Rows are sent in place of the records up to there.
var ErrWhole = errors.New("idcqueue: all rows of the slot are to be sent")

// Refuse makes the error by which a Side says that a record is wrong for ever.
func Refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}
