// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

const (
	// removeAtOnce is how many entries share a batch of a rebuild.
	removeAtOnce = 90
	// strayAge is how old an entry is when a rebuild may remove it: a younger one may be
	// of a post that has come since the albums were looked at.
	strayAge = time.Hour
)

// Rebuild fills a timeline anew; see the contract.
//
// It first looks what should be there, newest first, up to the cap, and writes what is
// missing; then it removes what should not be there from that stretch, and moves the
// cut to the end of the stretch. It fails with Unavailable if the index was cut
// meanwhile, for then it may have a gap above the end.
func (s *Service) Rebuild(ctx context.Context, req *momentsv1.RebuildRequest) (*momentsv1.RebuildResponse, error) {
	reader, err := problem.User("reader_id", req.GetReaderId())
	if err != nil {
		return nil, err
	}
	if s.homes != nil { // from here on fan-out keeps what comes, and what came before is in albums
		if err := s.homes.Refresh(ctx); err != nil {
			return nil, err
		}
	}
	if !s.keeps(reader) { // what were put in here now, nobody would take out again
		return nil, rpc.Errorf(rpc.FailedPrecondition, "the timeline is kept in region %d, where its reader is at home", s.homes.Of(reader).Region)
	}
	to := recipient{reader, kv.SlotOf(reader[:])}
	cut, err := s.store.Get(ctx, to.slot, readerKey(tableTrimmed, reader), kv.Linearizable)
	if err != nil {
		return nil, problem.Store("rebuild timeline", err)
	}
	due, whole, err := s.due(ctx, reader)
	if err != nil {
		return nil, err
	}
	res := new(momentsv1.RebuildResponse)
	if len(due) == 0 {
		return res, nil
	}
	dry := req.GetDryRun()
	there, err := s.entries(ctx, reader, due[0], due[len(due)-1], whole)
	if err != nil {
		return nil, err
	}
	var puts []kv.SlotPut // at most a cap of them
	for _, p := range due {
		if there[p] {
			delete(there, p)
			continue
		}
		puts = append(puts, kv.SlotPut{Slot: to.slot, Key: indexKey(reader, p)})
	}
	for part := range slices.Chunk(puts, bulkPuts) {
		if dry {
			break
		}
		if err := s.store.BulkPut(ctx, part); err != nil {
			return nil, problem.Store("rebuild timeline", err)
		}
	}
	res.Added = uint32(len(puts))
	b := new(kv.Batch)
	for p := range there { // what is left is not due
		if s.now().Sub(p.Time()) < strayAge {
			continue
		}
		res.Removed++
		if dry {
			continue
		}
		if b.Delete(indexKey(reader, p)); b.Len() == removeAtOnce {
			if _, err := s.store.Apply(ctx, to.slot, b); err != nil {
				return nil, problem.Store("rebuild timeline", err)
			}
			b.Reset()
		}
	}
	if b.Len() > 0 {
		if _, err := s.store.Apply(ctx, to.slot, b); err != nil {
			return nil, problem.Store("rebuild timeline", err)
		}
	}
	if dry {
		return res, nil
	}
	return res, s.moveCut(ctx, to, cut, due[len(due)-1], whole)
}

// due gives the posts that a reader's index should have at least, newest first, and
// whether there are no more: a cap of them if there are as many.
func (s *Service) due(ctx context.Context, reader id.User) (due []id.Post, whole bool, err error) {
	authors, err := s.circle(ctx, reader)
	if err != nil {
		return nil, false, err
	}
	for before := ""; len(due) <= s.cap; {
		res, err := s.post.MergeAlbums(ctx, &momentsv1.MergeAlbumsRequest{
			ViewerId: reader.String(), AuthorIds: authors, BeforeId: before, Limit: maxGet, HeadsOnly: true, ForIndex: true,
		})
		if err != nil {
			return nil, false, err
		}
		for _, post := range res.GetPosts() {
			p, err := id.ParsePost(post.GetId())
			if err != nil {
				return nil, false, err
			}
			due = append(due, p)
		}
		if before = res.GetReachedId(); before == "" && len(due) <= s.cap {
			return due, true, nil
		}
	}
	return due[:s.cap], false, nil
}

// entries gives what a stretch of an index has, from its newest to its oldest post, or
// to the end.
func (s *Service) entries(ctx context.Context, reader id.User, newest, oldest id.Post, toEnd bool) (map[id.Post]bool, error) {
	r := kv.Prefix(indexPrefix(reader), kv.MaxScan)
	r.From = indexKey(reader, newest)
	if !toEnd {
		r.To = kv.Next(indexKey(reader, oldest))
	}
	there := make(map[id.Post]bool)
	for {
		items, more, err := s.store.Scan(ctx, kv.SlotOf(reader[:]), r, kv.Linearizable)
		if err != nil {
			return nil, problem.Store("scan timeline", err)
		}
		for _, it := range items {
			there[indexPost(it.Key)] = true
		}
		if !more || len(items) == 0 {
			return there, nil
		}
		r.From = kv.Next(items[len(items)-1].Key)
	}
}

// moveCut says that below p an index may lack any post, or that it lacks none.
func (s *Service) moveCut(ctx context.Context, r recipient, was kv.Item, p id.Post, whole bool) error {
	key := readerKey(tableTrimmed, r.user)
	b := new(kv.Batch).IfVer(key, was.Ver)
	switch {
	case !whole:
		b.Put(key, p[:])
	case was.Ver != 0:
		b.Delete(key)
	default:
		return nil
	}
	_, err := s.store.Apply(ctx, r.slot, b)
	if errors.Is(err, kv.ErrConflict) {
		return rpc.Errorf(rpc.Unavailable, "the timeline was cut meanwhile; try again")
	}
	return problem.Store("rebuild timeline", err)
}
