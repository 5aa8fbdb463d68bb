// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/outbox"
	"github.com/sluice-rpc/sluice/app/privacy"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/app/relations"
	"github.com/sluice-rpc/sluice/app/text"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Add stores a comment; see the contract.
func (s *Service) Add(ctx context.Context, req *momentsv1.AddCommentRequest) (*momentsv1.AddCommentResponse, error) {
	o, err := newOp(causal.Add, "writer_id", req.GetWriterId(), req.GetPostId(), req.GetIdempotencyKey())
	if err != nil {
		return nil, err
	}
	if err := once.NeedKey(req.GetIdempotencyKey()); err != nil {
		return nil, err
	}
	if req.GetParentId() != "" {
		if o.rec.Parent, err = id.ParseComment(req.GetParentId()); err != nil {
			return nil, problem.Invalid("parent_id", "%v", err)
		}
	}
	if o.rec.Body, err = text.Clean(req.GetText(), maxText); err != nil {
		return nil, problem.Invalid("text", "%v", err)
	}
	if text.Blank(o.rec.Body) {
		return nil, problem.Invalid("text", "is blank: write something")
	}
	body, parent := o.rec.Body, o.rec.Parent // the record is the store's from here on
	session, err := s.do(ctx, o, req.GetSession())
	if err != nil {
		return nil, err
	}
	c := &momentsv1.Comment{
		Id: o.result.String(), PostId: req.GetPostId(), WriterId: req.GetWriterId(),
		TimeMs: o.result.Time().UnixMilli(), Text: body, ParentId: req.GetParentId(),
	}
	if !parent.IsZero() {
		p, err := s.find(ctx, o.rec.Post, parent)
		if err != nil {
			return nil, err
		}
		c.ReplyToId = p.Writer.String()
	}
	return &momentsv1.AddCommentResponse{Comment: c, Session: session}, nil
}

// Delete removes a comment; see the contract.
func (s *Service) Delete(ctx context.Context, req *momentsv1.DeleteCommentRequest) (*momentsv1.DeleteCommentResponse, error) {
	o, err := newOp(causal.Delete, "user_id", req.GetUserId(), req.GetPostId(), req.GetIdempotencyKey())
	if err != nil {
		return nil, err
	}
	if o.rec.Parent, err = id.ParseComment(req.GetCommentId()); err != nil {
		return nil, problem.Invalid("comment_id", "%v", err)
	}
	session, err := s.do(ctx, o, req.GetSession())
	if err != nil {
		return nil, err
	}
	return &momentsv1.DeleteCommentResponse{Session: session}, nil
}

// Like sets a like; see the contract.
func (s *Service) Like(ctx context.Context, req *momentsv1.LikeRequest) (*momentsv1.LikeResponse, error) {
	o, err := newOp(causal.Like, "user_id", req.GetUserId(), req.GetPostId(), req.GetIdempotencyKey())
	if err != nil {
		return nil, err
	}
	session, err := s.do(ctx, o, req.GetSession())
	if err != nil {
		return nil, err
	}
	return &momentsv1.LikeResponse{Session: session}, nil
}

// Unlike takes a like back; see the contract.
func (s *Service) Unlike(ctx context.Context, req *momentsv1.UnlikeRequest) (*momentsv1.UnlikeResponse, error) {
	o, err := newOp(causal.Unlike, "user_id", req.GetUserId(), req.GetPostId(), req.GetIdempotencyKey())
	if err != nil {
		return nil, err
	}
	session, err := s.do(ctx, o, req.GetSession())
	if err != nil {
		return nil, err
	}
	return &momentsv1.UnlikeResponse{Session: session}, nil
}

// op is one operation waiting for its post's turn.
type op struct {
	rec    causal.Record // who does what
	author id.User       // of the post
	seen   causal.Vector // of the post, after this
	claim  once.Use      // of the idempotency key, in the user's slot
	use    once.Use      // of the idempotency key, in the post's slot
	result id.Comment    // of an Add
	err    error         // result
	done   bool          // err is final
	bury   bool          // delete again what a lost region had deleted

	sending framework.Sending // into the outbox
}

func (o *op) settle(err error) { o.err, o.done = err, true }

// errNotRun stands in an op until its turn has settled it.
var errNotRun = problem.Store("write comment", kv.ErrUnknown)

func newOp(kind causal.Kind, field, user, post, key string) (*op, error) {
	o := &op{rec: causal.Record{Kind: kind, Key: key}, err: errNotRun}
	var err error
	if o.rec.Writer, err = id.ParseUser(user); err != nil {
		return nil, problem.Invalid(field, "%v", err)
	}
	if o.rec.Post, err = id.ParsePost(post); err != nil {
		return nil, problem.Invalid("post_id", "%v", err)
	}
	if err := once.CheckKey(key); err != nil {
		return nil, err
	}
	return o, nil
}

// sumOf tells two requests under one key apart.
func sumOf(r *causal.Record) [sha256.Size]byte {
	return once.Sum("comment", strconv.Itoa(int(r.Kind)), string(r.Post[:]), string(r.Parent[:]), r.Body)
}

// do runs an operation: once only, if it has a key, only on what its user sees, and
// after all that his session has seen. It gives the session after it.
func (s *Service) do(ctx context.Context, o *op, session string) (string, error) {
	post, user := o.rec.Post, o.rec.Writer
	t, err := s.sealer.open(ctx, user, session)
	if err != nil {
		return "", err
	}
	if err := s.reach(ctx, t); err != nil {
		return "", err
	}
	o.rec.Deps = t.of(post)
	o.sending = s.queue.Begin(ctx)
	err = s.run(ctx, o)
	if errors.Is(err, errBehind) { // nothing is written: it may come in time
		if _, err = s.awaitPost(ctx, post, t.of(post)); err == nil {
			o.err, o.done = errNotRun, false
			err = s.run(ctx, o)
		}
	}
	if err != nil {
		return "", err
	}
	if o.seen == nil { // a repetition, which found its first answer: look how things stand
		snap, err := s.threads.read(ctx, post)
		if err != nil {
			return "", problem.Store("read thread", err)
		}
		o.seen = snap.seen
	}
	t.note(post, o.seen)
	return s.sealer.seal(user, t), nil
}

func (s *Service) run(ctx context.Context, o *op) error {
	post, user := o.rec.Post, o.rec.Writer
	sum, now := sumOf(&o.rec), s.now()
	o.claim = once.New(now, user[:], o.rec.Key, sum)
	o.use = once.New(now, append(post[:], user[:]...), o.rec.Key, sum)
	if err := s.allowed(ctx, o); err != nil {
		// A repetition is answered as before, whatever the user may see by now. A new key
		// is looked up only once, in the post's turn.
		if done, failed := s.replay(ctx, o); done || failed != nil {
			return failed
		}
		return err
	}
	if done, err := s.claim(ctx, o); done || err != nil {
		return err
	}
	switch err := s.writes.Do(ctx, post, o); {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case err != nil:
		return problem.Store("wait for the post", fmt.Errorf("%w: %w", kv.ErrUnavailable, err))
	}
	return o.err
}

// replay reports whether the operation's key has done it already.
func (s *Service) replay(ctx context.Context, o *op) (bool, error) {
	answer, found, err := o.use.Answer(ctx, s.store, kv.SlotOf(o.rec.Post[:]))
	switch {
	case err != nil:
		return false, problem.Store("read idempotency record", err)
	case found && !fill(o.result[:], answer):
		return false, fmt.Errorf("comment: an idempotency record has %d bytes, want the id of a comment", len(answer))
	}
	return found, nil
}

// claim ties a user's key to this operation, over all posts, and reports whether it
// has been done already. The claim is written before the operation, in another slot:
// after a crash in between, the repeated request finds its own claim and goes on.
func (s *Service) claim(ctx context.Context, o *op) (done bool, err error) {
	if o.claim.IsZero() {
		return false, nil
	}
	slot := kv.SlotOf(o.rec.Writer[:])
	b := new(kv.Batch)
	o.claim.IfNew(b)
	o.claim.Record(b, nil)
	_, err = s.store.Apply(ctx, slot, b)
	if !errors.Is(err, kv.ErrConflict) {
		return false, problem.Store("claim idempotency key", err)
	}
	if _, _, err := o.claim.Answer(ctx, s.store, slot); err != nil {
		return false, problem.Store("claim idempotency key", err)
	}
	return s.replay(ctx, o)
}

// allowed decides whether the user may do it.
func (s *Service) allowed(ctx context.Context, o *op) error {
	author, err := s.author(ctx, o.rec.Writer, o.rec.Post, o.rec.Deps)
	if err != nil {
		return err
	}
	o.author = author
	if o.rec.Kind != causal.Delete {
		set, err := s.relations.Get(ctx, o.rec.Writer, []id.User{author})
		if err != nil {
			return err
		}
		if !privacy.MayReact(set.Of(author)) {
			return problem.New(rpc.PermissionDenied, "not-friends", "", "only friends of its author may comment on or like a post")
		}
	}
	if o.rec.Parent.IsZero() {
		return nil
	}
	return s.checkParent(ctx, o, author)
}

// author gives the author of a post that a user may see. One that his session has seen
// elsewhere, and that has not come here yet, is waited for: to him it exists.
func (s *Service) author(ctx context.Context, user id.User, p id.Post, seen causal.Vector) (id.User, error) {
	req := &momentsv1.GetPostsRequest{ViewerId: user.String(), Ids: []string{p.String()}, HeadsOnly: true, Missing: len(seen) > 0}
	var late <-chan time.Time
	for {
		res, err := s.post.GetMany(ctx, req)
		if err != nil {
			return id.User{}, err
		}
		if len(res.GetPosts()) == 1 {
			return id.ParseUser(res.GetPosts()[0].GetAuthorId())
		}
		if len(res.GetMissingIds()) == 0 || !s.joined {
			return id.User{}, problem.NotFound("post")
		}
		if late == nil {
			timer := time.NewTimer(patience(ctx))
			defer timer.Stop()
			late = timer.C
		}
		again := time.NewTimer(lookAgain) // posts come by a queue that is not this service's
		select {
		case <-again.C:
		case <-late:
			err = errBehind
		case <-ctx.Done():
			err = ctx.Err()
		}
		again.Stop()
		if err != nil {
			return id.User{}, err
		}
	}
}

// lookAgain is how long to wait for a post before looking again.
const lookAgain = 50 * time.Millisecond

// checkParent decides whether the user may reply to, or delete, a comment. What he
// does not see does not exist for him.
func (s *Service) checkParent(ctx context.Context, o *op, author id.User) error {
	c, err := s.find(ctx, o.rec.Post, o.rec.Parent)
	if err != nil {
		return err
	}
	set, err := s.relations.Get(ctx, o.rec.Writer, []id.User{c.Writer, c.ReplyTo})
	if err != nil {
		return err
	}
	if !sees(set, &c) {
		return problem.NotFound("comment")
	}
	if o.rec.Kind == causal.Add {
		if c.Deleted {
			return problem.NotFound("comment")
		}
		o.rec.ReplyTo = c.Writer
		return nil
	}
	if o.rec.Writer != c.Writer && o.rec.Writer != author {
		return problem.NotFound("comment of yours")
	}
	return nil
}

// find gives a comment of a post, deleted ones included, or says that there is none.
func (s *Service) find(ctx context.Context, p id.Post, c id.Comment) (causal.Comment, error) {
	snap, err := s.threads.read(ctx, p)
	if err != nil {
		return causal.Comment{}, problem.Store("read thread", err)
	}
	if found, ok := causal.Find(snap.comments, c); ok {
		return found, nil
	}
	return causal.Comment{}, problem.NotFound("comment")
}

// sees decides whether a viewer who may see the post may see a comment on it.
func sees(set relations.Set, c *causal.Comment) bool {
	if c.ReplyTo.IsZero() {
		return privacy.SeesComment(set.Of(c.Writer))
	}
	return privacy.SeesReply(set.Of(c.Writer), set.Of(c.ReplyTo))
}

// write is one turn of a post's writers.
func (s *Service) write(ctx context.Context, p id.Post, ops []*op) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	const tries = 10 // each lost to another process writing this post, or to the store
	err := error(kv.ErrConflict)
	// What a turn reads it also makes a condition of its batch, so it need not wait for
	// the disk or another machine first. Earlier turns of this process are durable.
	mode := kv.Local
	for try := 0; try < tries && len(ops) > 0; {
		err = s.tryWrite(ctx, p, ops, mode)
		if err != nil && !errors.Is(err, kv.ErrConflict) && !errors.Is(err, kv.ErrUnknown) {
			break
		}
		if err != nil {
			// The next one finds by key or state what this one may have done.
			try, mode = try+1, kv.Linearizable
		}
		left := ops[:0:0]
		for _, o := range ops {
			if !o.done {
				left = append(left, o)
			}
		}
		ops = left
	}
	for _, o := range ops {
		if !o.done {
			o.settle(problem.Store("write comment", err))
		}
	}
}

// tryWrite settles what one batch can do of ops, at least the first, or fails with
// none applied (all or none after kv.ErrUnknown).
func (s *Service) tryWrite(ctx context.Context, p id.Post, ops []*op, mode kv.ReadMode) error {
	slot := kv.SlotOf(p[:])
	item, err := s.store.Get(ctx, slot, headKey(p), mode)
	if err != nil {
		return err
	}
	// Posts of one slot share an outbox, so they take turns from here on.
	out, err := s.outbox.Open(ctx, slot)
	if err != nil {
		return err
	}
	defer out.Close()
	w := turn{s: s, post: p, slot: slot, mode: mode, batch: new(kv.Batch), out: out}
	err = s.threads.with(ctx, p, item, func(t *thread) error {
		if t.ver > item.Ver { // another process has written since
			return kv.ErrConflict
		}
		w.thread, w.head, w.ver = t, t.head, t.ver
		for _, o := range ops {
			if w.batch.Len()+opOps+turnOps > kv.MaxOps || w.disturbs(o) {
				continue // it is for the next batch, which sees what this one does
			}
			if err := w.prepare(ctx, o); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || len(w.ops) == 0 {
		return err
	}
	return w.apply(ctx)
}

// turn is one batch in the making.
type turn struct {
	s       *Service
	post    id.Post
	slot    kv.Slot
	mode    kv.ReadMode // in which the head was read
	thread  *thread     // locked during prepare only: readers do not wait for the disk
	head    causal.Head // after the batch
	ver     uint64      // of the head's row, before the batch
	batch   *kv.Batch
	out     *outbox.Turn
	ops     []*op // with something in the batch
	records []causal.Record
	deletes bool // a text has to go
}

// disturbs reports whether what an op does depends on what is in the batch already:
// acts of the same user, and deletes of the same comment.
func (w *turn) disturbs(o *op) bool {
	for _, b := range w.ops {
		if b.rec.Writer == o.rec.Writer || b.rec.Kind == causal.Delete && b.rec.Parent == o.rec.Parent {
			return true
		}
	}
	return false
}

// prepare adds an op to the batch, or settles it if there is nothing to write.
func (w *turn) prepare(ctx context.Context, o *op) error {
	if !o.use.IsZero() {
		if done, err := w.s.replay(ctx, o); done || err != nil {
			o.settle(err)
			return nil
		}
	}
	if o.rec.Deps = w.s.members.needed(o.rec.Deps); !w.head.Seen.Covers(o.rec.Deps) {
		if w.mode == kv.Local {
			return kv.ErrConflict // it may be that only what is nearest is behind
		}
		o.settle(errBehind)
		return nil
	}
	act := true // whether the op changes anything
	switch o.rec.Kind {
	case causal.Like:
		act = !w.thread.fold.Liked(o.rec.Writer)
	case causal.Unlike:
		act = w.thread.fold.Liked(o.rec.Writer)
	case causal.Add, causal.Delete:
		if c, ok := w.thread.fold.Get(o.rec.Parent); ok && c.Deleted {
			if o.rec.Kind == causal.Add { // since it was checked
				o.settle(problem.NotFound("comment"))
				return nil
			}
			act = o.bury && slices.Contains(w.thread.fold.Dangling(w.head.Seen, w.s.members.now.Load()), c.ID)
		}
	}
	if !act && w.mode == kv.Local {
		return kv.ErrConflict // to write nothing, one must know how things stand
	}
	if !act && o.use.IsZero() {
		o.seen = w.head.Seen
		o.settle(nil)
		return nil
	}
	var made id.Comment
	if act {
		r, err := w.log(ctx, o)
		if err != nil {
			return err
		}
		made = r.ID
	}
	o.use.Record(w.batch, made[:]) // every use of a key moves the head
	o.result = made
	w.ops = append(w.ops, o)
	return nil
}

// log adds an op's record to the batch.
func (w *turn) log(ctx context.Context, o *op) (*causal.Record, error) {
	fresh, err := id.New[id.Comment](w.s.ids)
	if err != nil {
		return nil, err
	}
	r, head, err := w.head.Next(o.rec, fresh, w.s.now())
	if err != nil {
		return nil, err
	}
	value, err := encodeRecord(&r)
	if err != nil {
		return nil, err
	}
	w.batch.Put(logKey(w.post, r.ID.Region(), r.Seq), value)
	e := entry{kind: r.Kind, again: r.Kind == causal.Like && w.thread.fold.EverLiked(r.Writer), post: w.post, author: o.author, region: r.ID.Region(), seq: r.Seq}
	w.out.Put(w.batch, e.encode(), o.sending.Origin)
	if r.Kind == causal.Delete {
		w.deletes = true
		if err := w.s.blank(ctx, w.batch, w.slot, w.thread, &r); err != nil {
			return nil, err
		}
	}
	w.head = head
	w.records = append(w.records, r)
	return &w.records[len(w.records)-1], nil
}

// blank takes the text of a deleted comment out of the log, so that it is nowhere to
// be read again. The thread is locked.
func (s *Service) blank(ctx context.Context, batch *kv.Batch, slot kv.Slot, t *thread, by *causal.Record) error {
	c, ok := t.fold.Get(by.Parent)
	if !ok {
		return nil // whoever deletes it has seen it, so it was there
	}
	key := logKey(by.Post, c.ID.Region(), c.Seq)
	it, err := s.store.Get(ctx, slot, key, kv.Local)
	if err != nil {
		return err
	}
	r, err := parseRecord(it.Value)
	if err != nil {
		return err
	}
	grave := causal.Entry{Region: by.ID.Region(), Seq: by.Seq}
	if r.Body == "" && r.Grave.Seq > 0 && cmp.Or(cmp.Compare(r.Grave.Region, grave.Region), cmp.Compare(r.Grave.Seq, grave.Seq)) <= 0 {
		return nil // of two the same one counts in all regions
	}
	r.Body, r.Grave = "", grave
	value, err := encodeRecord(&r)
	if err != nil {
		return err
	}
	batch.Put(key, value)
	return nil
}

// apply writes the batch and folds it into the thread.
func (w *turn) apply(ctx context.Context) error {
	key := headKey(w.post)
	w.batch.IfVer(key, w.ver).Put(key, w.head.Encode())
	if err := w.out.Seal(w.batch); err != nil {
		return err
	}
	if w.deletes {
		dropSnapshot(w.batch, w.post)
	}
	ver, err := w.s.store.Apply(ctx, w.slot, w.batch)
	if err != nil {
		return err
	}
	w.out.Applied(ver)
	w.thread.mu.Lock()
	if w.thread.ver == w.ver { // else a reader was quicker to fold it
		for i := range w.records {
			w.thread.add(&w.records[i], w.s.number)
		}
		w.thread.head, w.thread.ver = w.head, ver
	}
	if w.deletes {
		w.thread.snapped = 0
	}
	w.thread.mu.Unlock()
	for _, o := range w.ops {
		o.seen = w.head.Seen
		o.sending.Done(nil)
		o.settle(nil)
	}
	return nil
}
