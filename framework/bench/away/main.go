// SPDX-License-Identifier: Apache-2.0

//go:build etcd

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/bench/faults/fleet"
	"github.com/sluice-rpc/sluice/framework/bench/figure"
	"github.com/sluice-rpc/sluice/framework/bench/wait"
	"github.com/sluice-rpc/sluice/framework/discovery"
	"github.com/sluice-rpc/sluice/framework/discovery/etcd"
)

const kind = "etcd_away"

// etcdEnv tells instances where they register.
const etcdEnv = "SLUICE_DRILL_ETCD"

type config struct {
	lasts  time.Duration
	binary string
	json   string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == fleet.ChildArg {
		os.Exit(fleet.Main(os.Args[2:], register))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var cfg config
	flags := flag.NewFlagSet("away", flag.ContinueOnError)
	flags.DurationVar(&cfg.lasts, "lasts", 20*time.Second, "how long etcd is away, at least 8s")
	flags.StringVar(&cfg.binary, "etcd", "", "the program of etcd")
	flags.StringVar(&cfg.json, "json", "", "file to write the metrics to, one JSON object a line")
	switch err := flags.Parse(os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil || flags.NArg() > 0 || cfg.binary == "" || cfg.lasts < 8*time.Second:
		fmt.Fprintln(os.Stderr, "away: want -etcd, -lasts of at least 8s, and no arguments", err)
		os.Exit(2)
	}
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "away: the run is void:", err)
		stop()
		os.Exit(1)
	}
}

// run takes etcd away from four instances and their callers, by SIGKILL. Meanwhile one
// instance is killed and starts again on its port, and a fifth comes, which nobody can
// know of before etcd is back.
func run(ctx context.Context, cfg config) error {
	dir, err := os.MkdirTemp("", "sluice-away-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &store{binary: cfg.binary, dir: filepath.Join(dir, "data")}
	for _, addr := range []*string{&s.addr, &s.peer} {
		if *addr, err = freePort(); err != nil {
			return err
		}
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	defer s.kill()
	if err := os.Setenv(etcdEnv, s.addr); err != nil {
		return err
	}
	defer os.Unsetenv(etcdEnv)

	f, err := fleet.Start(ctx)
	if err != nil {
		return err
	}
	defer f.Stop()
	c, err := etcdClient(s.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := fleet.Call(ctx, nil, framework.WithDiscovery(etcd.Source{Client: c, Log: slog.New(slog.DiscardHandler)}))
	if err != nil {
		return err
	}
	defer l.Stop()
	if err := l.UntilServed(ctx, f.Names()...); err != nil { // all is well
		return err
	}

	before, began := l.Attempts(), time.Now()
	l.Record(began)
	s.kill()
	if err := wait.For(ctx, cfg.lasts/4); err != nil {
		return err
	}
	f.All[0].Kill()
	fifth, err := fleet.StartOne(ctx, "serve", "instance-new", "127.0.0.1:0")
	if err != nil {
		return err
	}
	f.All = append(f.All, fifth)
	if err := wait.For(ctx, cfg.lasts/4); err != nil {
		return err
	}
	if err := f.Replace(ctx, 0, "serve"); err != nil {
		return err
	}
	again := time.Now()
	if err := l.UntilServed(ctx, f.All[0].Name); err != nil {
		return fmt.Errorf("started again without etcd: %w", err)
	}
	restarted := time.Since(again)
	if err := wait.For(ctx, time.Until(began.Add(cfg.lasts))); err != nil {
		return err
	}
	r := l.Recorded()
	r.Attempts = l.Attempts() - before

	healed := time.Now()
	if err := s.start(ctx); err != nil {
		return err
	}
	if err := l.UntilServed(ctx, f.Names()...); err != nil {
		return err
	}
	r.Recovery = time.Since(healed)
	all := append(r.Report(kind),
		figure.Of("faults."+kind+".restarted_s", "s", []float64{restarted.Seconds()}),
		figure.Of("faults."+kind+".away_s", "s", []float64{cfg.lasts.Seconds()}))
	fmt.Printf("           away for %v; an instance that started again without etcd was called after %.1fs\n", cfg.lasts, restarted.Seconds())
	if cfg.json == "" {
		return nil
	}
	return figure.Write(cfg.json, all)
}

// store is etcd.
type store struct {
	binary, dir string
	addr, peer  string
	cmd         *exec.Cmd
}

func (s *store) start(ctx context.Context) error {
	client, peer := "http://"+s.addr, "http://"+s.peer
	s.cmd = exec.CommandContext(ctx, s.binary, "--name", "drill", "--data-dir", s.dir, "--log-level", "error",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "drill="+peer)
	s.cmd.Stdout, s.cmd.Stderr = io.Discard, io.Discard
	if err := s.cmd.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, fleet.Patience, fmt.Errorf("etcd does not answer within %v", fleet.Patience))
	defer cancel()
	c, err := etcdClient(s.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		ask, cancel := context.WithTimeout(ctx, time.Second)
		_, err := c.Get(ask, "ready")
		cancel()
		if err == nil {
			return nil
		}
		if err := wait.For(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func (s *store) kill() {
	_ = s.cmd.Process.Signal(syscall.SIGKILL)
	_ = s.cmd.Wait()
}

func etcdClient(addr string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{addr}, Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
}

func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// register keeps an instance in etcd until ctx ends.
func register(ctx context.Context, addr string) error {
	c, err := etcdClient(os.Getenv(etcdEnv))
	if err != nil {
		return err
	}
	defer c.Close()
	r, err := etcd.NewRegistration(c, fleet.Service, discovery.Instance{Addr: addr})
	if err != nil {
		return err
	}
	r.Log = slog.New(slog.DiscardHandler)
	return r.Run(ctx)
}
