// SPDX-License-Identifier: Apache-2.0

package post

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/privacy"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/rpc"
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
	rec, err := newRecord(author, req)
	if err != nil {
		return nil, err
	}
	use := once.New(s.now(), author[:], req.GetIdempotencyKey(), sumOf(rec, req))
	o := &op{kind: outboxPublish, author: author, use: use, rec: rec, err: errNotRun, sending: s.queue.Begin(ctx)}
	if needsOthers(req) {
		if err := s.askOthers(ctx, o, req); err != nil {
			return nil, err
		}
	}
	if err := s.stamp(ctx, rec); err != nil {
		return nil, err
	}
	if err := s.writes.Do(ctx, kv.SlotOf(author[:]), o); err != nil {
		return nil, waitError(err)
	}
	if o.err != nil {
		return nil, o.err
	}
	if o.errand {
		s.errands.add(errand{post: o.post, kind: errandRemind})
	}
	// The answer is made from the request, not from the store: it is the same when
	// the request is repeated, even after the post was deleted. What the media service
	// said of media is not repeated.
	rec.PostId, rec.TimeMs = o.post[:], o.post.Time().UnixMilli()
	post := new(momentsv1.Post)
	recordOf(rec).show(post, privacy.Facts{Self: true}, view{viewer: author})
	post.Id = o.post.String()
	return &momentsv1.PublishResponse{Post: post}, nil
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
	use, err := s.useOf(author, req.GetIdempotencyKey(), "delete", req.GetPostId())
	if err != nil {
		return nil, err
	}
	o := &op{kind: outboxDelete, author: author, post: p, use: use}
	if err := s.changePost(ctx, o); err != nil {
		return nil, err
	}
	if o.errand {
		s.errands.add(errand{post: p, kind: errandRelease})
	}
	return &momentsv1.DeletePostResponse{}, nil
}

// SetAudience changes whom a post is for; see the contract.
func (s *Service) SetAudience(ctx context.Context, req *momentsv1.SetAudienceRequest) (*momentsv1.SetAudienceResponse, error) {
	author, err := problem.User("author_id", req.GetAuthorId())
	if err != nil {
		return nil, err
	}
	p, err := id.ParsePost(req.GetPostId())
	if err != nil {
		return nil, problem.Invalid("post_id", "%v", err)
	}
	use, err := s.useOf(author, req.GetIdempotencyKey(), "audience", req.GetPostId(), req.GetAudience().String())
	if err != nil {
		return nil, err
	}
	o := &op{author: author, post: p, use: use}
	switch req.GetAudience() {
	case momentsv1.Audience_AUDIENCE_FRIENDS:
		o.kind = outboxPublish
	case momentsv1.Audience_AUDIENCE_ONLY_ME:
		o.kind = outboxNarrow
	default:
		return nil, problem.Invalid("audience", "is %v, want AUDIENCE_FRIENDS or AUDIENCE_ONLY_ME", req.GetAudience())
	}
	if s.joined {
		if o.relations, err = s.authorVersion(ctx, author); err != nil {
			return nil, err
		}
	}
	if err := s.changePost(ctx, o); err != nil {
		return nil, err
	}
	return &momentsv1.SetAudienceResponse{}, nil
}

// useOf gives the use of a key that there need not be.
func (s *Service) useOf(author id.User, key string, sum ...string) (once.Use, error) {
	if err := once.CheckKey(key); err != nil {
		return once.Use{}, err
	}
	return once.New(s.now(), author[:], key, once.Sum(sum...)), nil
}

// changePost makes an op on a post that is there.
func (s *Service) changePost(ctx context.Context, o *op) error {
	slot := kv.SlotOf(o.author[:])
	if slotOf(o.post) != slot {
		return problem.NotFound("post") // somebody else's, or nobody's
	}
	o.err, o.sending = errNotRun, s.queue.Begin(ctx)
	if err := s.writes.Do(ctx, slot, o); err != nil {
		return waitError(err)
	}
	return o.err
}

// op is one write waiting for its slot's turn: a post to store if rec is set, else a
// post to change. Its kind is what the outbox is going to say.
type op struct {
	kind   byte
	author id.User
	use    once.Use
	rec    *momentsv1.PostRecord
	intent []byte // row that holds the id of a post to store, if it was given one before

	relations uint64 // of a post to change: how far its author's relations are

	post    id.Post // of a post to change, or to store under intent; result otherwise
	errand  bool    // result: an errand follows from it
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
	}
	for _, o := range ops {
		if !o.settled {
			o.settle(problem.Store("write post", err))
		}
	}
}

// tryWrite settles all ops with as many batches as that takes, or fails with none of
// those not settled applied (all or none of one batch after kv.ErrUnknown).
func (s *Service) tryWrite(ctx context.Context, slot kv.Slot, ops []*op) error {
	for {
		again, err := s.writeBatch(ctx, slot, ops)
		if err != nil || len(again) == 0 {
			return err
		}
		ops = again
	}
}

// writeBatch settles what one batch can do of ops, and gives the others. Ops that need no
// write are settled whether the batch is applied or not.
func (s *Service) writeBatch(ctx context.Context, slot kv.Slot, ops []*op) (again []*op, err error) {
	out, err := s.fanOut.outbox.Open(ctx, slot)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	batch := new(kv.Batch)
	var wrote []*op
	for _, o := range ops {
		if o.settled {
			continue
		}
		// After this batch it finds what its twin did, or has room.
		if sameTarget(wrote, o) != nil || batch.Size() > kv.MaxBatch/3 {
			again = append(again, o)
			continue
		}
		if err := s.guard(o.author); err != nil {
			o.settle(err)
			continue
		}
		kind, err := s.prepare(ctx, slot, o, batch)
		if err != nil {
			return nil, err
		}
		if o.settled {
			continue
		}
		out.Put(batch, entry{kind: kind, post: o.post, author: o.author}.encode(), o.sending.Origin)
		wrote = append(wrote, o)
	}
	if len(wrote) == 0 {
		return again, nil
	}
	if err := out.Seal(batch); err != nil {
		return nil, err
	}
	ver, err := s.store.Apply(ctx, slot, batch)
	if err != nil {
		return nil, err
	}
	out.Applied(ver)
	for _, o := range wrote {
		o.settle(nil)
		o.sending.Done(nil)
	}
	return again, nil
}

// sameTarget gives the op of the batch that writes the same keys as o.
func sameTarget(wrote []*op, o *op) *op {
	for _, w := range wrote {
		if w.use.Same(o.use) || o.rec == nil && w.post == o.post {
			return w
		}
	}
	return nil
}

// prepare adds an op to the batch, or settles it if there is nothing to write.
func (s *Service) prepare(ctx context.Context, slot kv.Slot, o *op, batch *kv.Batch) (kind byte, err error) {
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
	case o.rec == nil:
		return o.kind, s.prepareChange(ctx, slot, o, batch)
	}
	if o.intent == nil {
		if o.post, err = newID(s.ids, slot); err != nil {
			return 0, err
		}
	} else {
		it, err := s.store.Get(ctx, slot, o.intent, kv.Linearizable)
		if err != nil {
			return 0, err
		}
		if it.Ver == 0 { // forgotten meanwhile, and its media with it
			return 0, fmt.Errorf("%w: the intent to post is gone", kv.ErrUnavailable)
		}
		batch.IfVer(o.intent, it.Ver).Delete(o.intent)
	}
	p := o.post
	o.rec.PostId, o.rec.TimeMs = p[:], p.Time().UnixMilli()
	body, err := proto.Marshal(o.rec)
	if err != nil {
		return 0, err
	}
	o.use.Record(batch, p[:]) // every use of a key moves the sequence of its slot
	batch.Put(bodyKey(p), body)
	batch.Put(albumKey(o.author, p), albumValue(o.rec))
	if o.errand = len(o.rec.GetRemindIds()) > 0; o.errand {
		batch.Put(errand{post: p, kind: errandRemind}.key(), nil)
	}
	if momentsv1.Audience(o.rec.GetAudience()) != momentsv1.Audience_AUDIENCE_FRIENDS {
		return outboxLimited, nil
	}
	return outboxPublish, nil
}

// prepareChange adds to the batch what changes a post that is there.
func (s *Service) prepareChange(ctx context.Context, slot kv.Slot, o *op, batch *kv.Batch) error {
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
	case id.User(rec.GetAuthorId()) != o.author, rec.GetDeleted() && o.kind != outboxDelete:
		o.settle(problem.NotFound("post"))
		return nil
	case rec.GetDeleted():
		o.settle(nil)
		return nil
	}
	if o.kind == outboxDelete {
		err = s.prepareDelete(o, rec, it.Ver, batch)
	} else {
		err = s.prepareAudience(o, rec, it.Ver, batch)
	}
	if err == nil && !o.settled {
		o.use.Record(batch, o.post[:])
	}
	return err
}

// prepareAudience stores a post with another audience.
func (s *Service) prepareAudience(o *op, rec *momentsv1.PostRecord, ver uint64, batch *kv.Batch) error {
	want := momentsv1.Audience_AUDIENCE_FRIENDS
	if o.kind == outboxNarrow {
		want = momentsv1.Audience_AUDIENCE_ONLY_ME
	}
	switch momentsv1.Audience(rec.GetAudience()) {
	case want:
		o.settle(nil)
		return nil
	case momentsv1.Audience_AUDIENCE_FRIENDS, momentsv1.Audience_AUDIENCE_ONLY_ME:
	default:
		o.settle(problem.New(rpc.FailedPrecondition, "audience-fixed", "audience",
			"whom this post is for was chosen person by person, and stays"))
		return nil
	}
	rec.Audience, rec.Revision = uint32(want), rec.GetRevision()+1
	rec.RelationsVersion = max(rec.GetRelationsVersion(), o.relations)
	body, err := proto.Marshal(rec)
	if err != nil {
		return err
	}
	key := bodyKey(o.post)
	batch.IfVer(key, ver).Put(key, body).Put(albumKey(o.author, o.post), albumValue(rec))
	return nil
}

// prepareDelete replaces the body by a tombstone, which no later write can undo.
func (s *Service) prepareDelete(o *op, rec *momentsv1.PostRecord, ver uint64, batch *kv.Batch) error {
	grave, err := proto.Marshal(&momentsv1.PostRecord{
		PostId: rec.GetPostId(), AuthorId: rec.GetAuthorId(), TimeMs: rec.GetTimeMs(), Deleted: true, Revision: rec.GetRevision() + 1,
	})
	if err != nil {
		return err
	}
	key := bodyKey(o.post)
	batch.IfVer(key, ver).Put(key, grave)
	batch.Delete(albumKey(o.author, o.post))
	if o.errand = len(rec.GetMedia()) > 0 || len(rec.GetLink().GetMediaId()) > 0; o.errand {
		batch.Put(errand{post: o.post, kind: errandRelease}.key(), nil)
	}
	return nil
}

// albumValue is what an album entry says of its post.
func albumValue(rec *momentsv1.PostRecord) []byte {
	if momentsv1.Audience(rec.GetAudience()) == momentsv1.Audience_AUDIENCE_FRIENDS {
		return nil
	}
	return []byte{byte(rec.GetAudience())}
}
