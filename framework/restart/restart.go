// SPDX-License-Identifier: Apache-2.0

// Package restart replaces a running program with a new one on the same listening
// sockets, without a call that fails.
//
// On SIGHUP the program is started once more, from its file as it is now, with the
// sockets that it listens on. The old one goes on as before until the new one says that
// it is healthy; only then it drains and ends. A new one that ends, or is not healthy in
// time, is ended, and nothing has changed but a line in the log. Both share one queue of
// connections that nobody has accepted yet, so that none of them is lost.
//
// A framework.Server does all of this by itself. A program of several servers, or of an
// edge.Server, does what it does:
//
//	program := restart.Process()
//	ctx, stop := program.Watch(context.Background(), slog.Default())
//	defer stop()
//	ln, err := program.Listen("entry", ":8080")
//	...
//	program.Ready() // all is being served
//	err = server.Serve(ctx, ln)
//
// The number of the process changes. Who watches over it must know: it is told to
// NOTIFY_SOCKET as systemd's Type=notify with NotifyAccess=all wants it.
package restart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/child"
	"github.com/sluice-rpc/sluice/framework/internal/runner"
)

// DefaultTimeout is how long a new program may take to become healthy.
const DefaultTimeout = 30 * time.Second

// grace is how long a new program that is not healthy may take to end: it may have begun
// to serve.
const grace = 5 * time.Second

// ErrReplaced is the cause of the end of a context of Watch when a new program has taken
// over.
var ErrReplaced = errors.New("restart: a new program has taken over")

// Program is a process as one that can be replaced. It is safe for concurrent use.
type Program struct {
	child *child.Program

	mu       sync.Mutex
	watchers map[int]context.CancelCauseFunc // guarded by mu
	next     int                             // number of the next watcher; guarded by mu
	healthy  int                             // calls of Ready; guarded by mu
	stop     context.CancelFunc              // of the loop that takes SIGHUP; nil without one; guarded by mu
	done     chan struct{}                   // closed when the loop has ended; guarded by mu
	timeout  time.Duration                   // guarded by mu
}

var process = sync.OnceValue(func() *Program {
	return &Program{child: child.Process(), watchers: map[int]context.CancelCauseFunc{}, timeout: DefaultTimeout}
})

// Process gives this process.
func Process() *Program { return process() }

// Listen gives the socket of a name that the program before has handed on, if it had
// asked for the same address, or else binds the address. The caller closes the listener;
// until then it is handed on to a program after this one.
func (p *Program) Listen(name, addr string) (net.Listener, error) { return p.child.Listen(name, addr) }

// Keep hands on a listener that was bound elsewhere. The next program gets it by Listen,
// with the same name and address.
func (p *Program) Keep(name, addr string, lis net.Listener) { p.child.Keep(name, addr, lis) }

// Forget is for who has closed a listener.
func (p *Program) Forget(lis net.Listener) { p.child.Forget(lis) }

// SetTimeout sets how long a new program may take to become healthy, instead of
// DefaultTimeout.
func (p *Program) SetTimeout(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timeout = d
}

// Timeout gives how long a new program may take to become healthy.
func (p *Program) Timeout() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.timeout
}

// Ready says that all is served that the program before has served. It then drains. Where
// Watch is in use several times, it is the last call of as many that counts. Without a
// program before it does nothing.
func (p *Program) Ready() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.healthy++
	if p.healthy < len(p.watchers) {
		return
	}
	notify("READY=1")
	p.child.Healthy()
}

// IsSuccessor says whether a program before waits for this one to be Ready.
func (p *Program) IsSuccessor() bool { return p.child.HasParent() }

// Watch gives a context that ends when the program is to drain: with ctx, on SIGTERM or
// SIGINT, or, after SIGHUP, when a new program has taken over; the cause is then
// ErrReplaced. Where there is a terminal SIGHUP says that it has gone, and drains. The
// caller calls stop.
func (p *Program) Watch(ctx context.Context, log *slog.Logger) (_ context.Context, stop context.CancelFunc) {
	ctx, noSignals := runner.WithSignals(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	n := p.next
	p.watchers[n] = cancel
	if p.stop == nil {
		var loop context.Context
		loop, p.stop = context.WithCancel(context.WithoutCancel(ctx))
		p.done = make(chan struct{})
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGHUP)
		go p.loop(loop, signals, p.done, log) // the last stop waits for it
	}
	return ctx, sync.OnceFunc(func() {
		noSignals()
		cancel(nil)
		p.unwatch(n)
	})
}

func (p *Program) unwatch(n int) {
	p.mu.Lock()
	delete(p.watchers, n)
	stop, done := p.stop, p.done
	last := len(p.watchers) == 0
	if last {
		p.stop, p.done = nil, nil
	}
	p.mu.Unlock()
	if last {
		stop()
		<-done
	}
}

// loop takes one SIGHUP after the other until a new program has taken over, or it is ended.
func (p *Program) loop(ctx context.Context, signals chan os.Signal, done chan<- struct{}, log *slog.Logger) {
	defer close(done)
	defer signal.Stop(signals)
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		if n := p.child.Worker(); n > 0 {
			log.Warn("not restarted: this is a worker, the process above it takes SIGHUP", slog.Int("worker", n))
			continue
		}
		if hasTerminal() {
			p.drain(errors.New("restart: the terminal has gone"))
			continue
		}
		log.Info("restarting: a new program is started", slog.String("path", p.child.Path()))
		began := time.Now()
		pid, err := p.replace(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			log.Error("not restarted: this program goes on", slog.Any("err", err))
			continue
		}
		log.Info("restarted: a new program has taken over, this one drains", slog.Int("pid", pid), slog.Duration("took", time.Since(began)))
		notify("MAINPID=" + strconv.Itoa(pid))
		p.drain(ErrReplaced)
		<-ctx.Done() // one more SIGHUP is not for a program that drains: it would start a rival
		return
	}
}

func (p *Program) drain(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, cancel := range p.watchers {
		cancel(why)
	}
}

// hasTerminal says whether the process can still be told that its terminal has gone.
var hasTerminal = sync.OnceValue(func() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	_ = f.Close()
	return true
})

// replace starts a new program and waits until it is healthy. After an error it is gone.
func (p *Program) replace(ctx context.Context) (pid int, err error) {
	c, err := p.child.Succeed()
	if err != nil {
		return 0, fmt.Errorf("restart: %w", err)
	}
	ctx, cancel := p.patience(ctx)
	defer cancel()
	if err := c.Wait(ctx, grace); err != nil {
		return 0, fmt.Errorf("restart: %s did not become healthy: %w", p.child.Path(), err)
	}
	pid = c.PID()
	return pid, c.Release()
}

// patience bounds how long a new program may take.
func (p *Program) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	d := p.Timeout()
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("it was not healthy within %v", d))
}

// notify tells systemd, if it asks, as in sd_notify(3).
func notify(state string) {
	addr := os.Getenv("NOTIFY_SOCKET")
	if addr == "" {
		return
	}
	if name, ok := strings.CutPrefix(addr, "@"); ok {
		addr = "\x00" + name
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		return
	}
	_, _ = conn.Write([]byte(state)) // it is not our affair whether it listens
	_ = conn.Close()
}
