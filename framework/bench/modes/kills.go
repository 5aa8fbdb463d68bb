// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/bench/figure"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// What the kills meet.
const (
	killWorkers = 4
	killClients = 8
	killConns   = 8  // of each client: that all are with one worker is next to impossible
	killCallers = 64 // by turns of each client
	killCount   = 20
)

// caller makes one call after the other.
type caller struct {
	client testpb.EchoClient

	mu     sync.Mutex
	worker int // that has answered last; guarded by mu
	calls  int // answered; guarded by mu
}

// losses are the calls that have failed. Inside a killed worker are those that were sent
// over a connection that ended before the answer: nothing else ends connections.
type losses struct {
	mu              sync.Mutex
	inside, outside int   // guarded by mu
	first           error // outside; guarded by mu
}

func (l *losses) add(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := errors.AsType[*rpc.Error](err); ok && e.Reason == rpc.ReasonNetwork && !e.NotRun {
		l.inside++
		return
	}
	l.outside++
	if l.first == nil {
		l.first = err
	}
}

// Without retries and breakers: what is seen is what the server does.

// kills kills workers under load, one after the other has come back, and counts the calls
// that fail: those that were in the killed worker must, no other may.
func kills(ctx context.Context) (all []figure.Metric, err error) {
	server, err := begin(ctx, framework.ModeProcess, killWorkers)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.end()) }()
	lost := &losses{}
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	clients := make([]testpb.EchoClient, killClients)
	for i := range clients {
		conn, err := framework.Dial(framework.ClientConfig{Service: "modes", Addrs: []string{server.addr}, Connections: killConns, Retries: framework.Off, NoBreaker: []string{"*"}})
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		clients[i] = testpb.NewEchoClient(conn)
	}
	callers := make([]*caller, killCallers)
	for i := range callers {
		callers[i] = &caller{client: clients[i%killClients]}
		wg.Go(func() { callers[i].run(load, lost) })
	}
	began := time.Now()
	var even float64
	for n := range killCount {
		spread, err := answered(ctx, callers)
		if err != nil {
			return nil, err
		}
		most, at := 0, 0
		for pid, n := range spread {
			if n > most {
				most, at = n, pid
			}
		}
		if n == 0 {
			even = float64(most) * killWorkers / killCallers
		}
		if err := syscall.Kill(at, syscall.SIGKILL); err != nil { // the one that answers most
			return nil, fmt.Errorf("kill worker %d: %w", at, err)
		}
		if err := server.whole(ctx, at); err != nil {
			return nil, err
		}
	}
	if _, err := answered(ctx, callers); err != nil {
		return nil, err
	}
	stop()
	wg.Wait()
	calls := 0
	for _, c := range callers {
		calls += c.calls
	}
	fmt.Printf("\nprocess: %d times one of %d workers killed with SIGKILL within %.1f s, each time the busiest, under %d callers: %d calls answered,\n"+
		"%d failed in a killed worker, %d elsewhere; the busiest answered %.2f of an even share at first\n",
		killCount, killWorkers, time.Since(began).Seconds(), killCallers, calls, lost.inside, lost.outside, even)
	if lost.first != nil {
		fmt.Println("the first that failed elsewhere:", lost.first)
	}
	one := func(name, unit string, v float64, g *figure.Goal) {
		m := figure.Of("modes.process."+name, unit, []float64{v})
		if g != nil {
			m.Judge(g, v)
		}
		all = append(all, m)
	}
	one("kills", "kills", killCount, figure.AtLeast(killCount))
	one("kills_calls", "calls", float64(calls), nil)
	one("failed_inside", "calls", float64(lost.inside), nil)
	one("failed_outside", "calls", float64(lost.outside), figure.AtMost(0))
	one("busiest_share", "ratio", even, nil)
	return all, nil
}

func (c *caller) run(ctx context.Context, lost *losses) {
	for ctx.Err() == nil {
		res, err := c.client.Echo(ctx, &testpb.EchoRequest{Name: "io"})
		if ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		if err != nil {
			lost.add(err)
		} else {
			c.worker = int(res.Id)
			c.calls++
		}
		c.mu.Unlock()
	}
}

// answered waits until every caller has had two answers more, and gives how many each
// worker has of them.
func answered(ctx context.Context, callers []*caller) (map[int]int, error) {
	began := make([]int, len(callers))
	for i, c := range callers {
		c.mu.Lock()
		began[i] = c.calls
		c.mu.Unlock()
	}
	spread := map[int]int{}
	for i, c := range callers {
		for worker, calls := 0, 0; worker == 0 || calls < began[i]+2; {
			if err := wait(ctx); err != nil {
				return nil, err
			}
			c.mu.Lock()
			worker, calls = c.worker, c.calls
			c.mu.Unlock()
			if worker != 0 && calls >= began[i]+2 {
				spread[worker]++
			}
		}
	}
	return spread, nil
}

func wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Millisecond):
		return nil
	}
}

// whole waits until all workers are there again, without one that was killed.
func (s *server) whole(ctx context.Context, but int) error {
	for {
		pids, err := children(s.pid())
		if err != nil {
			return err
		}
		n := 0
		for _, pid := range pids {
			if pid != but {
				n++
			}
		}
		if n == killWorkers {
			return nil
		}
		if err := wait(ctx); err != nil {
			return err
		}
	}
}

// children gives the processes that a process has started.
func children(pid int) (pids []int, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, word := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(word); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids, nil
}
