// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/bench/figure"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"

	"github.com/sluice-rpc/sluice/framework/bench/wait"
)

const (
	callers = 32
	pause   = 20 * time.Millisecond // of a caller after each call
	limit   = 5 * time.Second       // of a call
)

// call is one call as its caller saw it.
type call struct {
	began time.Time
	took  time.Duration
	err   error
}

// load is the callers, half of them over HTTP if there is an address for it.
type load struct {
	conn *framework.Conn
	web  *http.Client
	end  context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex
	calls []call        // guarded by mu
	who   string        // has answered last, over Sluice; guarded by mu
	seen  chan struct{} // closed and made anew with each answer; guarded by mu
}

func startLoad(ctx context.Context, addrs []string, requests string) (*load, error) {
	conn, err := framework.Dial(framework.ClientConfig{Service: "drill", Addrs: addrs})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &load{conn: conn, web: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}, end: cancel, seen: make(chan struct{})}
	client := testpb.NewEchoClient(conn)
	for i := range callers {
		do := func(ctx context.Context) error { return l.rpc(ctx, client) }
		if i%2 == 0 && requests != "" {
			do = func(ctx context.Context) error { return l.post(ctx, "http://"+requests+"/") }
		}
		l.wg.Go(func() {
			for ctx.Err() == nil {
				l.one(ctx, do)
				_ = wait.For(ctx, pause)
			}
		})
	}
	return l, nil
}

func (l *load) stop() {
	l.end()
	l.wg.Wait()
	l.web.CloseIdleConnections()
	_ = l.conn.Close()
}

func (l *load) one(ctx context.Context, do func(context.Context) error) {
	began := time.Now()
	with, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := do(with)
	if ctx.Err() != nil {
		return // the run has ended
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, call{began, time.Since(began), err})
}

func (l *load) rpc(ctx context.Context, client testpb.EchoClient) error {
	res, err := client.Echo(ctx, &testpb.EchoRequest{Data: make([]byte, 100)})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.who = res.Name
	close(l.seen)
	l.seen = make(chan struct{})
	return nil
}

func (l *load) post(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("hello"))
	if err != nil {
		return err
	}
	res, err := l.web.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

// servedBy waits until an instance of the version answers, and gives its process.
func (l *load) servedBy(ctx context.Context, version string) (pid int, err error) {
	who, err := l.wait(ctx, func(who string) bool { return version == "" || strings.HasPrefix(who, version+"/") })
	if err != nil {
		return 0, err
	}
	_, number, _ := strings.Cut(who, "/")
	return strconv.Atoi(number)
}

// served waits until an instance has answered.
func (l *load) served(ctx context.Context, name string) error {
	_, err := l.wait(ctx, func(who string) bool { return who == name })
	return err
}

func (l *load) wait(ctx context.Context, is func(who string) bool) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("who was waited for has not answered within %v", patience))
	defer cancel()
	for {
		l.mu.Lock()
		seen := l.seen
		l.mu.Unlock()
		select {
		case <-seen:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
		l.mu.Lock()
		who := l.who
		l.mu.Unlock()
		if is(who) {
			return who, nil
		}
	}
}

// result is what the callers have seen.
type result struct {
	restarts     [][2]time.Time
	calm, during []float64 // ms, sorted
	failed       int
}

func (r *result) restarted(from, to time.Time) {
	r.restarts = append(r.restarts, [2]time.Time{from, to})
}

func (r *result) calls() int { return len(r.calm) + len(r.during) + r.failed }

// took is how long a restart takes, ms.
func (r *result) took() float64 {
	ms := make([]float64, len(r.restarts))
	for i, t := range r.restarts {
		ms[i] = float64(t[1].Sub(t[0])) / 1e6
	}
	_, median, _ := figure.Quartiles(ms)
	return median
}

func (r *result) ratio() float64 { return p99(r.during) / p99(r.calm) }

func p99(sorted []float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[len(sorted)*99/100]
}

func (r *result) row(name string) string {
	return fmt.Sprintf("%-10s %8d %10d %8d %9.1f ms %9.1f ms %8.2f", name, len(r.restarts), r.calls(), r.failed, p99(r.calm), p99(r.during), r.ratio())
}

// collect sorts the calls so far into those made during a restart and the others.
func (l *load) collect(r *result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.calls {
		if c.err != nil {
			if r.failed++; r.failed <= 5 {
				fmt.Fprintf(os.Stderr, "failed: %v\n", c.err)
			}
			continue
		}
		ms := float64(c.took) / 1e6
		if slices.ContainsFunc(r.restarts, func(t [2]time.Time) bool { return c.began.Before(t[1]) && c.began.Add(c.took).After(t[0]) }) {
			r.during = append(r.during, ms)
		} else {
			r.calm = append(r.calm, ms)
		}
	}
	slices.Sort(r.calm)
	slices.Sort(r.during)
}
