// SPDX-License-Identifier: Apache-2.0

package post

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/outbox"
	"github.com/sluice-rpc/sluice/framework"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

const (
	// consumer is the name of the local fan-out among the consumers of the outbox.
	consumer = "fan-out"
	// groupPosts is how many posts share a call: at 40 friends each that fills a
	// BulkPut.
	groupPosts = 250
	// groupLists bounds the bytes of persons in one call. One post has 240 KB at most.
	groupLists = 1 << 20
	// callTimeout bounds one call to the timeline service, groupTimeout all those that
	// one group of posts takes.
	callTimeout, groupTimeout = 30 * time.Second, 5 * time.Minute
	// readTime is longer than a read of a timeline may take: who began to read an index
	// before a post was there has ended by then.
	readTime = 5 * time.Second
)

// fanOut brings what the outbox holds to the timeline service.
type fanOut struct {
	store    kv.Store
	timeline FanOuter
	outbox   *outbox.Box

	mu                sync.Mutex
	posts, deliveries uint64 // guarded by mu
}

func newFanOut(cfg Config, queue *framework.Queue) *fanOut {
	f := &fanOut{store: cfg.Store, timeline: cfg.Timeline}
	f.outbox = outbox.New(outbox.Config{
		Store: cfg.Store, Queue: queue, Log: cfg.Log, Now: cfg.Now, Peers: idcqueue.Consumers(cfg.Peers),
		Consumer: consumer, Deliver: f.deliver, Timeout: groupTimeout,
		Workers: cfg.FanOutWorkers, Linger: cfg.FanOutLinger, Group: groupPosts,
	})
	return f
}

// settled reports that every post of a slot stands in the timelines, and has for so
// long that no reader has missed it.
func (f *fanOut) settled(slot kv.Slot) bool { return f.outbox.Settled(slot, readTime) }

// deliver fans out, with as few calls as the lists of persons allow. A failed call has
// those before it made again, which changes nothing.
func (f *fanOut) deliver(ctx context.Context, records []outbox.Record) error {
	req, lists := new(momentsv1.FanOutRequest), 0 // bytes of persons in the request
	for _, r := range records {
		e, err := parseEntry(r.Body)
		if err != nil {
			return err
		}
		fp := &momentsv1.FanOutPost{PostId: e.post.String(), AuthorId: e.author.String()}
		switch e.kind {
		case outboxPublish: // a deleted post is hidden by its tombstone
			req.Posts = append(req.Posts, fp)
		case outboxLimited:
			there, err := f.limit(ctx, r.Slot, e.post, fp)
			if err != nil {
				return err
			}
			if there {
				req.Posts = append(req.Posts, fp)
				lists += len(fp.GetAllowIds()) + len(fp.GetDenyIds())
			}
		}
		if lists >= groupLists {
			if err := f.call(ctx, req); err != nil {
				return err
			}
			req, lists = new(momentsv1.FanOutRequest), 0
		}
	}
	return f.call(ctx, req)
}

// call makes one call to the timeline service.
func (f *fanOut) call(ctx context.Context, req *momentsv1.FanOutRequest) error {
	if len(req.GetPosts()) == 0 {
		return nil // they were all deleted
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := f.timeline.FanOut(ctx, req)
	if err != nil {
		return fmt.Errorf("post: fan out %d posts: %w", len(req.GetPosts()), err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.posts += uint64(len(req.GetPosts()))
	f.deliveries += res.GetDeliveries()
	return nil
}

// limit says in a request whom a post is for, as its body has it now. It reports false
// if the post has been deleted.
func (f *fanOut) limit(ctx context.Context, slot kv.Slot, p id.Post, fp *momentsv1.FanOutPost) (bool, error) {
	it, err := f.store.Get(ctx, slot, bodyKey(p), kv.Local)
	if err != nil {
		return false, fmt.Errorf("post: read whom %v is for: %w", p, err)
	}
	if it.Ver == 0 {
		return false, fmt.Errorf("post: read whom %v is for: %w", p, kv.ErrUnavailable) // a lagging replica
	}
	rec, err := parseBody(it)
	if err != nil || rec.GetDeleted() {
		return false, err
	}
	fp.Audience, fp.AllowIds, fp.DenyIds = momentsv1.Audience(rec.GetAudience()), rec.GetAllowIds(), rec.GetDenyIds()
	return true, nil
}

// FanOutStatus says how far fan-out is; see the contract.
func (s *Service) FanOutStatus(context.Context, *momentsv1.FanOutStatusRequest) (*momentsv1.FanOutStatusResponse, error) {
	f := s.fanOut
	st := f.outbox.Status()
	f.mu.Lock()
	defer f.mu.Unlock()
	return &momentsv1.FanOutStatusResponse{Posts: f.posts, Deliveries: f.deliveries, Failures: st.Failures, Pending: st.Pending}, nil
}
