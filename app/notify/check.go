// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"errors"
	"fmt"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Check compares a reader's rows with his state; see the contract.
//
// The state is read before the rows and is a condition of mending, so notices that
// arrive meanwhile are no fault and are never undone.
func (s *Service) Check(ctx context.Context, req *momentsv1.CheckNoticesRequest) (*momentsv1.CheckNoticesResponse, error) {
	u, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	const tries = 5 // each lost to a notice that came meanwhile
	for range tries {
		faults, mend, err := s.check(ctx, u)
		if err != nil {
			return nil, problem.Store("check notices", err)
		}
		res := &momentsv1.CheckNoticesResponse{Faults: faults}
		if len(faults) == 0 || !req.GetMend() {
			return res, nil
		}
		switch _, err := s.store.Apply(ctx, kv.SlotOf(u[:]), mend); {
		case err == nil:
			return res, nil
		case !errors.Is(err, kv.ErrConflict) && !errors.Is(err, kv.ErrUnknown):
			return nil, problem.Store("mend notices", err)
		}
	}
	return nil, rpc.Errorf(rpc.Unavailable, "the notices change too fast to be mended; try again")
}

// maxBadRows bounds what one mending removes: a batch has at most 100 operations.
const maxBadRows = 90

// check looks at all of a reader's rows, of which there are few, and gives the faults
// with the batch that mends them.
func (s *Service) check(ctx context.Context, u id.User) (faults []string, mend *kv.Batch, err error) {
	slot, key := kv.SlotOf(u[:]), stateKey(u)
	it, err := s.store.Get(ctx, slot, key, kv.Linearizable)
	if err != nil {
		return nil, nil, err
	}
	mend = new(kv.Batch).IfVer(key, it.Ver)
	was, err := parseState(it)
	if err != nil {
		faults = append(faults, err.Error())
	}
	// What is newer than the state has come since it was read, unless the state is
	// still the same when the rows have been read.
	right, bad := was, 0
	r := kv.Prefix(noticePrefix(u), kv.MaxScan)
	for more := true; more; {
		var items []kv.Item
		if items, more, err = s.store.Scan(ctx, slot, r, kv.Linearizable); err != nil {
			return nil, nil, err
		}
		for _, row := range items {
			r.From = kv.Next(row.Key)
			n, err := parseNotice(row)
			if err == nil {
				right.last = max(right.last, n.seq)
				continue
			}
			if bad++; bad <= maxBadRows {
				faults = append(faults, err.Error())
				mend.Delete(row.Key)
			}
		}
		more = more && len(items) > 0
	}
	if right.last > was.last {
		faults = append(faults, fmt.Sprintf("the newest notice is %d, but they are counted up to %d", right.last, was.last))
	}
	if was.read > right.last {
		faults = append(faults, fmt.Sprintf("read up to %d, but the newest notice is %d", was.read, right.last))
		right.read = right.last
	}
	if len(faults) == 0 {
		return nil, nil, nil
	}
	now, err := s.store.Get(ctx, slot, key, kv.Linearizable)
	if err != nil || now.Ver != it.Ver {
		return nil, nil, err // notices came in between: nothing can be told of this look
	}
	return faults, mend.Put(key, right.encode()), nil
}
