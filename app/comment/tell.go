// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/outbox"
	"github.com/sluice-rpc/sluice/app/privacy"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Notifier is the part of the notify service's client that is used here.
type Notifier interface {
	Record(context.Context, *momentsv1.RecordRequest) (*momentsv1.RecordResponse, error)
}

// entry is what the outbox says of an operation: where it is in the log, and what only
// its writing knew. Form: version 2, kind, flags, post, author of the post, sequence,
// region. Version 1 had no region, for there was one only.
type entry struct {
	kind   causal.Kind
	again  bool // the writer had liked the post before
	post   id.Post
	author id.User // zero if nobody knows
	region id.Region
	seq    uint64 // in the log, of the region
}

const entryLen = 3 + 16 + 16 + 8 + 2

// Records of the outbox that are for peers alone begin with one of these, where others
// have their version.
const (
	entryRegions = 3 // nothing more: the registry has changed
	entryWant    = 4 // a question, as it is sent
)

func (e entry) encode() []byte {
	b := append(make([]byte, 0, entryLen), 2, byte(e.kind), 0)
	if e.again {
		b[2] = 1
	}
	b = binary.BigEndian.AppendUint64(append(append(b, e.post[:]...), e.author[:]...), e.seq)
	return binary.BigEndian.AppendUint16(b, uint16(e.region))
}

func (s *Service) parseEntry(b []byte) (e entry, err error) {
	switch {
	case len(b) == entryLen && b[0] == 2:
		e.region = id.Region(binary.BigEndian.Uint16(b[entryLen-2:]))
	case len(b) == entryLen-2 && b[0] == 1:
		e.region = s.region
	default:
		return e, fmt.Errorf("comment: outbox entry %x is not of version 1 or 2", b)
	}
	e.kind, e.again, e.seq = causal.Kind(b[1]), b[2]&1 != 0, binary.BigEndian.Uint64(b[35:])
	copy(e.post[:], b[3:])
	copy(e.author[:], b[19:])
	return e, nil
}

// tell brings what the outbox holds to the notify service.
func (s *Service) tell(ctx context.Context, records []outbox.Record) error {
	req := new(momentsv1.RecordRequest)
	for _, r := range records {
		e, err := s.parseEntry(r.Body)
		if err != nil {
			return err
		}
		if e.again || e.kind != causal.Add && e.kind != causal.Like {
			continue // of what goes nobody is told, nor twice of what comes again
		}
		events, err := s.events(ctx, r.Slot, e)
		if err != nil {
			return err
		}
		req.Events = append(req.Events, events...)
	}
	if len(req.GetEvents()) == 0 {
		return nil
	}
	_, err := s.notify.Record(ctx, req)
	if rpc.CodeOf(err) == rpc.InvalidArgument { // repeating it would not mend it, and hold up all others
		s.log.ErrorContext(ctx, "notices are lost: the notify service does not understand them", "events", len(req.GetEvents()), "error", err)
		return nil
	}
	return err
}

// events makes the events of one operation: one for the person replied to, one for the
// others. Those who are at home elsewhere are told there.
func (s *Service) events(ctx context.Context, slot kv.Slot, e entry) ([]*momentsv1.NoticeEvent, error) {
	it, err := s.store.Get(ctx, slot, logKey(e.post, e.region, e.seq), kv.Local)
	if err != nil {
		return nil, err
	}
	if it.Ver == 0 {
		return nil, fmt.Errorf("comment: the log of %v lacks %d of region %d, which the outbox names", e.post, e.seq, e.region)
	}
	rec, err := parseRecord(it.Value)
	if err != nil {
		return nil, err
	}
	friends, err := s.friends.Of(ctx, rec.Writer)
	if err != nil {
		return nil, err
	}
	may := func(u id.User) bool { return s.home(u) && privacy.IsTold(friends.Of(u)) } // friendship is mutual
	if !rec.ReplyTo.IsZero() {
		to, err := s.friends.Of(ctx, rec.ReplyTo)
		if err != nil {
			return nil, err
		}
		may = func(u id.User) bool {
			return s.home(u) && privacy.IsTold(friends.Of(u)) && privacy.SeesReply(friends.Of(u), to.Of(u))
		}
	}
	var readers []string
	gone := false
	head, err := s.store.Get(ctx, slot, headKey(e.post), kv.Local)
	if err != nil {
		return nil, err
	}
	err = s.threads.with(ctx, e.post, head, func(t *thread) error {
		if c, ok := t.fold.Get(rec.ID); ok && c.Deleted {
			gone = true
			return nil
		}
		for _, u := range friends.Friends() {
			since, ok := t.fold.Since(u)
			if ok && since.Compare(rec.ID) < 0 && u != e.author && u != rec.ReplyTo && may(u) {
				readers = append(readers, u.String())
			}
		}
		return nil
	})
	if err != nil || gone {
		return nil, err
	}
	event := func(kind momentsv1.NoticeKind, to []string) *momentsv1.NoticeEvent {
		n := &momentsv1.NoticeEvent{
			OperationId: rec.ID.String(), Kind: kind, ActorId: rec.Writer.String(), PostId: e.post.String(),
			ReaderIds: to, HappenedMs: rec.ID.Time().UnixMilli(),
		}
		if rec.Kind == causal.Add {
			n.CommentId = n.GetOperationId()
		}
		return n
	}
	kind := momentsv1.NoticeKind_NOTICE_KIND_LIKE
	if rec.Kind == causal.Add {
		kind = momentsv1.NoticeKind_NOTICE_KIND_COMMENT
	}
	if e.author != rec.ReplyTo && may(e.author) {
		readers = append(readers, e.author.String())
	}
	var events []*momentsv1.NoticeEvent
	if len(readers) > 0 {
		events = append(events, event(kind, readers))
	}
	if !rec.ReplyTo.IsZero() && may(rec.ReplyTo) {
		events = append(events, event(momentsv1.NoticeKind_NOTICE_KIND_REPLY, []string{rec.ReplyTo.String()}))
	}
	return events, nil
}

// OutboxStatus says how far telling is; see the contract.
func (s *Service) OutboxStatus(context.Context, *momentsv1.OutboxStatusRequest) (*momentsv1.OutboxStatusResponse, error) {
	if s.outbox == nil {
		return nil, errors.New("comment: this service has no outbox")
	}
	st := s.outbox.Status()
	return &momentsv1.OutboxStatusResponse{Pending: st.Pending, Delivered: st.Delivered, Failures: st.Failures}, nil
}
