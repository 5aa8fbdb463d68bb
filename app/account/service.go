// SPDX-License-Identifier: Apache-2.0

// Package account keeps the people of Moments: who they are, their sessions, and
// who is whose friend.
package account

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/outbox"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

// Config is what a Service needs. Only Store has no default.
type Config struct {
	Store  kv.Store  // the service's own
	Region id.Region // where the accounts made here are at home
	// Peers are the other regions that there are at first. Nil means that there never are
	// any, and that everybody is at home here; an empty list, that others may join.
	Peers []id.Region
	// Timeline fills new friends' posts into timelines. Without it that waits in the
	// store for a start that has it.
	Timeline momentsv1.TimelineServiceClient
	// Posts, Comments and Media, and Timeline and Notify as well, remove what deleted
	// accounts have left. Without all of them that waits in the store for a start that
	// has them.
	Posts    momentsv1.PostServiceClient
	Comments momentsv1.CommentServiceClient
	Media    Forgetter
	// Notify is told who asks whom to be friends, and who accepts. Without it that waits
	// in the store for a start that has it.
	Notify Notifier

	PasswordCost    Cost          // of new passwords; default DefaultCost
	PasswordWorkers int           // passwords worked at once; default half of the processors
	PasswordQueue   int           // calls that may wait for a worker, then they are refused; default 64
	SessionTTL      time.Duration // how long a session lasts; default 90 days
	MaxSessions     int           // sessions of a user, then the oldest ends; default 50, at most 90
	MaxFriends      int           // friends and waiting requests of a user; default 5,000
	CachedFriends   int           // friendships kept in memory, about 20 bytes each; default 1,000,000

	Now    func() time.Time // the wall clock; default time.Now
	Logger *slog.Logger     // default slog.Default()
}

func (c *Config) setDefaults() {
	if c.PasswordCost == (Cost{}) {
		c.PasswordCost = DefaultCost
	}
	if c.PasswordWorkers == 0 {
		c.PasswordWorkers = max(1, runtime.GOMAXPROCS(0)/2)
	}
	if c.PasswordQueue == 0 {
		c.PasswordQueue = 64
	}
	if c.SessionTTL == 0 {
		c.SessionTTL = 90 * 24 * time.Hour
	}
	if c.MaxSessions == 0 {
		c.MaxSessions = 50
	}
	if c.MaxFriends == 0 {
		c.MaxFriends = 5000
	}
	if c.CachedFriends == 0 {
		c.CachedFriends = 1_000_000
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}

func (c *Config) validate() error {
	switch {
	case c.Store == nil:
		return errors.New("account: config has no Store")
	case c.PasswordWorkers < 1:
		return fmt.Errorf("account: PasswordWorkers is %d, want at least 1", c.PasswordWorkers)
	case c.PasswordQueue < 0:
		return fmt.Errorf("account: PasswordQueue is %d, want at least 0", c.PasswordQueue)
	case c.SessionTTL < maxAge:
		return fmt.Errorf("account: SessionTTL is %v, want at least %v", c.SessionTTL, maxAge)
	case c.MaxSessions < 1 || c.MaxSessions > kv.MaxOps-batchRoom:
		return fmt.Errorf("account: MaxSessions is %d, want 1 to %d", c.MaxSessions, kv.MaxOps-batchRoom)
	case c.MaxFriends < 1:
		return fmt.Errorf("account: MaxFriends is %d, want at least 1", c.MaxFriends)
	}
	if err := c.PasswordCost.validate(); err != nil {
		return fmt.Errorf("account: %w", err)
	}
	return nil
}

// batchRoom is what a batch keeps free for operations beside those on a list.
const batchRoom = 10

// Service implements the contract AccountService. It may be used concurrently.
type Service struct {
	momentsv1.UnimplementedAccountServiceServer

	store       kv.Store
	stamp       func(kv.Slot) (uint64, bool) // of store
	ids         *id.Generator
	signer      *signer
	signers     sync.Map // of *signer by id.Region: those of other regions
	joined      bool     // there are other regions, or may be
	homes       *homes.Book
	moves       moves
	started     uint64     // tells this process from others before and after
	arrivals    chan heard // what follows from copies, for Run; the store holds it too
	hasher      *hasher
	brakes      *brakes
	relations   *cache[id.User, circle]
	sessionTTL  time.Duration
	maxSessions int
	maxFriends  uint32
	now         func() time.Time
	log         *slog.Logger
	timeline    momentsv1.TimelineServiceClient // may be nil
	posts       momentsv1.PostServiceClient     // may be nil
	comments    momentsv1.CommentServiceClient  // may be nil
	notify      Notifier                        // may be nil
	media       Forgetter                       // may be nil
	outbox      *outbox.Box
	queue       *framework.Queue // the outbox in graphs and traces
	waiting     chan struct{}    // holds a token when Run is to look for work in the store
	backfills   chan newFriend   // for Run; the store holds them too
	unfilled    atomic.Int64     // failed backfills since the last sweep
	leaving     chan id.User     // deleted accounts, for Run; the store holds them too
	uses        chan use         // of sessions, for Run to write down
}

// New opens the service on its store. It takes a new epoch for its ids, so it is
// called once for each start.
func New(ctx context.Context, cfg Config) (*Service, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	epoch, err := id.NextEpoch(ctx, cfg.Store)
	if err != nil {
		return nil, fmt.Errorf("account: %w", err)
	}
	ids, err := id.NewGenerator(cfg.Region, epoch, cfg.Now)
	if err != nil {
		return nil, fmt.Errorf("account: %w", err)
	}
	key, err := tokenKey(ctx, cfg.Store)
	if err != nil {
		return nil, err
	}
	s := &Service{
		store:       cfg.Store,
		stamp:       kv.StampOf(cfg.Store),
		ids:         ids,
		signer:      newSigner(key),
		joined:      cfg.Peers != nil,
		arrivals:    make(chan heard, 1024),
		hasher:      newHasher(cfg.PasswordCost, cfg.PasswordWorkers, cfg.PasswordQueue),
		brakes:      newBrakes(),
		relations:   newCache[id.User, circle](cfg.CachedFriends),
		sessionTTL:  cfg.SessionTTL,
		maxSessions: cfg.MaxSessions,
		maxFriends:  uint32(cfg.MaxFriends),
		now:         cfg.Now,
		log:         cfg.Logger,
		timeline:    cfg.Timeline,
		posts:       cfg.Posts,
		comments:    cfg.Comments,
		notify:      cfg.Notify,
		media:       cfg.Media,
		waiting:     make(chan struct{}, 1),
		backfills:   make(chan newFriend, 1024),
		leaving:     make(chan id.User, 64),
		uses:        make(chan use, 1024),
		started:     uint64(cfg.Now().UnixNano()),
	}
	if err := s.openHomes(ctx); err != nil {
		return nil, err
	}
	s.queue = framework.NewQueue("moments.v1.AccountService/outbox", qos.Background,
		momentsv1.AccountServiceRequestFriendMethod, momentsv1.AccountServiceAcceptFriendMethod)
	s.outbox = outbox.New(outbox.Config{
		Store: cfg.Store, Queue: s.queue, Consumer: "notify", Deliver: s.deliver, Peers: idcqueue.Consumers(cfg.Peers),
		Log: cfg.Logger, Now: cfg.Now,
	})
	return s, nil
}

// background gives a context for calls that no request is waiting for.
func background(ctx context.Context, job string) context.Context {
	return rpc.WithCall(ctx, &rpc.Call{Header: rpc.Header{
		Entry: framework.NameEntry("job account." + job),
		Class: qos.Background,
		Trace: tracing.NewTraceID(),
	}})
}
