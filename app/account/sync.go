// SPDX-License-Identifier: Apache-2.0

package account

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/outbox"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// A user's rows go one way, from his home region to all others, which have copies:
// profile (without the password), sessions, settings, what he has said to others, who
// his friends are. Every batch that changes such rows takes a record with them into the
// outbox, so the copies change as the rows did: together and in order.
//
// A friendship across regions is made like any other, of two halves that each is written
// in its owner's home. That a copy of an edge comes is how the other one's home hears of
// it: the arriving batch leaves the word that tell brings to the other's side.
//
// A copy has a relations version of its own, which moves whenever a copied row does, and
// knows the one that it is a copy of.

// copied is the kinds of rows that other regions have copies of, ascending.
var copied = []byte{prefixSettings, prefixEdge, prefixFriend, prefixRelation, prefixSession, prefixUser}

// isCopied reports whether a key is of a row that other regions have copies of, and whose.
func isCopied(key []byte) (id.User, bool) {
	if len(key) < 17 || bytes.IndexByte(copied, key[0]) < 0 {
		return id.User{}, false
	}
	return id.User(key[1:]), true
}

// home reports whether a user is at home in this region.
func (s *Service) home(u id.User) bool {
	return !s.joined || s.homes.Of(u).Region == s.ids.Region()
}

// Side gives what the queue between regions needs of this service.
func (s *Service) Side() idcqueue.Side {
	return idcqueue.Side{Expand: s.expand, Apply: s.arrive, Rows: s.copiedRows, Merge: s.mergePart}
}

// Outbox gives the service's outbox, for the queue between regions.
func (s *Service) Outbox() *outbox.Box { return s.outbox }

// syncOf gives the record for other regions of a batch, nil if they have nothing of it.
func (s *Service) syncOf(b *kv.Batch) ([]byte, error) {
	if !s.joined {
		return nil, nil
	}
	m := new(momentsv1.AccountSync)
	for _, w := range b.Writes() {
		u, ok := isCopied(w.Key)
		if !ok || !s.home(u) {
			continue
		}
		row := &momentsv1.SyncRow{Key: w.Key}
		switch w.Kind {
		case kv.PutKey:
			value, err := shared(w.Key, w.Value)
			if err != nil {
				return nil, err
			}
			row.Value = value
		case kv.DeleteKey:
			row.Gone = true
		case kv.DeleteKeys:
			row.Gone, row.To = true, w.To
		}
		m.UserId = u[:] // all of a batch are one user's
		m.Rows = append(m.Rows, row)
	}
	if len(m.GetRows()) == 0 {
		return nil, nil
	}
	return proto.Marshal(m)
}

// shared gives the value of a row as other regions get it: no password leaves its region.
func shared(key, value []byte) ([]byte, error) {
	if key[0] != prefixUser {
		return value, nil
	}
	u, err := decodeUser(value)
	if err != nil {
		return nil, err
	}
	u.hash = ""
	return u.encode()
}

// arrive takes what other regions' users have changed.
func (s *Service) arrive(ctx context.Context, in *idcqueue.In) (int, error) {
	a := s.newArrival(in.From, in.Slot, in.Batch)
	in.After(func(uint64) { a.applied() })
	for i := range in.Records {
		m := new(momentsv1.AccountSync)
		if err := proto.Unmarshal(in.Records[i].Body, m); err != nil {
			return i, a.flush(idcqueue.Refuse("%v", err))
		}
		u, takes, err := a.check(m)
		if err != nil {
			return i, a.flush(err)
		}
		if !takes {
			continue
		}
		if i > 0 && (a.touched[u] || a.ops()+3*len(m.GetRows())+6 > batchOps) {
			return i, a.flush(nil)
		}
		if err := a.take(ctx, u, m); err != nil {
			return i, a.flush(err)
		}
	}
	return len(in.Records), a.flush(nil)
}

// batchOps is how many operations an arriving batch may have; the queue needs the rest.
const batchOps = 88

// arrival is one batch of copies in the making.
type arrival struct {
	s       *Service
	from    id.Region
	slot    kv.Slot
	batch   *kv.Batch
	touched map[id.User]bool
	tallies map[id.User]*copiedTally
	follow  []heard
	moved   map[id.User]homes.Home // by this batch
	ends    []end                  // by this batch
	left    []id.User              // in this batch: they have deleted their accounts
}

// copiedTally is what becomes of the counters of a user in a batch.
type copiedTally struct {
	have  tally
	ver   uint64
	came  *tally // nil if none came
	moved bool   // what Relations tells may have changed
}

// heard is what follows from a copy, in other slots.
type heard struct {
	kind        byte // prefix of the row that keeps it until it is done
	user, other id.User
}

func (s *Service) newArrival(from id.Region, slot kv.Slot, batch *kv.Batch) *arrival {
	return &arrival{
		s: s, from: from, slot: slot, batch: batch,
		touched: make(map[id.User]bool), tallies: make(map[id.User]*copiedTally), moved: make(map[id.User]homes.Home),
	}
}

func (a *arrival) ops() int { return a.batch.Len() + 2*len(a.tallies) }

// check refuses what can be no user's of the region that it came from. It reports false
// for what a user's former home has to say.
func (a *arrival) check(m *momentsv1.AccountSync) (u id.User, takes bool, err error) {
	if len(m.GetUserId()) != 16 {
		return u, false, idcqueue.Refuse("a user's id has %d bytes, want 16", len(m.GetUserId()))
	}
	u = id.User(m.GetUserId())
	if takes, err = a.owns(u); err != nil {
		return u, false, err
	}
	for _, r := range m.GetRows() {
		if owner, ok := isCopied(r.GetKey()); !ok || owner != u || len(r.GetKey()) != 17 && len(r.GetKey()) != 33 {
			return u, false, idcqueue.Refuse("row %x is none that region %d has to say of %v", r.GetKey(), a.from, u)
		}
		if to := r.GetTo(); to != nil && (bytes.Compare(to, r.GetKey()) <= 0 || bytes.Compare(to, kv.PrefixEnd(r.GetKey()[:17])) > 0) {
			return u, false, idcqueue.Refuse("rows %x to %x are not all of %v's", r.GetKey(), to, u)
		}
	}
	return u, takes, nil
}

// owns reports whether the region is a user's home. Of one who has moved what counts comes
// from where he is at home by now, all of it.
func (a *arrival) owns(u id.User) (bool, error) {
	switch h := a.homeOf(u); {
	case h.Epoch == 0 && h.Region != a.from:
		return false, idcqueue.Refuse("user %v is not region %d's", u, a.from)
	case slotOfUser(u) != a.slot:
		return false, idcqueue.Refuse("user %v does not belong into slot %d", u, a.slot)
	default:
		return h.Region == a.from, nil
	}
}

// take adds what one record changes. One that is older than the copies says nothing.
func (a *arrival) take(ctx context.Context, u id.User, m *momentsv1.AccountSync) error {
	a.touched[u] = true
	for _, r := range m.GetRows() {
		if r.GetKey()[0] != prefixRelation || r.GetGone() {
			continue
		}
		count, err := decodeTally(r.GetValue())
		if err != nil {
			return idcqueue.Refuse("%v", err)
		}
		t, err := a.tally(ctx, u)
		if err != nil {
			return err
		}
		if t.have.known() > count.version && t.ver != 0 {
			return nil
		}
	}
	for _, r := range m.GetRows() {
		if r.GetTo() != nil {
			a.batch.DeleteRange(r.GetKey(), r.GetTo())
			continue
		}
		if err := a.row(ctx, u, r.GetKey(), r.GetValue(), r.GetGone()); err != nil {
			return err
		}
	}
	return nil
}

// row adds one row as it is to be, if it is not so already, and what follows from it.
func (a *arrival) row(ctx context.Context, u id.User, key, value []byte, gone bool) error {
	if key[0] == prefixRelation && !gone {
		count, err := decodeTally(value)
		if err != nil {
			return idcqueue.Refuse("%v", err)
		}
		t, err := a.tally(ctx, u)
		if err == nil {
			t.came = &count
		}
		return err
	}
	have, err := a.s.store.Get(ctx, a.slot, key, kv.Linearizable)
	if err != nil {
		return err
	}
	if key[0] == prefixUser && !gone && a.homeOf(u).Next != a.s.ids.Region() {
		if value, err = shared(key, value); err != nil { // only his next home is to know the password
			return idcqueue.Refuse("%v", err)
		}
	}
	if gone {
		if have.Ver != 0 {
			a.batch.Delete(key)
			if key[0] == prefixUser && a.homeOf(u).Epoch > 0 { // he may have been at home here
				a.batch.Put(userKey(prefixArrived, u), nil)
				a.left = append(a.left, u)
			}
		}
	} else {
		if have.Ver != 0 && bytes.Equal(have.Value, value) {
			return nil
		}
		if err := a.follows(u, key, have, value); err != nil {
			return err
		}
		a.batch.Put(key, value)
	}
	if key[0] == prefixEdge || key[0] == prefixFriend {
		t, err := a.tally(ctx, u)
		if err != nil {
			return err
		}
		t.moved = true
	}
	return nil
}

// follows adds what a new copy means for others.
func (a *arrival) follows(u id.User, key []byte, have kv.Item, value []byte) error {
	switch key[0] {
	case prefixEdge:
		e, err := decodeEdge(value)
		if err != nil || len(key) != 33 {
			return idcqueue.Refuse("edge %x: %v", key, err)
		}
		other := id.User(key[17:])
		if a.s.home(other) {
			a.batch.Put(pairKey(prefixMirror, u, other), e.word().encode())
			a.follow = append(a.follow, heard{kind: prefixMirror, user: u, other: other})
		}
	case prefixSettings:
		was, err := decodeSettings(have.Value)
		if err != nil {
			return err
		}
		st, err := decodeSettings(value)
		if err != nil {
			return idcqueue.Refuse("%v", err)
		}
		if st.window != was.window {
			a.batch.Put(userKey(prefixSpread, u), nil)
			a.follow = append(a.follow, heard{kind: prefixSpread, user: u})
		}
	case prefixUser:
		row, err := decodeUser(value)
		if err != nil {
			return idcqueue.Refuse("%v", err)
		}
		if have.Ver == 0 {
			a.batch.Put(userKey(prefixNaming, u), []byte(foldName(row.profile.GetName())))
			a.follow = append(a.follow, heard{kind: prefixNaming, user: u})
		}
	}
	return nil
}

// tally gives the counters of a user in this batch.
func (a *arrival) tally(ctx context.Context, u id.User) (*copiedTally, error) {
	if t := a.tallies[u]; t != nil {
		return t, nil
	}
	it, err := a.s.store.Get(ctx, a.slot, userKey(prefixRelation, u), kv.Linearizable)
	if err != nil {
		return nil, err
	}
	have, err := decodeTally(it.Value)
	if err != nil {
		return nil, err
	}
	t := &copiedTally{have: have, ver: it.Ver}
	a.tallies[u] = t
	return t, nil
}

// flush adds the counters to the batch, and gives err on.
func (a *arrival) flush(err error) error {
	for u, t := range a.tallies {
		now := t.have
		now.home = t.have.known()
		if t.came != nil && (t.ver == 0 || t.came.version > now.home) {
			now.home, now.alive, t.moved = t.came.version, t.came.alive, true
		}
		if !t.moved {
			continue
		}
		now.version = max(t.have.version+1, now.home)
		key := userKey(prefixRelation, u)
		a.batch.IfVer(key, t.ver).Put(key, now.encode())
	}
	clear(a.tallies)
	return err
}

// applied hands over what follows from a batch that is durable. The store knows it, too.
func (a *arrival) applied() {
	for _, h := range a.moved {
		a.s.learn(h)
	}
	for _, e := range a.ends {
		a.s.homes.LearnWhole(e.user, e.epoch)
		a.s.moves.add(e.user)
	}
	for _, u := range a.left {
		a.s.moves.add(u)
	}
	for _, h := range a.follow {
		select {
		case a.s.arrivals <- h:
		default:
			a.s.wake()
		}
	}
}

// homeVersion gives how far what is known here of a user is, by the count of his home. As
// long as something that came is still on its way to others' sides here, it is not known
// at all.
func (s *Service) homeVersion(ctx context.Context, u id.User, count tally) (uint64, error) {
	if s.home(u) {
		return count.version, nil
	}
	for _, kind := range []byte{prefixMirror, prefixSpread} {
		items, _, err := s.store.Scan(ctx, slotOfUser(u), kv.Prefix(userKey(kind, u), 1), kv.Linearizable)
		if err != nil || len(items) > 0 {
			return 0, err
		}
	}
	return count.known(), nil
}

// hear does what follows from a copy.
func (s *Service) hear(ctx context.Context, h heard) error {
	switch h.kind {
	case prefixMirror:
		return s.tell(ctx, h.user, h.other)
	case prefixSpread:
		return s.spread(ctx, h.user)
	case prefixNaming:
		return s.nameAway(ctx, h.user)
	}
	return nil
}

// nameAway has a user of another region found by his name.
func (s *Service) nameAway(ctx context.Context, u id.User) error {
	mark := userKey(prefixNaming, u)
	it, err := s.store.Get(ctx, slotOfUser(u), mark, kv.Linearizable)
	if err != nil || it.Ver == 0 {
		return err
	}
	folded := string(it.Value)
	if _, err := s.store.Apply(ctx, slotOfName(folded), new(kv.Batch).Put(awayKey(folded, u), nil)); err != nil {
		return err
	}
	_, err = s.store.Apply(ctx, slotOfUser(u), new(kv.Batch).IfVer(mark, it.Ver).Delete(mark))
	if retry(ctx, err) {
		return nil // it is found again, and does no harm
	}
	return err
}

func (s *Service) namingLeft(ctx context.Context, _ kv.Slot, item kv.Item) error {
	if len(item.Key) != 17 {
		return errDamaged
	}
	return s.nameAway(ctx, id.User(item.Key[1:]))
}

// awayPrefix begins the keys of those who have a name in other regions. A folded name has
// no NUL.
func awayPrefix(folded string) []byte {
	return append(append([]byte{prefixAway}, folded...), 0)
}

func awayKey(folded string, u id.User) []byte { return append(awayPrefix(folded), u[:]...) }

// away gives who has a name in another region, zero if nobody has. Two regions that
// cannot reach each other may give a name to two people; then it is the one who was first.
func (s *Service) away(ctx context.Context, folded string) (id.User, error) {
	if !s.joined || strings.ContainsRune(folded, 0) {
		return id.User{}, nil
	}
	prefix := awayPrefix(folded)
	items, _, err := s.store.Scan(ctx, slotOfName(folded), kv.Prefix(prefix, 16), kv.Linearizable)
	if err != nil {
		return id.User{}, err
	}
	for _, it := range items {
		if len(it.Key) != len(prefix)+16 {
			return id.User{}, errDamaged
		}
		u := id.User(it.Key[len(prefix):])
		if _, ver, err := s.user(ctx, u); err != nil || ver != 0 {
			return u, err
		}
	}
	return id.User{}, nil
}

// peerTokenKey is where the key of another region's session tokens is.
func peerTokenKey(r id.Region) []byte {
	return binary.BigEndian.AppendUint16([]byte{prefixTokenKey}, uint16(r))
}

// signerOf gives what checks the tokens of a region's users, nil if its key is not known
// here.
func (s *Service) signerOf(ctx context.Context, region id.Region) (*signer, error) {
	if !s.joined || region == s.ids.Region() {
		return s.signer, nil
	}
	if known, ok := s.signers.Load(region); ok {
		return known.(*signer), nil
	}
	it, err := s.store.Get(ctx, kv.SlotOf(tokenKeyRow), peerTokenKey(region), kv.Linearizable)
	if err != nil || it.Ver == 0 {
		return nil, err
	}
	known := newSigner(it.Value)
	s.signers.Store(region, known) // there are as many as regions
	return known, nil
}
