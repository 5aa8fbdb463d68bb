// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/idcqueue/path"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// sea is regions that come and go.
type sea struct {
	t    *testing.T
	cfgs []cluster.Config
	dirs []string
	at   []*cluster.Node // nil for one that is not there
	stop []func()
	call []*clients
}

func newSea(t *testing.T, names ...string) *sea {
	s := &sea{t: t, cfgs: joined(t, names...)}
	n := len(s.cfgs)
	s.at, s.stop, s.call = make([]*cluster.Node, n), make([]func(), n), make([]*clients, n)
	for i := range s.cfgs {
		s.dirs = append(s.dirs, s.cfgs[i].Data.Dir())
	}
	return s
}

// write writes the configuration of a region that is joined to others, which are named by
// their places.
func (s *sea) write(i int, others ...int) topology.Config {
	s.t.Helper()
	cfg := s.cfgs[i].Topology
	all := cfg.Regions
	cfg.Regions = nil
	for _, p := range all {
		if slices.Contains(others, int(p.Number)-1) {
			cfg.Regions = append(cfg.Regions, p)
		}
	}
	b := fmt.Appendf(nil, "region:\n  number: %d\n  name: %q\n", cfg.Region.Number, cfg.Region.Name)
	if err := os.WriteFile(s.file(i), cluster.AppendRegions(b, cfg), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return cfg
}

func (s *sea) file(i int) string { return filepath.Join(s.dirs[i], "region.yaml") }

// hears has a region that runs be joined to others, and waits until it is.
func (s *sea) hears(i int, others ...int) {
	s.t.Helper()
	want := s.write(i, others...).Regions
	s.until(fmt.Sprintf("region %d works with %d others", i+1, len(want)), func() bool {
		for _, r := range topology.Joined() {
			_, said := page(s.t, s.at[i], r)
			if len(said.Line.Peers) != len(want) || len(said.Queue.Peers) != len(want) {
				return false
			}
		}
		return true
	})
}

// up starts a region that is joined to others, which are named by their places.
func (s *sea) up(i int, others ...int) {
	s.t.Helper()
	cfg := s.cfgs[i]
	cfg.Topology = s.write(i, others...)
	cfg.Source.File = s.file(i)
	fresh := map[string]net.Listener{}
	for name, lis := range cfg.Sockets {
		addr := lis.Addr().String()
		_ = lis.Close() // it may have been
		again, err := net.Listen("tcp", addr)
		if err != nil {
			s.t.Fatal(err)
		}
		fresh[name] = again
	}
	cfg.Sockets, s.cfgs[i].Sockets = fresh, fresh
	s.at[i], s.stop[i] = runNode(s.t, cfg)
	s.call[i] = dial(s.t, stateOf(s.at[i]))
	s.t.Cleanup(s.call[i].close)
	if err := cfg.Data.WriteState(stateOf(s.at[i])); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sea) down(i int) {
	s.call[i].close()
	s.stop[i]()
	s.at[i], s.call[i] = nil, nil
}

// until waits for something to hold.
func (s *sea) until(what string, holds func() bool) {
	s.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !holds(); <-tick.C {
		if time.Now().After(end) {
			s.t.Fatalf("after a minute still not: %s", what)
		}
	}
}

// list gives the comments on a post as a region shows them.
func (s *sea) list(i int, viewer, post string) (ids []string) {
	s.t.Helper()
	cursor := ""
	for {
		res, err := s.call[i].comments.ListPage(s.t.Context(), &momentsv1.ListPageRequest{ViewerId: viewer, PostId: post, Limit: 200, Cursor: cursor})
		if err != nil {
			return nil // the post is not here yet
		}
		var page []string
		for _, c := range res.GetComments() {
			page = append(page, c.GetId())
		}
		ids, cursor = append(page, ids...), res.GetNextCursor()
		if cursor == "" {
			return ids
		}
	}
}

// tryEvery and tryFor are how fast and how long it is tried again what a busy machine, or
// one that has just started, refuses at once.
const tryEvery, tryFor = 20 * time.Millisecond, 30 * time.Second

// again calls until a busy machine has answered in time; keys make it happen once.
func again[T any](call func() (T, error)) (res T, err error) {
	tick := time.NewTicker(tryEvery)
	defer tick.Stop()
	for end := time.Now().Add(tryFor); time.Now().Before(end); <-tick.C {
		if res, err = call(); !slices.Contains([]rpc.Code{rpc.DeadlineExceeded, rpc.Unavailable, rpc.ResourceExhausted}, rpc.CodeOf(err)) {
			return res, err
		}
	}
	return res, err
}

// told reports whether all others have all that a region has.
func (s *sea) told(i int) bool {
	for _, r := range topology.Joined() {
		_, said := page(s.t, s.at[i], r)
		for _, p := range said.Queue.Peers {
			if p.Send.Depth > 0 || p.Send.NeedsSnapshot > 0 {
				return false
			}
		}
	}
	return true
}

// TestRegionJoinsAndLeaves: a fourth region joins three that are written in, gets all that
// they have and is written in itself; then it leaves. No id is given twice, and what stood
// in an order stays in it.
func TestRegionJoinsAndLeaves(t *testing.T) {
	s := newSea(t, "sh", "hk", "ca", "sg")
	for i := range 3 {
		s.up(i, 0, 1, 2)
	}
	wang := register(t, s.call[0], "wang")
	res, err := again(func() (*momentsv1.PublishResponse, error) {
		return s.call[0].posts.Publish(t.Context(), &momentsv1.PublishRequest{
			AuthorId: wang, IdempotencyKey: "the post", Text: "Look!", Audience: momentsv1.Audience_AUDIENCE_FRIENDS,
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	post := res.GetPost().GetId()

	var mu sync.Mutex
	var acked []string // guarded by mu
	// write makes comments in a region.
	write := func(i, n int, when string) {
		c := s.call[i].comments
		for j := range n {
			req := &momentsv1.AddCommentRequest{
				WriterId: wang, PostId: post, Text: fmt.Sprintf("%s, in %d: %d", when, i, j), IdempotencyKey: fmt.Sprintf("%s-%d-%d", when, i, j),
			}
			res, err := again(func() (*momentsv1.AddCommentResponse, error) { return c.Add(t.Context(), req) })
			if err != nil {
				t.Errorf("%s, in region %d: %v", when, i+1, err)
				return
			}
			mu.Lock()
			acked = append(acked, res.GetComment().GetId())
			mu.Unlock()
		}
	}
	// writing runs do while some regions are written in.
	writing := func(when string, regions []int, do func()) {
		var all sync.WaitGroup
		for _, i := range regions {
			all.Go(func() { write(i, 5, when) })
		}
		do()
		all.Wait()
	}
	equal := func(when string, regions ...int) (list []string) {
		t.Helper()
		for n, i := range regions {
			var got []string
			s.until(fmt.Sprintf("region %d has %d comments, %s", i+1, len(acked), when), func() bool {
				got = s.list(i, wang, post) // none if the machine is too busy
				return len(got) == len(acked)
			})
			if n == 0 {
				list = got
			}
			if !slices.Equal(got, list) {
				t.Errorf("%s, region %d shows another order than region %d:\n%v\n%v", when, i+1, regions[0]+1, got, list)
			}
		}
		return list
	}
	for i := range 3 {
		s.until(fmt.Sprintf("the post is in region %d", i+1), func() bool {
			_, err := s.call[i].comments.ListPage(t.Context(), &momentsv1.ListPageRequest{ViewerId: wang, PostId: post})
			return err == nil
		})
	}
	writing("at first", []int{0, 1, 2}, func() {})
	before := equal("at first", 0, 1, 2)

	// Each region learns of the fourth by its configuration, and goes on, as the others do.
	for i := range 3 {
		writing(fmt.Sprintf("while %d hears of it", i), []int{0, 1, 2}, func() { s.hears(i, 0, 1, 2, 3) })
	}
	writing("while it comes", []int{0, 1, 2}, func() { s.up(3, 0, 1, 2, 3) })
	during := equal("joined", 0, 1, 2, 3)
	writing("four", []int{0, 1, 2, 3}, func() {})
	four := equal("four regions", 0, 1, 2, 3)

	s.until("the others have all of the one that leaves", func() bool { return s.told(3) })
	s.down(3)
	if err := cluster.OrderQueue(t.Context(), s.dirs[0], topology.Comment, cluster.QueueOrder{Do: cluster.QueueLeft, Region: "sg"}, nil); err != nil {
		t.Fatal(err)
	}
	s.until("all have heard that it has left", func() bool {
		for i := range 3 {
			_, said := page(t, s.at[i], topology.Comment)
			left := slices.ContainsFunc(said.Causality.Members, func(m cluster.Member) bool { return m.Number == 4 && m.State == "left" })
			if !left {
				return false
			}
		}
		return true
	})
	// Those that still have it in their configurations go on as well.
	writing("without it", []int{0, 1, 2}, func() {
		s.hears(0, 0, 1, 2)
		s.hears(1, 0, 1, 2)
	})
	// It may run once more, late: nobody listens to it.
	s.up(3, 0, 1, 2, 3)
	s.until("it is refused and counted", func() bool {
		_, said := page(s.t, s.at[0], topology.Comment)
		return said.Line.Refused[path.UnknownName] > 0
	})
	s.down(3)
	last := equal("after it has left", 0, 1, 2)
	s.hears(2, 0, 1, 2)

	sorted := slices.Sorted(slices.Values(acked))
	if n := len(slices.Compact(sorted)); n != len(acked) {
		t.Errorf("%d ids were given to %d comments", n, len(acked))
	}
	for when, list := range map[string][]string{"before": before, "as it joined": during, "of four": four} {
		kept := slices.DeleteFunc(slices.Clone(last), func(c string) bool { return !slices.Contains(list, c) })
		if !slices.Equal(kept, list) {
			t.Errorf("the order %s is not that of later", when)
		}
	}
}

// TestSessionOfManyPosts: a session that has looked at more posts than its token names
// goes on in another region, once that has all that it may have seen.
func TestSessionOfManyPosts(t *testing.T) {
	s := newSea(t, "sh", "hk")
	s.up(0, 0, 1)
	s.up(1, 0, 1)
	wang := register(t, s.call[0], "wang")
	session, post := "", ""
	for i := range 15 {
		res, err := again(func() (*momentsv1.PublishResponse, error) {
			return s.call[0].posts.Publish(t.Context(), &momentsv1.PublishRequest{
				AuthorId: wang, IdempotencyKey: fmt.Sprint(i), Text: "Look!", Audience: momentsv1.Audience_AUDIENCE_FRIENDS,
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		post = res.GetPost().GetId()
		added, err := again(func() (*momentsv1.AddCommentResponse, error) {
			return s.call[0].comments.Add(t.Context(), &momentsv1.AddCommentRequest{
				WriterId: wang, PostId: post, Text: "mine", IdempotencyKey: fmt.Sprint("c", i), Session: session,
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		session = added.GetSession()
	}
	s.until("the session goes on in the other region", func() bool {
		res, err := s.call[1].comments.ListPage(t.Context(), &momentsv1.ListPageRequest{ViewerId: wang, PostId: post, Session: session})
		return err == nil && res.GetCommentCount() == 1
	})
}

// TestAloneAfterOthers: a region that is started without the others it was joined to goes on
// with what they have made, also for a session of more posts than its token names.
func TestAloneAfterOthers(t *testing.T) {
	s := newSea(t, "sh", "hk")
	s.up(0, 0, 1)
	s.up(1, 0, 1)
	wang := register(t, s.call[0], "wang")
	const posts = 14
	var all [posts]string
	for i := range all {
		res, err := again(func() (*momentsv1.PublishResponse, error) {
			return s.call[0].posts.Publish(t.Context(), &momentsv1.PublishRequest{
				AuthorId: wang, IdempotencyKey: fmt.Sprint(i), Text: "Look!", Audience: momentsv1.Audience_AUDIENCE_FRIENDS,
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		all[i] = res.GetPost().GetId()
		s.until("the post can be commented on in the other region", func() bool {
			_, err := s.call[1].comments.Add(t.Context(), &momentsv1.AddCommentRequest{
				WriterId: wang, PostId: all[i], Text: "mine", IdempotencyKey: fmt.Sprint("c", i),
			})
			return err == nil
		})
	}
	for _, post := range all {
		s.until("the comment is at home", func() bool { return len(s.list(0, wang, post)) == 1 })
	}
	s.down(1)
	s.down(0)

	cfg := s.cfgs[0]
	cfg.Topology.Regions, cfg.Topology.Line, cfg.Sockets = nil, topology.Default().Line, nil
	node, _ := runNode(t, cfg)
	call := dial(t, stateOf(node))
	defer call.close()
	session := ""
	for _, post := range all {
		res, err := again(func() (*momentsv1.ListPageResponse, error) {
			return call.comments.ListPage(t.Context(), &momentsv1.ListPageRequest{ViewerId: wang, PostId: post, Session: session})
		})
		if err != nil || res.GetCommentCount() != 1 {
			t.Fatalf("%v, %v, want one comment", res, err)
		}
		session = res.GetSession()
	}
}

// TestQueueDoor: whoever cannot read the data directory orders nothing, and what makes no
// sense is told.
func TestQueueDoor(t *testing.T) {
	cfgs := joined(t, "sh", "hk")
	for _, lis := range cfgs[1].Sockets {
		_ = lis.Close()
	}
	n, _ := runNode(t, cfgs[0])
	dir := cfgs[0].Data.Dir()
	if err := cfgs[0].Data.WriteState(stateOf(n)); err != nil {
		t.Fatal(err)
	}
	pages, err := cluster.Queues(t.Context(), dir)
	if err != nil || len(pages) != 3 || pages[topology.Comment].Causality.Number != 1 {
		t.Errorf("the queues are %+v, %v", pages, err)
	}
	if held, err := cluster.Quarantine(t.Context(), dir); err != nil || len(held) != 0 {
		t.Errorf("held: %v, %v", held, err)
	}
	for _, tt := range []struct {
		name  string
		role  topology.Role
		order cluster.QueueOrder
		want  string
	}{
		{"no such region", topology.Comment, cluster.QueueOrder{Do: cluster.QueueLost, Region: "atlantis"}, "atlantis"},
		{"a region that never was", topology.Comment, cluster.QueueOrder{Do: cluster.QueueLost, Region: "77"}, "77"},
		{"itself", topology.Comment, cluster.QueueOrder{Do: cluster.QueueLost, Region: "1"}, "itself"},
		{"at another service", topology.Post, cluster.QueueOrder{Do: cluster.QueueLost, Region: "hk"}, "comment service"},
		{"nothing in quarantine", topology.Post, cluster.QueueOrder{Do: cluster.QueueDrop, Region: "hk", Slot: 1, Seq: 1}, "not in quarantine"},
		{"no other log", topology.Account, cluster.QueueOrder{Do: cluster.QueueAccept, Region: "HK"}, "no other log"},
		{"no such order", topology.Account, cluster.QueueOrder{Do: "dance", Region: "hk"}, "dance"},
		{"a service that is not joined", topology.Notify, cluster.QueueOrder{Do: cluster.QueueDrop, Region: "hk"}, "not joined"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := cluster.OrderQueue(t.Context(), dir, tt.role, tt.order, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want something about %q", err, tt.want)
			}
		})
	}
	at, _ := n.Running(topology.Comment)
	res, err := http.Post("http://"+at.Admin+"/queue", "application/json", strings.NewReader(`{"do":"lost","region":"hk"}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("without the token of %s: status %d", filepath.Base(dir), res.StatusCode)
	}
	if err := cluster.OrderQueue(t.Context(), dir, topology.Comment, cluster.QueueOrder{Do: cluster.QueueLost, Region: "HK"}, nil); err != nil {
		t.Error(err)
	}
}
