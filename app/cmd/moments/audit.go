// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/load"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

func newAuditCmd() *cobra.Command {
	var data string
	var workers int
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Prove that every timeline and album is what the rules say",
		Long: `Prove that every timeline and album is what the rules say, over the RPC of the
services that run on the data directory: friendships are mutual, each album holds
its author's posts once, each timeline holds the reader's own posts and those of the
friends, once, in order. It waits for the fan-out to be over; nobody should write
meanwhile. On a difference it prints the first ones and exits with 1.

How long two people have been friends is known only of the people of moments seed.
Of others the newest 50 posts are demanded, and all that are newer than the oldest
one delivered; who parted and became friends again may lack posts of the time
between, which shows as a difference.`,
		Example: `  moments audit
  moments audit --data /var/lib/moments`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runAudit(cmd.Context(), cmd.OutOrStdout(), data, workers)
		},
	}
	addDataFlag(cmd, &data)
	cmd.Flags().IntVar(&workers, "workers", 8, "people looked at side by side")
	return cmd
}

func runAudit(ctx context.Context, out io.Writer, data string, workers int) error {
	if workers < 1 || workers > 1000 {
		return &usageError{fmt.Errorf("--workers %d: give 1 to 1000", workers)}
	}
	town, err := load.OpenTown(filepath.Join(data, townFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	people := peopleOf(town)
	var conns [3]*framework.Conn
	for i, role := range []topology.Role{topology.Account, topology.Post, topology.Timeline} {
		if conns[i], err = dialService(data, role); err != nil {
			return err
		}
		defer conns[i].Close()
	}
	s := &storedOverRPC{
		people:    people,
		accounts:  momentsv1.NewAccountServiceClient(conns[0]),
		posts:     momentsv1.NewPostServiceClient(conns[1]),
		timelines: momentsv1.NewTimelineServiceClient(conns[2]),
	}
	began, shown := time.Now(), time.Now()
	a, err := load.AuditConfig{Workers: workers, Since: friendsSince(town, people), Progress: func(done int) {
		if done > 0 && time.Since(shown) >= time.Second {
			shown = time.Now()
			fmt.Fprintf(out, "%d timelines proven\n", done)
		}
	}}.Run(toolContext(ctx, "moments audit"), s)
	if err != nil {
		return err
	}
	seeded := ""
	if town != nil {
		seeded = fmt.Sprintf(" (%d of them by moments seed)", s.seeded)
	}
	fmt.Fprintf(out, "people               %d%s\ndirected friendships %d\nposts                %d\ntimeline entries     %d\n",
		a.People, seeded, a.Friendships, a.Posts, a.Entries)
	if a.Stale > 0 {
		fmt.Fprintf(out, "of them stale        %d (their readers may no longer see the post; reading leaves it out)\n", a.Stale)
	}
	for _, d := range a.First {
		fmt.Fprintln(out, "  difference:", d)
	}
	if err := a.Err(); err != nil {
		return err
	}
	fmt.Fprintf(out, "clean, in %v\n", time.Since(began).Round(10*time.Millisecond))
	return nil
}

// peopleOf gives the numbers of a town's people by their user ids; nil without a town.
func peopleOf(town *load.Town) map[string]int32 {
	if town == nil {
		return nil
	}
	people := make(map[string]int32, town.Graph.People())
	for person := range town.Graph.People() {
		if user := town.ID(person); user != "" {
			people[user] = int32(person)
		}
	}
	return people
}

// friendsSince tells, for the people of a finished seeding, an id below which they may not have been friends yet. Without a town
// nothing is known.
func friendsSince(town *load.Town, people map[string]int32) func(a, b string) string {
	if town == nil || town.Ready().IsZero() {
		return nil
	}
	var first id.Post // of the moment: ids begin with their time in milliseconds
	var ms [8]byte
	// A second later, for the clocks of the seeding machine and of the servers.
	binary.BigEndian.PutUint64(ms[:], uint64(town.Ready().Add(time.Second).UnixMilli()))
	copy(first[:6], ms[2:])
	return func(a, b string) string {
		x, ok := people[a]
		y, ok2 := people[b]
		if !ok || !ok2 {
			return ""
		}
		if _, friends := slices.BinarySearch(town.Graph.Friends[x], y); !friends {
			return ""
		}
		return first.String()
	}
}

// storedOverRPC reads what the services store.
type storedOverRPC struct {
	people    map[string]int32 // of moments seed
	seeded    int              // people listed that are among them
	accounts  momentsv1.AccountServiceClient
	posts     momentsv1.PostServiceClient
	timelines momentsv1.TimelineServiceClient
}

var _ load.Stored = (*storedOverRPC)(nil)

func (s *storedOverRPC) People(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for cursor := ""; ; {
			res, err := s.accounts.ListUsers(ctx, &momentsv1.ListUsersRequest{Cursor: cursor})
			if err != nil {
				yield("", err)
				return
			}
			for _, p := range res.GetProfiles() {
				if _, ok := s.people[p.GetUserId()]; ok {
					s.seeded++
				}
				if !yield(p.GetUserId(), nil) {
					return
				}
			}
			if cursor = res.GetNextCursor(); cursor == "" {
				return
			}
		}
	}
}

func (s *storedOverRPC) Friends(ctx context.Context, person string) ([]string, error) {
	var all []string
	for cursor := ""; ; {
		res, err := s.accounts.ListFriends(ctx, &momentsv1.ListFriendsRequest{UserId: person, Cursor: cursor})
		if err != nil {
			return nil, err
		}
		all = append(all, res.GetUserIds()...)
		if cursor = res.GetNextCursor(); cursor == "" {
			return all, nil
		}
	}
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

func (s *storedOverRPC) Visible(ctx context.Context, viewer string, posts []string) (map[string]string, error) {
	const most = 200 // of PostService.GetMany
	authors := make(map[string]string, len(posts))
	for part := range slices.Chunk(posts, most) {
		res, err := s.posts.GetMany(ctx, &momentsv1.GetPostsRequest{ViewerId: viewer, Ids: part, HeadsOnly: true})
		if err != nil {
			return nil, err
		}
		for _, p := range res.GetPosts() {
			authors[p.GetId()] = p.GetAuthorId()
		}
	}
	return authors, nil
}

func (s *storedOverRPC) Pending(ctx context.Context) (uint64, error) {
	res, err := s.posts.FanOutStatus(ctx, &momentsv1.FanOutStatusRequest{})
	return res.GetPending(), err
}
