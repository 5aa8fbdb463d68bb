// SPDX-License-Identifier: Apache-2.0

package post

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/app/text"
	"github.com/sluice-rpc/sluice/framework"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Publish stores a post; see the contract.
func (s *Service) Publish(ctx context.Context, req *momentsv1.PublishRequest) (*momentsv1.PublishResponse, error) {
	author, err := problem.User("author_id", req.GetAuthorId())
	if err != nil {
		return nil, err
	}
	if err := once.NeedKey(req.GetIdempotencyKey()); err != nil {
		return nil, err
	}
	rec, err := newRecord(req)
	if err != nil {
		return nil, err
	}
	rec.AuthorId = author[:]
	use := once.New(s.now(), author[:], req.GetIdempotencyKey(), sumOf(rec))
	o := &op{author: author, use: use, rec: rec, err: errNotRun, sending: s.fanOut.outbox.Begin(ctx)}
	if err := s.writes.Do(ctx, kv.SlotOf(author[:]), o); err != nil {
		return nil, waitError(err)
	}
	if o.err != nil {
		return nil, o.err
	}
	// The answer is made from the request, not from the store: it is the same when
	// the request is repeated, even after the post was deleted.
	return &momentsv1.PublishResponse{Post: &momentsv1.Post{
		Id:       o.post.String(),
		AuthorId: req.GetAuthorId(),
		TimeMs:   o.post.Time().UnixMilli(),
		Text:     rec.GetText(),
		Audience: req.GetAudience(),
	}}, nil
}

// Delete removes a post for good; see the contract.
func (s *Service) Delete(ctx context.Context, req *momentsv1.DeletePostRequest) (*momentsv1.DeletePostResponse, error) {
	author, err := problem.User("author_id", req.GetAuthorId())
	if err != nil {
		return nil, err
	}
	p, err := id.ParsePost(req.GetPostId())
	if err != nil {
		return nil, problem.Invalid("post_id", "%v", err)
	}
	slot := kv.SlotOf(author[:])
	if slotOf(p) != slot {
		return nil, problem.NotFound("post") // somebody else's, or nobody's
	}
	o := &op{author: author, post: p, err: errNotRun, sending: s.fanOut.outbox.Begin(ctx)}
	if err := s.writes.Do(ctx, slot, o); err != nil {
		return nil, waitError(err)
	}
	if o.err != nil {
		return nil, o.err
	}
	return &momentsv1.DeletePostResponse{}, nil
}

// newRecord checks a request and gives its record, still without ids and time.
func newRecord(req *momentsv1.PublishRequest) (*momentsv1.PostRecord, error) {
	body, err := text.Clean(req.GetText(), maxText)
	if err != nil {
		return nil, problem.Invalid("text", "%v", err)
	}
	if text.Blank(body) {
		return nil, problem.Invalid("text", "is blank: write something")
	}
	for _, f := range []struct {
		name string
		used bool
	}{
		{"allow_ids", len(req.GetAllowIds()) > 0},
		{"deny_ids", len(req.GetDenyIds()) > 0},
		{"media_ids", len(req.GetMediaIds()) > 0},
		{"link", req.GetLink() != nil},
		{"location", req.GetLocation() != ""},
		{"remind_ids", len(req.GetRemindIds()) > 0},
	} {
		// Refused rather than dropped: a post must not be wider or poorer than its
		// author asked for.
		if f.used {
			return nil, problem.Invalid(f.name, "is not supported by this version: leave it out")
		}
	}
	if a := req.GetAudience(); a != momentsv1.Audience_AUDIENCE_FRIENDS {
		return nil, problem.Invalid("audience", "is %v; this version supports AUDIENCE_FRIENDS only", a)
	}
	return &momentsv1.PostRecord{Text: body, Audience: uint32(req.GetAudience())}, nil
}

// sumOf tells two requests under one key apart.
func sumOf(rec *momentsv1.PostRecord) [sha256.Size]byte {
	return once.Sum("post", strconv.FormatUint(uint64(rec.GetAudience()), 10), rec.GetText())
}

// op is one write waiting for its slot's turn: a post to store if rec is set, else
// one to delete.
type op struct {
	author id.User
	use    once.Use // of a post to store: its idempotency key
	rec    *momentsv1.PostRecord

	post    id.Post // of a post to delete; result otherwise
	err     error   // result
	settled bool    // result is final
	sending framework.Sending
}

func (o *op) settle(err error) { o.err, o.settled = err, true }

// errNotRun stands in an op until its turn has settled it.
var errNotRun = problem.Store("write post", kv.ErrUnknown)

func waitError(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return problem.Store("wait for the slot", fmt.Errorf("%w: %w", kv.ErrUnavailable, err))
}

// lane is what the leader of a slot's turn knows of its outbox.
type lane struct {
	loaded bool
	seq    uint64 // last sequence given out
	ver    uint64 // version of seqKey
}

// write is one turn of a slot's writers.
func (s *Service) write(ctx context.Context, slot kv.Slot, ops []*op) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	const tries = 10 // each lost to another process writing this slot, or to the store
	err := error(kv.ErrConflict)
	for range tries {
		if err = s.tryWrite(ctx, slot, ops); !errors.Is(err, kv.ErrConflict) && !errors.Is(err, kv.ErrUnknown) {
			break
		}
		// After ErrUnknown the next try finds by key or body what the last one did.
		s.lanes[slot].loaded = false
	}
	for _, o := range ops {
		if !o.settled {
			o.settle(problem.Store("write post", err))
		}
	}
}

// tryWrite settles all ops with one batch, or fails with none of the batch applied
// (all or none after kv.ErrUnknown). Ops that need no write are settled either way.
func (s *Service) tryWrite(ctx context.Context, slot kv.Slot, ops []*op) error {
	ln := &s.lanes[slot]
	if !ln.loaded {
		it, err := s.store.Get(ctx, slot, seqKey, kv.Linearizable)
		if err != nil {
			return err
		}
		seq, err := parseSeq(it)
		if err != nil {
			return err
		}
		*ln = lane{loaded: true, seq: seq, ver: it.Ver}
	}
	batch, seq := new(kv.Batch), ln.seq
	var wrote, again []*op
	for _, o := range ops {
		if o.settled {
			continue
		}
		if twin := sameTarget(wrote, o); twin != nil {
			again = append(again, o) // after this batch it finds what its twin did
			continue
		}
		kind, err := s.prepare(ctx, slot, o, batch)
		if err != nil {
			return err
		}
		if o.settled {
			continue
		}
		seq++
		batch.Put(outboxKey(seq), outboxRecord{kind: kind, post: o.post, author: o.author, origin: o.sending.Origin}.encode())
		wrote = append(wrote, o)
	}
	if len(wrote) > 0 {
		batch.IfVer(seqKey, ln.ver).Put(seqKey, appendSeq(seq))
		ver, err := s.store.Apply(ctx, slot, batch)
		if err != nil {
			return err
		}
		ln.seq, ln.ver = seq, ver
		for _, o := range wrote {
			o.settle(nil)
			o.sending.Done(nil)
		}
		s.fanOut.mark(slot, seq)
	}
	if len(again) > 0 {
		return s.tryWrite(ctx, slot, again)
	}
	return nil
}

// sameTarget gives the op of the batch that writes the same keys as o.
func sameTarget(wrote []*op, o *op) *op {
	for _, w := range wrote {
		if (w.rec == nil) == (o.rec == nil) && (o.rec == nil && w.post == o.post || o.rec != nil && w.use.Same(o.use)) {
			return w
		}
	}
	return nil
}

// prepare adds an op to the batch, or settles it if there is nothing to write.
func (s *Service) prepare(ctx context.Context, slot kv.Slot, o *op, batch *kv.Batch) (kind byte, err error) {
	if o.rec == nil {
		return outboxDelete, s.prepareDelete(ctx, slot, o, batch)
	}
	answer, found, err := o.use.Answer(ctx, s.store, slot)
	switch {
	case errors.Is(err, once.ErrReused):
		o.settle(err)
		return 0, nil
	case err != nil:
		return 0, err
	case found && len(answer) != len(o.post):
		return 0, fmt.Errorf("post: an idempotency record has %d bytes, want the id of a post", len(answer))
	case found:
		o.post = id.Post(answer)
		o.settle(nil)
		return 0, nil
	}
	p, err := newID(s.ids, slot)
	if err != nil {
		return 0, err
	}
	o.post = p
	o.rec.PostId, o.rec.TimeMs = p[:], p.Time().UnixMilli()
	body, err := proto.Marshal(o.rec)
	if err != nil {
		return 0, err
	}
	o.use.Record(batch, p[:]) // every use of a key moves the sequence of its slot
	batch.Put(bodyKey(p), body)
	batch.Put(albumKey(o.author, p), nil)
	return outboxPublish, nil
}

// prepareDelete replaces the body by a tombstone, which no later write can undo.
func (s *Service) prepareDelete(ctx context.Context, slot kv.Slot, o *op, batch *kv.Batch) error {
	it, err := s.store.Get(ctx, slot, bodyKey(o.post), kv.Linearizable)
	if err != nil {
		return err
	}
	if it.Ver == 0 {
		o.settle(problem.NotFound("post"))
		return nil
	}
	rec, err := parseBody(it)
	if err != nil {
		return err
	}
	switch {
	case id.User(rec.GetAuthorId()) != o.author:
		o.settle(problem.NotFound("post"))
		return nil
	case rec.GetDeleted():
		o.settle(nil)
		return nil
	}
	grave, err := proto.Marshal(&momentsv1.PostRecord{
		PostId: rec.GetPostId(), AuthorId: rec.GetAuthorId(), TimeMs: rec.GetTimeMs(), Deleted: true, Revision: rec.GetRevision() + 1,
	})
	if err != nil {
		return err
	}
	key := bodyKey(o.post)
	batch.IfVer(key, it.Ver).Put(key, grave)
	batch.Delete(albumKey(o.author, o.post))
	return nil
}
