// SPDX-License-Identifier: Apache-2.0

// Package comment is the service that owns the comments and likes of every post: a
// log of operations per post, ordered by package causal.
//
// A write appends to the log and moves the log's head in one atomic batch; writers of
// one post share batches. A read looks at the head, and at what came since the log
// was last folded.
package comment

import (
	"context"
	"errors"
	"log/slog"
	"time"

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
	// Region is the number of the region that comments are made in.
	Region id.Region
	// Account answers how people stand to each other.
	Account relations.Account
	// Post answers who may see which post.
	Post Post
	// CachedItems bounds the comments and likes kept in memory; 0 means 200,000,
	// about 60 MB.
	CachedItems int
	// CachedFacts bounds the cache of relations; 0 means 500,000.
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

	// An operation is at most four operations of a batch, which has at most 100.
	maxTurn = 24
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
	relations *relations.Cache
	post      Post
	threads   *threads
	writes    *combine.Group[id.Post, op]
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
	ids, err := id.NewGenerator(cfg.Region, epoch, cfg.Now)
	if err != nil {
		return nil, err
	}
	s := &Service{
		store: cfg.Store, ids: ids, now: cfg.Now, log: cfg.Log, post: cfg.Post,
		relations: relations.NewCache(cfg.Account, cfg.CachedFacts),
		threads:   newThreads(cfg.Store, cfg.CachedItems),
	}
	s.writes = combine.New(maxTurn, maxWaiting, s.write)
	return s, nil
}

// Run forgets old idempotency keys until ctx ends; then it returns nil.
func (s *Service) Run(ctx context.Context) error {
	once.Sweep(ctx, s.store, s.now, s.log)
	return nil
}
