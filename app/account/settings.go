// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// settings is the row of a user's own settings. The zero settings are the defaults.
type settings struct {
	window momentsv1.AlbumWindow
	open   bool
}

func (st settings) encode() []byte { return []byte{byte(st.window), bits(st.open)} }

func decodeSettings(b []byte) (settings, error) {
	if len(b) == 0 {
		return settings{}, nil
	}
	r := rowReader{b: b}
	st := settings{window: momentsv1.AlbumWindow(r.byte()), open: r.byte() == 1}
	return st, r.err("settings")
}

func (st settings) show() *momentsv1.Settings {
	return &momentsv1.Settings{AlbumWindow: st.window, OpenToStrangers: st.open}
}

// spreaders is how many friends' versions are moved at once: most of the time each
// waits for a disk, which serves many for the price of one.
const spreaders = 32

// settingsOf gives a user's settings and the version of their row.
func (s *Service) settingsOf(ctx context.Context, uid id.User) (settings, uint64, error) {
	item, err := s.store.Get(ctx, slotOfUser(uid), userKey(prefixSettings, uid), kv.Linearizable)
	if err != nil {
		return settings{}, 0, err
	}
	st, err := decodeSettings(item.Value)
	return st, item.Ver, err
}

// GetSettings implements the contract.
func (s *Service) GetSettings(ctx context.Context, req *momentsv1.GetSettingsRequest) (*momentsv1.GetSettingsResponse, error) {
	uid, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	st, _, err := s.settingsOf(ctx, uid)
	if err != nil {
		return nil, problem.Store("read settings", err)
	}
	return &momentsv1.GetSettingsResponse{Settings: st.show()}, nil
}

// UpdateSettings implements the contract.
func (s *Service) UpdateSettings(ctx context.Context, req *momentsv1.UpdateSettingsRequest) (*momentsv1.UpdateSettingsResponse, error) {
	uid, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	if err := checkKey(req.GetIdempotencyKey()); err != nil {
		return nil, err
	}
	if _, known := momentsv1.AlbumWindow_name[int32(req.GetAlbumWindow())]; !known {
		return nil, problem.Invalid("album_window", "is %d, which is no window", int32(req.GetAlbumWindow()))
	}
	if _, ver, err := s.user(ctx, uid); err != nil || ver == 0 {
		if err == nil {
			err = problem.NotFound("user")
		}
		return nil, problem.Store("change settings", err)
	}
	use := once.New(s.now(), uid[:], req.GetIdempotencyKey(), once.Sum("settings", given(req.AlbumWindow), given(req.OpenToStrangers)))
	var st settings
	for {
		st, err = s.setSettings(ctx, uid, use, func(st settings) settings {
			if req.AlbumWindow != nil {
				st.window = req.GetAlbumWindow()
			}
			if req.OpenToStrangers != nil {
				st.open = req.GetOpenToStrangers()
			}
			return st
		})
		if !retry(ctx, err) {
			break
		}
	}
	if err == nil {
		err = s.spread(ctx, uid)
	}
	if err != nil {
		s.wake() // what has been written must spread, whoever waits for it
		return nil, problem.Store("change settings", err)
	}
	return &momentsv1.UpdateSettingsResponse{Settings: st.show()}, nil
}

// setSettings writes settings and, if others must notice, the mark that they have to.
func (s *Service) setSettings(ctx context.Context, uid id.User, use once.Use, change func(settings) settings) (settings, error) {
	slot := slotOfUser(uid)
	answer, found, err := use.Answer(ctx, s.store, slot)
	if err != nil {
		return settings{}, err
	}
	if found {
		return decodeSettings(answer)
	}
	was, ver, err := s.settingsOf(ctx, uid)
	if err != nil {
		return settings{}, err
	}
	st := change(was)
	if st == was && use.IsZero() {
		return st, nil
	}
	b := new(kv.Batch)
	use.IfNew(b)
	use.Record(b, st.encode())
	key := userKey(prefixSettings, uid)
	b.IfVer(key, ver)
	if st != was {
		b.Put(key, st.encode())
	}
	if st != was && s.joined { // a post says how far its author's settings were when he made it
		if err := s.moveOn(ctx, b, uid); err != nil {
			return settings{}, err
		}
	}
	if st.window != was.window {
		b.Put(userKey(prefixSpread, uid), nil)
	}
	return st, s.apply(ctx, slot, b)
}

// spread moves the relations versions of all friends of a user whose settings they may
// not have noticed. Settings are read where they are; only what is kept of them by
// version has to be asked for again.
func (s *Service) spread(ctx context.Context, uid id.User) error {
	slot, mark := slotOfUser(uid), userKey(prefixSpread, uid)
	item, err := s.store.Get(ctx, slot, mark, kv.Linearizable)
	if err != nil || item.Ver == 0 {
		return err
	}
	r := kv.Prefix(userKey(prefixFriend, uid), kv.MaxScan)
	for more := true; more; {
		var items []kv.Item
		if items, more, err = s.store.Scan(ctx, slot, r, kv.Linearizable); err != nil {
			return err
		}
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(spreaders)
		for _, it := range items {
			friend, err := secondOf[id.User](it.Key)
			if err != nil {
				return errors.Join(err, g.Wait())
			}
			if s.homes.Of(friend).Takes(s.ids.Region()) || !s.joined { // the others' versions are moved where they are at home
				g.Go(func() error { return s.touch(gctx, friend) })
			}
		}
		if err := g.Wait(); err != nil {
			return err
		}
		if len(items) == 0 {
			break
		}
		r.From = kv.Next(items[len(items)-1].Key)
	}
	_, err = s.store.Apply(ctx, slot, new(kv.Batch).IfVer(mark, item.Ver).Delete(mark))
	if errors.Is(err, kv.ErrConflict) {
		return nil // a later change has its own to do
	}
	return err
}

func (s *Service) spreadLeft(ctx context.Context, _ kv.Slot, item kv.Item) error {
	if len(item.Key) != 17 {
		return errDamaged
	}
	return s.spread(ctx, id.User(item.Key[1:]))
}

// touch moves a user's relations version on, so that nothing kept of it is used again.
func (s *Service) touch(ctx context.Context, uid id.User) error {
	for {
		b := new(kv.Batch)
		if err := s.moveOn(ctx, b, uid); err != nil {
			return err
		}
		if err := s.apply(ctx, slotOfUser(uid), b); err == nil || !retry(ctx, err) {
			return err
		}
	}
}

// moveOn adds to b that a user's relations version moves on.
func (s *Service) moveOn(ctx context.Context, b *kv.Batch, uid id.User) error {
	key := userKey(prefixRelation, uid)
	item, err := s.store.Get(ctx, slotOfUser(uid), key, kv.Linearizable)
	if err != nil {
		return err
	}
	count, err := decodeTally(item.Value)
	if err != nil {
		return err
	}
	count.version++
	b.IfVer(key, item.Ver).Put(key, count.encode())
	return nil
}
