// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"fmt"
	"sync"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/tracing"
)

// lane is the writing end of a slot.
type lane struct {
	mu     sync.Mutex // held by the Turn under way
	loaded bool       // guarded by mu
	end    Pos        // guarded by mu; of the last record
	ver    uint64     // guarded by mu; version of seqKey
}

// Turn is one batch's hold on a slot's outbox. It must be closed.
type Turn struct {
	box    *Box
	lane   *lane
	slot   kv.Slot
	end    Pos  // after what was put
	local  bool // something is for the local consumer
	err    error
	sealed bool
	done   bool
}

// Open takes a slot's outbox for one batch, and waits for the one before.
func (b *Box) Open(ctx context.Context, slot kv.Slot) (*Turn, error) {
	ln := &b.lanes[slot]
	ln.mu.Lock()
	if !ln.loaded {
		it, err := b.cfg.Store.Get(ctx, slot, seqKey, kv.Linearizable)
		if err == nil {
			ln.ver = it.Ver
			ln.end, err = parsePos(it)
		}
		if err != nil {
			ln.mu.Unlock()
			return nil, err
		}
		ln.loaded = true
		b.mark(slot, ln.end, true) // a batch of unknown outcome may have been applied
	}
	return &Turn{box: b, lane: ln, slot: slot, end: ln.end}, nil
}

// Put adds a record for all consumers to the batch.
func (t *Turn) Put(batch *kv.Batch, body []byte, from tracing.Origin) {
	t.put(batch, body, from, forLocal|forPeers)
}

// PutLocal adds a record for the local consumer only, of which no peer ever hears.
func (t *Turn) PutLocal(batch *kv.Batch, body []byte, from tracing.Origin) {
	t.put(batch, body, from, forLocal)
}

// PutPeers adds a record for the peers only.
func (t *Turn) PutPeers(batch *kv.Batch, body []byte, from tracing.Origin) {
	t.put(batch, body, from, forPeers)
}

func (t *Turn) put(batch *kv.Batch, body []byte, from tracing.Origin, whom int) {
	if len(body) > MaxBody {
		t.err = fmt.Errorf("outbox: a record of %d bytes for slot %d, at most %d are possible: %w", len(body), t.slot, MaxBody, kv.ErrTooLarge)
		return
	}
	r := Record{Slot: t.slot, Seq: t.end.Seq + 1, Body: body, Origin: from, local: whom&forLocal != 0 && t.box.cfg.Deliver != nil}
	peers := whom&forPeers != 0 && t.box.joined()
	if peers {
		r.Number, r.At = t.end.Number+1, t.box.cfg.Now()
		t.end.Number++
	}
	if !peers && !r.local {
		return // there is nobody to tell
	}
	t.local = t.local || r.local
	row := r.encode()
	t.end.Seq++
	if t.box.joined() {
		t.end.Bytes += rowSize(row)
	}
	batch.Put(recordKey(r.Seq), row)
}

// Seal ends the adding: now the batch can be applied, which fails with kv.ErrConflict
// if another process has put records meanwhile. After an error, which says that a
// record is too large, the batch must not be applied.
func (t *Turn) Seal(batch *kv.Batch) error {
	if t.err != nil {
		return t.err
	}
	if t.end.Seq > t.lane.end.Seq {
		batch.IfVer(seqKey, t.lane.ver).Put(seqKey, t.end.encode())
		t.sealed = true
	}
	return nil
}

// Applied says that the batch has been applied, as version ver.
func (t *Turn) Applied(ver uint64) {
	if !t.sealed {
		return
	}
	t.lane.end, t.lane.ver, t.done = t.end, ver, true
	t.box.mark(t.slot, t.end, t.local)
}

// Close gives the slot back. After a sealed batch of which nobody has said that it was
// applied, the next turn looks how things stand.
func (t *Turn) Close() {
	if t.sealed && !t.done {
		t.lane.loaded = false
	}
	t.lane.mu.Unlock()
}
