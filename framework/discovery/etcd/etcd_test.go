// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"context"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/sluice-rpc/sluice/framework/discovery"
	"github.com/sluice-rpc/sluice/framework/discovery/etcd"
)

// startEtcd runs a real server; addr is empty for a free port.
func startEtcd(t *testing.T, dir, addr string) (*embed.Etcd, string) {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel, cfg.ZapLoggerBuilder = dir, "error", embed.NewZapLoggerBuilder(zap.NewNop())
	client, peer := url.URL{Scheme: "http", Host: addr}, url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-e.Server.StopNotify(): // the test has closed it
		default:
			e.Close()
		}
	})
	select {
	case <-e.Server.ReadyNotify():
	case <-t.Context().Done():
		t.Fatal("etcd did not start")
	}
	return e, e.Clients[0].Addr().String()
}

func clientOf(t *testing.T, addr string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// run keeps something going until the test, or stop, ends it.
func run(t *testing.T, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func register(t *testing.T, c *clientv3.Client, i discovery.Instance) (r *etcd.Registration, stop func()) {
	t.Helper()
	r, err := etcd.NewRegistration(c, "greeter", i)
	if err != nil {
		t.Fatal(err)
	}
	r.Log = slog.New(slog.DiscardHandler)
	return r, run(t, r.Run)
}

// TestEtcd registers, changes and takes out instances, with etcd away meanwhile.
func TestEtcd(t *testing.T) {
	dir := t.TempDir()
	server, addr := startEtcd(t, dir, "")
	c := clientOf(t, addr)
	lists := make(chan []discovery.Instance, 100)
	source := etcd.Source{Client: c, Log: slog.New(slog.DiscardHandler)}
	run(t, func(ctx context.Context) error {
		return source.Watch(ctx, "greeter", func(all []discovery.Instance) { lists <- all })
	})
	until := func(want ...discovery.Instance) {
		t.Helper()
		limit := time.NewTimer(60 * time.Second)
		defer limit.Stop()
		for {
			select {
			case all := <-lists:
				if slices.Equal(all, want) {
					return
				}
			case <-limit.C:
				t.Fatalf("the list was never %+v", want)
			}
		}
	}
	until()
	a := discovery.Instance{Addr: "10.0.0.1:7000", Campus: "east", Weight: 50, Version: "v1"}
	b := discovery.Instance{Addr: "10.0.0.2:7000", Weight: 100}
	_, stopA := register(t, c, a)
	until(a)
	keptB, _ := register(t, c, b)
	until(a, b)
	for _, bad := range []struct{ key, value string }{
		{"/sluice/instances/greeter/x", "not JSON"}, {"/sluice/instances/greeter/10.0.0.9:1", `{"addr":"10.0.0.8:1"}`},
	} {
		if _, err := c.Put(t.Context(), bad.key, bad.value); err != nil {
			t.Fatal(err)
		}
	}
	b.Draining = true
	if err := keptB.Update(b); err != nil {
		t.Fatal(err)
	}
	until(a, b)
	stopA()
	until(b)

	server.Close()
	<-server.Server.StopNotify()
	b.Draining = false
	if err := keptB.Update(b); err != nil { // it is told when etcd is there again
		t.Fatal(err)
	}
	select {
	case all := <-lists:
		t.Fatalf("etcd is away and the list becomes %+v", all)
	default:
	}
	// Another store, which knows nobody: who was known stays, and who registers comes.
	startEtcd(t, t.TempDir(), addr)
	until(b)
	d := discovery.Instance{Addr: "10.0.0.4:7000", Weight: 100}
	if _, err := c.Put(t.Context(), "/sluice/instances/greeter/"+d.Addr, `{"addr":"10.0.0.4:7000"}`); err != nil {
		t.Fatal(err)
	}
	until(b, d)
}

func TestWrongInstances(t *testing.T) {
	if _, err := etcd.NewRegistration(nil, "greeter", discovery.Instance{Addr: "nowhere"}); err == nil {
		t.Error("an address without a port is taken")
	}
}
