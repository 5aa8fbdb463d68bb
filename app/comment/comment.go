// SPDX-License-Identifier: Apache-2.0

// Package comment is the service that owns the comments and likes of every post: a
// log of operations per post, ordered by package causal.
//
// A write appends to the log, moves the log's head and puts a record into the outbox
// in one atomic batch; writers of one post share batches. A read looks at the head, and
// at what came since the log was last folded; long logs have snapshots. From the outbox
// the notify service is told.
package comment

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/combine"
	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/outbox"
	"github.com/sluice-rpc/sluice/app/relations"
	"github.com/sluice-rpc/sluice/framework"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
	"github.com/sluice-rpc/sluice/qos"
)

// Config is what a Service is made of. Fields without a default are required.
type Config struct {
	// Store is the service's own; nobody else writes to it.
	Store kv.Store
	// Region is the number of the region that comments are made in, at most MaxRegion.
	Region id.Region
	// Peers are the other regions that there are at first. Nil means that there never are
	// any, and that everybody is at home here; an empty list, that others may join.
	Peers []id.Region
	// Homes knows who has moved his home; nil means that nobody has.
	Homes *homes.Table
	// Caught reports whether all that a region had by a time, in unix milliseconds by its
	// clock, has come here; nil means that nobody knows. A session that has looked at many
	// posts elsewhere needs it to go on here.
	Caught func(region id.Region, ms int64) bool
	// Clock gives a time by a region's clock that nothing which has come from there is newer
	// than; nil means that all clocks show the same. It is called for other regions only.
	Clock func(region id.Region) time.Time
	// Ahead is how far ahead of the clock the time of what other regions make may be; 0 means
	// 24 hours. What is further ahead is refused until an operator lets it pass.
	Ahead time.Duration
	// Account answers how people stand to each other.
	Account relations.Lister
	// Post answers who may see which post.
	Post Post
	// Notify is told of comments and likes; nil means that nobody is.
	Notify Notifier
	// CachedItems bounds the comments and likes kept in memory; 0 means 200,000,
	// about 60 MB.
	CachedItems int
	// CachedFacts bounds the cache of relations, and that of friends; 0 means 500,000.
	CachedFacts int
	// Log takes what operators should see; nil means slog.Default.
	Log *slog.Logger
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
}

// Post is the part of the post service's client that is used here.
type Post interface {
	GetMany(context.Context, *momentsv1.GetPostsRequest) (*momentsv1.GetPostsResponse, error)
}

// Limits of the service.
const (
	maxText = 500 // code points after NFC
	maxGet  = 200 // posts of one ListMany

	// maxTurn bounds the writers that share a turn. What does not fit its first batch
	// goes into the next.
	maxTurn = 64
	// opOps is how many operations of a batch one of a log needs at most: its record and
	// those of its key and of the outbox, and a deleted comment's. All of them together
	// need turnOps more: the head, the outbox's, and a snapshot to be dropped.
	opOps, turnOps = 4, 2 + outbox.BatchOps + 2
	// maxWaiting bounds the writers that wait for one post: with a write of 5 ms they
	// are all done within half a second.
	maxWaiting = 2000
	// writeTimeout bounds a turn of writes, whose callers cannot cancel it.
	writeTimeout = 5 * time.Second
)

// Service implements momentsv1.CommentServiceServer. Run does its background work.
type Service struct {
	momentsv1.UnimplementedCommentServiceServer

	store     kv.Store
	ids       *id.Generator
	now       func() time.Time
	log       *slog.Logger
	region    id.Region
	number    id.Region // that comments are made under; see regions.go
	joined    bool      // there are other regions, or may be
	homes     *homes.Table
	caught    func(id.Region, int64) bool // may be nil
	members   members
	arrivals  arrivals
	releases  *releases
	pulls     pulls
	held      atomic.Int64  // operations that wait for their causes
	orphans   atomic.Uint64 // operations shown without a cause that was lost with its region
	forks     atomic.Uint64 // operations that claim a place which another one has
	relations *relations.Cache
	friends   *relations.Friends
	post      Post
	notify    Notifier
	outbox    *outbox.Box
	queue     *framework.Queue // the outbox in graphs and traces
	sealer    *sealer
	threads   *threads
	writes    *combine.Group[id.Post, op]
}

// clockOf gives a time in unix ms, by the clock of the region that a number belongs to, that
// nothing which has come from there is newer than.
func (cfg *Config) clockOf(number id.Region) int64 {
	if home := homeOf(number); home != cfg.Region && cfg.Clock != nil {
		return cfg.Clock(home).UnixMilli()
	}
	return cfg.Now().UnixMilli()
}

// New makes the service. It takes a new epoch of ids from the store.
func New(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Account == nil || cfg.Post == nil {
		return nil, errors.New("comment: Config needs Store, Account and Post")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.CachedItems == 0 {
		cfg.CachedItems = 200_000
	}
	if cfg.CachedFacts == 0 {
		cfg.CachedFacts = 500_000
	}
	epoch, err := id.NextEpoch(ctx, cfg.Store)
	if err != nil {
		return nil, err
	}
	number, registry, err := openRegions(ctx, cfg)
	if err != nil {
		return nil, err
	}
	ids, err := id.NewGenerator(number, epoch, cfg.Now)
	if err != nil {
		return nil, err
	}
	s := &Service{
		store: cfg.Store, ids: ids, now: cfg.Now, log: cfg.Log, region: cfg.Region, number: number, post: cfg.Post, notify: cfg.Notify,
		relations: relations.NewCache(cfg.Account, cfg.CachedFacts),
		friends:   relations.NewFriends(cfg.Account, cfg.CachedFacts),
		threads:   newThreads(cfg.Store, number, cfg.CachedItems, cfg.Log),
		joined:    cfg.Peers != nil, homes: cfg.Homes, caught: cfg.Caught, releases: newReleases(),
	}
	s.members.tasks = make(chan struct{}, 1)
	s.members.now.Store(registry)
	s.members.ahead = cfg.Ahead
	s.threads.stable = func(mine causal.Vector, said map[id.Region]causal.Vector) causal.Vector {
		all := map[id.Region]causal.Vector{s.number: mine}
		maps.Copy(all, said)
		return s.members.now.Load().Stable(mine, all)
	}
	if s.sealer, err = newSealer(ctx, cfg.Store, cfg.Region, cfg.clockOf); err != nil {
		return nil, err
	}
	s.queue = framework.NewQueue("moments.v1.CommentService/outbox", qos.Background,
		momentsv1.CommentServiceAddMethod, momentsv1.CommentServiceDeleteMethod,
		momentsv1.CommentServiceLikeMethod, momentsv1.CommentServiceUnlikeMethod)
	var deliver outbox.Deliver
	if cfg.Notify != nil {
		deliver = s.tell
	}
	s.outbox = outbox.New(outbox.Config{
		Store: cfg.Store, Queue: s.queue, Consumer: "notices", Deliver: deliver, Peers: idcqueue.Consumers(cfg.Peers),
		Log: cfg.Log, Now: cfg.Now,
	})
	s.writes = combine.New(maxTurn, maxWaiting, s.write)
	return s, nil
}

// Run tells of comments and likes, keeps snapshots and forgets old idempotency keys
// until ctx ends; then it returns nil. It is called once.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if s.notify != nil || s.joined {
		g.Go(func() error { return s.outbox.Run(ctx) })
	}
	if s.joined {
		g.Go(func() error {
			s.keepReleasing(ctx)
			return nil
		})
		g.Go(func() error {
			s.keepRegions(ctx)
			return nil
		})
		g.Go(func() error {
			s.keepPulling(ctx)
			return nil
		})
	}
	g.Go(func() error {
		s.threads.keepSnapshots(ctx, s.log)
		return nil
	})
	g.Go(func() error {
		once.Sweep(ctx, s.store, s.now, s.log)
		return nil
	})
	return g.Wait()
}
