// SPDX-License-Identifier: Apache-2.0

package timeline_test

import (
	"context"
	"slices"
	"testing"

	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/app/relations/relationstest"
	"github.com/sluice-rpc/sluice/app/timeline"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// TestFanOutOnlyToOwnUsers: a region fans posts out to those who are at home in it, the
// author included, and to nobody else.
func TestFanOutOnlyToOwnUsers(t *testing.T) {
	citizen := func(region, n byte) id.User { return id.User{7: region, 15: n} }
	author, near, far := citizen(1, 1), citizen(1, 2), citizen(2, 3)
	post := id.Post{7: 1, 15: 9}
	account := new(relationstest.Account)
	account.Befriend(author, near)
	account.Befriend(author, far)
	for _, test := range []struct {
		name string
		home id.Region
		want []id.User
	}{
		{"the author's region", 1, []id.User{author, near}},
		{"a friend's region", 2, []id.User{far}},
		{"a third region", 3, nil},
		{"the only region", 0, []id.User{author, near, far}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := timeline.New(timeline.Config{
				Store: memkv.New(), Account: account, Home: test.home,
				Post: struct{ timeline.Post }{}, Comment: struct{ timeline.Comment }{}, // nobody asks them
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.FanOut(t.Context(), &momentsv1.FanOutRequest{Posts: []*momentsv1.FanOutPost{{PostId: post.String(), AuthorId: author.String()}}}); err != nil {
				t.Fatal(err)
			}
			var got []id.User
			for _, u := range []id.User{author, near, far} {
				res, err := s.ListIndex(t.Context(), &momentsv1.ListIndexRequest{ReaderId: u.String()})
				if err != nil {
					t.Fatal(err)
				}
				if len(res.GetPostIds()) > 0 {
					got = append(got, u)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("in the timelines of %v, want %v", got, test.want)
			}
		})
	}
}

// TestRebuildOnlyOfOwnUsers: a region fills the timelines of those who are at home in it, or
// about to be, and makes none for others.
func TestRebuildOnlyOfOwnUsers(t *testing.T) {
	reader := id.User{7: 1, 15: 1}
	for _, test := range []struct {
		name  string
		home  id.Region // of the timeline service
		moved homes.Home
		want  rpc.Code // 0 for none
	}{
		{"his home", 1, homes.Of(reader), 0},
		{"another region", 2, homes.Of(reader), rpc.FailedPrecondition},
		{"the only region", 0, homes.Of(reader), 0},
		{"whence he is being moved", 1, homes.Home{User: reader, Epoch: 1, Region: 1, Next: 2}, 0},
		{"whither he is being moved", 2, homes.Home{User: reader, Epoch: 1, Region: 1, Next: 2}, 0},
		{"his old home", 1, homes.Home{User: reader, Epoch: 3, Region: 2}, rpc.FailedPrecondition},
		{"his new home", 2, homes.Home{User: reader, Epoch: 3, Region: 2}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := timeline.New(timeline.Config{
				Store: memkv.New(), Account: new(relationstest.Account), Home: test.home, Homes: homes.NewTable(movedHome{test.moved}),
				Post: noAlbums{}, Comment: struct{ timeline.Comment }{}, // nobody asks for comments
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, dry := range []bool{true, false} {
				if _, err := s.Rebuild(t.Context(), &momentsv1.RebuildRequest{ReaderId: reader.String(), DryRun: dry}); rpc.CodeOf(err) != test.want {
					t.Errorf("dry run %v: %v, want %v", dry, err, test.want)
				}
			}
		})
	}
}

// movedHome is an account service that knows where one person is at home.
type movedHome struct{ homes.Home }

func (m movedHome) ListHomes(context.Context, *momentsv1.ListHomesRequest) (*momentsv1.ListHomesResponse, error) {
	if m.Epoch == 0 {
		return new(momentsv1.ListHomesResponse), nil
	}
	return &momentsv1.ListHomesResponse{Version: 1, Homes: []*momentsv1.UserHome{m.Show()}}, nil
}

// noAlbums is a post service without posts.
type noAlbums struct{ timeline.Post }

func (noAlbums) MergeAlbums(context.Context, *momentsv1.MergeAlbumsRequest) (*momentsv1.MergeAlbumsResponse, error) {
	return new(momentsv1.MergeAlbumsResponse), nil
}
