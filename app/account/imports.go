// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"slices"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

const (
	// maxImport is how many friends one call may import.
	maxImport = 500
	// importBatch is how many fit into one batch: two rows each, the counters and their
	// condition.
	importBatch = (kv.MaxOps - 2) / 2
	// importCopied is how many do if other regions are told: a record takes room here, and
	// there each may take three operations of one batch.
	importCopied = (batchOps - 10) / 3
)

// ImportFriends implements the contract. A friendship that two people make themselves
// takes four batches, a mark for each of them and two looks at an album; a graph of
// 100,000 people has two million.
func (s *Service) ImportFriends(ctx context.Context, req *momentsv1.ImportFriendsRequest) (*momentsv1.ImportFriendsResponse, error) {
	uid, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	if n := len(req.GetOtherIds()); n > maxImport {
		return nil, problem.Invalid("other_ids", "has %d ids, want at most %d", n, maxImport)
	}
	others := make([]id.User, len(req.GetOtherIds()))
	for i, text := range req.GetOtherIds() {
		if others[i], err = problem.User("other_ids", text); err != nil {
			return nil, err
		}
		if others[i] == uid {
			return nil, problem.Invalid("other_ids", "has the user himself")
		}
	}
	slices.SortFunc(others, id.User.Compare)
	others = slices.Compact(others)
	for _, u := range append(others[:len(others):len(others)], uid) {
		if !s.home(u) {
			return nil, problem.New(rpc.FailedPrecondition, "not-home", "other_ids", "%v is at home in another region", u)
		}
		it, err := s.store.Get(ctx, slotOfUser(u), userKey(prefixUser, u), kv.Linearizable)
		if err == nil && it.Ver == 0 {
			err = problem.NotFound("user")
		}
		if err != nil {
			return nil, problem.Store("import friends", err)
		}
	}
	res := new(momentsv1.ImportFriendsResponse)
	fit := importBatch
	if s.joined {
		fit = importCopied
	}
	for part := range slices.Chunk(others, fit) {
		n, err := s.importOnce(ctx, uid, part)
		for retry(ctx, err) {
			n, err = s.importOnce(ctx, uid, part)
		}
		if err != nil {
			return nil, problem.Store("import friends", err)
		}
		res.Imported += uint32(n)
	}
	return res, nil
}

func (s *Service) importOnce(ctx context.Context, uid id.User, others []id.User) (imported int, err error) {
	slot, tallyKey := slotOfUser(uid), userKey(prefixRelation, uid)
	item, err := s.store.Get(ctx, slot, tallyKey, kv.Linearizable)
	if err != nil {
		return 0, err
	}
	count, err := decodeTally(item.Value)
	if err != nil {
		return 0, err
	}
	known, err := s.edgesOf(ctx, uid)
	if err != nil {
		return 0, err
	}
	// Both have asked: each side of a friendship of the first round looks like this.
	e := edge{}.request()
	e = e.hear(e.word())
	b := new(kv.Batch).IfVer(tallyKey, item.Ver) // which every change of an edge writes
	for _, other := range others {
		if _, ok := known[other]; ok {
			continue
		}
		b.Put(pairKey(prefixEdge, uid, other), e.encode())
		b.Put(pairKey(prefixFriend, uid, other), e.view().encode())
		imported++
	}
	if imported == 0 {
		return 0, nil
	}
	if count.alive+uint32(imported) > s.maxFriends {
		return 0, problem.New(rpc.FailedPrecondition, "limit", "other_ids", "%d friends and these are more than the limit of %d", count.alive, s.maxFriends)
	}
	count.alive += uint32(imported)
	count.version++
	return imported, s.apply(ctx, slot, b.Put(tallyKey, count.encode()))
}

// edgesOf gives all whom a user's side knows anything of.
func (s *Service) edgesOf(ctx context.Context, uid id.User) (map[id.User]struct{}, error) {
	all := make(map[id.User]struct{})
	r := kv.Prefix(userKey(prefixEdge, uid), kv.MaxScan)
	for {
		items, more, err := s.store.Scan(ctx, slotOfUser(uid), r, kv.Linearizable)
		if err != nil {
			return nil, err
		}
		for _, it := range items {
			other, err := secondOf[id.User](it.Key)
			if err != nil {
				return nil, err
			}
			all[other] = struct{}{}
		}
		if !more || len(items) == 0 {
			return all, nil
		}
		r.From = kv.Next(items[len(items)-1].Key)
	}
}
