// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/once"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

const (
	// sweepEvery is how often the whole store is looked through for what crashes
	// left and time has ended.
	sweepEvery = time.Hour
	// againAfter is how long to wait before what failed is tried again.
	againAfter = time.Second
	// pendingAge is how old an account without a name is when it is cleared away:
	// far beyond the time of any registration that might still be running.
	pendingAge = time.Hour
	// backfillers is how many timelines are filled at once for new friends. Most of
	// the time each waits for a disk, which serves many for the price of one.
	backfillers = 16
	// hearers is how many words of other regions are heard at once, likewise.
	hearers = 8
	// backfillTime bounds one of them.
	backfillTime = 5 * time.Second
)

// newFriend is a friendship whose posts are to be filled into reader's timeline.
type newFriend struct{ reader, author id.User }

// wake makes Run look for what waits in the store.
func (s *Service) wake() {
	select {
	case s.waiting <- struct{}{}:
	default: // it is going to look anyway
	}
}

// queueBackfill hands a new friendship to Run. The store holds it too, so when
// there is no room nothing is lost.
func (s *Service) queueBackfill(reader, author id.User) {
	select {
	case s.backfills <- newFriend{reader: reader, author: author}:
	default:
		s.wake()
	}
}

// Run does what is not done within a call: it brings half-edges to where a crash
// kept them from, fills new friends' posts into timelines, has people told of friends'
// requests, removes what deleted accounts have left, writes down when sessions were used, forgets old idempotency
// keys and clears away accounts that never got their name. It returns nil when ctx
// ends.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for range backfillers {
		g.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case f := <-s.backfills:
					if err := s.backfill(ctx, f); err != nil && ctx.Err() == nil {
						s.unfilled.Add(1)
						s.log.DebugContext(ctx, "a new friend's posts could not be filled into a timeline", "reader", f.reader, "author", f.author, "err", err)
						s.wake()
					}
				}
			}
		})
	}
	if s.notify != nil || s.joined {
		g.Go(func() error { return s.outbox.Run(ctx) })
	}
	if s.joined {
		g.Go(func() error {
			s.keepMoving(ctx)
			return nil
		})
	}
	for range hearers {
		g.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case h := <-s.arrivals:
					if err := s.hear(ctx, h); err != nil && ctx.Err() == nil {
						s.log.WarnContext(ctx, "what came from another region is not all done and is tried again", "user", h.user, "err", err)
						s.wake()
					}
				}
			}
		})
	}
	for range leavers {
		g.Go(func() error {
			s.clearLeavers(ctx)
			return nil
		})
	}
	g.Go(func() error {
		s.writeUses(ctx)
		return nil
	})
	g.Go(func() error {
		s.sweepUntil(ctx)
		return nil
	})
	g.Go(func() error {
		once.Sweep(ctx, s.store, s.now, s.log)
		return nil
	})
	return g.Wait()
}

func (s *Service) sweepUntil(ctx context.Context) {
	for {
		if n := s.unfilled.Swap(0); n > 0 {
			s.log.WarnContext(ctx, "timelines could not be filled for new friends and are tried again", "count", n)
		}
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "some work is left and is tried again", "err", err, "after", againAfter)
			s.wake()
		}
		if !wait(ctx, s.waiting, sweepEvery) || !wait(ctx, nil, againAfter) {
			return // the second wait gathers what fails together, and gives it time
		}
	}
}

// wait reports whether there is something to do: after d or when early has a
// token, but not when ctx has ended.
func wait(ctx context.Context, early <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-early:
	case <-t.C:
	}
	return true
}

// maxFailures is after how many a sweep is given up: the store, or who is called, is in
// trouble, and one page of log says so.
const maxFailures = 10

// sweep looks through the whole store once. It goes on after a failure and gives
// all of them.
func (s *Service) sweep(ctx context.Context) error {
	var errs []error
	for _, kind := range []struct {
		prefix byte
		do     func(context.Context, kv.Slot, kv.Item) error
	}{
		{prefixMirror, s.tellLeft},
		{prefixSpread, s.spreadLeft},
		{prefixBackfill, s.backfillLeft},
		{prefixPending, s.settle},
		{prefixNaming, s.namingLeft},
		{prefixLeaving, s.leavingLeft},
	} {
		err := kv.Sweep(ctx, s.store, kv.Prefix([]byte{kind.prefix}, 0), kv.Linearizable, func(slot kv.Slot, item kv.Item) error {
			err := kind.do(ctx, slot, item)
			if err == nil || ctx.Err() != nil || len(errs) == maxFailures {
				return err
			}
			errs = append(errs, err)
			return nil
		})
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	return errors.Join(errs...)
}

func pairOf(key []byte) (first, second id.User, err error) {
	second, err = secondOf[id.User](key)
	if err != nil {
		return first, second, err
	}
	return id.User(key[1:17]), second, nil
}

func (s *Service) tellLeft(ctx context.Context, _ kv.Slot, item kv.Item) error {
	uid, other, err := pairOf(item.Key)
	if err != nil {
		return err
	}
	return s.tell(ctx, uid, other)
}

// backfillLeft hands what waits to the backfillers, as fast as they go on. One that
// they have already does no harm.
func (s *Service) backfillLeft(ctx context.Context, _ kv.Slot, item kv.Item) error {
	reader, author, err := pairOf(item.Key)
	if err != nil || s.timeline == nil {
		return err // without timelines here the row waits until there are
	}
	select {
	case s.backfills <- newFriend{reader: reader, author: author}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// backfill has a new friend's posts filled into a timeline and then forgets that it
// was to be done. Filling twice changes nothing.
func (s *Service) backfill(ctx context.Context, f newFriend) error {
	if s.timeline == nil {
		return nil
	}
	key := pairKey(prefixBackfill, f.reader, f.author)
	item, err := s.store.Get(ctx, slotOfUser(f.reader), key, kv.Linearizable)
	if err != nil || item.Ver == 0 {
		return err
	}
	callCtx, cancel := context.WithTimeout(background(ctx, "backfill"), backfillTime)
	defer cancel()
	if _, err := s.timeline.Backfill(callCtx, &momentsv1.BackfillRequest{ReaderId: f.reader.String(), AuthorId: f.author.String()}); err != nil {
		return err
	}
	_, err = s.store.Apply(ctx, slotOfUser(f.reader), new(kv.Batch).IfVer(key, item.Ver).Delete(key))
	if errors.Is(err, kv.ErrConflict) {
		return nil // they parted and met again: a later row tells of it
	}
	return err
}

// settle looks at an account that perhaps never got its name.
func (s *Service) settle(ctx context.Context, slot kv.Slot, item kv.Item) error {
	if len(item.Key) != 17 {
		return errDamaged
	}
	uid := id.User(item.Key[1:])
	held, ok, err := s.claimOf(ctx, string(item.Value))
	if err != nil {
		return err
	}
	b := new(kv.Batch)
	switch {
	case ok && held.user == uid:
	case s.now().Sub(uid.Time()) > pendingAge:
		b.Delete(userKey(prefixUser, uid))
	default:
		return nil // its registration may be under way
	}
	return s.apply(ctx, slot, b.Delete(item.Key))
}
