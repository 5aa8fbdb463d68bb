// SPDX-License-Identifier: Apache-2.0

package load_test

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-rpc/sluice/app/load"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTown(t *testing.T, people int) *load.Town {
	t.Helper()
	g, err := load.Generate(people, 3)
	if err != nil {
		t.Fatal(err)
	}
	town, err := load.NewTown(g)
	if err != nil {
		t.Fatal(err)
	}
	return town
}

func populated(t *testing.T, people int) (*fake, *load.Town, string) {
	t.Helper()
	f, base := newFake(t)
	town := newTown(t, people)
	if err := load.Populate(t.Context(), town.Graph, 4, town.Dial(base), nil); err != nil {
		t.Fatal(err)
	}
	return f, town, base
}

func TestPopulateMakesEveryFriendshipOnce(t *testing.T) {
	f, base := newFake(t)
	f.refuse = func(call int, _ string) bool { return call%3 == 0 } // every third write is put off
	town := newTown(t, 20)
	var last load.Stage
	if err := load.Populate(t.Context(), town.Graph, 4, town.Dial(base), func(s load.Stage) { last = s }); err != nil {
		t.Fatal(err)
	}
	if last.Done != town.Graph.Directed()/2 || last.PutOff == 0 {
		t.Errorf("last stage %+v", last)
	}
	town.Graph.Edges(func(a, b int) bool {
		x, y := town.ID(a), town.ID(b)
		if !f.half[[2]string{x, y}] || !f.half[[2]string{y, x}] {
			t.Errorf("%d and %d are not friends", a, b)
		}
		return true
	})
	if len(f.half) != town.Graph.Directed() {
		t.Errorf("%d halves, want %d", len(f.half), town.Graph.Directed())
	}
}

func TestPopulateAgainFindsTheSamePeople(t *testing.T) {
	f, base := newFake(t)
	town := newTown(t, 6)
	path := filepath.Join(t.TempDir(), "seed.json")
	if err := town.Save(path); err != nil { // as before a seeding that was cut off
		t.Fatal(err)
	}
	if err := load.Populate(t.Context(), town.Graph, 2, town.Dial(base), nil); err != nil {
		t.Fatal(err)
	}
	again, found, err := load.OpenOrFound(path, town.Graph)
	if err != nil || !found {
		t.Fatalf("found %v, %v", found, err)
	}
	if err := load.Populate(t.Context(), again.Graph, 2, again.Dial(base), nil); err != nil {
		t.Fatal(err)
	}
	if len(f.names) != 6 {
		t.Errorf("%d accounts, want 6", len(f.names))
	}
	if err := again.Save(path); err != nil {
		t.Fatal(err)
	}
	third, err := load.OpenTown(path)
	if err != nil {
		t.Fatal(err)
	}
	before := f.calls["POST /sessions"]
	if err := load.Populate(t.Context(), third.Graph, 2, third.Dial(base), nil); err != nil {
		t.Fatal(err)
	}
	if f.calls["POST /sessions"] != before {
		t.Error("people with a session logged in again")
	}
	stranger, err := load.NewTown(town.Graph)
	if err != nil {
		t.Fatal(err)
	}
	if err := load.Populate(t.Context(), stranger.Graph, 2, stranger.Dial(base), nil); err == nil || !strings.Contains(err.Error(), "--data") {
		t.Errorf("seeding with another secret: %v", err)
	}
}

func TestTownFile(t *testing.T) {
	town := newTown(t, 5)
	town.Enrol(2, "u2")
	path := filepath.Join(t.TempDir(), "seed.json")
	if err := town.Save(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; the file opens accounts", info.Mode(), err)
	}
	back, err := load.OpenTown(path)
	if err != nil {
		t.Fatal(err)
	}
	if back.ID(2) != "u2" || back.ID(1) != "" || back.Name(3) != town.Name(3) || back.Password(3) != town.Password(3) {
		t.Error("read back another town")
	}
	checkMutual(t, back.Graph)
	if back.Graph.Directed() != town.Graph.Directed() {
		t.Errorf("friendships %d, want %d", back.Graph.Directed(), town.Graph.Directed())
	}
	for name, content := range map[string]string{
		"not json":      "x",
		"newer":         `{"version":99}`,
		"no secret":     `{"version":1}`,
		"edge outside":  `{"version":1,"secret":"00","people":[["",""]],"edges":[[0,7]]}`,
		"edge negative": `{"version":1,"secret":"00","people":[["",""],["",""]],"edges":[[-1,1]]}`,
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := load.OpenTown(path); err == nil || !strings.Contains(err.Error(), "seed again") {
				t.Errorf("error %v", err)
			}
		})
	}
	if _, err := load.OpenTown(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestRunModes(t *testing.T) {
	f, town, base := populated(t, 12)
	for _, mode := range []load.Mode{load.FanOut, load.Reads, load.OpenLoop, load.Mixed} {
		t.Run(string(mode), func(t *testing.T) {
			c := load.Config{Mode: mode, Duration: 100 * time.Millisecond, Graph: town.Graph, Dial: town.Dial(base, base), Workers: 4}
			if mode == load.OpenLoop {
				c.Rate = 300
			}
			f.mu.Lock()
			before := f.posts
			f.mu.Unlock()
			res, err := load.Run(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if err := res.Void(); err != nil {
				t.Error(err)
			}
			if res.Calls() == 0 {
				t.Error("no calls")
			}
			if mode == load.OpenLoop && res.Calls() != 30 {
				t.Errorf("%d calls at 300 a second in 100 ms", res.Calls())
			}
			if posted := f.posts - before; int(res.Latency[load.VerbPost].Count()) != posted {
				t.Errorf("%d posts counted, %d made", res.Latency[load.VerbPost].Count(), posted)
			}
		})
	}
}

func TestTalk(t *testing.T) {
	fake, town, base := populated(t, 20)
	g, dial := town.Graph, town.Dial(base)
	m, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	id, err := m.Compose(t.Context(), 0, "hello")
	if err != nil {
		t.Fatal(err)
	}
	fake.refuse = func(call int, _ string) bool { return call%2 == 0 } // what is refused is done later
	posts, err := load.Talk(t.Context(), g, 3, 2, 1, dial, nil)
	if err != nil || posts != 1 {
		t.Fatalf("%d posts, %v", posts, err)
	}
	sees := len(g.Friends[0]) + 1
	if got := fake.calls["comments on "+id]; got != 3 {
		t.Errorf("%d comments, want 3", got)
	}
	if got, want := fake.calls["like on "+id], min(3, sees); got != want {
		t.Errorf("%d likes, want %d", got, want)
	}
	for person := range g.People() {
		if got := fake.calls["like by "+town.ID(person)+" on "+id]; got > 1 {
			t.Errorf("person %d liked it %d times", person, got)
		}
	}
}

func TestArrive(t *testing.T) {
	f, base := newFake(t)
	g, err := load.Star(30)
	if err != nil {
		t.Fatal(err)
	}
	town, err := load.NewTown(g)
	if err != nil {
		t.Fatal(err)
	}
	dial := town.Dial(base)
	if err := load.Populate(t.Context(), g, 4, dial, nil); err != nil {
		t.Fatal(err)
	}
	a, err := load.Arrive(t.Context(), g, 0, 1, time.Minute, dial)
	if err != nil || a.Missing != 0 || a.Took <= 0 {
		t.Errorf("%+v, %v", a, err)
	}
	lost := town.ID(7)
	f.lose = func(_ int, reader string) bool { return reader == lost }
	if a, err = load.Arrive(t.Context(), g, 0, 2, 10*time.Millisecond, dial); err != nil || a.Missing != 1 {
		t.Errorf("one delivery is lost: %+v, %v", a, err)
	}
	if _, err := load.Star(0); err == nil {
		t.Error("a star of nobody")
	}
}

func TestRunIsVoidOnFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		plant func(*fake)
		want  string
	}{
		"twice": {func(f *fake) { f.twice = func(post int, _ string) bool { return post == 5 } }, "twice"},
		"leak":  {func(f *fake) { f.leak = func(post int, _ string) bool { return post == 5 } }, "no friend"},
		"error": {func(f *fake) { f.fail = func(r *http.Request) bool { return r.URL.Path == "/posts" && f.posts == 9 } }, "planted"},
	} {
		t.Run(name, func(t *testing.T) {
			f, town, base := populated(t, 30)
			f.mu.Lock()
			tc.plant(f)
			f.mu.Unlock()
			res, err := load.Run(t.Context(), load.Config{
				Mode: load.FanOut, Duration: 100 * time.Millisecond, Graph: town.Graph, Dial: town.Dial(base),
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := res.Void(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("void %v, want %q", err, tc.want)
			}
		})
	}
}

func TestRunFindsTheOneMissingDelivery(t *testing.T) {
	f, town, base := populated(t, 12)
	lost := false
	f.lose = func(int, string) bool { // the first delivery of all
		first := !lost
		lost = true
		return first
	}
	res, err := load.Run(t.Context(), load.Config{
		Mode: load.FanOut, Duration: 50 * time.Millisecond, Graph: town.Graph, Dial: town.Dial(base), Settle: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.Check.Missing != 1 || res.Void() == nil || len(res.Check.Examples) != 1 {
		t.Errorf("check %+v", res.Check)
	}
}

func TestRunSeesLateDeliveries(t *testing.T) {
	f, town, base := populated(t, 12)
	type delivery struct{ id, reader string }
	var held []delivery
	f.lose = func(post int, reader string) bool {
		if post == 1 {
			held = append(held, delivery{"p00000001", reader})
		}
		return post == 1
	}
	looks := 0
	f.fail = func(r *http.Request) bool { // a look at the timelines long after the last post brings them
		if r.URL.Path == "/timeline" {
			if looks++; looks == 60 {
				for _, d := range held {
					f.timeline[d.reader] = append([]string{d.id}, f.timeline[d.reader]...)
				}
			}
		}
		return false
	}
	res, err := load.Run(t.Context(), load.Config{
		Mode: load.FanOut, Duration: 500 * time.Millisecond, Rate: 200, Graph: town.Graph, Dial: town.Dial(base),
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.Check.Missing != 0 || res.Check.Late == 0 {
		t.Errorf("check %+v", res.Check)
	}
}

func TestRunLogsInAgain(t *testing.T) {
	f, town, base := populated(t, 5)
	f.mu.Lock()
	clear(f.tokens) // all sessions have ended
	f.mu.Unlock()
	res, err := load.Run(t.Context(), load.Config{Mode: load.Mixed, Duration: 50 * time.Millisecond, Graph: town.Graph, Dial: town.Dial(base)})
	if err != nil || res.Void() != nil {
		t.Errorf("%v, %v", err, res.Void())
	}
}

func TestRunRefusesBadConfig(t *testing.T) {
	g, err := load.Generate(5, 1)
	if err != nil {
		t.Fatal(err)
	}
	good := load.Config{Mode: load.Reads, Duration: time.Second, Graph: g}
	for name, spoil := range map[string]func(*load.Config){
		"mode":     func(c *load.Config) { c.Mode = "Z" },
		"duration": func(c *load.Config) { c.Duration = 0 },
		"rate":     func(c *load.Config) { c.Rate = -1 },
		"no rate":  func(c *load.Config) { c.Mode = load.OpenLoop },
		"once":     func(c *load.Config) { c.Once, c.Rate = true, 100 },
		"workers":  func(c *load.Config) { c.Workers = 1 << 20 },
		"nobody":   func(c *load.Config) { c.Graph = nil },
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			spoil(&c)
			if _, err := load.Run(t.Context(), c); err == nil {
				t.Error("it ran")
			}
		})
	}
}

func TestRunOnce(t *testing.T) {
	_, town, base := populated(t, 40)
	res, err := load.Run(t.Context(), load.Config{
		Mode: load.FanOut, Once: true, Active: 30, Duration: time.Hour, Workers: 4, Graph: town.Graph, Dial: town.Dial(base),
	})
	if err != nil || res.Void() != nil {
		t.Fatalf("%v, %v", err, res.Void())
	}
	friends := 0
	for _, f := range town.Graph.Friends[:30] {
		friends += len(f)
	}
	if res.Calls() != 30 || res.Deliveries != int64(friends) {
		t.Errorf("%d calls with %d deliveries, want one of each of 30 people with %d friends", res.Calls(), res.Deliveries, friends)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	_, town, base := populated(t, 5)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := load.Run(ctx, load.Config{Mode: load.Reads, Duration: time.Hour, Graph: town.Graph, Dial: town.Dial(base)})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestConnAddress(t *testing.T) {
	for _, bad := range []string{"", "127.0.0.1:8080", "ftp://x", "http://", "http://x/path", "http://[::1", "://"} {
		if _, err := load.NewConn(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	c, err := load.NewConn("http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(t.Context(), load.Request{Method: http.MethodGet, Path: "/"}); err == nil || !strings.Contains(err.Error(), "GET /") {
		t.Errorf("nobody listens: %v", err)
	}
	if _, err := c.Do(t.Context(), load.Request{Method: http.MethodGet, Path: "/ HTTP/1.1\r\nX: y"}); err == nil || !strings.Contains(err.Error(), "line break") {
		t.Errorf("injected header: %v", err)
	}
}
