// SPDX-License-Identifier: Apache-2.0

// Package media is the service that keeps photos and videos.
//
// An upload comes in parts, each with its checksum, and keeps its id as the medium that
// it becomes. When all parts are there they are looked into, and what will be shown is
// made of them: nobody ever gets the bytes that were sent, but for the pictures and the
// sound of a video. The parts are removed then. A medium lives as long as what it was
// attached to; nobody but its owner can attach it.
//
// Records are rows in the service's own store, in the slot of the owner; bytes are
// objects of a Go CDK bucket: a directory, or S3. An object is written before the row
// that names it and removed before that row is, so a row never names what is not there,
// and what no row names can be found by listing.
package media

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/media/photo"
	"github.com/sluice-rpc/sluice/app/once"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Config is what a Service is made of. Fields without a default are required.
type Config struct {
	// Store is the service's own; nobody else writes to it.
	Store kv.Store
	// Blobs holds the bytes. The service does not close it.
	Blobs *Blobs
	// Region is the number of the region that media are made in.
	Region id.Region
	// Posts and Profiles say whether that what media were attached to is there.
	Posts    Posts
	Profiles Profiles
	// DecodeMemory is what the photos that are decoded at a time may take, in bytes; 0
	// means photo.DefaultMemory.
	DecodeMemory int64
	// CollectEvery is the time between two looks for what is not used; 0 means a minute.
	CollectEvery time.Duration
	// Log takes what operators should see; nil means slog.Default.
	Log *slog.Logger
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
}

// Posts is the part of the post service's client that is used here.
type Posts interface {
	GetMany(context.Context, *momentsv1.GetPostsRequest) (*momentsv1.GetPostsResponse, error)
}

// Profiles is the part of the account service's client that is used here.
type Profiles interface {
	GetProfile(context.Context, *momentsv1.GetProfileRequest) (*momentsv1.GetProfileResponse, error)
}

// Limits of the service. Those of photos and videos stand in their packages.
const (
	// PartSize is the size of every part but the last, in bytes: it takes a phone at 0.5
	// Mbit/s eight seconds.
	PartSize = 512 << 10
	// keepUnused is how long an upload, and a medium that nothing has, is kept.
	keepUnused = 24 * time.Hour
	// maxWaiting and maxWaitingBytes bound what a user has uploaded and not used.
	maxWaiting      = 50
	maxWaitingBytes = 1 << 30
	// maxGet is the ids of one GetMedia.
	maxGet = 100
	// maxRange is the bytes of one ReadRange.
	maxRange = 1 << 20
	// maxPhotos is the photos of one post.
	maxPhotos = 9

	// The longest sides of the forms, in pixels.
	fullSide, feedSide, thumbnailSide = 2560, 1080, 360

	// maxTries is how often a write is tried that others of its slot were faster than.
	maxTries = 10
)

// Service implements momentsv1.MediaServiceServer. Run does its background work.
type Service struct {
	momentsv1.UnimplementedMediaServiceServer

	store    kv.Store
	blobs    *Blobs
	ids      *id.Generator
	posts    Posts
	profiles Profiles
	photos   *photo.Maker
	working  *semaphore.Weighted // uploads being completed
	every    time.Duration
	released chan struct{} // something waits to be removed
	log      *slog.Logger
	now      func() time.Time

	mu         sync.Mutex
	completing map[id.Media]chan struct{} // closed when it is done; guarded by mu
}

// New makes the service. It takes a new epoch of ids from the store.
func New(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Blobs == nil || cfg.Posts == nil || cfg.Profiles == nil {
		return nil, errors.New("media: Config needs Store, Blobs, Posts and Profiles")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.CollectEvery <= 0 {
		cfg.CollectEvery = time.Minute
	}
	epoch, err := id.NextEpoch(ctx, cfg.Store)
	if err != nil {
		return nil, err
	}
	ids, err := id.NewGenerator(cfg.Region, epoch, cfg.Now)
	if err != nil {
		return nil, err
	}
	return &Service{
		store: cfg.Store, blobs: cfg.Blobs, ids: ids, posts: cfg.Posts, profiles: cfg.Profiles,
		photos: photo.NewMaker(cfg.DecodeMemory),
		// Each holds a photo's file, or two parts of a video, and mostly computes.
		working: semaphore.NewWeighted(int64(min(8, max(2, runtime.GOMAXPROCS(0))))),
		every:   cfg.CollectEvery, released: make(chan struct{}, 1), log: cfg.Log, now: cfg.Now,
		completing: map[id.Media]chan struct{}{},
	}, nil
}

// Run removes what is not used, and forgets old idempotency keys, until ctx ends; then it
// returns nil. It is called once.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		s.collect(ctx)
		return nil
	})
	g.Go(func() error {
		once.Sweep(ctx, s.store, s.now, s.log)
		return nil
	})
	return g.Wait()
}
