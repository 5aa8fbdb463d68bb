// SPDX-License-Identifier: Apache-2.0

// Package post is the service that owns the bodies of posts and the albums of their
// authors, and that starts the fan-out of what is posted.
//
// All that a post changes lies in one slot, its author's, so one atomic batch holds
// body, album entry, idempotency record and outbox record.
package post

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/combine"
	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/relations"
	"github.com/sluice-rpc/sluice/app/versions"
	"github.com/sluice-rpc/sluice/framework"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
	"github.com/sluice-rpc/sluice/qos"
)

// Config is what a Service is made of. Fields without a default are required.
type Config struct {
	// Store is the service's own; nobody else writes to it.
	Store kv.Store
	// Region is the number of the region that posts are made in.
	Region id.Region
	// Peers are the other regions that there are at first. Nil means that there never are
	// any, and that everybody is at home here; an empty list, that others may join.
	Peers []id.Region
	// Ahead is how far ahead of the clock the time of other regions' posts may be; 0 means 24
	// hours. What is further ahead is refused until an operator lets it pass.
	Ahead time.Duration
	// Account answers how people stand to each other, and who bears a tag.
	Account Account
	// Timeline takes the fan-out.
	Timeline FanOuter
	// Media keeps photos and videos; nil refuses posts that have any.
	Media Media
	// Notify tells people that they are reminded of a post; nil tells nobody, and what
	// there is to tell waits in the store for a start that has it.
	Notify Notify
	// FanOutWorkers is how many fan-out calls are under way at a time; 0 means 2.
	FanOutWorkers int
	// FanOutLinger is how long a worker waits for more posts to share a call; 0 means
	// 20 ms.
	FanOutLinger time.Duration
	// CachedFacts bounds the cache of relations; 0 means 500,000.
	CachedFacts int
	// CachedBytes bounds the memory of records of posts that are kept parsed; 0 means
	// 32 MB.
	CachedBytes int
	// Log takes what operators should see; nil means slog.Default.
	Log *slog.Logger
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
}

// FanOuter is the part of the timeline service's client that is used here.
type FanOuter interface {
	FanOut(context.Context, *momentsv1.FanOutRequest) (*momentsv1.FanOutResponse, error)
}

// Account is the part of the account service's client that is used here.
type Account interface {
	relations.Account
	ResolveTags(context.Context, *momentsv1.ResolveTagsRequest) (*momentsv1.ResolveTagsResponse, error)
}

// Media is the part of the media service's client that is used here.
type Media interface {
	Attach(context.Context, *momentsv1.AttachRequest) (*momentsv1.AttachResponse, error)
	Release(context.Context, *momentsv1.ReleaseRequest) (*momentsv1.ReleaseResponse, error)
}

// Notify is the part of the notice service's client that is used here.
type Notify interface {
	Record(context.Context, *momentsv1.RecordRequest) (*momentsv1.RecordResponse, error)
}

// Limits of the service.
const (
	maxText     = 2000 // code points after NFC
	maxLocation = 100  // code points
	maxTitle    = 100  // code points, of a link card
	maxURL      = 2048 // bytes
	maxMedia    = 9    // photos of a post
	maxPersons  = 5000 // named in one list of a post
	maxTags     = 100  // named in one list of a post
	maxRemind   = 10
	maxGet      = 200  // ids of one GetMany
	maxAlbum    = 100  // posts of one page of Album
	maxList     = 1000 // ids of one page of ListAlbum
	maxMerge    = 5001 // authors of one MergeAlbums

	// A post is at most eight operations of a batch, and a batch has at most 100.
	maxTurn = 12
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
	stampOf   func(kv.Slot) (uint64, bool) // of store
	region    id.Region
	joined    bool // there are other regions, or may be
	ahead     time.Duration
	homes     *homes.Book
	ids       *id.Generator
	now       func() time.Time
	relations *relations.Cache
	records   *versions.Cache[id.Post, record]
	writes    *combine.Group[kv.Slot, op]
	queue     *framework.Queue // the outbox in graphs and traces
	fanOut    *fanOut
	errands   *errands
	account   Account
	media     Media // may be nil
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
	if cfg.Ahead == 0 {
		cfg.Ahead = 24 * time.Hour
	}
	if cfg.CachedFacts == 0 {
		cfg.CachedFacts = 500_000
	}
	if cfg.CachedBytes == 0 {
		cfg.CachedBytes = 32 << 20
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	epoch, err := id.NextEpoch(ctx, cfg.Store)
	if err != nil {
		return nil, err
	}
	ids, err := id.NewGenerator(cfg.Region, epoch, cfg.Now)
	if err != nil {
		return nil, err
	}
	queue := framework.NewQueue("moments.v1.PostService/outbox", qos.Background,
		momentsv1.PostServicePublishMethod, momentsv1.PostServiceDeleteMethod)
	s := &Service{
		store:     cfg.Store,
		stampOf:   kv.StampOf(cfg.Store),
		region:    cfg.Region,
		joined:    cfg.Peers != nil,
		ahead:     cfg.Ahead,
		ids:       ids,
		now:       cfg.Now,
		relations: relations.NewCache(cfg.Account, cfg.CachedFacts),
		records:   versions.New[id.Post, record](cfg.CachedBytes),
		queue:     queue,
		fanOut:    newFanOut(cfg, queue),
		account:   cfg.Account,
		media:     cfg.Media,
		log:       cfg.Log,
	}
	if s.homes, err = homes.Open(ctx, cfg.Store); err != nil {
		return nil, fmt.Errorf("post: %w", err)
	}
	s.errands = newErrands(s, cfg.Notify)
	s.writes = combine.New(maxTurn, maxWaiting, s.write)
	return s, nil
}

// Run fans out what the outbox holds, tells people that they are reminded, lets the
// media of deleted posts go and forgets old idempotency keys, until ctx ends; then it
// returns nil. It is called once.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.fanOut.outbox.Run(ctx) })
	g.Go(func() error { return s.errands.run(ctx) })
	g.Go(func() error {
		once.Sweep(ctx, s.store, s.now, s.log)
		return nil
	})
	return g.Wait()
}
