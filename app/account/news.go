// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/outbox"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Notifier is the part of the notify service's client that is used here.
type Notifier interface {
	Forgetter
	Record(context.Context, *momentsv1.RecordRequest) (*momentsv1.RecordResponse, error)
}

// news is what a person is to be told of another. It is put into the outbox in the
// batch by which the person's side hears of it, which is in his home region. Form:
// version 1, to, by, kind, round, time.
type news struct {
	to, by id.User
	kind   momentsv1.NoticeKind
	round  uint32
	ms     int64 // when, in unix milliseconds
}

const newsLen = 1 + 16 + 16 + 1 + 4 + 8

func (n news) encode() []byte {
	b := append(make([]byte, 0, newsLen), 1)
	b = append(append(append(b, n.to[:]...), n.by[:]...), byte(n.kind))
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, n.round), uint64(n.ms))
}

func decodeNews(b []byte) (news, error) {
	if len(b) != newsLen || b[0] != 1 {
		return news{}, fmt.Errorf("%w: outbox record %x is no news of version 1", errDamaged, b)
	}
	return news{
		to: id.User(b[1:]), by: id.User(b[17:]), kind: momentsv1.NoticeKind(b[33]),
		round: binary.BigEndian.Uint32(b[34:]), ms: int64(binary.BigEndian.Uint64(b[38:])),
	}, nil
}

// event gives news as the notify service takes it. A round has one request and one
// acceptance of each side at most, so these name it.
func (n news) event() *momentsv1.NoticeEvent {
	return &momentsv1.NoticeEvent{
		OperationId: fmt.Sprintf("%v.%d.%d", n.by, n.round, n.kind),
		Kind:        n.kind, ActorId: n.by.String(), ReaderIds: []string{n.to.String()},
		HappenedMs: n.ms, FriendRound: n.round,
	}
}

// apply applies a batch on one user's rows, with news for the outbox if there are any,
// and with what other regions have copies of. Whoever is at home elsewhere by now is told so.
func (s *Service) apply(ctx context.Context, slot kv.Slot, b *kv.Batch, all ...news) error {
	copies, err := s.syncOf(b)
	if err != nil {
		return err
	}
	if len(all) == 0 && copies == nil && !s.turns(b) {
		_, err := s.store.Apply(ctx, slot, b)
		return err
	}
	sending := s.queue.Begin(ctx)
	turn, err := s.outbox.Open(ctx, slot)
	if err != nil {
		return err
	}
	defer turn.Close()
	if err := s.guard(b); err != nil {
		return err
	}
	for _, n := range all {
		turn.PutLocal(b, n.encode(), sending.Origin)
	}
	if copies != nil {
		turn.PutPeers(b, copies, sending.Origin)
	}
	if err := turn.Seal(b); err != nil {
		return err
	}
	ver, err := s.store.Apply(ctx, slot, b)
	sending.Done(err)
	if err == nil {
		turn.Applied(ver)
	}
	return err
}

// deliver brings news from the outbox to the notify service.
func (s *Service) deliver(ctx context.Context, records []outbox.Record) error {
	if s.notify == nil { // the outbox runs for other regions only
		return errors.New("account: there is no notify service to tell")
	}
	req := new(momentsv1.RecordRequest)
	for _, r := range records {
		n, err := decodeNews(r.Body)
		if err != nil {
			return err
		}
		req.Events = append(req.Events, n.event())
	}
	_, err := s.notify.Record(ctx, req)
	if rpc.CodeOf(err) == rpc.InvalidArgument { // repeating it would not mend it, and hold up all others
		s.log.ErrorContext(ctx, "notices are lost: the notify service does not understand them", "events", len(req.GetEvents()), "err", err)
		return nil
	}
	return err
}

// ShowFriendActs implements the contract.
func (s *Service) ShowFriendActs(ctx context.Context, req *momentsv1.ShowFriendActsRequest) (*momentsv1.ShowFriendActsResponse, error) {
	viewer, err := problem.User("viewer_id", req.GetViewerId())
	if err != nil {
		return nil, err
	}
	if n := len(req.GetActs()); n > maxAuthors {
		return nil, problem.Invalid("acts", "are %d, want at most %d", n, maxAuthors)
	}
	res := &momentsv1.ShowFriendActsResponse{Shown: make([]bool, len(req.GetActs()))}
	for i, act := range req.GetActs() {
		actor, err := problem.User("acts.actor_id", act.GetActorId())
		if err != nil {
			return nil, err
		}
		e, err := s.edge(ctx, viewer, actor)
		if err != nil {
			return nil, problem.Store("read friendships", err)
		}
		res.Shown[i] = e.stands(act.GetAccepted(), act.GetRound())
	}
	return res, nil
}
