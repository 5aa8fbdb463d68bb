// SPDX-License-Identifier: Apache-2.0

// Package post is the service that owns the bodies of posts and the albums of their
// authors, and that starts the fan-out of what is posted.
//
// All that a post changes lies in one slot, its author's, so one atomic batch holds
// body, album entry, idempotency record and outbox record. The outbox has a dense
// sequence per slot; each of its consumers has a cursor, and what all have passed is
// removed.
package post

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/combine"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/relations"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Config is what a Service is made of. Fields without a default are required.
type Config struct {
	// Store is the service's own; nobody else writes to it.
	Store kv.Store
	// Region is the number of the region that posts are made in.
	Region id.Region
	// Account answers how people stand to each other.
	Account relations.Account
	// Timeline takes the fan-out.
	Timeline FanOuter
	// FanOutWorkers is how many fan-out calls are under way at a time; 0 means 2.
	FanOutWorkers int
	// FanOutLinger is how long a worker waits for more posts to share a call; 0 means
	// 20 ms.
	FanOutLinger time.Duration
	// CachedFacts bounds the cache of relations; 0 means 500,000.
	CachedFacts int
	// Log takes what operators should see; nil means slog.Default.
	Log *slog.Logger
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
}

// FanOuter is the part of the timeline service's client that is used here.
type FanOuter interface {
	FanOut(context.Context, *momentsv1.FanOutRequest) (*momentsv1.FanOutResponse, error)
}

// Limits of the service.
const (
	maxText  = 2000 // code points after NFC
	maxGet   = 200  // ids of one GetMany
	maxAlbum = 100  // posts of one page of Album
	maxList  = 1000 // ids of one page of ListAlbum

	// A post is at most six operations of a batch, and a batch has at most 100.
	maxTurn = 16
	// maxWaiting bounds the writers that wait for one slot: with a write of 5 ms they
	// are all done within a second.
	maxWaiting = 2000
	// writeTimeout bounds a turn of writes, whose callers cannot cancel it.
	writeTimeout = 5 * time.Second
)

// Service implements momentsv1.PostServiceServer. Run does its background work.
type Service struct {
	momentsv1.UnimplementedPostServiceServer

	store     kv.Store
	ids       *id.Generator
	now       func() time.Time
	relations *relations.Cache
	writes    *combine.Group[kv.Slot, op]
	lanes     [kv.Slots]lane // a slot's lane belongs to the leader of its turn
	fanOut    *fanOut
	log       *slog.Logger
}

// New makes the service. It takes a new epoch of ids from the store.
func New(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Account == nil || cfg.Timeline == nil {
		return nil, errors.New("post: Config needs Store, Account and Timeline")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.CachedFacts == 0 {
		cfg.CachedFacts = 500_000
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.FanOutWorkers <= 0 {
		cfg.FanOutWorkers = 2
	}
	if cfg.FanOutLinger == 0 {
		cfg.FanOutLinger = 20 * time.Millisecond
	}
	epoch, err := id.NextEpoch(ctx, cfg.Store)
	if err != nil {
		return nil, err
	}
	ids, err := id.NewGenerator(cfg.Region, epoch, cfg.Now)
	if err != nil {
		return nil, err
	}
	s := &Service{
		store:     cfg.Store,
		ids:       ids,
		now:       cfg.Now,
		relations: relations.NewCache(cfg.Account, cfg.CachedFacts),
		fanOut:    newFanOut(cfg),
		log:       cfg.Log,
	}
	s.writes = combine.New(maxTurn, maxWaiting, s.write)
	return s, nil
}

// Run fans out what the outbox holds, and forgets old idempotency keys, until ctx
// ends; then it returns nil. It is called once.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.fanOut.run(ctx) })
	g.Go(func() error {
		once.Sweep(ctx, s.store, s.now, s.log)
		return nil
	})
	return g.Wait()
}
