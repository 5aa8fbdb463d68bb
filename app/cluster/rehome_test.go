// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// publish makes a post in a region, once it takes some of its author.
func (s *sea) publish(i int, author, text string) string {
	s.t.Helper()
	var id string
	s.until("a post is taken in region "+s.cfgs[i].Topology.Region.Name, func() bool {
		res, err := s.call[i].posts.Publish(s.t.Context(), &momentsv1.PublishRequest{
			AuthorId: author, IdempotencyKey: text, Text: text, Audience: momentsv1.Audience_AUDIENCE_FRIENDS,
		})
		id = res.GetPost().GetId()
		return err == nil
	})
	return id
}

// album gives somebody's own album as a region has it.
func (s *sea) album(i int, author string) []string {
	res, err := s.call[i].posts.ListAlbum(s.t.Context(), &momentsv1.ListAlbumRequest{AuthorId: author, Limit: 100})
	if err != nil {
		return nil
	}
	return res.GetPostIds()
}

// TestRehome: a user's home is moved between two regions while one of them is started
// again; his posts go along, and are his there.
func TestRehome(t *testing.T) {
	s := newSea(t, "sh", "hk")
	s.up(0, 0, 1)
	s.up(1, 0, 1)
	wang := register(t, s.call[0], "wang")
	old := s.publish(0, wang, "from the old home")
	s.until("the new home has his post", func() bool { return len(s.album(1, wang)) == 1 })

	s.down(1) // it cannot be heard: the move waits for it, and nobody takes his posts
	state, err := cluster.OrderRehome(t.Context(), s.dirs[0], cluster.RehomeOrder{Do: cluster.RehomeMove, User: "wang", To: "HK"})
	if err != nil || state != (cluster.HomeState{User: wang, Region: "sh", Next: "hk"}) {
		t.Fatalf("the order is answered %+v, %v", state, err)
	}
	publish := &momentsv1.PublishRequest{AuthorId: wang, IdempotencyKey: "no", Text: "no", Audience: momentsv1.Audience_AUDIENCE_FRIENDS}
	refuses := func() bool {
		tick := time.NewTicker(tryEvery)
		defer tick.Stop()
		for end := time.Now().Add(tryFor); time.Now().Before(end); <-tick.C { // a busy machine may answer too late
			var p momentsv1.Problem
			_, err := s.call[0].posts.Publish(t.Context(), publish)
			if moving := rpc.Detail(err, &p) && p.GetType() == "moving"; moving || err == nil {
				return moving
			}
		}
		return false
	}
	s.until("the old home takes no more of his posts", refuses)
	s.down(0)
	s.up(0, 0, 1)
	if !refuses() {
		t.Error("after a start the old home takes his posts again")
	}
	s.up(1, 0, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	state, err = cluster.AwaitHome(ctx, s.dirs[0], wang)
	if err != nil || state != (cluster.HomeState{User: wang, Region: "hk"}) {
		t.Fatalf("in the end he is at %+v, %v", state, err)
	}
	fresh := s.publish(1, wang, "from the new home")
	if !refuses() {
		t.Error("both regions take his posts")
	}
	if _, err := again(func() (*momentsv1.DeletePostResponse, error) {
		return s.call[1].posts.Delete(t.Context(), &momentsv1.DeletePostRequest{AuthorId: wang, PostId: old})
	}); err != nil {
		t.Errorf("a post of before the move is not his any more: %v", err)
	}
	// One that was tried before the fence may have been taken. It has moved, too.
	var all []string
	s.until("the new home has what he wrote there, and not what he has deleted", func() bool {
		all = s.album(1, wang)
		return len(all) > 0 && all[0] == fresh && !slices.Contains(all, old)
	})
	s.until("the old home has what the new one has", func() bool { return slices.Equal(s.album(0, wang), all) })
	s.until("his timeline has his posts", func() bool {
		page, err := s.call[1].timelines.Home(t.Context(), &momentsv1.HomeRequest{ViewerId: wang, Limit: 10})
		return err == nil && len(page.GetItems()) == len(all) && page.GetItems()[0].GetPost().GetId() == fresh
	})
	for _, tt := range []struct {
		name  string
		order cluster.RehomeOrder
		want  string
	}{
		{"nobody", cluster.RehomeOrder{Do: cluster.RehomeShow, User: "nobody"}, "nobody"},
		{"to a region that is not joined", cluster.RehomeOrder{Do: cluster.RehomeMove, User: "wang", To: "9"}, "not joined"},
		{"to no region", cluster.RehomeOrder{Do: cluster.RehomeMove, User: "wang", To: "atlantis"}, "atlantis"},
		{"from where he is not", cluster.RehomeOrder{Do: cluster.RehomeMove, User: "wang", To: "sh"}, "give the order there"},
		{"no such order", cluster.RehomeOrder{Do: "dance", User: "wang"}, "dance"},
	} {
		if _, err := cluster.OrderRehome(t.Context(), s.dirs[0], tt.order); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want something about %q", tt.name, err, tt.want)
		}
	}
}
