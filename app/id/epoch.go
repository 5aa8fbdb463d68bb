// SPDX-License-Identifier: Apache-2.0

package id

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/sluice-rpc/sluice/app/kv"
)

// EpochKey is where NextEpoch keeps the latest epoch, in the slot of the same name.
var EpochKey = []byte("id/epoch")

// epochTries bounds the races that one start may lose; with every start doing one
// increment, only a fault loses so many.
const epochTries = 100

// NextEpoch takes an epoch that nobody has had from this store, and has it durable
// before it returns. Whoever makes ids calls it once at each start, so that an id
// made just before a crash is not made again. Losing the outcome of a write costs an
// epoch, never gives one out twice.
func NextEpoch(ctx context.Context, store kv.Store) (Epoch, error) {
	slot := kv.SlotOf(EpochKey)
	for range epochTries {
		item, err := store.Get(ctx, slot, EpochKey, kv.Linearizable)
		if err != nil {
			return 0, fmt.Errorf("id: read the last epoch: %w", err)
		}
		last, err := lastEpoch(item)
		if err != nil {
			return 0, err
		}
		if last >= maxEpoch {
			return 0, fmt.Errorf("id: epoch %d was the last one; give the service a new region number", last)
		}
		var value [4]byte
		binary.BigEndian.PutUint32(value[:], uint32(last+1))
		b := new(kv.Batch).IfVer(EpochKey, item.Ver).Put(EpochKey, value[:])
		switch _, err = store.Apply(ctx, slot, b); {
		case err == nil:
			return last + 1, nil
		case !errors.Is(err, kv.ErrConflict) && !errors.Is(err, kv.ErrUnknown):
			return 0, fmt.Errorf("id: store epoch %d: %w", last+1, err)
		}
	}
	return 0, fmt.Errorf("id: no epoch after %d tries: other processes take them as fast", epochTries)
}

func lastEpoch(item kv.Item) (Epoch, error) {
	if item.Ver == 0 {
		return 0, nil
	}
	if len(item.Value) != 4 {
		return 0, fmt.Errorf("id: the stored epoch has %d bytes, want 4: another program wrote key %q", len(item.Value), EpochKey)
	}
	return Epoch(binary.BigEndian.Uint32(item.Value)), nil
}
