// SPDX-License-Identifier: Apache-2.0

package post

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
	"github.com/sluice-rpc/sluice/tracing"
)

// When somebody's home is moved, see package homes, the account service leads. Here each
// step is a row in his slot and a record in its log: what came before it of the old home's
// log are all of his posts, and what comes after it of the new home's are his, whatever
// region their ids name.

// Rehome makes a step of a move; see the contract.
func (s *Service) Rehome(ctx context.Context, req *momentsv1.RehomeRequest) (*momentsv1.RehomeResponse, error) {
	h, err := homes.Read(req.GetHome())
	if err != nil {
		return nil, problem.Invalid("home", "%v", err)
	}
	if h.Region != s.region { // he is to come, once all is here
		complete, err := s.whole(ctx, h)
		return &momentsv1.RehomeResponse{Complete: complete}, err
	}
	const tries = 10 // each lost to another writer of the slot, or to the store
	for range tries {
		if err = s.move(ctx, h); !errors.Is(err, kv.ErrConflict) && !errors.Is(err, kv.ErrUnknown) {
			break
		}
	}
	return &momentsv1.RehomeResponse{}, problem.Store("move a home", err)
}

// whole reports whether all posts of somebody who is being moved here are here, none of
// them aside.
func (s *Service) whole(ctx context.Context, h homes.Home) (bool, error) {
	if s.homes.Of(h.User).Next != s.region || !s.homes.Whole(h) {
		return false, nil
	}
	r := kv.Prefix([]byte{tableVeil}, kv.MaxScan)
	for {
		items, more, err := s.store.Scan(ctx, kv.SlotOf(h.User[:]), r, kv.Linearizable)
		if err != nil {
			return false, problem.Store("look for posts that wait", err)
		}
		for _, it := range items {
			rec, err := parseBody(it)
			if err != nil || id.User(rec.GetAuthorId()) == h.User {
				return false, err
			}
		}
		if !more || len(items) == 0 {
			return true, nil
		}
		r.From = kv.Next(items[len(items)-1].Key)
	}
}

// move writes a step that this region makes.
func (s *Service) move(ctx context.Context, h homes.Home) error {
	if h.Epoch <= s.homes.Of(h.User).Epoch {
		return nil
	}
	if err := s.homes.Prepare(ctx, h.User); err != nil {
		return err
	}
	slot, key := kv.SlotOf(h.User[:]), homes.Key(h.User)
	out, err := s.fanOut.outbox.Open(ctx, slot)
	if err != nil {
		return err
	}
	defer out.Close()
	it, err := s.read(ctx, slot, key)
	if err != nil {
		return err
	}
	if it.Ver != 0 {
		was, err := homes.Parse(it.Value)
		if err != nil {
			return err
		}
		if was.Epoch >= h.Epoch {
			s.homes.Learn(was) // of a try whose outcome was lost
			return nil
		}
	}
	batch := new(kv.Batch).IfVer(key, it.Ver).Put(key, h.Encode())
	out.PutPeers(batch, append([]byte{entryHome}, h.Encode()...), tracing.Origin{})
	if err := out.Seal(batch); err != nil {
		return err
	}
	ver, err := s.store.Apply(ctx, slot, batch)
	if err != nil {
		return err
	}
	s.homes.Learn(h) // before anybody reads the slot because of the record, or writes next
	out.Applied(ver)
	return nil
}

// guard refuses the posts of somebody whose home this is no more. It is asked in the turn
// of his slot.
func (s *Service) guard(author id.User) error {
	if h := s.homes.Of(author); h.Epoch > 0 && !h.Takes(s.region) {
		return homes.ErrMoving()
	}
	return nil
}

// entryHome begins a record for other regions that says where somebody is at home. Those
// of posts begin with 1.
const entryHome = 2

// expandHome gives what such a record says, nil for one of a post.
func expandHome(body []byte) ([]byte, error) {
	if len(body) == 0 || body[0] != entryHome {
		return nil, nil
	}
	return proto.Marshal(&momentsv1.PostRecord{Home: body[1:]})
}

// home adds where somebody is at home. The steps of a move are believed of who makes them,
// what came of it of anybody.
func (a *arrival) home(ctx context.Context, raw []byte) error {
	h, err := homes.Parse(raw)
	if err != nil || kv.SlotOf(h.User[:]) != a.slot || h.Next != 0 && h.Region != a.from {
		return idcqueue.Refuse("region %d has nothing to say of the home %x: %v", a.from, raw, err)
	}
	if h.Epoch <= a.homeOf(h.User).Epoch {
		return nil
	}
	if err := a.s.homes.Prepare(ctx, h.User); err != nil {
		return err
	}
	it, err := a.s.read(ctx, a.slot, homes.Key(h.User))
	if err != nil {
		return err
	}
	a.batch.IfVer(it.Key, it.Ver).Put(it.Key, raw)
	a.moved[h.User] = h
	return nil
}

// whole adds that all posts are here of somebody who is being moved here.
func (a *arrival) whole(u id.User, epoch uint32) {
	h := a.homeOf(u)
	if h.Region != a.from || h.Next != a.s.region || a.s.homes.Whole(h) {
		return
	}
	a.batch.Put(homes.WholeKey(u), homes.WholeValue(epoch))
	a.ends = append(a.ends, homes.Home{User: u, Epoch: epoch})
}

// homeOf gives where somebody is at home, as this batch will have it.
func (a *arrival) homeOf(u id.User) homes.Home {
	if h, moved := a.moved[u]; moved {
		return h
	}
	return a.s.homes.Of(u)
}

// homeRows gives the rows that say where people of a slot are at home: whole those that
// their posts are followed by.
func (s *Service) homeRows(ctx context.Context, slot kv.Slot, whole bool) (rows []idcqueue.Row, err error) {
	r := kv.Prefix([]byte{homes.TableHome}, kv.MaxScan)
	for s.homes.Len() > 0 {
		items, more, err := s.store.Scan(ctx, slot, r, kv.Linearizable)
		if err != nil {
			return nil, err
		}
		for _, it := range items {
			h, err := homes.Parse(it.Value)
			switch {
			case err != nil:
				return nil, err
			case h.Next != 0 && h.Region != s.region: // its home tells
			case !whole:
				rows = append(rows, idcqueue.Row{Key: it.Key, Value: it.Value})
			case h.Next != 0:
				rows = append(rows, idcqueue.Row{Key: homes.WholeKey(h.User), Value: homes.WholeValue(h.Epoch)})
			}
		}
		if !more || len(items) == 0 {
			break
		}
		r.From = kv.Next(items[len(items)-1].Key)
	}
	return rows, nil
}

// isOut reports whether other regions get a body from this one: posts that were made here,
// and those of people who are at home here.
func (s *Service) isOut(it kv.Item) (bool, error) {
	if id.Post(it.Key[1:]).Region() == s.region {
		return true, nil
	}
	if s.homes.Len() == 0 {
		return false, nil
	}
	rec, err := parseBody(it)
	if err != nil {
		return false, err
	}
	h := s.homes.Of(id.User(rec.GetAuthorId()))
	return h.Epoch > 0 && h.Region == s.region, nil
}

// homeRow takes a row of a part that is none of a post. It reports false if it is one.
func (a *arrival) homeRow(ctx context.Context, row idcqueue.Row) (bool, error) {
	switch {
	case len(row.Key) != 17:
		return false, nil
	case row.Key[0] == homes.TableHome:
		if !bytes.Equal(row.Key[1:], row.Value[min(1, len(row.Value)):min(17, len(row.Value))]) {
			return true, idcqueue.Refuse("row %x is of somebody else's home: %x", row.Key, row.Value)
		}
		return true, a.home(ctx, row.Value)
	case row.Key[0] == homes.TableWhole && len(row.Value) == 4:
		a.whole(id.User(row.Key[1:]), binary.BigEndian.Uint32(row.Value))
		return true, nil
	}
	return false, nil
}

// releaseMedia has the media of a post let go that its author has deleted in another
// region than the one that keeps them.
func (a *arrival) releaseMedia(rec *momentsv1.PostRecord, was kv.Item) error {
	if was.Ver == 0 {
		return nil
	}
	old, err := parseBody(was)
	if err != nil {
		return err
	}
	held := [][]byte{old.GetLink().GetMediaId()}
	for _, m := range old.GetMedia() {
		held = append(held, m.GetMediaId())
	}
	for _, m := range held {
		if len(m) == 16 && id.Media(m).Region() == a.s.region {
			a.follow(errand{post: id.Post(rec.GetPostId()), kind: errandRelease})
			break
		}
	}
	return nil
}
