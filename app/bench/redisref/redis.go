// SPDX-License-Identifier: Apache-2.0

package redisref

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// Redis is a redis-server process of our own.
type Redis struct {
	Addr string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // how; read after done
}

// Start runs the redis-server found at path on a free loopback port, with all its files in dir, and returns when it answers.
// Its messages go to log.
func Start(ctx context.Context, path, dir string, log io.Writer) (*Redis, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	r := &Redis{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), done: make(chan struct{})}
	r.cmd = exec.Command(path, //nolint:noctx // ended by Stop, in order, not killed with the context
		"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir, "--daemonize", "no",
		"--appendonly", "yes", "--appendfsync", "always",
		"--save", "", "--auto-aof-rewrite-percentage", "0")
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting redis-server: %w (on Debian: apt-get install redis-server)", err)
	}
	go func() { // Stop waits for it
		if r.err = r.cmd.Wait(); r.err == nil {
			r.err = errors.New("exit status 0")
		}
		close(r.done)
	}()
	if err := r.ready(ctx); err != nil {
		r.Stop()
		return nil, err
	}
	return r, nil
}

// Pid returns the process's id.
func (r *Redis) Pid() int { return r.cmd.Process.Pid }

// Stop ends the process and waits for it.
func (r *Redis) Stop() {
	_ = r.cmd.Process.Signal(syscall.SIGTERM) // gone already is as good
	timer := time.NewTimer(10 * time.Second)
	defer timer.Stop()
	select {
	case <-r.done:
	case <-timer.C:
		_ = r.cmd.Process.Kill()
		<-r.done
	}
}

func (r *Redis) ready(ctx context.Context) error {
	front := NewFront(r.Addr)
	defer func() { _ = front.Close() }()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := front.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-r.done:
			return fmt.Errorf("redis-server ended: %w", r.err)
		case <-ctx.Done():
			return fmt.Errorf("redis-server at %s does not answer: %w", r.Addr, err)
		case <-tick.C:
		}
	}
}

func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := ln.Addr().(*net.TCPAddr).Port
	return port, ln.Close()
}
