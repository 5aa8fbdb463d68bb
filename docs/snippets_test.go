// SPDX-License-Identifier: Apache-2.0

// Package docs_test holds the Go code of the pages, so that it compiles, and a test that
// each page says the same.
//
//nolint:staticcheck // the code stands as it does on the pages
package docs_test

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	greetv1 "github.com/sluice-rpc/sluice/examples/hello/hello/v1"
	hellov1 "github.com/sluice-rpc/sluice/examples/hello/hello/v1"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/identity/devca"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/restart"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

//go:embed snippets_test.go
var source string

// TestSnippets looks for the lines of each piece of Go on the pages in this file, of
// which the compiler has seen that they are right.
func TestSnippets(t *testing.T) {
	have := lines(source)
	for page, least := range map[string]int{
		"../README.md": 2, "guide.md": 6, "config.md": 2, "metrics.md": 1, "resilience.md": 1, "security.md": 1, "serving.md": 1,
	} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, block := range regexp.MustCompile("(?ms)^ *```go\n(.*?)^ *```$").FindAllStringSubmatch(string(text), -1) {
			if elsewhere.MatchString(block[1]) {
				continue
			}
			found++
			if want := lines(block[1]); !strings.Contains(have, want) {
				t.Errorf("%s: not in snippets_test.go, or not in these lines:\n%s", page, block[1])
			}
		}
		if found < least {
			t.Errorf("%s: %d pieces of Go, want at least %d: the search is broken", page, found, least)
		}
	}
}

// elsewhere is code of packages that are too much to link for this: OpenTelemetry's, and
// etcd's.
var elsewhere = regexp.MustCompile(`otlp\.|etcd\.|\bconsole\.`)

// lines gives code without what is no matter: space, and what a reader is to fill in.
func lines(code string) string {
	code = strings.ReplaceAll(code, "{ ... }", "{ return nil }")
	var b strings.Builder
	for line := range strings.Lines(code) {
		if line = strings.Join(strings.Fields(line), " "); line != "" && line != "..." {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

type greeter struct {
	hellov1.UnimplementedGreeterServer
}

func (greeter) Greet(_ context.Context, req *hellov1.GreetRequest) (*hellov1.GreetResponse, error) {
	if req.GetName() == "" {
		return nil, rpc.Errorf(rpc.InvalidArgument, "name is empty: say whom to greet")
	}
	return &hellov1.GreetResponse{Greeting: "Hello, " + req.GetName() + "!"}, nil
}

func main() {
	srv := framework.NewServer(framework.ServerConfig{Service: "hello", Addr: "127.0.0.1:7000"})
	hellov1.RegisterGreeterServer(srv, greeter{})
	if err := srv.Run(context.Background()); err != nil { // drains on SIGTERM
		log.Fatal(err)
	}
}

func client(ctx context.Context) error {
	conn, err := framework.Dial(framework.ClientConfig{Service: "hello", Addrs: []string{"127.0.0.1:7000"}})
	if err != nil {
		return err
	}
	defer conn.Close()
	res, err := hellov1.NewGreeterClient(conn).Greet(ctx, &hellov1.GreetRequest{Name: "Mary"})
	if err != nil {
		return err // rpc.CodeOf(err), rpc.ReasonOf(err)
	}
	fmt.Println(res.GetGreeting())
	return nil
}

func fault(conn rpc.Invoker, seed uint64) {
	fault := rpctest.NewFault(conn, seed)
	client := greetv1.NewGreeterClient(fault)
	fault.Set(greetv1.GreeterGreetMethod.FullName(), rpctest.Rule{Share: .3, Delay: time.Second})
	fault.Set("", rpctest.Rule{Share: 1, Err: rpc.Errorf(rpc.Unavailable, "gone")}) // all others
	fault.Set("", rpctest.Rule{Share: 1, Lost: true})                               // ran, and nobody heard
	_ = client
}

func entries(ctx context.Context, mux *http.ServeMux, key qos.Key, timeline edge.HandlerFunc, sessions struct{ Whose func(*http.Request) string }) {
	entry := edge.New(edge.Config{
		Service: "front",
		User:    sessions.Whose, // who it is, known for sure and without a call; else ""
		Key:     key,            // the same at all entries: qos.ParseKey, openssl rand -hex 32
	})
	mux.Handle("GET /timeline", entry.Handle("GET /timeline", greetv1.GreeterGreetMethod, timeline))
	go entry.Run(ctx) // wait for it, after the server's end
}

func web(ctx context.Context, client greetv1.GreeterClient, ln net.Listener) error {
	entry, mux := edge.New(edge.Config{Service: "front"}), http.NewServeMux()
	mux.Handle("GET /greet", entry.Handle("GET /greet", greetv1.GreeterGreetMethod, func(w http.ResponseWriter, r *http.Request) error {
		res, err := client.Greet(r.Context(), &greetv1.GreetRequest{Name: r.FormValue("name")})
		if err != nil {
			return err // its code is a status, its message the problem document
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, err = io.WriteString(w, res.GetGreeting())
		return err
	}))
	web, err := edge.NewServer(edge.ServerConfig{}, mux)
	// ...
	go entry.Run(ctx)        // wait for it, after the server's end
	err = web.Serve(ctx, ln) // until ctx ends, then it drains
	return err
}

func traces(ctx context.Context, origins []tracing.Origin) {
	t := framework.Tracer() // of this process
	err := t.SetRates(tracing.Rate{PerSecond: 1, Ratio: .01}, nil)

	client := &http.Client{Transport: &edge.Transport{Service: "payments"}} // traceparent, an edge, records

	outbox := framework.NewQueue("greet.v1.Greeter/outbox", qos.Background, greetv1.GreeterGreetMethod)
	sending := outbox.Begin(ctx)                                                    // store sending.Origin with the message,
	sending.Done(err)                                                               // and say how that has ended
	err = outbox.Take(ctx, origins, func(ctx context.Context) error { return nil }) // works on messages

	sweep := framework.NewJob("sweep", qos.Background) // an entry of its own
	err = sweep.Run(ctx, func(ctx context.Context) error { return nil })
	_, _ = client, err
}

func logs() {
	slog.SetDefault(slog.New(framework.LogHandler(slog.NewJSONHandler(os.Stderr, nil))))
}

func settings(ctx context.Context, srv *framework.Server, conn *framework.Conn) {
	type Config struct {
		Server framework.ServerConfig `config:"server"`
		Store  framework.ClientConfig `config:"store"`
	}

	src := config.Source{File: "hello.yaml", EnvPrefix: "HELLO", Env: os.Environ(), Args: os.Args[1:]}
	cfg, err := config.Load(Config{}, src)
	_, _ = cfg, err

	go framework.Watch(ctx, srv, Config{}, src, // wait for it
		func(c Config) framework.ServerConfig { return c.Server },
		framework.ClientOf[Config]{Conn: conn, Pick: func(c Config) framework.ClientConfig { return c.Store }},
	)
}

func explained(file string, defaults struct{ Server framework.ServerConfig }) {
	cfg, settings, err := config.Explain(defaults, config.Source{File: file, EnvPrefix: "HELLO", Env: os.Environ(), Args: os.Args[1:]})
	// ...
	srv := framework.NewServer(cfg.Server, framework.WithSettings(settings))
	_, _ = srv, err
}

func items() {
	published := framework.Items().Counter(metrics.Desc{
		Name: "moments.post.published", Help: "Posts published.", Unit: "{post}",
	}, metrics.Label{Name: "kind", Value: "photo"}) // moments_post_published_total{kind="photo"}
	published.Inc() // a few nanoseconds, no allocation
}

func fallback(cfg framework.ClientConfig) {
	conn, err := framework.Dial(cfg, framework.WithFallback(
		func(ctx context.Context, m *rpc.Method, req proto.Message, err error) (proto.Message, error) {
			if m == greetv1.GreeterGreetMethod {
				return &greetv1.GreetResponse{Greeting: "hello"}, nil
			}
			return nil, err
		}))
	_, _ = conn, err
}

func certificates(dir string) {
	ca, err := devca.New() // package framework/identity/devca: for tests and one's own machine
	files, err := ca.Issue(dir, "cart", "spiffe://example.org/shop/cart", time.Now(), time.Now().Add(time.Hour))
	_, _ = files, err
}

func successors(web interface {
	Serve(ctx context.Context, ln any) error
},
) {
	program := restart.Process()
	ctx, stop := program.Watch(context.Background(), slog.Default())
	defer stop()
	ln, err := program.Listen("entry", ":8080")
	// ... servers with framework.WithoutSignals()
	program.Ready() // all is being served
	err = web.Serve(ctx, ln)
	_ = err
}

// What nobody calls is there for the compiler.
var _ = []any{main, client, fault, entries, web, traces, logs, settings, explained, items, fallback, certificates, successors}
