// SPDX-License-Identifier: Apache-2.0

package post

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/privacy"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

// An errand is what another service has to hear after a write. It is a row of the
// write's own batch, so it is run, whatever crashes; running it twice does no harm.
// Errands are few and in no order, and they never keep fan-out waiting.
type errand struct {
	post id.Post
	kind byte
}

// What an errand is.
const (
	errandRemind  = 'n' // tell those whom a post reminds
	errandRelease = 'm' // let a deleted post's media go
	errandUnveil  = 'v' // show a post of another region, as soon as it may be shown
)

func (e errand) key() []byte {
	return append(append([]byte{tableErrand}, e.post[:]...), e.kind)
}

const (
	errandTime    = 5 * time.Second // bounds one
	errandWorkers = 4
	// errandSweep is how often the store is looked through for errands that were cut off.
	errandSweep = time.Hour
	// errandAgain is how long to wait before those that failed are tried again.
	errandAgain = 2 * time.Second
	// intentAge is how old an intent is when nobody can come back to it any more.
	intentAge = 2 * once.Keep
)

// errands runs errands.
type errands struct {
	*Service
	notify Notify // may be nil

	queue chan errand   // what has just come; the store holds it too
	again chan struct{} // holds a token when the store is to be looked through
}

func newErrands(s *Service, notify Notify) *errands {
	return &errands{Service: s, notify: notify, queue: make(chan errand, 1024), again: make(chan struct{}, 1)}
}

// add hands over an errand whose row is durable.
func (e *errands) add(one errand) {
	select {
	case e.queue <- one:
	default:
		e.lookAgain()
	}
}

func (e *errands) lookAgain() {
	select {
	case e.again <- struct{}{}:
	default: // it is going to look anyway
	}
}

// pause waits, and reports false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// run works until ctx ends.
func (e *errands) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for range errandWorkers {
		g.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case one := <-e.queue:
					switch err := e.do(ctx, one); {
					case err == nil || ctx.Err() != nil:
					case errors.Is(err, errEarly):
						e.lookAgain()
					default:
						e.log.WarnContext(ctx, "an errand failed and will be repeated", "post", one.post, "kind", string(one.kind), "error", err)
						e.lookAgain()
					}
				}
			}
		})
	}
	g.Go(func() error {
		for {
			if err := e.sweep(ctx); err != nil && ctx.Err() == nil {
				e.log.WarnContext(ctx, "errands could not be looked for and will be later", "error", err)
				e.lookAgain()
			}
			t := time.NewTimer(errandSweep)
			select {
			case <-ctx.Done():
			case <-t.C:
			case <-e.again:
			}
			t.Stop()
			if !pause(ctx, errandAgain) { // gathers what fails together, and gives it time
				return nil
			}
		}
	})
	return g.Wait()
}

// sweep hands over the errands that are in the store, as fast as the workers go on, and
// forgets old intents.
func (e *errands) sweep(ctx context.Context) error {
	for _, table := range []byte{tableErrand, tableIntent} {
		err := kv.Sweep(ctx, e.store, kv.Prefix([]byte{table}, 0), kv.Linearizable, func(slot kv.Slot, it kv.Item) error {
			return e.left(ctx, slot, it)
		})
		if err != nil {
			return fmt.Errorf("post: look for errands: %w", err)
		}
	}
	return nil
}

// left does what is to be done about a row that was found.
func (e *errands) left(ctx context.Context, slot kv.Slot, it kv.Item) error {
	switch {
	case it.Key[0] == tableErrand && len(it.Key) == 18:
		select {
		case e.queue <- errand{post: id.Post(it.Key[1:17]), kind: it.Key[17]}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	case it.Key[0] == tableIntent && len(it.Value) == 16:
		if e.now().Sub(id.Post(it.Value).Time()) < intentAge {
			return nil
		}
		_, err := e.store.Apply(ctx, slot, new(kv.Batch).IfVer(it.Key, it.Ver).Delete(it.Key))
		if errors.Is(err, kv.ErrConflict) {
			return nil // somebody has come back to it after all
		}
		return err
	}
	return fmt.Errorf("post: row %x of slot %d is damaged", it.Key, slot)
}

// do runs one errand and then forgets it.
func (e *errands) do(ctx context.Context, one errand) error {
	slot := slotOf(one.post)
	row, err := e.store.Get(ctx, slot, one.key(), kv.Linearizable)
	if err != nil || row.Ver == 0 {
		return err
	}
	if one.kind == errandUnveil {
		if err := e.unveil(ctx, one.post); err != nil {
			return err
		}
		return e.forget(ctx, slot, one, row)
	}
	body, err := e.store.Get(ctx, slot, bodyKey(one.post), kv.Linearizable)
	if err != nil {
		return err
	}
	rec, err := parseBody(body)
	if err != nil {
		return err
	}
	call, cancel := context.WithTimeout(rpc.WithCall(ctx, &rpc.Call{Header: rpc.Header{
		Entry: framework.NameEntry("job post.errand"), Class: qos.Background, Trace: tracing.NewTraceID(),
	}}), errandTime)
	defer cancel()
	switch one.kind {
	case errandRemind:
		if e.notify == nil {
			return nil // the row waits for a start that has it
		}
		err = e.remind(call, rec)
	case errandRelease:
		if e.media == nil {
			return nil
		}
		_, err = e.media.Release(call, &momentsv1.ReleaseRequest{OwnerId: id.User(rec.GetAuthorId()).String(), PostId: one.post.String()})
	default:
		return fmt.Errorf("post: there is no errand %q", one.kind)
	}
	if err != nil {
		return err
	}
	return e.forget(ctx, slot, one, row)
}

// forget removes the row of an errand that has been run. One that was given again
// meanwhile stays.
func (e *errands) forget(ctx context.Context, slot kv.Slot, one errand, row kv.Item) error {
	_, err := e.store.Apply(ctx, slot, new(kv.Batch).IfVer(one.key(), row.Ver).Delete(one.key()))
	if errors.Is(err, kv.ErrConflict) {
		e.lookAgain()
		return nil
	}
	return err
}

// remind tells those whom a post reminds, as far as they may still see it and are at
// home here: the others hear of it in their own region.
func (e *errands) remind(ctx context.Context, rec *momentsv1.PostRecord) error {
	if rec.GetDeleted() {
		return nil
	}
	p, author, now := id.Post(rec.GetPostId()), id.User(rec.GetAuthorId()), e.now()
	post := recordOf(rec)
	event := &momentsv1.NoticeEvent{
		OperationId: p.String(), Kind: momentsv1.NoticeKind_NOTICE_KIND_REMIND,
		ActorId: author.String(), PostId: p.String(), HappenedMs: rec.GetTimeMs(),
	}
	for b := range slices.Chunk(rec.GetRemindIds(), 16) {
		u := id.User(b)
		if !e.home(u) {
			continue
		}
		set, err := e.relations.Fresh(ctx, u, []id.User{author})
		if err != nil {
			return err
		}
		if f := set.Of(author); f.Friends && privacy.SeesPost(f, post.aspects(u), now) {
			event.ReaderIds = append(event.ReaderIds, u.String())
		}
	}
	if len(event.GetReaderIds()) == 0 {
		return nil
	}
	_, err := e.notify.Record(ctx, &momentsv1.RecordRequest{Events: []*momentsv1.NoticeEvent{event}})
	return err
}
