// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"context"
	"encoding/binary"
	"hash/fnv"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

const maxWatch = 1000 // readers of one Watch

// Watch tells whose red dots may have changed; see the contract. A stamp is over the
// newest entry of a timeline and the mark up to which it was seen.
func (s *Service) Watch(ctx context.Context, req *momentsv1.WatchTimelinesRequest) (*momentsv1.WatchTimelinesResponse, error) {
	if n := len(req.GetReaderIds()); n > maxWatch {
		return nil, problem.Invalid("reader_ids", "has %d ids, at most %d", n, maxWatch)
	}
	res := &momentsv1.WatchTimelinesResponse{Stamps: make([]uint64, len(req.GetReaderIds()))}
	for i, v := range req.GetReaderIds() {
		u, err := problem.User("reader_ids", v)
		if err != nil {
			return nil, err
		}
		slot := kv.SlotOf(u[:])
		newest, _, err := s.store.Scan(ctx, slot, kv.Prefix(indexPrefix(u), 1), kv.Local)
		if err != nil {
			return nil, problem.Store("read a timeline's newest entry", err)
		}
		seen, err := s.store.Get(ctx, slot, readerKey(tableSeen, u), kv.Local)
		if err != nil {
			return nil, problem.Store("read the red dot", err)
		}
		h := fnv.New64a()
		for _, it := range newest {
			_, _ = h.Write(it.Key) // never fails
		}
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, seen.Ver))
		res.Stamps[i] = h.Sum64()
	}
	return res, nil
}
