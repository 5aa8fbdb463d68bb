// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// Keys are kept by the day, so that forgetting old ones is one range delete for
// each slot: for one to two days.
const onceDay = 24 * time.Hour

// once is the use of an idempotency key by a user. The zero value stands for a
// request without a key.
type once struct {
	day  uint32
	keys [2][]byte // of today and of yesterday; nil without a key
	body [sha256.Size]byte
}

func newOnce(now time.Time, u id.User, key string, body [sha256.Size]byte) once {
	if key == "" {
		return once{}
	}
	o := once{day: dayOf(now), body: body}
	sum := sha256.Sum256([]byte(key))
	for i := range o.keys {
		k := binary.BigEndian.AppendUint32([]byte{prefixDone}, o.day-uint32(i))
		k = append(k, u[:]...)
		o.keys[i] = append(k, sum[:]...)
	}
	return o
}

func dayOf(t time.Time) uint32 { return uint32(t.Unix() / int64(onceDay/time.Second)) }

// fingerprint is what two requests must share to be the same one. Each part is
// preceded by its length, so that no two lists of parts look alike.
func fingerprint(parts ...string) [sha256.Size]byte {
	h := sha256.New()
	for _, p := range parts {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// answered looks for an earlier use of the key: its answer, and whether there was
// one. Another body under the same key is an error.
func (o *once) answered(ctx context.Context, store kv.Store, slot kv.Slot) (answer []byte, found bool, err error) {
	if o.keys[0] == nil {
		return nil, false, nil
	}
	for _, key := range o.keys {
		item, err := store.Get(ctx, slot, key, kv.Linearizable)
		if err != nil {
			return nil, false, err
		}
		if item.Ver == 0 {
			continue
		}
		if len(item.Value) < sha256.Size {
			return nil, false, fmt.Errorf("%w: idempotency key", errDamaged)
		}
		if subtle.ConstantTimeCompare(item.Value[:sha256.Size], o.body[:]) != 1 {
			return nil, false, errKeyReused()
		}
		return item.Value[sha256.Size:], true, nil
	}
	return nil, false, nil
}

// record adds the use of the key to the batch that has its effect.
func (o *once) record(b *kv.Batch, answer []byte) {
	if o.keys[0] == nil {
		return
	}
	b.IfAbsent(o.keys[0])
	b.Put(o.keys[0], append(o.body[:len(o.body):len(o.body)], answer...))
}

func errKeyReused() error {
	return problem(rpc.FailedPrecondition, "idempotency-conflict", "idempotency_key",
		"the idempotency key was used for another request; use a new key for a new request")
}
