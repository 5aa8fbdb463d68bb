// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"iter"
	"slices"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/load"
	"github.com/sluice-rpc/sluice/app/privacy"
	"github.com/sluice-rpc/sluice/app/relations"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// storedOverRPC reads what the services store and show.
type storedOverRPC struct {
	region    id.Region        // whose services these are
	people    map[string]int32 // of moments seed
	seeded    int              // people listed that are among them
	conns     []*framework.Conn
	accounts  momentsv1.AccountServiceClient
	posts     momentsv1.PostServiceClient
	timelines momentsv1.TimelineServiceClient
	comments  momentsv1.CommentServiceClient
	notices   momentsv1.NotifyServiceClient
	media     momentsv1.MediaServiceClient
}

var _ load.Stored = (*storedOverRPC)(nil)

// dialStored connects with the services that run on a data directory.
func dialStored(data string) (*storedOverRPC, error) {
	state, err := cluster.ReadState(data)
	if err != nil {
		return nil, err
	}
	s := &storedOverRPC{region: id.Region(state.Region)}
	for _, role := range []topology.Role{topology.Account, topology.Post, topology.Timeline, topology.Comment, topology.Notify, topology.Media} {
		conn, err := dialService(data, role)
		if err != nil {
			s.close()
			return nil, err
		}
		s.conns = append(s.conns, conn)
	}
	s.accounts, s.posts = momentsv1.NewAccountServiceClient(s.conns[0]), momentsv1.NewPostServiceClient(s.conns[1])
	s.timelines, s.comments = momentsv1.NewTimelineServiceClient(s.conns[2]), momentsv1.NewCommentServiceClient(s.conns[3])
	s.notices, s.media = momentsv1.NewNotifyServiceClient(s.conns[4]), momentsv1.NewMediaServiceClient(s.conns[5])
	return s, nil
}

func (s *storedOverRPC) close() {
	for _, c := range s.conns {
		c.Close()
	}
}

// People gives who is at home in the region.
func (s *storedOverRPC) People(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		r := newResidents(s.region, s.accounts)
		for cursor := ""; ; {
			users, next, err := r.page(ctx, cursor, r.has)
			if err != nil {
				yield("", err)
				return
			}
			for _, user := range users {
				if _, ok := s.people[user]; ok {
					s.seeded++
				}
				if !yield(user, nil) {
					return
				}
			}
			if cursor = next; cursor == "" {
				return
			}
		}
	}
}

func (s *storedOverRPC) Friends(ctx context.Context, person string) ([]string, error) {
	return byCursor(func(cursor string) ([]string, string, error) {
		res, err := s.accounts.ListFriends(ctx, &momentsv1.ListFriendsRequest{UserId: person, Cursor: cursor, Limit: 500})
		return res.GetUserIds(), res.GetNextCursor(), err
	})
}

func (s *storedOverRPC) Asking(ctx context.Context, person string) ([]string, error) {
	return byCursor(func(cursor string) ([]string, string, error) {
		res, err := s.accounts.ListFriendRequests(ctx, &momentsv1.ListFriendRequestsRequest{UserId: person, Cursor: cursor, Limit: 500})
		var ids []string
		for _, r := range res.GetRequests() {
			ids = append(ids, r.GetUserId())
		}
		return ids, res.GetNextCursor(), err
	})
}

func (s *storedOverRPC) Chosen(ctx context.Context, person string) ([]string, error) {
	return byCursor(func(cursor string) (others []string, next string, err error) {
		res, err := s.accounts.ListFriendSettings(ctx, &momentsv1.ListFriendSettingsRequest{UserId: person, Cursor: cursor, Limit: 500})
		for _, c := range res.GetSettings() {
			others = append(others, c.GetOtherId())
		}
		return others, res.GetNextCursor(), err
	})
}

func (s *storedOverRPC) Facts(ctx context.Context, viewer string, others []string) (facts map[string]privacy.Facts, version uint64, err error) {
	const most = 1000 // of AccountService.Relations
	of, err := id.ParseUser(viewer)
	if err != nil {
		return nil, 0, err
	}
	facts = make(map[string]privacy.Facts, len(others))
	cache := relations.NewCache(s.accounts, 1)
	for part := range slices.Chunk(others, most) {
		users := make([]id.User, len(part))
		for i, v := range part {
			if users[i], err = id.ParseUser(v); err != nil {
				return nil, 0, err
			}
		}
		set, err := cache.Fresh(ctx, of, users)
		if err != nil {
			return nil, 0, err
		}
		version += set.Version() // none of them goes back, so a sum is the same only if all are
		for i, v := range part {
			facts[v] = set.Of(users[i])
		}
	}
	return facts, version, nil
}

func (s *storedOverRPC) Album(ctx context.Context, author string) ([]string, error) {
	return pagesOf(func(before string) ([]string, bool, error) {
		res, err := s.posts.ListAlbum(ctx, &momentsv1.ListAlbumRequest{AuthorId: author, BeforeId: before})
		return res.GetPostIds(), res.GetMore(), err
	})
}

func (s *storedOverRPC) Timeline(ctx context.Context, reader string) ([]string, error) {
	return pagesOf(func(before string) ([]string, bool, error) {
		res, err := s.timelines.ListIndex(ctx, &momentsv1.ListIndexRequest{ReaderId: reader, BeforeId: before})
		return res.GetPostIds(), res.GetMore(), err
	})
}

func (s *storedOverRPC) Due(ctx context.Context, reader string, authors []string, down string) ([]string, error) {
	return byCursor(func(before string) (due []string, next string, err error) {
		res, err := s.posts.MergeAlbums(ctx, &momentsv1.MergeAlbumsRequest{
			ViewerId: reader, AuthorIds: authors, BeforeId: before, Limit: 200, HeadsOnly: true, ForIndex: true,
		})
		for _, p := range res.GetPosts() {
			if p.GetId() >= down {
				due = append(due, p.GetId())
			}
		}
		if next = res.GetReachedId(); next < down {
			next = ""
		}
		return due, next, err
	})
}

func (s *storedOverRPC) Pending(ctx context.Context) (uint64, error) {
	res, err := s.posts.FanOutStatus(ctx, &momentsv1.FanOutStatusRequest{})
	return res.GetPending(), err
}

func (s *storedOverRPC) NoticeFaults(ctx context.Context, person string) ([]string, error) {
	res, err := s.notices.Check(ctx, &momentsv1.CheckNoticesRequest{UserId: person})
	return res.GetFaults(), err
}

// maxPosts is how many posts one call may ask for, by the contracts.
const maxPosts = 200

func (s *storedOverRPC) Bodies(ctx context.Context, viewer string, posts []string) (map[string]*momentsv1.Post, error) {
	bodies := make(map[string]*momentsv1.Post, len(posts))
	for part := range slices.Chunk(posts, maxPosts) {
		res, err := s.posts.GetMany(ctx, &momentsv1.GetPostsRequest{ViewerId: viewer, Ids: part})
		if err != nil {
			return nil, err
		}
		for _, p := range res.GetPosts() {
			bodies[p.GetId()] = p
		}
	}
	return bodies, nil
}

func (s *storedOverRPC) Home(ctx context.Context, reader, down string) ([]*momentsv1.TimelineItem, error) {
	return byCursor(func(cursor string) (items []*momentsv1.TimelineItem, next string, err error) {
		res, err := s.timelines.Home(ctx, &momentsv1.HomeRequest{ViewerId: reader, Cursor: cursor, Limit: 100})
		next = res.GetNextCursor()
		for _, it := range res.GetItems() {
			if it.GetPost().GetId() < down {
				return items, "", err
			}
			items = append(items, it)
		}
		return items, next, err
	})
}

func (s *storedOverRPC) AlbumOf(ctx context.Context, viewer, author, down string) ([]string, error) {
	return byCursor(func(cursor string) (ids []string, next string, err error) {
		res, err := s.posts.Album(ctx, &momentsv1.AlbumRequest{ViewerId: viewer, AuthorId: author, Cursor: cursor, Limit: 100, HeadsOnly: true})
		next = res.GetNextCursor()
		for _, p := range res.GetPosts() {
			if p.GetId() < down {
				return ids, "", err
			}
			ids = append(ids, p.GetId())
		}
		return ids, next, err
	})
}

func (s *storedOverRPC) Threads(ctx context.Context, viewer string, posts []string) (map[string]*momentsv1.Thread, error) {
	threads := make(map[string]*momentsv1.Thread)
	for part := range slices.Chunk(posts, maxPosts) {
		res, err := s.comments.ListMany(ctx, &momentsv1.ListCommentsRequest{ViewerId: viewer, PostIds: part})
		if err != nil {
			return nil, err
		}
		for _, th := range res.GetThreads() {
			threads[th.GetPostId()] = th
		}
	}
	return threads, nil
}

func (s *storedOverRPC) ThreadPages(ctx context.Context, viewer, post string) (*momentsv1.Thread, error) {
	th := &momentsv1.Thread{PostId: post}
	var err error
	th.Comments, err = byCursor(func(cursor string) ([]*momentsv1.Comment, string, error) {
		res, err := s.comments.ListPage(ctx, &momentsv1.ListPageRequest{ViewerId: viewer, PostId: post, Cursor: cursor, Limit: 200})
		th.CommentCount = res.GetCommentCount()
		return res.GetComments(), res.GetNextCursor(), err
	})
	if err != nil {
		return nil, err
	}
	th.LikeIds, err = byCursor(func(cursor string) ([]string, string, error) {
		res, err := s.comments.ListLikes(ctx, &momentsv1.ListLikesRequest{ViewerId: viewer, PostId: post, Cursor: cursor, Limit: 1000})
		th.LikeCount = res.GetLikeCount()
		return res.GetLikeIds(), res.GetNextCursor(), err
	})
	return th, err
}

func (s *storedOverRPC) Shows(ctx context.Context, viewer string, act *momentsv1.Act) (bool, error) {
	res, err := s.comments.Show(ctx, &momentsv1.ShowRequest{ViewerId: viewer, Acts: []*momentsv1.Act{act}})
	if err != nil || len(res.GetActs()) != 1 {
		return false, err
	}
	return res.GetActs()[0].GetShown(), nil
}

func (s *storedOverRPC) Notices(ctx context.Context, person string) ([]*momentsv1.Notice, uint32, error) {
	list, err := byCursor(func(cursor string) ([]*momentsv1.Notice, string, error) {
		res, err := s.notices.ListNotices(ctx, &momentsv1.ListNoticesRequest{UserId: person, Cursor: cursor, Limit: 100})
		return res.GetNotices(), res.GetNextCursor(), err
	})
	if err != nil {
		return nil, 0, err
	}
	res, err := s.notices.CountUnread(ctx, &momentsv1.CountUnreadRequest{UserId: person})
	return list, res.GetUnread(), err
}

// byCursor puts the pages of a listing together, each of which says where the next one begins.
func byCursor[T any](page func(cursor string) (items []T, next string, err error)) ([]T, error) {
	var all []T
	for cursor := ""; ; {
		items, next, err := page(cursor)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		if next == "" {
			return all, nil
		}
		cursor = next
	}
}

// pagesOf puts the pages of a listing, newest first, together.
func pagesOf(page func(before string) (ids []string, more bool, err error)) ([]string, error) {
	var all []string
	for before := ""; ; before = all[len(all)-1] {
		ids, more, err := page(before)
		if err != nil {
			return nil, err
		}
		all = append(all, ids...)
		if !more || len(ids) == 0 {
			return all, nil
		}
	}
}
