// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/pebblekv"
	"github.com/sluice-rpc/sluice/app/load"
	"github.com/sluice-rpc/sluice/app/topology"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// upHere runs everything in this process until stop is called or the test ends.
func upHere(t *testing.T, data string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() {
		_, err := tool(ctx, "up", "--data", data, "--addr", "127.0.0.1:0", "--console", "off", "--password-cost", "min", "--limits", "off")
		ended <- err
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("up: %v", err)
		}
	})
	t.Cleanup(stop)
	until(t, "up", func() bool {
		_, err := cluster.ReadState(data)
		return err == nil
	})
	return stop
}

// village is six people who use everything that decides who sees what.
type village struct {
	t *testing.T
	s *storedOverRPC
	u []string // user ids

	mu sync.Mutex // guards n
	n  int        // keys given
}

func (v *village) key() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.n++
	return fmt.Sprintf("%s-%d", v.t.Name(), v.n)
}

// must fails the test; the answer is not of interest.
func must[T any](t *testing.T, res T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func (v *village) publish(ctx context.Context, who int, change ...func(*momentsv1.PublishRequest)) (string, error) {
	req := &momentsv1.PublishRequest{
		AuthorId: v.u[who], IdempotencyKey: v.key(), Text: "news", Audience: momentsv1.Audience_AUDIENCE_FRIENDS,
	}
	for _, c := range change {
		c(req)
	}
	res, err := v.s.posts.Publish(ctx, req)
	return res.GetPost().GetId(), err
}

func (v *village) comment(ctx context.Context, who int, post, parent string) (string, error) {
	res, err := v.s.comments.Add(ctx, &momentsv1.AddCommentRequest{
		WriterId: v.u[who], IdempotencyKey: v.key(), PostId: post, ParentId: parent, Text: "well",
	})
	return res.GetComment().GetId(), err
}

func (v *village) like(ctx context.Context, who int, post string) error {
	_, err := v.s.comments.Like(ctx, &momentsv1.LikeRequest{UserId: v.u[who], PostId: post, IdempotencyKey: v.key()})
	return err
}

// settle makes the village: friends 0-1 0-2 0-3 0-4 1-2 1-3 2-3 3-4 4-5.
func settle(t *testing.T, data string) *village {
	t.Helper()
	edges := filepath.Join(t.TempDir(), "edges.txt")
	if err := os.WriteFile(edges, []byte("0 1\n0 2\n0 3\n0 4\n1 2\n1 3\n2 3\n3 4\n4 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := tool(t.Context(), "seed", "--data", data, "--graph", edges); err != nil {
		t.Fatal(err, out)
	}
	town, err := load.OpenTown(filepath.Join(data, townFile))
	if err != nil {
		t.Fatal(err)
	}
	v := &village{t: t, s: mustDial(t, data)}
	for person := range town.Graph.People() {
		v.u = append(v.u, town.ID(person))
	}
	return v
}

func mustDial(t *testing.T, data string) *storedOverRPC {
	t.Helper()
	s, err := dialStored(data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// live lets the people do one of everything.
func (v *village) live() {
	t, ctx := v.t, v.t.Context()
	var posts []string
	for i := range 18 {
		post, err := v.publish(ctx, i%6)
		posts = append(posts, must(t, post, err))
	}
	for _, change := range []func(*momentsv1.PublishRequest){
		func(r *momentsv1.PublishRequest) { r.Audience = momentsv1.Audience_AUDIENCE_ONLY_ME },
		func(r *momentsv1.PublishRequest) {
			r.Audience, r.AllowIds = momentsv1.Audience_AUDIENCE_ALLOW, []string{v.u[1]}
		},
		func(r *momentsv1.PublishRequest) {
			r.Audience, r.DenyIds = momentsv1.Audience_AUDIENCE_DENY, []string{v.u[2]}
		},
		func(r *momentsv1.PublishRequest) { r.RemindIds = []string{v.u[1], v.u[2]} },
	} {
		if _, err := v.publish(ctx, 0, change); err != nil {
			t.Fatal(err)
		}
	}
	for _, who := range []int{1, 2, 3, 4} { // on a post of 0
		c, err := v.comment(ctx, who, posts[0], "")
		must(t, c, err)
		if err := v.like(ctx, who, posts[0]); err != nil {
			t.Fatal(err)
		}
		if who == 4 {
			continue // seen by 3 but not by 1 and 2
		}
		if c, err = v.comment(ctx, 0, posts[0], c); err != nil {
			t.Fatal(err)
		}
		if who == 2 {
			_, err = v.s.comments.Delete(ctx, &momentsv1.DeleteCommentRequest{UserId: v.u[0], PostId: posts[0], CommentId: c, IdempotencyKey: v.key()})
			must(t, c, err)
		}
	}
	_, err := v.s.posts.Delete(ctx, &momentsv1.DeletePostRequest{AuthorId: v.u[1], PostId: posts[1], IdempotencyKey: v.key()})
	must(t, 0, err)
	for _, r := range []*momentsv1.UpdateFriendSettingsRequest{
		{UserId: v.u[0], OtherId: v.u[3], HideMine: proto.Bool(true)},
		{UserId: v.u[1], OtherId: v.u[2], HideTheirs: proto.Bool(true)},
		{UserId: v.u[2], OtherId: v.u[3], ChatOnly: proto.Bool(true)},
	} {
		_, err := v.s.accounts.UpdateFriendSettings(ctx, r)
		must(t, 0, err)
	}
	for _, r := range []*momentsv1.UpdateSettingsRequest{
		{UserId: v.u[3], AlbumWindow: momentsv1.AlbumWindow_ALBUM_WINDOW_THREE_DAYS.Enum()},
		{UserId: v.u[5], OpenToStrangers: proto.Bool(true)},
	} {
		_, err := v.s.accounts.UpdateSettings(ctx, r)
		must(t, 0, err)
	}
	_, err = v.s.accounts.Block(ctx, &momentsv1.BlockRequest{UserId: v.u[4], OtherId: v.u[5]})
	must(t, 0, err)
	// Told of all that, so that there are notices to be damaged.
	until(t, "told", func() bool {
		res, err := v.s.comments.OutboxStatus(ctx, &momentsv1.OutboxStatusRequest{})
		return err == nil && res.GetPending() == 0
	})
}

// says wants words in the output of a command, and an exit code of 0 or 1.
func says(t *testing.T, code int, words []string, args ...string) {
	t.Helper()
	out, err := tool(t.Context(), args...)
	if (err != nil) != (code != 0) {
		t.Errorf("moments %s: %v, want exit code %d:\n%s", strings.Join(args, " "), err, code, out)
	}
	for _, want := range words {
		if !strings.Contains(out, want) {
			t.Errorf("moments %s does not say %q:\n%s", strings.Join(args, " "), want, out)
		}
	}
}

// TestRebuildMendsWhatAuditFinds damages the stores of a stopped Moments in every way that a rebuild mends.
func TestRebuildMendsWhatAuditFinds(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	stop := upHere(t, data)
	v := settle(t, data)
	v.live()
	says(t, 0, []string{"clean", "comments, likes      6, 4\n"}, "audit", "--data", data)

	zero, err := id.ParseUser(v.u[0])
	if err != nil {
		t.Fatal(err)
	}
	lost, err := v.s.Timeline(t.Context(), v.u[0])
	if err != nil || len(lost) < 5 {
		t.Fatal(lost, err)
	}
	v.s.close()
	stop()
	change := func(role topology.Role, b *kv.Batch) {
		t.Helper()
		store, err := pebblekv.Open(filepath.Join(data, string(role)), pebblekv.Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = store.Apply(t.Context(), kv.SlotOf(zero[:]), b)
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		must(t, 0, err)
	}
	index := func(p id.Post) []byte {
		k := append([]byte{'t'}, zero[:]...)
		for _, b := range p {
			k = append(k, ^b)
		}
		return k
	}
	newest, err := id.ParsePost(lost[0])
	must(t, 0, err)
	middle, err := id.ParsePost(lost[3])
	must(t, 0, err)
	stray := newest
	stray[0]-- // years ago, of nobody
	between := middle
	between[15] ^= 1 // within what is looked at
	between[1]--
	change(topology.Timeline, new(kv.Batch).Delete(index(newest)).Delete(index(middle)).Put(index(stray), nil).Put(index(between), nil))
	change(topology.Notify, new(kv.Batch).Delete(append([]byte{'u'}, zero[:]...)))
	orphan := filepath.Join(data, "blobs", "media", "nobody", "token", "full")
	must(t, 0, os.MkdirAll(filepath.Dir(orphan), 0o700))
	must(t, 0, os.WriteFile(orphan, []byte("picture"), 0o600))
	old := time.Now().Add(-48 * time.Hour)
	must(t, 0, os.Chtimes(orphan, old, old))

	upHere(t, data)
	found := []string{
		"post " + lost[0], "post " + lost[3], "is missing from the timeline of " + v.u[0],
		"the notices of " + v.u[0], "nothing names the stored object media/nobody/token/full",
	}
	says(t, 1, found, "audit", "--data", data)
	would := []string{"2 added, 2 removed", "faults of notices    1\n", "orphan objects       1 "}
	says(t, 0, append(slices.Clone(would), "dry run"), "rebuild", "--all", "--dry-run", "--data", data)
	says(t, 1, found, "audit", "--data", data)
	says(t, 0, []string{"2 added, 2 removed", "faults of notices    1\n"}, "rebuild", "--user", v.u[0], "--dry-run", "--data", data)
	says(t, 0, would, "rebuild", "--all", "--data", data)
	says(t, 0, []string{"0 added, 0 removed", "faults of notices    0\n", "orphan objects       0 "}, "rebuild", "--all", "--data", data)
	says(t, 0, []string{"clean"}, "audit", "--data", data)
}

// TestAuditAndRebuildOnline: people write all the time, and nothing of it is a difference or is lost.
func TestAuditAndRebuildOnline(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	upHere(t, data)
	v := settle(t, data)
	v.live()
	ctx, cancel := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	friends := [][]int{{1, 2, 3, 4}, {0, 2, 3}, {0, 1}, {1, 4}, {0, 3}} // who see each other's posts
	for who, see := range friends {
		writing.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				post, err := v.publish(ctx, who)
				if err != nil {
					break
				}
				for _, other := range see {
					c, err := v.comment(ctx, other, post, "")
					if err != nil {
						continue // a setting is in the way
					}
					_ = v.like(ctx, other, post)
					_, _ = v.comment(ctx, who, post, c)
				}
				switch n % 4 {
				case 1:
					_, err = v.s.posts.Delete(ctx, &momentsv1.DeletePostRequest{AuthorId: v.u[who], PostId: post, IdempotencyKey: v.key()})
				case 2:
					_, err = v.s.accounts.UpdateFriendSettings(ctx, &momentsv1.UpdateFriendSettingsRequest{
						UserId: v.u[who], OtherId: v.u[see[0]], HideTheirs: proto.Bool(n%8 == 2),
					})
				}
				if err != nil && ctx.Err() == nil {
					t.Errorf("person %d: %v", who, err)
				}
			}
		})
	}
	says(t, 0, []string{"clean"}, "audit", "--data", data)
	says(t, 0, []string{"faults of notices    0\n"}, "rebuild", "--all", "--data", data)
	cancel()
	writing.Wait()
	says(t, 0, []string{"clean"}, "audit", "--data", data)
}

// TestAuditOfADeletedAccount: nothing is left of it, and what a fault has left is found and
// removed.
func TestAuditOfADeletedAccount(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	stop := upHere(t, data)
	v := settle(t, data)
	v.live()
	made, err := v.s.accounts.Register(t.Context(), &momentsv1.RegisterRequest{Name: "gone", Password: "correct horse"})
	gone := must(t, made, err).GetProfile().GetUserId()
	req, err := v.s.accounts.RequestFriend(t.Context(), &momentsv1.RequestFriendRequest{UserId: v.u[0], OtherId: gone})
	must(t, req, err)
	yes, err := v.s.accounts.AcceptFriend(t.Context(), &momentsv1.AcceptFriendRequest{UserId: gone, OtherId: v.u[0]})
	must(t, yes, err)
	v.u = append(v.u, gone)
	post, err := v.publish(t.Context(), 6)
	must(t, post, err)
	until(t, "filled timelines and notices", func() bool {
		index, err := v.s.Timeline(t.Context(), gone)
		list, _, err2 := v.s.Notices(t.Context(), gone)
		return errors.Join(err, err2) == nil && len(index) > 1 && len(list) > 0
	})
	bye, err := v.s.accounts.DeleteAccount(t.Context(), &momentsv1.DeleteAccountRequest{UserId: gone, Password: "correct horse"})
	must(t, bye, err)
	until(t, "a cleared account", func() bool {
		out, err := tool(t.Context(), "audit", "--data", data)
		return err == nil && strings.Contains(out, "deleted accounts     1\n")
	})
	v.s.close()
	stop()

	user, err := id.ParseUser(gone)
	must(t, 0, err)
	store, err := pebblekv.Open(filepath.Join(data, string(topology.Timeline)), pebblekv.Options{})
	must(t, 0, err)
	stray := append(append([]byte{'t'}, user[:]...), make([]byte, 16)...)
	_, err = store.Apply(t.Context(), kv.SlotOf(user[:]), new(kv.Batch).Put(stray, nil))
	if err := errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
	upHere(t, data)
	says(t, 1, []string{"1 entries of a timeline are left of the deleted account " + gone}, "audit", "--data", data)
	says(t, 0, []string{"of deleted accounts  1 kinds"}, "rebuild", "--all", "--data", data)
	says(t, 0, []string{"clean"}, "audit", "--data", data)
}

func TestRebuildRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"nobody":         {nil, "--user ID or --all"},
		"both":           {[]string{"--all", "--user", "x"}, "--user ID or --all"},
		"no id":          {[]string{"--user", "x"}, "--user"},
		"from for one":   {[]string{"--user", id.User{1}.String(), "--from", "x"}, "--from goes with --all"},
		"nobody running": {[]string{"--all", "--data", "/nonexistent"}, "moments up"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, errs := moments(t, append([]string{"rebuild"}, tc.args...)...)
			want := 2
			if name == "nobody running" {
				want = 1
			}
			if code != want || !strings.Contains(errs, tc.want) {
				t.Errorf("exit code %d, %q, want %d and %q", code, errs, want, tc.want)
			}
		})
	}
}
