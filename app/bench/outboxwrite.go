// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/comment"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv/pebblekv"
	"github.com/sluice-rpc/sluice/app/relations/relationstest"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

const (
	commentPosts = 1024 // that are commented on
	commentTurn  = 500 * time.Millisecond
	commentTurns = 20 // of each side, and one before that does not count
)

var commentAuthor = id.User{7: 1, 15: 1} // of all posts, at home in region 1

// commentWriter is one of his friends.
func commentWriter(n int) id.User { return id.User{7: 1, 14: 1, 15: byte(n)} }

// commentPostsOf answers that whoever asks sees a post.
type commentPostsOf struct{}

func (commentPostsOf) GetMany(_ context.Context, req *momentsv1.GetPostsRequest) (*momentsv1.GetPostsResponse, error) {
	res := new(momentsv1.GetPostsResponse)
	for _, p := range req.GetIds() {
		res.Posts = append(res.Posts, &momentsv1.Post{Id: p, AuthorId: commentAuthor.String()})
	}
	return res, nil
}

// commentSide is a comment service on a store of its own.
type commentSide struct {
	store   *pebblekv.Store
	service *comment.Service
	stop    context.CancelFunc
	running sync.WaitGroup
	ended   error // of Run; read after running
	next    atomic.Uint64
}

// newCommentSide starts a service with the caches of the real one. All of the outbox is for its peers: no service of notices is there,
// so that one without peers writes no record at all.
func newCommentSide(ctx context.Context, dir string, peers []id.Region) (*commentSide, error) {
	quiet := slog.New(slog.DiscardHandler)
	store, err := pebblekv.Open(dir, pebblekv.Options{RowCacheBytes: 32 << 20, Logger: quiet})
	if err != nil {
		return nil, err
	}
	friends := new(relationstest.Account)
	for n := range outboxWriters {
		friends.Befriend(commentAuthor, commentWriter(n))
	}
	service, err := comment.New(ctx, comment.Config{Store: store, Region: 1, Peers: peers, Account: friends, Post: commentPostsOf{}, Log: quiet})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	s := &commentSide{store: store, service: service, stop: stop}
	s.running.Go(func() { s.ended = service.Run(ctx) })
	return s, nil
}

func (s *commentSide) close() error {
	s.stop()
	s.running.Wait()
	return errors.Join(s.ended, s.store.Close())
}

// turn has all writers comment for a turn, and gives the time of each comment in microseconds, as if they came one after the other.
func (s *commentSide) turn(ctx context.Context) (float64, error) {
	text := strings.Repeat("what one says under a post ", 3)
	var all errgroup.Group
	var writes atomic.Int64
	began := time.Now()
	for w := range outboxWriters {
		all.Go(func() error {
			for time.Since(began) < commentTurn {
				post := rand.IntN(commentPosts)
				_, err := s.service.Add(ctx, &momentsv1.AddCommentRequest{
					WriterId: commentWriter(w).String(), PostId: id.Post{7: 1, 14: byte(post >> 8), 15: byte(post)}.String(),
					IdempotencyKey: fmt.Sprintf("%024d", s.next.Add(1)), Text: text,
				})
				if err != nil {
					return err
				}
				writes.Add(1)
			}
			return nil
		})
	}
	err := all.Wait()
	return float64(time.Since(began).Microseconds()) / float64(max(writes.Load(), 1)), err
}

// commentCosts compares comments of which two other regions, that are away, are told with such that stay at home.
func commentCosts(ctx context.Context, dir string, emit func(metric)) (err error) {
	var sides [2]*commentSide
	for i, peers := range [][]id.Region{nil, {2, 3}} {
		s, started := newCommentSide(ctx, filepath.Join(dir, fmt.Sprint("comments", i)), peers)
		if started != nil {
			return started
		}
		defer func() { err = errors.Join(err, s.close()) }()
		sides[i] = s
	}
	var took [2][]float64
	for turn := range 1 + commentTurns {
		for n := range sides {
			i := (turn + n) % len(sides) // each goes first as often
			us, failed := sides[i].turn(ctx)
			if failed != nil {
				return failed
			}
			if turn > 0 {
				took[i] = append(took[i], us)
			}
		}
	}
	emit(newMetric("regions.outbox.write_without_us", "us", took[0], nil))
	emit(newMetric("regions.outbox.write_us", "us", took[1], nil))
	emit(newMetric("regions.outbox.write_ratio", "", divided(took[1], took[0]), atMost(1.2)))
	return nil
}
