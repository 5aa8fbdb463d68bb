// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/bench/redisref"
	"github.com/sluice-rpc/sluice/app/load"
)

// frontArg as the first argument makes the program the HTTP front of the reference.
const frontArg = "redisref-front"

// startReference runs Redis and, as a process of its own, the front.
func startReference(ctx context.Context, c *config, dir string) (*system, error) {
	path, err := exec.LookPath(c.redis)
	if err != nil {
		return nil, fmt.Errorf("%w (on Debian: apt-get install redis-server)", err)
	}
	data := filepath.Join(dir, "redis")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	server, err := redisref.Start(ctx, path, data, &tail{})
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		server.Stop()
		return nil, err
	}
	address := filepath.Join(data, "front.addr")
	proc, err := start("the reference's front", self, frontArg, server.Addr, address)
	if err != nil {
		server.Stop()
		return nil, err
	}
	s := &system{
		name:  "moments.ref",
		about: "Redis sorted sets, AOF flushed before the answer (appendfsync always), no cap, no authentication, no filter; Go net/http front",
		pids:  []int{server.Pid(), proc.cmd.Process.Pid},
		alive: proc.exited,
		stop:  func() { proc.stop(); server.Stop() },
	}
	base, err := awaitFile(ctx, address, proc)
	if err != nil {
		s.stop()
		return nil, err
	}
	s.dial = func() (load.Target, error) { return redisref.NewTarget(base) }
	return s, nil
}

// awaitFile returns the content of a file that a starting process writes when it is ready.
func awaitFile(ctx context.Context, path string, p *process) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		b, err := os.ReadFile(path)
		if err == nil && len(b) > 0 {
			return string(b), nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%s is not ready: %w; its output:\n%s", p.name, ctx.Err(), p.log)
		case <-tick.C:
		}
		if err := p.exited(); err != nil {
			return "", err
		}
	}
}

// front serves the reference over the Redis at args[0] and writes its own address to the file args[1].
func front(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("want the address of Redis and a file for the own address")
	}
	debug.SetGCPercent(400) // as one would: the heap is small, and a pipeline is many short-lived commands
	f := redisref.NewFront(args[0])
	defer f.Close()
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: f.Handler(), ReadHeaderTimeout: 10 * time.Second}
	var wg sync.WaitGroup
	wg.Go(func() {
		<-ctx.Done()
		_ = srv.Close() // the bench is over
	})
	tmp := args[1] + ".tmp"
	if err := os.WriteFile(tmp, []byte("http://"+ln.Addr().String()), 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, args[1]); err != nil {
		return err
	}
	err = srv.Serve(ln)
	if errors.Is(err, http.ErrServerClosed) {
		wg.Wait()
		return nil
	}
	return err
}
