// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/cluster"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// process is a node in a process of its own.
type process struct {
	cmd   *exec.Cmd
	input io.Closer
	state cluster.State
}

// startProcess starts this test binary as a node and waits until it serves.
func startProcess(t *testing.T, dir string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), nodeEnv+"="+dir)
	p.cmd.Stderr = t.Output()
	var err error
	if p.input, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	output, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(output).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &p.state)
	}
	if err != nil {
		p.kill()
		t.Fatalf("the node did not come up: %v", err)
	}
	return p
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// stop lets the process end in order.
func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.input.Close()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the node did not stop in order: %v", err)
	}
}

// A write is one that the test made, whether or not it was answered.
type write struct {
	kind     string // post, comment or like
	user     int
	on       int    // of a comment or like: index of its post among the answered
	key      string // idempotency key, and the text
	id       string // answered
	answered bool
}

// ledger is what the test knows: all writes, and which of them were answered.
type ledger struct {
	mu     sync.Mutex
	writes []*write // guarded by mu
	posts  []*write // guarded by mu; answered ones
	next   int      // guarded by mu
	done   int      // guarded by mu; number of answered ones
}

func (l *ledger) answers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done
}

// waitFor waits until so many writes were answered, or for two seconds: a kill must
// hit a node that is at work.
func (l *ledger) waitFor(answers int) {
	for deadline := time.Now().Add(2 * time.Second); l.answers() < answers && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
}

func (l *ledger) draw(rng *rand.Rand, users int) *write {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &write{kind: "post", user: rng.IntN(users), key: fmt.Sprintf("write %d", l.next)}
	l.next++
	if n := len(l.posts); n > 0 && rng.IntN(10) < 8 {
		w.kind, w.on = "comment", max(0, n-1-rng.IntN(20)) // recent ones
		if rng.IntN(3) == 0 {
			w.kind = "like"
		}
		// Its author or one of the two friends that everybody has.
		w.user = (l.posts[w.on].user + rng.IntN(3) - 1 + users) % users
	}
	l.writes = append(l.writes, w)
	return w
}

func (l *ledger) answer(w *write, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.id, w.answered = id, true
	l.done++
	if w.kind == "post" {
		l.posts = append(l.posts, w)
	}
}

// make sends a write, the first time or again.
func (l *ledger) make(ctx context.Context, c *clients, users []string, w *write) error {
	l.mu.Lock()
	var post string
	if w.kind != "post" {
		post = l.posts[w.on].id
	}
	l.mu.Unlock()
	switch w.kind {
	case "post":
		res, err := c.posts.Publish(ctx, &momentsv1.PublishRequest{
			AuthorId: users[w.user], IdempotencyKey: w.key, Text: w.key, Audience: momentsv1.Audience_AUDIENCE_FRIENDS,
		})
		if err != nil {
			return err
		}
		l.answer(w, res.GetPost().GetId())
	case "comment":
		res, err := c.comments.Add(ctx, &momentsv1.AddCommentRequest{WriterId: users[w.user], IdempotencyKey: w.key, PostId: post, Text: w.key})
		if err != nil {
			return err
		}
		l.answer(w, res.GetComment().GetId())
	case "like":
		if _, err := c.comments.Like(ctx, &momentsv1.LikeRequest{UserId: users[w.user], PostId: post, IdempotencyKey: w.key}); err != nil {
			return err
		}
		l.answer(w, "")
	}
	return nil
}

// TestKillUnderLoad kills a node again and again while it is written to. Everything
// answered must be there afterwards, each thing once, under an id of its own; what
// was not answered must happen exactly once when it is repeated; and every post must
// be in exactly the timelines it belongs to.
func TestKillUnderLoad(t *testing.T) {
	rounds, people, writers := 20, 10, 8
	if testing.Short() {
		rounds = 3
	}
	dir := t.TempDir()
	p := startProcess(t, dir)
	c := dial(t, p.state)
	users := make([]string, people)
	for i := range users {
		users[i] = register(t, c, fmt.Sprintf("user%d", i))
	}
	for i := range users { // a ring: everybody has two friends
		a, b := users[i], users[(i+1)%people]
		if _, err := c.RequestFriend(t.Context(), &momentsv1.RequestFriendRequest{UserId: a, OtherId: b}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.AcceptFriend(t.Context(), &momentsv1.AcceptFriendRequest{UserId: b, OtherId: a}); err != nil {
			t.Fatal(err)
		}
	}
	login, err := c.LogIn(t.Context(), &momentsv1.LogInRequest{Name: "user0", Password: password})
	if err != nil {
		t.Fatal(err)
	}

	var l ledger
	for round := range rounds {
		var wg sync.WaitGroup
		before := l.answers()
		for worker := range writers {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(round), uint64(worker)))
				for range 100 { // bounded, so that no timeline outgrows its index
					if err := l.make(t.Context(), c, users, l.draw(rng, people)); err != nil {
						return // killed
					}
				}
			})
		}
		l.waitFor(before + 3*writers)
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
		p.kill()
		wg.Wait()
		c.close()
		p = startProcess(t, dir)
		c = dial(t, p.state)
	}
	defer c.close()

	if _, err := again(func() (*momentsv1.AuthenticateResponse, error) {
		return c.Authenticate(t.Context(), &momentsv1.AuthenticateRequest{Token: login.GetToken()})
	}); err != nil {
		t.Errorf("the session is lost: %v", err)
	}
	repeated := 0
	for _, w := range l.writes {
		if w.answered {
			continue
		}
		repeated++
		if _, err := again(func() (none struct{}, err error) { return none, l.make(t.Context(), c, users, w) }); err != nil {
			t.Fatalf("repeat a %s: %v", w.kind, err)
		}
	}
	t.Logf("%d rounds, %d writes, of which %d were cut off and repeated", rounds, len(l.writes), repeated)
	if repeated == 0 {
		t.Error("no kill hit a write: the test shows nothing")
	}
	waitForFanOut(t, c)
	l.check(t, c, users)
	p.stop(t)
}

func waitForFanOut(t *testing.T, c *clients) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		res, err := c.posts.FanOutStatus(t.Context(), &momentsv1.FanOutStatusRequest{})
		if err == nil && res.GetPending() == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("fan-out is not done after a minute: %v, %v", res, err)
		}
	}
}

// check compares everything that is stored with everything that was written.
func (l *ledger) check(t *testing.T, c *clients, users []string) {
	t.Helper()
	ids := map[string]string{}
	albums := make([][]string, len(users))
	timelines := make([][]string, len(users))
	comments, likes := map[string][]string{}, map[string][]string{}
	for _, w := range l.writes {
		if w.id != "" {
			if other, used := ids[w.id]; used {
				t.Errorf("id %s was given to %q and to %q", w.id, other, w.key)
			}
			ids[w.id] = w.key
		}
		switch w.kind {
		case "post":
			albums[w.user] = append(albums[w.user], w.id)
			for _, reader := range []int{w.user, (w.user + 1) % len(users), (w.user + len(users) - 1) % len(users)} {
				timelines[reader] = append(timelines[reader], w.id)
			}
		case "comment":
			post := l.posts[w.on].id
			comments[post] = append(comments[post], w.id)
		case "like":
			post, user := l.posts[w.on].id, users[w.user]
			if !slices.Contains(likes[post], user) {
				likes[post] = append(likes[post], user)
			}
		}
	}
	for i, user := range users {
		same(t, fmt.Sprintf("album of user%d", i), albums[i], pages(t, func(before string) ([]string, bool, error) {
			res, err := c.posts.ListAlbum(t.Context(), &momentsv1.ListAlbumRequest{AuthorId: user, BeforeId: before})
			return res.GetPostIds(), res.GetMore(), err
		}))
		same(t, fmt.Sprintf("timeline of user%d", i), timelines[i], pages(t, func(before string) ([]string, bool, error) {
			res, err := c.timelines.ListIndex(t.Context(), &momentsv1.ListIndexRequest{ReaderId: user, BeforeId: before})
			return res.GetPostIds(), res.GetMore(), err
		}))
	}
	for _, post := range l.posts {
		res, err := c.comments.ListMany(t.Context(), &momentsv1.ListCommentsRequest{ViewerId: users[post.user], PostIds: []string{post.id}})
		if err != nil {
			t.Fatal(err)
		}
		var got, liked []string
		for _, thread := range res.GetThreads() {
			for _, comment := range thread.GetComments() {
				got = append(got, comment.GetId())
				if ids[comment.GetId()] != comment.GetText() {
					t.Errorf("comment %s says %q, want %q", comment.GetId(), comment.GetText(), ids[comment.GetId()])
				}
			}
			liked = append(liked, thread.GetLikeIds()...)
		}
		same(t, "comments on "+post.key, comments[post.id], got)
		same(t, "likes of "+post.key, likes[post.id], liked)
	}
}

// pages reads all pages of a list.
func pages(t *testing.T, read func(before string) ([]string, bool, error)) []string {
	t.Helper()
	var all []string
	for before := ""; ; before = all[len(all)-1] {
		page, more, err := read(before)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page...)
		if !more || len(page) == 0 {
			return all
		}
	}
}

// same wants the same elements, each once, in any order.
func same(t *testing.T, what string, want, got []string) {
	t.Helper()
	want, got = slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))
	if slices.Equal(want, got) {
		return
	}
	var lost, extra []string
	for _, x := range want {
		if !slices.Contains(got, x) {
			lost = append(lost, x)
		}
	}
	for i, x := range got {
		if !slices.Contains(want, x) || (i > 0 && got[i-1] == x) {
			extra = append(extra, x)
		}
	}
	t.Errorf("%s: %d entries, want %d; lost %v, extra or twice %v", what, len(got), len(want), lost, extra)
}
