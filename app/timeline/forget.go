// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"context"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Forget removes a timeline whose reader's account is deleted; see the contract.
func (s *Service) Forget(ctx context.Context, req *momentsv1.ForgetRequest) (*momentsv1.ForgetResponse, error) {
	reader, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	slot, res := kv.SlotOf(reader[:]), new(momentsv1.ForgetResponse)
	b := new(kv.Batch)
	for _, table := range []byte{tableIndex, tableSeen, tableTrimmed} {
		r := kv.Prefix(readerKey(table, reader), kv.MaxScan)
		b.DeleteRange(r.From, r.To)
		for more := true; more; {
			var items []kv.Item
			if items, more, err = s.store.Scan(ctx, slot, r, kv.Linearizable); err != nil {
				return nil, problem.Store("forget a timeline", err)
			}
			if res.Found += uint32(len(items)); len(items) > 0 {
				r.From = kv.Next(items[len(items)-1].Key)
			}
		}
	}
	if res.GetFound() == 0 || req.GetDryRun() {
		return res, nil
	}
	_, err = s.store.Apply(ctx, slot, b)
	return res, problem.Store("forget a timeline", err)
}
