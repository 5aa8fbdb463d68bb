// SPDX-License-Identifier: Apache-2.0

package post

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/outbox"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

// Posts go one way, from the region of their author to all others: what is sent is the
// row of the body, which says all, and the album entry follows from it. Of two records
// of a post a deleted one wins for ever, else the one with the higher revision, so one
// that comes again or late changes nothing. Who gets the post into his timeline is the
// business of each region, which fans it out to its own users when it arrives.
//
// A post is not shown before what its author had settled when he made it: one whose
// author's relations have not come as far yet lies aside, as a veiled row, and is put
// in its place by an errand.

const (
	// arriveOps is how many operations of a batch one post needs at most: condition and
	// row of body and veil, the album entry, an outbox record and two errands.
	arriveOps = 8
	// arriveBytes is when a batch of arrived posts is large enough.
	arriveBytes = 128 << 10
	// versionTime bounds a look at how far an author's relations have come.
	versionTime = 2 * time.Second
)

func veilKey(p id.Post) []byte { return append([]byte{tableVeil}, p[:]...) }

// home reports whether a person is at home in this region.
func (s *Service) home(u id.User) bool { return !s.joined || s.homes.Of(u).Keeps(s.region) }

// Side gives what the queue between regions needs of this service.
func (s *Service) Side() idcqueue.Side {
	return idcqueue.Side{Expand: s.expand, Apply: s.arrive, Rows: s.rows, Merge: s.merge}
}

// Outbox gives the service's outbox, for the queue between regions.
func (s *Service) Outbox() *outbox.Box { return s.fanOut.outbox }

// expand gives the bodies of the posts that records are about, as they are by now.
func (s *Service) expand(ctx context.Context, slot kv.Slot, records []outbox.Record) ([][]byte, error) {
	bodies := make([][]byte, len(records))
	for i := range records {
		said, err := expandHome(records[i].Body)
		if err != nil {
			return nil, err
		}
		if said != nil {
			bodies[i] = said
			continue
		}
		r, err := parseEntry(records[i].Body)
		if err != nil {
			return nil, err
		}
		it, err := s.read(ctx, slot, bodyKey(r.post))
		if err != nil {
			return nil, err
		}
		if it.Ver == 0 {
			return nil, fmt.Errorf("post: %v is in the outbox and not in the store", r.post)
		}
		bodies[i] = it.Value
	}
	return bodies, nil
}

// arrive takes posts of another region in.
func (s *Service) arrive(ctx context.Context, in *idcqueue.In) (int, error) {
	a := arrival{s: s, from: in.From, slot: in.Slot, batch: in.Batch, out: in.Out, released: in.Released, moved: map[id.User]homes.Home{}}
	in.After(func(uint64) { a.applied() })
	for i := range in.Records {
		r := &in.Records[i]
		if taken, err := a.take(ctx, r.Body, r.Origin); err != nil || !taken {
			return i, err
		}
	}
	return len(in.Records), nil
}

// rows gives the bodies of this region's posts in a slot, page by page.
func (s *Service) rows(ctx context.Context, _ id.Region, slot kv.Slot, from []byte) (rows []idcqueue.Row, next []byte, err error) {
	const most, enough = 64, 128 << 10
	if from == nil {
		if rows, err = s.homeRows(ctx, slot, false); err != nil {
			return nil, nil, fmt.Errorf("post: read slot %d for another region: %w", slot, err)
		}
	}
	r := kv.Prefix([]byte{tableBody}, most)
	if from != nil {
		r.From = from
	}
	items, more, err := s.store.Scan(ctx, slot, r, kv.Linearizable)
	if err != nil {
		return nil, nil, fmt.Errorf("post: read slot %d for another region: %w", slot, err)
	}
	size := 0
	for _, it := range items {
		if len(it.Key) != 17 {
			return nil, nil, fmt.Errorf("post: row %x of slot %d is damaged", it.Key, slot)
		}
		if size >= enough {
			return rows, it.Key, nil
		}
		out, err := s.isOut(it)
		if err != nil {
			return nil, nil, err
		}
		if out {
			rows, size = append(rows, idcqueue.Row{Key: it.Key, Value: it.Value}), size+len(it.Value)
		}
	}
	if more && len(items) > 0 {
		return rows, kv.Next(items[len(items)-1].Key), nil
	}
	ends, err := s.homeRows(ctx, slot, true)
	return append(rows, ends...), nil, err
}

// merge takes a part of another region's posts in. What is here and not there stays: no
// region ever forgets a body, so it is the other one whose disk was set back. If one is
// refused, all others are taken, and the part goes into quarantine.
func (s *Service) merge(ctx context.Context, part *idcqueue.Part) (more bool, err error) {
	a := arrival{s: s, from: part.From, slot: part.Slot, batch: part.Batch, out: part.Out, released: part.Released, moved: map[id.User]homes.Home{}}
	var refused error
	part.After(func(uint64) { a.applied() })
	for _, row := range part.Rows {
		if a.batch.Len()+arriveOps > kv.MaxOps*9/10 {
			return true, nil
		}
		switch is, err := a.homeRow(ctx, row); {
		case errors.Is(err, idcqueue.ErrRefused):
			refused = cmp.Or(refused, err)
			continue
		case err != nil:
			return false, err
		case is:
			continue
		}
		if len(row.Key) != 17 || row.Key[0] != tableBody {
			refused = cmp.Or(refused, idcqueue.Refuse("row %x is no post", row.Key))
			continue
		}
		taken, err := a.take(ctx, row.Value, tracing.Origin{})
		switch {
		case errors.Is(err, idcqueue.ErrRefused):
			refused = cmp.Or(refused, err)
		case err != nil:
			return false, err
		case !taken:
			return true, nil // those that were taken change nothing the next time
		}
	}
	if refused != nil && a.batch.Len() > 0 {
		return true, nil // it is refused again when the others are here
	}
	return false, refused
}

// arrival is one batch of posts of another region.
type arrival struct {
	s       *Service
	from    id.Region
	slot    kv.Slot
	batch   *kv.Batch
	out     *outbox.Turn
	touched []id.Post
	errands []errand
	moved   map[id.User]homes.Home // by this batch
	ends    []homes.Home           // likewise: all of them is here

	released bool // an operator has looked at its clock
}

// applied hands over what follows from a batch that is durable.
func (a *arrival) applied() {
	for _, h := range a.moved {
		a.s.homes.Learn(h)
	}
	for _, h := range a.ends {
		a.s.homes.LearnWhole(h.User, h.Epoch)
	}
	for _, e := range a.errands {
		a.s.errands.add(e)
	}
}

// take adds what a post's body changes to the batch. It reports false if that is for
// the next batch.
func (a *arrival) take(ctx context.Context, raw []byte, origin tracing.Origin) (bool, error) {
	if said := new(momentsv1.PostRecord); len(raw) < 64 && proto.Unmarshal(raw, said) == nil && len(said.GetHome()) > 0 {
		return a.takeHome(ctx, said.GetHome())
	}
	rec, err := a.check(raw)
	if err != nil {
		return false, err
	}
	p := id.Post(rec.GetPostId())
	full := a.batch.Len()+arriveOps > kv.MaxOps*9/10 || a.batch.Size()+len(raw) > arriveBytes
	if len(a.touched) > 0 && full || slices.Contains(a.touched, p) {
		return false, nil
	}
	body, err := a.s.read(ctx, a.slot, bodyKey(p))
	if err != nil {
		return false, err
	}
	veil, err := a.s.read(ctx, a.slot, veilKey(p))
	if err != nil {
		return false, err
	}
	newest := body
	if veil.Ver != 0 {
		newest = veil
	}
	if newest.Ver == 0 && p.Time().Sub(a.s.now()) > a.s.ahead && !a.released {
		return false, idcqueue.Refuse("post %v is of %v, more than %v ahead", p, p.Time(), a.s.ahead)
	}
	if news, err := isNews(newest, rec, raw); err != nil || !news {
		return err == nil, err
	}
	a.touched = append(a.touched, p)
	if !rec.GetDeleted() {
		early, err := a.s.early(ctx, rec)
		if err != nil {
			return false, err
		}
		if early {
			a.batch.IfVer(veil.Key, veil.Ver).Put(veil.Key, raw)
			a.follow(errand{post: p, kind: errandUnveil})
			return true, nil
		}
	}
	return true, a.place(rec, raw, body, veil, origin)
}

// takeHome adds where somebody is at home. That all of his posts have come is after them.
func (a *arrival) takeHome(ctx context.Context, raw []byte) (bool, error) {
	if a.batch.Len()+arriveOps > kv.MaxOps*9/10 {
		return false, nil
	}
	if err := a.home(ctx, raw); err != nil {
		return false, err
	}
	if h, err := homes.Parse(raw); err == nil && h.Next != 0 {
		a.whole(h.User, h.Epoch)
	}
	return true, nil
}

// check reads a body that has come and refuses what can be none of the region that it
// came from.
func (a *arrival) check(raw []byte) (*momentsv1.PostRecord, error) {
	rec, err := parseBody(kv.Item{Value: raw})
	if err != nil {
		return nil, idcqueue.Refuse("%v", err)
	}
	p, author := id.Post(rec.GetPostId()), id.User(rec.GetAuthorId())
	switch {
	case !a.belongs(p, author):
		return nil, idcqueue.Refuse("post %v of %v is not region %d's", p, author, a.from)
	case slotOf(p) != a.slot || kv.SlotOf(author[:]) != a.slot:
		return nil, idcqueue.Refuse("post %v of %v does not belong into slot %d", p, author, a.slot)
	case len(rec.GetAllowIds())%16 != 0 || len(rec.GetDenyIds())%16 != 0 || len(rec.GetRemindIds())%16 != 0:
		return nil, idcqueue.Refuse("post %v names persons with half an id", p)
	}
	return rec, nil
}

// belongs reports whether a region may have a post: one that was made there, and of who has
// moved also those that were made before, elsewhere.
func (a *arrival) belongs(p id.Post, author id.User) bool {
	h := a.homeOf(author)
	if h.Epoch == 0 {
		return p.Region() == a.from && author.Region() == a.from
	}
	return p.Region() == a.from || h.Region == a.from
}

// read gives a row by its key, which it has even if it is absent.
func (s *Service) read(ctx context.Context, slot kv.Slot, key []byte) (kv.Item, error) {
	it, err := s.store.Get(ctx, slot, key, kv.Linearizable)
	if err != nil {
		return it, fmt.Errorf("post: read %x of slot %d: %w", key, slot, err)
	}
	it.Key = key
	return it, nil
}

// isNews reports whether a body that has come says more than the one that is here.
func isNews(have kv.Item, rec *momentsv1.PostRecord, raw []byte) (bool, error) {
	if have.Ver == 0 {
		return true, nil
	}
	was, err := parseBody(have)
	switch {
	case err != nil:
		return false, err
	case was.GetDeleted():
		return false, nil
	case rec.GetDeleted() || rec.GetRevision() > was.GetRevision():
		return true, nil
	case rec.GetRevision() == was.GetRevision() && !bytes.Equal(have.Value, raw):
		// Both are kept: one here, the other in quarantine, where an operator finds it.
		return false, idcqueue.Refuse("post %v is here with another body of revision %d: an id was given twice",
			id.Post(rec.GetPostId()), rec.GetRevision())
	}
	return false, nil
}

// place puts a post where readers find it, and has this region's users hear of it.
func (a *arrival) place(rec *momentsv1.PostRecord, raw []byte, body, veil kv.Item, origin tracing.Origin) error {
	p, author := id.Post(rec.GetPostId()), id.User(rec.GetAuthorId())
	a.batch.IfVer(body.Key, body.Ver).Put(body.Key, raw)
	if veil.Ver != 0 {
		a.batch.IfVer(veil.Key, veil.Ver).Delete(veil.Key)
	}
	if rec.GetDeleted() {
		a.batch.Delete(albumKey(author, p))
		return a.releaseMedia(rec, body)
	}
	a.batch.Put(albumKey(author, p), albumValue(rec))
	kind := byte(outboxLimited)
	switch momentsv1.Audience(rec.GetAudience()) {
	case momentsv1.Audience_AUDIENCE_FRIENDS:
		kind = outboxPublish
	case momentsv1.Audience_AUDIENCE_ONLY_ME:
		return nil
	case momentsv1.Audience_AUDIENCE_UNSPECIFIED, momentsv1.Audience_AUDIENCE_ALLOW, momentsv1.Audience_AUDIENCE_DENY:
	}
	a.out.PutLocal(a.batch, entry{kind: kind, post: p, author: author}.encode(), origin)
	for b := range slices.Chunk(rec.GetRemindIds(), 16) {
		if body.Ver == 0 && a.s.home(id.User(b)) {
			a.follow(errand{post: p, kind: errandRemind})
			break
		}
	}
	return nil
}

// follow adds an errand to the batch.
func (a *arrival) follow(e errand) {
	a.batch.Put(e.key(), nil)
	a.errands = append(a.errands, e)
}

// early reports whether a post was made under relations and settings of its author that
// have not come here yet.
func (s *Service) early(ctx context.Context, rec *momentsv1.PostRecord) (bool, error) {
	if rec.GetRelationsVersion() == 0 {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(rpc.WithCall(ctx, &rpc.Call{Header: rpc.Header{
		Entry: framework.NameEntry("job post.arrive"), Class: qos.Background, Trace: tracing.NewTraceID(),
	}}), versionTime)
	defer cancel()
	version, err := s.authorVersion(ctx, id.User(rec.GetAuthorId()))
	return err == nil && version < rec.GetRelationsVersion(), err
}

// authorVersion gives how far what this region knows of somebody's relations and
// settings is, in the count of his home region.
func (s *Service) authorVersion(ctx context.Context, author id.User) (uint64, error) {
	res, err := s.account.Relations(ctx, &momentsv1.RelationsRequest{ViewerId: author.String()})
	if err != nil {
		return 0, fmt.Errorf("post: ask how far the relations of %v are: %w", author, err)
	}
	return res.GetHomeVersion(), nil
}

// stamp says in a new post how far its author's relations and settings are, which no
// other region may be behind when it shows the post.
func (s *Service) stamp(ctx context.Context, rec *momentsv1.PostRecord) (err error) {
	if s.joined {
		rec.RelationsVersion, err = s.authorVersion(ctx, id.User(rec.GetAuthorId()))
	}
	return err
}

// errEarly means that a post still waits for its author's relations. It is no failure.
var errEarly = errors.New("post: what the author had settled has not come yet")

// unveil puts a post in its place once its author's relations have come as far as they
// were when he made it. It waits a moment for that: mostly they are on the same line.
func (s *Service) unveil(ctx context.Context, p id.Post) error {
	slot := slotOf(p)
	for wait := 20 * time.Millisecond; ; wait *= 2 {
		veil, err := s.read(ctx, slot, veilKey(p))
		if err != nil || veil.Ver == 0 {
			return err // it was deleted meanwhile, or is in its place
		}
		rec, err := parseBody(veil)
		if err != nil {
			return err
		}
		early, err := s.early(ctx, rec)
		if err != nil {
			return err
		}
		if !early {
			return s.placeVeiled(ctx, slot, rec, veil)
		}
		if wait > time.Second || !pause(ctx, wait) {
			return errEarly
		}
	}
}

func (s *Service) placeVeiled(ctx context.Context, slot kv.Slot, rec *momentsv1.PostRecord, veil kv.Item) error {
	out, err := s.fanOut.outbox.Open(ctx, slot)
	if err != nil {
		return err
	}
	defer out.Close()
	body, err := s.read(ctx, slot, bodyKey(id.Post(rec.GetPostId())))
	if err != nil {
		return err
	}
	a := arrival{s: s, slot: slot, batch: new(kv.Batch), out: out}
	if err := a.place(rec, veil.Value, body, veil, tracing.Origin{}); err != nil {
		return err
	}
	if err := out.Seal(a.batch); err != nil {
		return err
	}
	ver, err := s.store.Apply(ctx, slot, a.batch)
	if err != nil {
		return err // a conflict too: then it is looked at again
	}
	out.Applied(ver)
	a.applied()
	return nil
}
