// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// nodeEnv makes the test binary a node on the data directory that it names.
const nodeEnv = "MOMENTS_TEST_NODE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(nodeEnv); dir != "" {
		os.Exit(serveNode(dir))
	}
	goleak.VerifyTestMain(m,
		// The pollers and idle workers of netpoll live as long as the process.
		goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"),
		goleak.IgnoreAnyFunction("github.com/cloudwego/gopkg/concurrency/gopool.(*Pool).runWorker"),
		goleak.IgnoreAnyFunction("github.com/cloudwego/gopkg/concurrency/gopool.(*Pool).ticker"),
		goleak.IgnoreAnyFunction("github.com/bytedance/gopkg/util/gopool.(*worker).run.func1"),
		goleak.Cleanup(func(code int) {
			http.DefaultClient.CloseIdleConnections()
			os.Exit(code)
		}))
}

// serveNode runs all roles until standard input ends, and tells where on standard
// output.
func serveNode(dir string) int {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	err := func() error {
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		data, err := cluster.OpenData(dir)
		if err != nil {
			return err
		}
		node, err := cluster.Start(ctx, testConfig(data, topology.Roles()...))
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop()
		}()
		if err := json.NewEncoder(os.Stdout).Encode(stateOf(node)); err != nil {
			return err
		}
		return node.Run(ctx)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func testConfig(data *cluster.Data, roles ...topology.Role) cluster.Config {
	t := topology.Default()
	t.Gateway.Listen = "127.0.0.1:0"
	t.Gateway.Limits = false
	return cluster.Config{Topology: t, Roles: roles, Data: data, CheapPasswords: true}
}

func stateOf(n *cluster.Node) cluster.State {
	s := cluster.State{PID: os.Getpid(), Region: 1, Gateways: []cluster.GatewayState{{URL: n.URL()}}, Services: map[topology.Role]cluster.Running{}}
	for _, r := range topology.Services() {
		if at, ok := n.Running(r); ok {
			s.Services[r] = at
		}
	}
	return s
}

// runNode runs a node until the test ends or stop is called.
func runNode(t *testing.T, cfg cluster.Config) (n *cluster.Node, stop func()) {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	n, err := cluster.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("node: %v", err)
		}
	}
	t.Cleanup(stop)
	return n, stop
}

func openData(t *testing.T, dir string) *cluster.Data {
	t.Helper()
	d, err := cluster.OpenData(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// clients are the services of a node, over the wire.
type clients struct {
	momentsv1.AccountServiceClient
	posts     momentsv1.PostServiceClient
	timelines momentsv1.TimelineServiceClient
	comments  momentsv1.CommentServiceClient
	conns     []*framework.Conn
}

func dial(t *testing.T, s cluster.State) *clients {
	t.Helper()
	c := &clients{}
	to := func(r topology.Role) *framework.Conn {
		conn, err := framework.Dial(framework.ClientConfig{Service: string(r), Addrs: []string{s.Services[r].Addr}, Connections: 2})
		if err != nil {
			t.Fatal(err)
		}
		c.conns = append(c.conns, conn)
		return conn
	}
	c.AccountServiceClient = momentsv1.NewAccountServiceClient(to(topology.Account))
	c.posts = momentsv1.NewPostServiceClient(to(topology.Post))
	c.timelines = momentsv1.NewTimelineServiceClient(to(topology.Timeline))
	c.comments = momentsv1.NewCommentServiceClient(to(topology.Comment))
	return c
}

func (c *clients) close() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

const password = "correct horse"

func register(t *testing.T, c momentsv1.AccountServiceClient, name string) string {
	t.Helper()
	res, err := c.Register(t.Context(), &momentsv1.RegisterRequest{Name: name, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	return res.GetProfile().GetUserId()
}

// TestOneProcess brings all up in one process and goes through every service once,
// then stops, starts, backs up and restores.
func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	data := openData(t, filepath.Join(dir, "data"))
	n, stop := runNode(t, testConfig(data, topology.Roles()...))
	state := stateOf(n)
	if err := data.WriteState(state); err != nil {
		t.Fatal(err)
	}
	c := dial(t, state)
	defer c.close()
	mary, john := register(t, c, "Mary"), register(t, c, "John")
	if _, err := c.RequestFriend(t.Context(), &momentsv1.RequestFriendRequest{UserId: mary, OtherId: john}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AcceptFriend(t.Context(), &momentsv1.AcceptFriendRequest{UserId: john, OtherId: mary}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.posts.Publish(t.Context(), &momentsv1.PublishRequest{AuthorId: mary, IdempotencyKey: "k", Text: "hello", Audience: momentsv1.Audience_AUDIENCE_FRIENDS}); err != nil {
		t.Fatal(err)
	}
	wantHome(t, c, john, "hello")

	for _, path := range []string{"/", "/livez", "/readyz", "/openapi.yaml"} {
		res, err := http.Get(n.URL() + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("GET %s: %s", path, res.Status)
		}
	}

	photo := filepath.Join("blobs", "media", "photo")
	if err := os.MkdirAll(filepath.Dir(filepath.Join(data.Dir(), photo)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data.Dir(), photo), []byte("a photo"), 0o600); err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(dir, "backup")
	if err := cluster.Backup(t.Context(), data.Dir(), backup); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Backup(t.Context(), data.Dir(), backup); err == nil {
		t.Error("a backup over a backup was accepted")
	}
	stop()
	if err := cluster.Backup(t.Context(), data.Dir(), filepath.Join(dir, "late")); !errors.Is(err, cluster.ErrNotRunning) {
		t.Errorf("backup of what is stopped: %v, want %v", err, cluster.ErrNotRunning)
	}

	restored := filepath.Join(dir, "restored")
	if err := cluster.Restore(t.Context(), backup, restored); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Restore(t.Context(), backup, restored); err == nil {
		t.Error("a restore over data was accepted")
	}
	if b, err := os.ReadFile(filepath.Join(restored, photo)); err != nil || string(b) != "a photo" {
		t.Errorf("the restored photo: %q, %v", b, err)
	}
	for _, from := range []string{data.Dir(), restored} {
		n, stop := runNode(t, testConfig(openData(t, from), topology.Roles()...))
		c := dial(t, stateOf(n))
		wantHome(t, c, john, "hello")
		c.close()
		stop()
	}
}

// wantHome waits until the reader's timeline begins with a text.
func wantHome(t *testing.T, c *clients, reader, text string) {
	t.Helper()
	var last string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		res, err := c.timelines.Home(t.Context(), &momentsv1.HomeRequest{ViewerId: reader})
		if err != nil {
			last = err.Error()
		} else if items := res.GetItems(); len(items) > 0 && items[0].GetPost().GetText() == text {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%q is not in the timeline after a minute %s", text, last)
}

// TestRolesApart runs two groups of roles on one data directory, as two processes
// would, on sockets that their parent has bound.
func TestRolesApart(t *testing.T) {
	data := openData(t, t.TempDir())
	first := testConfig(data, topology.Account, topology.Post, topology.Media)
	second := testConfig(data, topology.Timeline, topology.Comment, topology.Notify, topology.Edge, topology.Gateway)
	first.Sockets, second.Sockets = map[string]net.Listener{}, map[string]net.Listener{"gateway": bind(t)}
	for _, r := range topology.Placed() {
		lis, admin := bind(t), bind(t)
		own := &first
		if slices.Contains(second.Roles, r) {
			own = &second
		}
		own.Sockets[string(r)], own.Sockets[string(r)+"-admin"] = lis, admin
		for _, cfg := range []*cluster.Config{&first, &second} {
			cfg.Topology.Service(r).Addrs = []string{lis.Addr().String()}
		}
	}
	runNode(t, first)
	door := second.Sockets["gateway"].Addr().String()
	n, _ := runNode(t, second)
	if n.URL() != "http://"+door {
		t.Errorf("the gateway is on %s, want its socket %s", n.URL(), door)
	}
	res, err := http.Post(n.URL()+"/accounts", "application/json", strings.NewReader(`{"name":"Mary","password":"correct horse"}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		t.Errorf("register over two nodes: %s", res.Status)
	}
}

// TestClassesOfRoutes: a node takes the gateway's table, and refuses to start with one
// that is wrong.
func TestClassesOfRoutes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "qos.yaml")
	cfg := testConfig(openData(t, t.TempDir()), topology.Roles()...)
	cfg.Topology.Gateway.QoSTable = file
	if err := os.WriteFile(file, []byte("classes:\n  GET /timeline: best\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "qos.yaml:2: classes.GET /timeline") {
		t.Errorf("start with a wrong table: %v", err)
	}
	if err := os.WriteFile(file, []byte("classes:\n  GET /timeline: critical\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n, _ := runNode(t, cfg)
	wanted := []string{"service gateway: admission on", "service timeline: admission on", "critical"}
	for deadline := time.Now().Add(time.Minute); ; { // servers and entry show themselves once they serve
		page := get(t, "http://"+n.GatewayAdmin()+"/admin/qos")
		missing := slices.DeleteFunc(slices.Clone(wanted), func(want string) bool { return strings.Contains(page, want) })
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q on the page:\n%s", missing, page)
		}
		pause := time.NewTimer(10 * time.Millisecond)
		<-pause.C
	}
}

// get gives a page.
func get(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	page, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// bind gives a listener that a node takes over.
func bind(t *testing.T) net.Listener {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return lis
}

func TestStartRefuses(t *testing.T) {
	busy, strange := bind(t), bind(t)
	defer func() { _ = busy.Close() }()
	data := openData(t, t.TempDir())
	for _, c := range []struct {
		name, want string
		cfg        func() cluster.Config
	}{
		{"no role", "no role", func() cluster.Config { return testConfig(data) }},
		{"a service that nobody told of", "--set account.addrs=", func() cluster.Config { return testConfig(data, topology.Gateway) }},
		{"a busy port", "address already in use", func() cluster.Config {
			cfg := testConfig(data, topology.Roles()...)
			cfg.Topology.Gateway.Listen = busy.Addr().String()
			return cfg
		}},
		{"a busy port of a service", "address already in use", func() cluster.Config {
			cfg := testConfig(data, topology.Roles()...)
			cfg.Topology.Post.Listen = busy.Addr().String()
			return cfg
		}},
		{"a socket of nobody's", "name it account, account-admin, gateway", func() cluster.Config {
			cfg := testConfig(data, topology.Account, topology.Gateway)
			cfg.Sockets = map[string]net.Listener{"post": strange}
			return cfg
		}},
		{"no data", "needs a data directory", func() cluster.Config { return testConfig(nil, topology.Account) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := cluster.Start(t.Context(), c.cfg())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	if _, err := strange.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a start that failed leaves its socket open: %v", err)
	}
	t.Run("after all that the directory is free", func(t *testing.T) {
		_, stop := runNode(t, testConfig(data, topology.Roles()...))
		_, err := cluster.Start(t.Context(), testConfig(data, topology.Roles()...))
		if err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("a second node on the directory: %v, want in use", err)
		}
		stop()
	})
}

func TestBackupDoorWantsItsToken(t *testing.T) {
	data := openData(t, t.TempDir())
	n, _ := runNode(t, testConfig(data, topology.Roles()...))
	at, _ := n.Running(topology.Account)
	dest := filepath.Join(t.TempDir(), "copy")
	for _, c := range []struct {
		name, token, body string
		want              int
	}{
		{"no token", "", `{"dest":"` + dest + `"}`, http.StatusUnauthorized},
		{"a wrong token", "Bearer " + strings.Repeat("0", 64), `{"dest":"` + dest + `"}`, http.StatusUnauthorized},
		{"a relative path", "right", `{"dest":"copy"}`, http.StatusBadRequest},
		{"no path", "right", `x`, http.StatusBadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+at.Admin+"/backup", strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", c.token)
			if c.token == "right" {
				token, err := cluster.ReadToken(data.Dir())
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer "+token)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != c.want {
				t.Errorf("%s, want %d", res.Status, c.want)
			}
			if _, err := os.Stat(dest); err == nil {
				t.Error("something was written")
			}
		})
	}
}

func TestDataDirectory(t *testing.T) {
	t.Run("a new one is opened again", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "a", "b")
		openData(t, dir)
		openData(t, dir)
		info, err := os.Stat(filepath.Join(dir, "admin.token"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("token file: %v, %v, want mode 0600", info, err)
		}
	})
	t.Run("locked once", func(t *testing.T) {
		dir := t.TempDir()
		a, b := openData(t, dir), openData(t, dir)
		if err := a.Lock(); err != nil {
			t.Fatal(err)
		}
		if err := b.Lock(); !errors.Is(err, cluster.ErrInUse) {
			t.Errorf("second lock: %v, want %v", err, cluster.ErrInUse)
		}
		if err := a.Unlock(); err != nil {
			t.Fatal(err)
		}
		if err := b.Lock(); err != nil {
			t.Errorf("after unlocking: %v", err)
		}
		_ = b.Unlock()
	})
	for _, c := range []struct {
		name, file, content string
		want                error
	}{
		{"a foreign directory", "letter.txt", "dear Mary", cluster.ErrForeign},
		{"a foreign stamp", "FORMAT", "something else", cluster.ErrForeign},
		{"a newer format", "FORMAT", "moments data 2\n", cluster.ErrNewer},
	} {
		t.Run(c.name+" is refused untouched", func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := cluster.OpenData(dir); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 1 {
				t.Errorf("the directory holds %v, %v, want what it held", entries, err)
			}
		})
	}
	t.Run("a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := cluster.OpenData(file); err == nil {
			t.Error("was accepted")
		}
	})
	t.Run("an unwritable directory", func(t *testing.T) {
		if os.Geteuid() == 0 {
			t.Skip("root may write everywhere")
		}
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		if _, err := cluster.OpenData(dir); err == nil {
			t.Error("was accepted")
		}
	})
	t.Run("no state", func(t *testing.T) {
		if _, err := cluster.ReadState(t.TempDir()); !errors.Is(err, cluster.ErrNotRunning) {
			t.Errorf("error %v, want %v", err, cluster.ErrNotRunning)
		}
	})
	t.Run("no backup", func(t *testing.T) {
		if err := cluster.Restore(t.Context(), t.TempDir(), filepath.Join(t.TempDir(), "new")); err == nil {
			t.Error("an empty directory was taken for a backup")
		}
	})
}

func TestRolesOf(t *testing.T) {
	got, err := cluster.RolesOf([]string{"post", "account", "post"})
	if err != nil || len(got) != 2 {
		t.Errorf("got %v, %v, want two roles", got, err)
	}
	if _, err := cluster.RolesOf([]string{"poster"}); err == nil || !strings.Contains(err.Error(), "use account, post, comment, notify, timeline, media, edge, gateway") {
		t.Errorf("error %v, want one that names the roles", err)
	}
}
