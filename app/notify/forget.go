// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Forget removes all notices of a reader whose account is deleted; see the contract.
// What is known of events goes by its time, as everybody's.
func (s *Service) Forget(ctx context.Context, req *momentsv1.ForgetRequest) (*momentsv1.ForgetResponse, error) {
	u, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	slot, res := kv.SlotOf(u[:]), new(momentsv1.ForgetResponse)
	b := new(kv.Batch)
	for _, prefix := range [][]byte{noticePrefix(u), stateKey(u)} {
		r := kv.Prefix(prefix, kv.MaxScan) // there are no more than are kept
		b.DeleteRange(r.From, r.To)
		items, _, err := s.store.Scan(ctx, slot, r, kv.Linearizable)
		if err != nil {
			return nil, problem.Store("forget notices", err)
		}
		res.Found += uint32(len(items))
	}
	if res.GetFound() == 0 || req.GetDryRun() {
		return res, nil
	}
	_, err = s.store.Apply(ctx, slot, b)
	return res, problem.Store("forget notices", err)
}
