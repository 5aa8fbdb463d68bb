// SPDX-License-Identifier: Apache-2.0

// Package timeline is the service that owns every reader's timeline: an index of
// post ids, newest first, that fan-out fills and that reading filters.
//
// The index is only ever added to, and trimmed beyond its cap. Who may see what is
// decided when it is read, by the owners of posts and comments, so that unfriending
// and deleting act at once and becoming friends again brings back what was there.
package timeline

import (
	"context"
	"errors"
	"time"

	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/app/relations"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Config is what a Service is made of. Fields without a default are required.
type Config struct {
	// Store is the service's own; nobody else writes to it.
	Store kv.Store
	// Account lists the friends of authors.
	Account Account
	// Post gives bodies and albums.
	Post Post
	// Comment gives what stands under posts.
	Comment Comment
	// Near says that Post and Comment run in this process. They answer from memory then,
	// and to ask one after the other costs less than a goroutine for the second.
	Near bool
	// Home is the region whose users' timelines are kept here; 0 keeps everybody's.
	Home id.Region
	// Homes knows who has moved his home; nil means that nobody has.
	Homes *homes.Table
	// Cap is how many posts a timeline keeps at least; older ones are trimmed now and
	// then. 0 means 2,000.
	Cap int
	// CachedFriends bounds the cache of friend lists, in friendships; 0 means
	// 1,000,000, about 40 MB.
	CachedFriends int
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
}

// Account is the part of the account service's client that is used here.
type Account interface {
	ListFriends(context.Context, *momentsv1.ListFriendsRequest) (*momentsv1.ListFriendsResponse, error)
	Relations(context.Context, *momentsv1.RelationsRequest) (*momentsv1.RelationsResponse, error)
}

// Post is the part of the post service's client that is used here.
type Post interface {
	GetMany(context.Context, *momentsv1.GetPostsRequest) (*momentsv1.GetPostsResponse, error)
	MergeAlbums(context.Context, *momentsv1.MergeAlbumsRequest) (*momentsv1.MergeAlbumsResponse, error)
}

// Comment is the part of the comment service's client that is used here.
type Comment interface {
	ListMany(context.Context, *momentsv1.ListCommentsRequest) (*momentsv1.ListCommentsResponse, error)
}

// Limits of the service.
const (
	maxPage    = 100
	maxFanOut  = 1000 // posts of one FanOut
	maxList    = 1000 // ids of one page of ListIndex
	maxGet     = 200  // ids of one post.GetMany, by its contract
	backfill   = 50   // posts that a new friend brings
	perThread  = 50   // newest comments and likes of a post on a page
	defaultCap = 2000
)

// Service implements momentsv1.TimelineServiceServer. It has no background work.
type Service struct {
	momentsv1.UnimplementedTimelineServiceServer

	store   kv.Store
	account Account
	post    Post
	comment Comment
	friends *relations.Lists[[]recipient]
	near    bool
	home    id.Region // 0: everybody's
	homes   *homes.Table
	cap     int
	now     func() time.Time
}

// New makes the service.
func New(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Account == nil || cfg.Post == nil || cfg.Comment == nil {
		return nil, errors.New("timeline: Config needs Store, Account, Post and Comment")
	}
	if cfg.Cap <= 0 {
		cfg.Cap = defaultCap
	}
	if cfg.CachedFriends <= 0 {
		cfg.CachedFriends = 1_000_000
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{
		now: cfg.Now, store: cfg.Store, account: cfg.Account, post: cfg.Post, comment: cfg.Comment, near: cfg.Near, home: cfg.Home, homes: cfg.Homes, cap: cfg.Cap,
		friends: newFriends(cfg.Account, cfg.CachedFriends),
	}, nil
}

// Tables of a slot. All that belongs to a reader is in the reader's slot.
//
//	s reader       -> post      newest post that the reader has refreshed to
//	t reader ^post -> nothing   index; ^ inverts all bits: newest first
//	x reader       -> post      the cut: the newest post that trimming removed; below it
//	                            the index may lack any post
const (
	tableSeen    = 's'
	tableIndex   = 't'
	tableTrimmed = 'x'
)

const indexKeyLen = 33

func indexPrefix(reader id.User) []byte { return append([]byte{tableIndex}, reader[:]...) }

func indexKey(reader id.User, p id.Post) []byte {
	k := make([]byte, indexKeyLen)
	putIndexKey(k, reader, p)
	return k
}

func putIndexKey(k []byte, reader id.User, p id.Post) {
	k[0] = tableIndex
	copy(k[1:], reader[:])
	for i, b := range p {
		k[17+i] = ^b
	}
}

func indexPost(key []byte) (p id.Post) {
	for i, b := range key[len(key)-len(p):] {
		p[i] = ^b
	}
	return p
}

func readerKey(table byte, reader id.User) []byte { return append([]byte{table}, reader[:]...) }

// ListIndex gives a timeline as stored; see the contract.
func (s *Service) ListIndex(ctx context.Context, req *momentsv1.ListIndexRequest) (*momentsv1.ListIndexResponse, error) {
	reader, err := problem.User("reader_id", req.GetReaderId())
	if err != nil {
		return nil, err
	}
	limit, err := problem.PageLimit(req.GetLimit(), maxList, maxList)
	if err != nil {
		return nil, err
	}
	r := kv.Prefix(indexPrefix(reader), limit)
	if v := req.GetBeforeId(); v != "" {
		p, err := id.ParsePost(v)
		if err != nil {
			return nil, problem.Invalid("before_id", "%v", err)
		}
		r.From = kv.Next(indexKey(reader, p))
	}
	items, more, err := s.store.Scan(ctx, kv.SlotOf(reader[:]), r, kv.Linearizable)
	if err != nil {
		return nil, problem.Store("scan timeline", err)
	}
	res := &momentsv1.ListIndexResponse{PostIds: make([]string, len(items)), More: more}
	for i, it := range items {
		res.PostIds[i] = indexPost(it.Key).String()
	}
	return res, nil
}
