// SPDX-License-Identifier: Apache-2.0

package ocean_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-rpc/sluice/app/ocean"
	"github.com/sluice-rpc/sluice/app/ocean/emulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shore is a gateway and the admin pages of a region in one, as far as the page asks.
// All shores share one world, as if the lines between them took no time.
type shore struct {
	*world
	name string
}

type world struct {
	mu       sync.Mutex
	ids      map[string]string   // guarded by mu; name -> id
	asked    map[string]bool     // guarded by mu; id of who -> id of whom
	comments []map[string]string // guarded by mu; the newest last
	posts    int                 // guarded by mu
	down     map[string]bool     // guarded by mu
}

func (s *shore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var body map[string]string
	_ = json.NewDecoder(r.Body).Decode(&body)
	me := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	answer := func(status int, v any) {
		w.Header().Set("Moments-Session", "seen")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	if s.down[s.name] {
		answer(http.StatusServiceUnavailable, map[string]any{"title": "down"})
		return
	}
	switch {
	case r.URL.Path == "/regions":
		answer(200, map[string]any{
			"line":  map[string]any{"peers": []any{map[string]any{"region": 2, "name": "hk", "state": "up", "dialled": map[string]any{"rtt_ms": 80.5, "sent_bytes": 10}}}},
			"queue": map[string]any{"peers": []any{map[string]any{"region": 2, "send": map[string]any{"depth": 3, "lag_ms": 1500, "alarm": "behind"}}}},
		})
	case r.URL.Path == "/accounts":
		if s.ids[body["name"]] != "" {
			answer(http.StatusConflict, map[string]any{"type": "name-taken"})
			return
		}
		s.ids[body["name"]] = "id-of-" + body["name"]
		answer(http.StatusCreated, map[string]any{})
	case r.URL.Path == "/sessions":
		id := s.ids[body["name"]]
		answer(http.StatusCreated, map[string]any{"token": id, "user": map[string]any{"id": id}})
	case me == "":
		answer(http.StatusUnauthorized, map[string]any{})
	case r.URL.Path == "/friends":
		items := []any{}
		for pair := range s.asked {
			if a, b, _ := strings.Cut(pair, ">"); a == me && s.asked[b+">"+a] {
				items = append(items, map[string]any{"id": b})
			}
		}
		answer(200, map[string]any{"items": items})
	case r.URL.Path == "/friend-requests":
		s.asked[me+">"+body["user"]] = true
		answer(200, map[string]any{"state": "requested"})
	case r.URL.Path == "/posts":
		s.posts++
		s.comments = nil
		answer(http.StatusCreated, map[string]any{"id": fmt.Sprint("post", s.posts)})
	case strings.HasSuffix(r.URL.Path, "/comments") && r.Method == http.MethodPost:
		if body["text"] == "refused" {
			answer(http.StatusUnprocessableEntity, map[string]any{"detail": "the text is not liked"})
			return
		}
		s.comments = append(s.comments, map[string]string{"id": fmt.Sprint("c", len(s.comments)), "writer_id": me, "text": body["text"], "reply_to": body["reply_to"], "created_at": "2026-11-22T12:00:00Z"})
		answer(http.StatusCreated, map[string]any{})
	case strings.HasSuffix(r.URL.Path, "/comments"):
		answer(200, map[string]any{"items": append([]map[string]string{}, s.comments...), "comment_count": len(s.comments)})
	default:
		answer(http.StatusNotFound, map[string]any{})
	}
}

// page runs a Server over two shores, and gives its address.
func page(t *testing.T) (*ocean.Server, *world, *emulator.Line, string) {
	t.Helper()
	w := &world{ids: map[string]string{}, asked: map[string]bool{}, down: map[string]bool{}}
	line := emulator.NewLine(emulator.Setting{Delay: 40 * time.Millisecond})
	cfg := ocean.Config{Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Lines: []ocean.Line{{A: "sh", B: "hk", Line: line}}}
	for _, name := range []string{"sh", "hk"} {
		server := httptest.NewServer(&shore{world: w, name: name})
		t.Cleanup(server.Close)
		admin := strings.TrimPrefix(server.URL, "http://")
		cfg.Regions = append(cfg.Regions, ocean.Region{Name: name, URL: server.URL, Admins: func() (map[string]string, error) {
			if name == "hk" {
				return nil, errors.New("it does not run")
			}
			return map[string]string{"post": admin, "comment": admin}, nil
		}})
	}
	s := ocean.New(cfg)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	server := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		server.Client().CloseIdleConnections()
		server.Close()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s, w, line, server.URL
}

func state(t *testing.T, url string) (st ocean.State) {
	t.Helper()
	res, err := http.Get(url + "/api/state")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close(); http.DefaultClient.CloseIdleConnections() }()
	if err := json.NewDecoder(res.Body).Decode(&st); err != nil {
		t.Fatal(err)
	}
	return st
}

func ready(t *testing.T, url string) ocean.State {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for {
		st := state(t, url)
		if st.Scene.Lacks == "" {
			return st
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("the scene still lacks %s", st.Scene.Lacks)
		}
	}
}

func post(t *testing.T, url, body string) (status int, said string) {
	t.Helper()
	res, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close(); http.DefaultClient.CloseIdleConnections() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(b))
}

func TestState(t *testing.T) {
	_, _, _, url := page(t)
	st := ready(t, url)
	if len(st.Regions) != 2 || !st.Regions[0].Up || st.Regions[1].Up {
		t.Fatalf("regions: %+v", st.Regions)
	}
	if want := (ocean.QueueInfo{To: "hk", State: "up", RTTMs: 80.5, Depth: 6, LagMS: 1500, Sent: 20, Alarm: "behind"}); len(st.Regions[0].Queues) != 1 || st.Regions[0].Queues[0] != want {
		t.Errorf("of two services: %+v, want %+v", st.Regions[0].Queues, want)
	}
	if len(st.Lines) != 1 || st.Lines[0].A != "sh" || st.Lines[0].There.DelayMS != 40 {
		t.Errorf("lines: %+v", st.Lines)
	}
	if v := st.Scene.Views; len(v) != 2 || v[0].Person != "Wang" || v[1].Person != "Mary" || st.Scene.Text == "" {
		t.Errorf("scene: %+v", st.Scene)
	}
}

// TestSeaChanges: a region that joins is seen with the eyes of a visitor, who may comment
// there; one that leaves is seen no more, nor is who lived there; one that comes back later
// has a visitor.
func TestSeaChanges(t *testing.T) {
	s, w, line, url := page(t)
	ready(t, url)
	var all []ocean.Region
	for _, name := range []string{"sh", "hk", "ca"} {
		server := httptest.NewServer(&shore{world: w, name: name})
		t.Cleanup(server.Close)
		all = append(all, ocean.Region{Name: name, URL: server.URL, Admins: func() (map[string]string, error) { return nil, errors.New("it does not run") }})
	}
	first, lines := s.Sea()
	ca := all[2]
	is := func(when string, want ...string) {
		t.Helper()
		st := state(t, url)
		var got, regions []string
		for _, v := range st.Scene.Views {
			who := v.Region + " " + v.Person
			if v.Guest {
				who += " on a visit"
			}
			got, regions = append(got, who), append(regions, v.Region)
		}
		var names []string
		for _, r := range st.Regions {
			names = append(names, r.Name)
		}
		if slices.Sort(names); !slices.Equal(got, want) || !slices.Equal(names, slices.Sorted(slices.Values(regions))) {
			t.Errorf("%s: regions %v, views %v, want %v", when, names, got, want)
		}
	}
	is("at first", "sh Wang", "hk Mary")
	s.SetSea(append(slices.Clone(first), ca), append(slices.Clone(lines), ocean.Line{A: "sh", B: "ca", Line: line}))
	is("joined", "sh Wang", "hk Mary", "ca Wang on a visit")
	if status, said := post(t, url+"/api/comments", `{"region":"ca","text":"from afar"}`); status != http.StatusNoContent {
		t.Errorf("the visitor cannot comment: %d %s", status, said)
	}
	if st := state(t, url); len(st.Lines) != 2 || len(st.Scene.Views[2].Comments) != 1 || st.Scene.Views[2].Comments[0].Writer != "Wang" {
		t.Errorf("%+v", st)
	}
	s.SetSea(first, lines)
	is("left", "sh Wang", "hk Mary")
	if status, _ := post(t, url+"/api/comments", `{"region":"ca","text":"too late"}`); status != http.StatusNotFound {
		t.Errorf("somebody comments in a region that has left: %d", status)
	}
	s.SetSea(first[1:], nil)
	is("the first one left", "hk Mary")
	s.SetSea([]ocean.Region{first[1], all[0]}, nil)
	is("and is there again", "hk Mary", "sh Mary on a visit")
	s.SetSea([]ocean.Region{all[0]}, nil)
	if st := state(t, url); len(st.Scene.Views) != 0 {
		t.Errorf("nobody is left: %+v", st.Scene.Views)
	}
}

func TestSay(t *testing.T) {
	_, w, _, url := page(t)
	ready(t, url)
	for _, c := range []struct {
		body   string
		status int
		says   string
	}{
		{`{"region":"sh","text":"hello"}`, http.StatusNoContent, ""},
		{`{"region":"hk","text":"hello yourself","reply_to":"c0"}`, http.StatusNoContent, ""},
		{`{"region":"ca","text":"hello"}`, http.StatusNotFound, "nobody lives"},
		{`{"region":"sh","text":"refused"}`, http.StatusUnprocessableEntity, "not liked"},
		{`{"region":"sh"`, http.StatusBadRequest, "not understood"},
		{`{"region":"sh","words":"hello"}`, http.StatusBadRequest, "words"},
	} {
		if status, said := post(t, url+"/api/comments", c.body); status != c.status || !strings.Contains(said, c.says) {
			t.Errorf("%s: %d %q, want %d with %q", c.body, status, said, c.status, c.says)
		}
	}
	st := state(t, url)
	for _, v := range st.Scene.Views {
		if len(v.Comments) != 2 || v.Comments[0].Writer != "Wang" || v.Comments[1].Writer != "Mary" || v.Comments[1].ReplyTo != "c0" || v.Count != 2 {
			t.Errorf("%s sees %+v", v.Person, v)
		}
	}
	w.mu.Lock()
	w.down["hk"] = true
	w.mu.Unlock()
	if status, _ := post(t, url+"/api/comments", `{"region":"hk","text":"hello"}`); status != http.StatusServiceUnavailable {
		t.Errorf("a region that is down: %d", status)
	}
	if st := state(t, url); st.Scene.Views[1].Problem == "" || st.Scene.Views[0].Problem != "" {
		t.Errorf("views: %+v", st.Scene.Views)
	}
	w.mu.Lock()
	w.down["hk"] = false
	w.mu.Unlock()
	if status, _ := post(t, url+"/api/posts", "{}"); status != http.StatusNoContent {
		t.Errorf("a new post: %d", status)
	}
	for st = state(t, url); st.Scene.Post != "post2"; st = state(t, url) {
		if t.Context().Err() != nil {
			t.Fatal("there is no new post")
		}
	}
}

func TestLines(t *testing.T) {
	_, _, line, url := page(t)
	for _, c := range []struct {
		name, path, body string
		status           int
		there, back      emulator.Setting
	}{
		{"cut", "/api/lines/sh/hk", `{"cut":true}`, 204, emulator.Setting{Delay: 40e6, Cut: true}, emulator.Setting{Delay: 40e6, Cut: true}},
		{"heal one way, named the other way round", "/api/lines/hk/sh", `{"cut":false,"from":"hk"}`, 204, emulator.Setting{Delay: 40e6, Cut: true}, emulator.Setting{Delay: 40e6}},
		{"delay and rate", "/api/lines/sh/hk", `{"delay_ms":150,"rate":12500000,"cut":false}`, 204, emulator.Setting{Delay: 150e6, Rate: 125e5}, emulator.Setting{Delay: 150e6, Rate: 125e5}},
		{"a wrong delay", "/api/lines/sh/hk", `{"delay_ms":-1}`, 400, emulator.Setting{Delay: 150e6, Rate: 125e5}, emulator.Setting{Delay: 150e6, Rate: 125e5}},
		{"from elsewhere", "/api/lines/sh/hk", `{"cut":true,"from":"ca"}`, 400, emulator.Setting{Delay: 150e6, Rate: 125e5}, emulator.Setting{Delay: 150e6, Rate: 125e5}},
		{"no such line", "/api/lines/sh/ca", `{"cut":true}`, 404, emulator.Setting{Delay: 150e6, Rate: 125e5}, emulator.Setting{Delay: 150e6, Rate: 125e5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if status, said := post(t, url+c.path, c.body); status != c.status {
				t.Fatalf("%d %s, want %d", status, said, c.status)
			}
			if there, back, _, _ := line.Is(); there != c.there || back != c.back {
				t.Errorf("it is %+v and %+v, want %+v and %+v", there, back, c.there, c.back)
			}
		})
	}
}

// TestStrangers: a page of another site cuts nothing, and a name that leads here is not
// answered.
func TestStrangers(t *testing.T) {
	_, _, line, url := page(t)
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		status int
	}{
		{"another site", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, http.StatusForbidden},
		{"another origin", func(r *http.Request) { r.Header.Set("Origin", "http://elsewhere.example") }, http.StatusForbidden},
		{"a form", func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, http.StatusUnsupportedMediaType},
		{"another name", func(r *http.Request) { r.Host = "elsewhere.example" }, http.StatusMisdirectedRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/api/lines/sh/hk", strings.NewReader(`{"cut":true}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			c.change(req)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close(); http.DefaultClient.CloseIdleConnections() }()
			if res.StatusCode != c.status {
				t.Errorf("%s, want %d", res.Status, c.status)
			}
			if there, _, _, _ := line.Is(); there.Cut {
				t.Error("the line is cut")
			}
		})
	}
}

// TestFiles: the page is there whole, under a policy that allows nothing inline.
func TestFiles(t *testing.T) {
	_, _, _, url := page(t)
	refs := regexp.MustCompile(`(?:href|src)="(/[^"]*)"|from '\./([^']+)'`)
	todo, seen := []string{"/"}, map[string]bool{}
	for len(todo) > 0 {
		path := todo[0]
		todo = todo[1:]
		if seen[path] {
			continue
		}
		seen[path] = true
		res, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK || res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %s, %v", path, res.Status, err)
		}
		if csp := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: policy %q", path, csp)
		}
		if path == "/" && (bytes.Contains(b, []byte("<style")) || bytes.Contains(b, []byte(" style=")) || bytes.Contains(b, []byte("<script>")) || bytes.Contains(b, []byte(" onclick="))) {
			t.Error("something is inline")
		}
		for _, m := range refs.FindAllStringSubmatch(string(b), -1) {
			if m[1] != "" {
				todo = append(todo, m[1])
			} else {
				todo = append(todo, "/"+m[2])
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()
	files, err := fs.Glob(os.DirFS("web"), "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if file != "index.html" && !seen["/"+file] {
			t.Errorf("%s is not used", file)
		}
	}
	for _, path := range []string{"/../ocean.go", "/nothing", "/index.html/.."} {
		res, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode == http.StatusOK && path != "/index.html/.." {
			t.Errorf("%s is there", path)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestTwoLanguages: both have the same words.
func TestTwoLanguages(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("web", "i18n.js"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "en: {")
	en, zh, ok := strings.Cut(text, "'zh-CN': {")
	zh, _, _ = strings.Cut(zh, "\n};")
	if !ok {
		t.Fatal("there are no two lists")
	}
	words := regexp.MustCompile(`(?m)(?:^|[,{] ?)\s*(\w+): ['(\x60{]`)
	keys := func(s string) (all []string) {
		for _, m := range words.FindAllStringSubmatch(s, -1) {
			all = append(all, m[1])
		}
		slices.Sort(all)
		return all
	}
	if a, b := keys(en), keys(zh); len(a) < 30 || !slices.Equal(a, b) {
		t.Errorf("English has %v, Chinese %v", a, b)
	}
}
