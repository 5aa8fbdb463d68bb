// SPDX-License-Identifier: Apache-2.0

package account

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/outbox"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
	"github.com/sluice-rpc/sluice/tracing"
)

// An operator moves somebody's home in the steps of package homes. Each is a row in his
// slot, and a record in the outbox that stands for all rows of the slot: so whoever gets it
// has his rows as they were at that step, whatever was on its way by other lines.
//
//  1. The old home writes that he is fenced, and takes no more of his writes. Its rows go
//     to the new home with those that nobody else gets: the password, tags, what he has
//     chosen about others, who waits for his answer.
//  2. The new home waits for the end of them, and for all of his posts. Then it writes that
//     he is at home there, or, if he was called back, where he was.
//  3. It hears what others have said to him meanwhile, builds his timeline and has his
//     posts taken.
//
// A step that was cut off is found by what the rows say, and made again.

// private is the kinds of rows that only the home has, ascending, and that go along when it
// is moved. What idempotency keys did does not: a write that is repeated in another region
// is another one.
var private = []byte{prefixChosen, prefixTag, prefixInvite}

// isOwned reports whether a key is of a row that is written at home alone, and whose.
func isOwned(key []byte) (u id.User, private, ok bool) {
	if u, ok = isCopied(key); ok {
		return u, false, true
	}
	if (len(key) != 17 && len(key) != 33) || !isPrivate(key[0]) {
		return u, false, false
	}
	return id.User(key[1:]), true, true
}

func isPrivate(kind byte) bool { return bytes.IndexByte(private, kind) >= 0 }

// wholeSlot is a record that stands for all rows of its slot.
var wholeSlot = []byte{0}

// expand tells such records from those that are sent as they are.
func (s *Service) expand(_ context.Context, _ kv.Slot, records []outbox.Record) ([][]byte, error) {
	bodies := make([][]byte, len(records))
	for i := range records {
		if bodies[i] = records[i].Body; bytes.Equal(bodies[i], wholeSlot) {
			return nil, idcqueue.ErrWhole
		}
	}
	return bodies, nil
}

// guard refuses a batch on rows of somebody whose home this is no more. It is asked in the
// turn of the slot in which the batch is applied.
func (s *Service) guard(b *kv.Batch) error {
	if s.homes.Len() == 0 {
		return nil
	}
	for _, w := range b.Writes() {
		u, _, ok := isOwned(w.Key)
		if !ok {
			continue
		}
		if h := s.homes.Of(u); h.Epoch > 0 && !h.Takes(s.ids.Region()) {
			return homes.ErrMoving()
		}
	}
	return nil
}

// turns reports whether a batch needs the turn of its slot though it tells nobody, so that
// it is guarded.
func (s *Service) turns(b *kv.Batch) bool {
	if !s.joined {
		return false
	}
	for _, w := range b.Writes() {
		if _, private, ok := isOwned(w.Key); ok && (private || s.homes.Len() > 0) {
			return true
		}
	}
	return false
}

// moves is who is to be looked after by Run.
type moves struct {
	mu   sync.Mutex
	open map[id.User]bool // guarded by mu; true for who has been added since begin
	wake chan struct{}    // holds a token while open may have changed
}

func (m *moves) add(u id.User) {
	m.mu.Lock()
	m.open[u] = true
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default: // it is going to look anyway
	}
}

func (m *moves) all() (all []id.User) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for u := range m.open {
		all = append(all, u)
	}
	return all
}

// begin says that somebody is looked after now.
func (m *moves) begin(u id.User) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open[u] = false
}

// done takes him out, unless he has been added since: there may be something new.
func (m *moves) done(u id.User) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.open[u] {
		delete(m.open, u)
	}
}

// openHomes reads who has moved, and who is to be looked after.
func (s *Service) openHomes(ctx context.Context) (err error) {
	if s.homes, err = homes.Open(ctx, s.store); err != nil {
		return fmt.Errorf("account: %w", err)
	}
	s.moves = moves{open: make(map[id.User]bool), wake: make(chan struct{}, 1)}
	for u := range s.homes.All() {
		s.moves.add(u)
	}
	return nil
}

// learn takes in a step that is durable.
func (s *Service) learn(h homes.Home) {
	if h.Epoch == 0 || !s.homes.Learn(h) {
		return
	}
	s.log.Info("a home is moved", "user", h.User, "epoch", h.Epoch, "region", h.Region, "next", h.Next, "back", h.Back)
	s.moves.add(h.User)
	if h.Next == 0 {
		s.wake() // words for him that waited
	}
}

// HomeOf tells where somebody is at home.
func (s *Service) HomeOf(u id.User) homes.Home { return s.homes.Of(u) }

// Rehome begins to move somebody's home from this region to another one. Run and the other
// region do the rest; HomeOf tells how far it is. Given again it changes nothing.
func (s *Service) Rehome(ctx context.Context, uid id.User, to id.Region) (homes.Home, error) {
	if !s.joined {
		return homes.Of(uid), fmt.Errorf("%w: this region is joined to no other", homes.ErrMove)
	}
	if many := s.homes.Len(); many >= homes.Max && s.homes.Of(uid).Epoch == 0 {
		return homes.Of(uid), fmt.Errorf("%w: %d people have moved already, which is the limit", homes.ErrMove, many)
	}
	if _, ver, err := s.user(ctx, uid); err != nil || ver == 0 {
		if err == nil {
			err = problem.NotFound("user")
		}
		return homes.Of(uid), err
	}
	return s.step(ctx, uid, func(h homes.Home, _ *kv.Batch) (homes.Home, error) { return h.Fence(s.ids.Region(), to) })
}

// CallBack asks for somebody back who is being moved from here. If the other region has
// taken him already, he stays there.
func (s *Service) CallBack(ctx context.Context, uid id.User) (homes.Home, error) {
	return s.step(ctx, uid, func(h homes.Home, _ *kv.Batch) (homes.Home, error) { return h.CallBack(s.ids.Region()) })
}

// step writes where somebody is at home from now on, with what belongs to that.
func (s *Service) step(ctx context.Context, uid id.User, next func(homes.Home, *kv.Batch) (homes.Home, error)) (homes.Home, error) {
	if err := s.homes.Prepare(ctx, uid); err != nil {
		return s.homes.Of(uid), err
	}
	for {
		h, err := s.tryStep(ctx, uid, next)
		if !retry(ctx, err) {
			return h, err
		}
	}
}

func (s *Service) tryStep(ctx context.Context, uid id.User, next func(homes.Home, *kv.Batch) (homes.Home, error)) (h homes.Home, err error) {
	slot, key := slotOfUser(uid), homes.Key(uid)
	turn, err := s.outbox.Open(ctx, slot)
	if err != nil {
		return h, err
	}
	defer turn.Close()
	item, err := s.store.Get(ctx, slot, key, kv.Linearizable)
	if err != nil {
		return h, err
	}
	was := homes.Of(uid)
	if item.Ver != 0 {
		if was, err = homes.Parse(item.Value); err != nil {
			return h, err
		}
	}
	b := new(kv.Batch).IfVer(key, item.Ver)
	if h, err = next(was, b); err != nil {
		return was, err
	}
	if h != was {
		b.Put(key, h.Encode())
		turn.PutPeers(b, wholeSlot, tracing.Origin{})
		if err := turn.Seal(b); err != nil {
			return was, err
		}
		ver, err := s.store.Apply(ctx, slot, b)
		if err != nil {
			return was, err
		}
		s.learn(h) // before anybody reads the slot because of the record
		turn.Applied(ver)
		return h, nil
	}
	s.learn(h) // before the turn ends: the next writer finds it
	return h, nil
}

// moveEvery is how often it is looked after those that wait for something, and moveCall
// bounds each call for that.
const (
	moveEvery = 250 * time.Millisecond
	moveCall  = 10 * time.Second
)

// keepMoving looks after those who are being moved until ctx ends.
func (s *Service) keepMoving(ctx context.Context) {
	failed := map[id.User]string{} // what was last told of each
	for {
		for _, u := range s.moves.all() {
			s.moves.begin(u)
			done, err := s.advance(ctx, s.homes.Of(u))
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && failed[u] != err.Error():
				failed[u] = err.Error()
				s.log.WarnContext(ctx, "a home cannot be moved on now and is tried again", "user", u, "err", err)
			case done:
				delete(failed, u)
				s.moves.done(u)
			}
		}
		every := sweepEvery
		if len(s.moves.all()) > 0 {
			every = moveEvery
		}
		if !wait(ctx, s.moves.wake, every) {
			return
		}
	}
}

// advance does what this region is to do about a step. It reports true if there is nothing
// left for it to do.
func (s *Service) advance(ctx context.Context, h homes.Home) (done bool, err error) {
	own := s.ids.Region()
	switch {
	case h.Region == own && h.Next != 0:
		_, err := s.movePosts(ctx, h)
		return err == nil, err
	case h.Next == own:
		if !h.Back {
			if !s.homes.Whole(h) {
				return false, nil
			}
			if complete, err := s.movePosts(ctx, h); err != nil || !complete {
				return false, err
			}
		}
		_, err := s.step(ctx, h.User, func(h homes.Home, b *kv.Batch) (homes.Home, error) { return s.decide(ctx, h, b) })
		return err == nil, err
	case h.Takes(own):
		return s.settleIn(ctx, h)
	case h.Next == 0:
		return s.clearOut(ctx, h.User)
	}
	return true, nil
}

// clearOut removes what is left here of somebody who moved away and has deleted his account
// since: his new home tells of that, and cannot reach it.
func (s *Service) clearOut(ctx context.Context, uid id.User) (done bool, err error) {
	slot, mark := slotOfUser(uid), userKey(prefixArrived, uid)
	item, err := s.store.Get(ctx, slot, mark, kv.Linearizable)
	if err != nil || item.Ver == 0 {
		return err == nil, err
	}
	_, ver, err := s.user(ctx, uid)
	if err == nil && ver == 0 { // or it is left of when he came here, and went on before that was done
		err = s.forgetAll(background(ctx, "rehome"), uid)
	}
	if err != nil {
		return false, err
	}
	_, err = s.store.Apply(ctx, slot, new(kv.Batch).IfVer(mark, item.Ver).Delete(mark))
	return err == nil, err
}

// decide takes somebody in, or gives him back.
func (s *Service) decide(ctx context.Context, was homes.Home, b *kv.Batch) (homes.Home, error) {
	own := s.ids.Region()
	if was.Next != own {
		return was, nil // it is decided
	}
	h := was.Decide()
	u, ver, err := s.user(ctx, h.User)
	if err != nil {
		return was, err
	}
	if h.Region != own {
		forget(b, h.User)
		if ver != 0 && u.hash != "" {
			u.hash = ""
			row, err := u.encode()
			if err != nil {
				return was, err
			}
			b.IfVer(userKey(prefixUser, h.User), ver).Put(userKey(prefixUser, h.User), row)
		}
		return h, nil
	}
	if ver == 0 {
		return was, fmt.Errorf("account: %v is to be at home here and has no account", h.User)
	}
	u.profile.HomeRegion = uint32(own)
	row, err := u.encode()
	if err != nil {
		return was, err
	}
	key := userKey(prefixRelation, h.User)
	item, err := s.store.Get(ctx, slotOfUser(h.User), key, kv.Linearizable)
	if err != nil {
		return was, err
	}
	count, err := decodeTally(item.Value)
	if err != nil {
		return was, err
	}
	count.version, count.home = max(count.version, count.home)+1, 0
	b.IfVer(userKey(prefixUser, h.User), ver).Put(userKey(prefixUser, h.User), row)
	b.IfVer(key, item.Ver).Put(key, count.encode())
	b.Put(userKey(prefixArrived, h.User), nil)
	return h, nil
}

// forget adds that nothing is left here of what a user's home alone has: he is at home
// elsewhere, and all of it is there, durably. The hash of his password goes with the copy
// of his account that comes from there.
func forget(b *kv.Batch, u id.User) {
	for _, kind := range private {
		from := userKey(kind, u)
		b.DeleteRange(from, kv.PrefixEnd(from))
	}
}

// movePosts tells the post service of a step. It reports true if it has all posts.
func (s *Service) movePosts(ctx context.Context, h homes.Home) (complete bool, err error) {
	if s.posts == nil {
		return false, errors.New("account: there is no post service here to move posts")
	}
	err = bounded(background(ctx, "rehome"), func(ctx context.Context) error {
		res, err := s.posts.Rehome(ctx, &momentsv1.RehomeRequest{Home: h.Show()})
		complete = res.GetComplete()
		return err
	})
	return complete, err
}

// settleIn does what is left to do for somebody who has come, or come back. Doing it again
// changes nothing.
func (s *Service) settleIn(ctx context.Context, h homes.Home) (done bool, err error) {
	slot, mark := slotOfUser(h.User), userKey(prefixArrived, h.User)
	item, err := s.store.Get(ctx, slot, mark, kv.Linearizable)
	if err != nil || item.Ver == 0 {
		return err == nil, err
	}
	if _, err := s.movePosts(ctx, h); err != nil {
		return false, err
	}
	if err := s.hearAll(ctx, h.User); err != nil {
		return false, fmt.Errorf("hear what others have said: %w", err)
	}
	if s.timeline != nil {
		ctx, cancel := context.WithTimeout(background(ctx, "rehome"), moveCall)
		defer cancel()
		if _, err := s.timeline.Rebuild(ctx, &momentsv1.RebuildRequest{ReaderId: h.User.String()}); err != nil {
			return false, fmt.Errorf("build the timeline: %w", err)
		}
	}
	_, err = s.store.Apply(ctx, slot, new(kv.Batch).IfVer(mark, item.Ver).Delete(mark))
	if errors.Is(err, kv.ErrConflict) {
		err = nil // he has come again
		s.moves.add(h.User)
	}
	return err == nil, err
}

// hearAll lets somebody hear what all others have said to him: as long as he was at home
// elsewhere nothing was kept of it but their sides.
func (s *Service) hearAll(ctx context.Context, uid id.User) error {
	edges := kv.Prefix([]byte{prefixEdge}, 0)
	return kv.Sweep(ctx, s.store, edges, kv.Linearizable, func(slot kv.Slot, item kv.Item) error {
		from, to, err := pairOf(item.Key)
		if err != nil || to != uid {
			return err
		}
		e, err := decodeEdge(item.Value)
		if err != nil {
			return err
		}
		if _, err := s.store.Apply(ctx, slot, new(kv.Batch).Put(pairKey(prefixMirror, from, uid), e.word().encode())); err != nil {
			return err
		}
		return s.tell(ctx, from, uid)
	})
}

// ListHomes implements the contract.
func (s *Service) ListHomes(_ context.Context, req *momentsv1.ListHomesRequest) (*momentsv1.ListHomesResponse, error) {
	all := s.homes.All()
	res := &momentsv1.ListHomesResponse{Version: s.started}
	for _, h := range all {
		res.Version += uint64(h.Epoch) // each step adds to it
	}
	if res.Version == req.GetKnownVersion() {
		res.Unchanged = true
		return res, nil
	}
	for _, h := range all {
		res.Homes = append(res.Homes, h.Show())
	}
	return res, nil
}

// homeOf gives where somebody is at home, as this batch will have it.
func (a *arrival) homeOf(u id.User) homes.Home {
	if h, moved := a.moved[u]; moved {
		return h
	}
	return a.s.homes.Of(u)
}

// home adds where somebody is at home. The steps of a move are believed of who makes them,
// what came of it of anybody.
func (a *arrival) home(ctx context.Context, key, value []byte) error {
	h, err := homes.Parse(value)
	if err != nil || !bytes.Equal(key, homes.Key(h.User)) || slotOfUser(h.User) != a.slot || h.Next != 0 && h.Region != a.from {
		return idcqueue.Refuse("region %d has nothing to say of a home under %x: %v", a.from, key, err)
	}
	if h.Epoch <= a.homeOf(h.User).Epoch {
		return nil
	}
	if err := a.s.homes.Prepare(ctx, h.User); err != nil {
		return err
	}
	it, err := a.s.store.Get(ctx, a.slot, key, kv.Linearizable)
	if err != nil {
		return err
	}
	a.batch.IfVer(key, it.Ver).Put(key, value)
	switch own := a.s.ids.Region(); {
	case h.Takes(own):
		a.batch.Put(userKey(prefixArrived, h.User), nil)
	case h.Next == 0:
		forget(a.batch, h.User)
	}
	a.moved[h.User] = h
	return nil
}

// end is that all is here of somebody, as of an epoch.
type end struct {
	user  id.User
	epoch uint32
}

// whole adds that all is here of somebody who is being moved here. It counts only if his
// fence was known before his rows came.
func (a *arrival) whole(key, value []byte) error {
	if len(key) != 17 || len(value) != 4 {
		return idcqueue.Refuse("row %x of region %d is damaged", key, a.from)
	}
	h := a.homeOf(id.User(key[1:]))
	if h.Region == a.from && h.Next == a.s.ids.Region() && !a.s.homes.Whole(h) {
		a.batch.Put(key, value)
		a.ends = append(a.ends, end{h.User, binary.BigEndian.Uint32(value)})
	}
	return nil
}

// secret adds a row that goes from home to home.
func (a *arrival) secret(ctx context.Context, key, value []byte, gone bool) error {
	have, err := a.s.store.Get(ctx, a.slot, key, kv.Linearizable)
	switch {
	case err != nil:
		return err
	case gone:
		a.batch.Delete(key)
	case have.Ver == 0 || !bytes.Equal(have.Value, value):
		a.batch.Put(key, value)
	}
	return nil
}
