// SPDX-License-Identifier: Apache-2.0

package timeline_test

import (
	"slices"
	"testing"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/app/relations/relationstest"
	"github.com/sluice-rpc/sluice/app/timeline"
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
