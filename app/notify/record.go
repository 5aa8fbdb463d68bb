// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// job is what one caller has to write to one reader.
type job struct {
	ops []*op
	err error // result
}

// op is a notice to add, or, without kind, a mark that all up to a sequence was read.
type op struct {
	notice notice
	use    once.Use // of the event
	upTo   uint64
	done   bool
}

// errNotRun stands in a job until its turn has settled it.
var errNotRun = problem.Store("write notices", kv.ErrUnknown)

// Record takes over what happened; see the contract.
func (s *Service) Record(ctx context.Context, req *momentsv1.RecordRequest) (*momentsv1.RecordResponse, error) {
	if n := len(req.GetEvents()); n > maxEvents {
		return nil, problem.Invalid("events", "has %d events, at most %d", n, maxEvents)
	}
	now, readers := s.now(), 0
	var order []id.User
	all := make(map[id.User][]*op)
	for _, e := range req.GetEvents() {
		n, err := newNotice(e)
		if err != nil {
			return nil, err
		}
		if readers += len(e.GetReaderIds()); readers > maxReaders {
			return nil, problem.Invalid("events", "have more than %d readers", maxReaders)
		}
		sum := once.Sum("notice", strconv.Itoa(int(n.kind)), e.GetOperationId())
		for _, v := range e.GetReaderIds() {
			u, err := problem.User("events.reader_ids", v)
			if err != nil {
				return nil, err
			}
			if u == n.actor {
				continue // nobody is told of his own acts
			}
			if all[u] == nil {
				order = append(order, u)
			}
			all[u] = append(all[u], &op{notice: n, use: once.New(now, u[:], e.GetOperationId(), sum)})
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for _, u := range order {
		g.Go(func() error { return s.do(ctx, u, all[u]) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return &momentsv1.RecordResponse{}, nil
}

// do has the ops of one reader written, in order.
func (s *Service) do(ctx context.Context, u id.User, ops []*op) error {
	j := &job{ops: ops, err: errNotRun}
	switch err := s.writes.Do(ctx, u, j); {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case err != nil:
		return problem.Store("wait for the reader", fmt.Errorf("%w: %w", kv.ErrUnavailable, err))
	}
	return j.err
}

// write is one turn of a reader's writers.
func (s *Service) write(ctx context.Context, u id.User, jobs []*job) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var ops []*op
	for _, j := range jobs {
		ops = append(ops, j.ops...)
	}
	const tries = 10 // each lost to another process writing this reader, or to the store
	// What a batch reads it also makes a condition of, so it need not wait for the disk
	// first. Earlier turns of this process are durable.
	mode := kv.Local
	var err error
	for try := 0; try < tries && len(ops) > 0; {
		n := min(len(ops), maxBatch)
		if err = s.tryWrite(ctx, u, ops[:n], mode); err == nil {
			ops = ops[n:]
			continue
		}
		if !errors.Is(err, kv.ErrConflict) && !errors.Is(err, kv.ErrUnknown) {
			break
		}
		try, mode = try+1, kv.Linearizable // the next one finds what this one may have done
	}
	for _, j := range jobs {
		j.err = nil
		for _, o := range j.ops {
			if !o.done {
				j.err = problem.Store("write notices", err)
			}
		}
	}
}

// tryWrite does ops with one batch, or fails with none applied (all or none after
// kv.ErrUnknown).
func (s *Service) tryWrite(ctx context.Context, u id.User, ops []*op, mode kv.ReadMode) error {
	slot, key := kv.SlotOf(u[:]), stateKey(u)
	it, err := s.store.Get(ctx, slot, key, mode)
	if err != nil {
		return err
	}
	before, err := parseState(it)
	if err != nil {
		return err
	}
	st, b := before, new(kv.Batch)
	var fresh []*op
	for _, o := range ops {
		if o.notice.kind == 0 {
			st.read = max(st.read, min(o.upTo, st.last))
			continue
		}
		known, err := s.known(ctx, slot, o, fresh)
		if err != nil {
			return err
		}
		if known {
			continue
		}
		st.last++
		o.notice.seq = st.last
		o.use.Record(b, nil) // every use of a key moves the state
		fresh = append(fresh, o)
	}
	if st != before {
		s.put(b, u, before, st, fresh)
		if _, err := s.store.Apply(ctx, slot, b.IfVer(key, it.Ver).Put(key, st.encode())); err != nil {
			return err
		}
	} else if mode == kv.Local {
		return kv.ErrConflict // to write nothing, one must know how things stand
	}
	for _, o := range ops {
		o.done = true
	}
	return nil
}

// known reports whether an event has made its notice already, or does so in this batch.
func (s *Service) known(ctx context.Context, slot kv.Slot, o *op, fresh []*op) (bool, error) {
	for _, f := range fresh {
		if f.use.Same(o.use) {
			return true, nil
		}
	}
	_, found, err := o.use.Answer(ctx, s.store, slot)
	if errors.Is(err, once.ErrReused) { // one event is one notice, whatever its kind
		return true, nil
	}
	return found, err
}

// put adds the notices that are kept to a batch, and removes old ones now and then.
func (s *Service) put(b *kv.Batch, u id.User, before, st state, fresh []*op) {
	cut := uint64(0) // up to here notices are removed
	if st.last > s.keep && st.last/trimEvery != before.last/trimEvery {
		cut = st.last - s.keep
		b.DeleteRange(noticeKey(u, cut), kv.PrefixEnd(noticePrefix(u)))
	}
	for _, o := range fresh {
		if o.notice.seq > cut {
			b.Put(noticeKey(u, o.notice.seq), o.notice.encode())
		}
	}
}

// newNotice reads an event.
func newNotice(e *momentsv1.NoticeEvent) (n notice, err error) {
	if op := e.GetOperationId(); op == "" || len(op) > once.MaxKey {
		return n, problem.Invalid("events.operation_id", "has %d bytes, want 1 to %d", len(op), once.MaxKey)
	}
	n.kind, n.happened, n.round = e.GetKind(), e.GetHappenedMs(), e.GetFriendRound()
	if n.kind <= momentsv1.NoticeKind_NOTICE_KIND_UNSPECIFIED || n.kind > momentsv1.NoticeKind_NOTICE_KIND_FRIEND_ACCEPTED {
		return n, problem.Invalid("events.kind", "is %v, want one of the contract", n.kind)
	}
	if n.actor, err = problem.User("events.actor_id", e.GetActorId()); err != nil {
		return n, err
	}
	if n.social() {
		if n.round == 0 {
			return n, problem.Invalid("events.friend_round", "is 0, want the round of the friendship")
		}
	} else {
		if n.post, err = id.ParsePost(e.GetPostId()); err != nil {
			return n, problem.Invalid("events.post_id", "%v", err)
		}
	}
	if n.kind == momentsv1.NoticeKind_NOTICE_KIND_COMMENT || n.kind == momentsv1.NoticeKind_NOTICE_KIND_REPLY {
		if n.comment, err = id.ParseComment(e.GetCommentId()); err != nil {
			return n, problem.Invalid("events.comment_id", "%v", err)
		}
	}
	return n, nil
}

// MarkRead marks notices as read; see the contract.
func (s *Service) MarkRead(ctx context.Context, req *momentsv1.MarkReadRequest) (*momentsv1.MarkReadResponse, error) {
	u, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	upTo, err := parsePlace("up_to_notice_id", req.GetUpToNoticeId())
	if err != nil {
		return nil, err
	}
	if err := s.do(ctx, u, []*op{{upTo: upTo}}); err != nil {
		return nil, err
	}
	unread, _, err := s.unread(ctx, u)
	if err != nil {
		return nil, err
	}
	return &momentsv1.MarkReadResponse{Unread: unread}, nil
}
