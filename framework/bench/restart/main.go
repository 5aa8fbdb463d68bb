// SPDX-License-Identifier: Apache-2.0

// Command restart restarts a service under load, again and again and with another binary
// each time, and looks at what its callers see of it.
//
//	go run ./restart -json ../../build/drill-restart.jsonl
//	go run ./restart -count 5
//
// Hot: one instance, which hands its listeners to a new program on SIGHUP; its callers
// come over Sluice and over HTTP, with POST, which no client makes twice. Rolling: three
// instances, ended by SIGTERM and started from the new binary one after the other, called
// over Sluice. In between a binary that ends at once, and one that is never healthy: they
// must change nothing.
//
// A call counts as made during a restart if it was under way between the signal and the
// end of the old process; restart.p99_ratio compares these with all others. It exits 0
// when it has measured, whether or not a goal is met.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-rpc/sluice/framework/bench/figure"

	"github.com/sluice-rpc/sluice/framework/bench/wait"
)

const (
	instances  = 3                // of the rolling restarts
	calm       = time.Second      // between two restarts
	patience   = 30 * time.Second // for anything at all
	brokenWait = 5 * time.Second  // in which a broken binary has been given up
)

type config struct {
	count int
	json  string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var cfg config
	flags := flag.NewFlagSet("restart", flag.ContinueOnError)
	flags.IntVar(&cfg.count, "count", 100, "hot restarts, and rolling restarts of all instances")
	flags.StringVar(&cfg.json, "json", "", "file to write the metrics to, one JSON object a line")
	switch err := flags.Parse(os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil || flags.NArg() > 0 || cfg.count < 1:
		fmt.Fprintln(os.Stderr, "restart: want -count of at least 1, and no arguments", err)
		os.Exit(2)
	}
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "restart: the run is void:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg config) error {
	// The processes that follow one another are no children of ours but for this.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of what is started: %w", err)
	}
	dir, err := os.MkdirTemp("", "sluice-restart-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := binaries{dir: dir}
	fmt.Printf("building the versions ...\n")
	for _, v := range []string{"a", "b", "ends", "sick"} {
		if err := b.build(ctx, v); err != nil {
			return err
		}
	}
	fmt.Printf("%d callers, %v between their calls; load average %s before\n\n%-10s %8s %10s %8s %12s %12s %8s\n",
		callers, pause, figure.LoadAverage(), "", "restarts", "calls", "failed", "p99 calm", "p99 during", "ratio")
	hot, rollbackOK, err := hotRestarts(ctx, cfg, b)
	if err != nil {
		return fmt.Errorf("hot: %w", err)
	}
	rolling, err := rollingRestarts(ctx, cfg, b)
	if err != nil {
		return fmt.Errorf("rolling: %w", err)
	}
	one := func(name, unit string, v float64, g *figure.Goal) figure.Metric {
		m := figure.Of(name, unit, []float64{v})
		if g != nil {
			m.Judge(g, v)
		}
		return m
	}
	all := []figure.Metric{
		one("restart.count", "restarts", float64(2*cfg.count), nil),
		one("restart.calls", "calls", float64(hot.calls()+rolling.calls()), nil),
		one("restart.failed_calls", "calls", float64(hot.failed+rolling.failed), figure.AtMost(0)),
		one("restart.p99_ratio", "ratio", max(hot.ratio(), rolling.ratio()), figure.AtMost(2)),
		one("restart.hot.p99_ratio", "ratio", hot.ratio(), nil),
		one("restart.hot.took_ms", "ms", hot.took(), nil),
		one("restart.rolling.p99_ratio", "ratio", rolling.ratio(), nil),
		one("restart.rolling.took_ms", "ms", rolling.took(), nil),
		one("restart.rollback_ok", "share", rollbackOK, figure.AtLeast(1)),
	}
	fmt.Println()
	for _, m := range all {
		met := ""
		if m.Goal != nil {
			met = fmt.Sprintf("  goal %v: %v", m.Goal, map[bool]string{true: "met", false: "MISSED"}[*m.Met])
		}
		fmt.Printf("%-28s %10.4g %s%s\n", m.Name, m.Value, m.Unit, met)
	}
	if cfg.json == "" {
		return nil
	}
	return figure.Write(cfg.json, all)
}

// hotRestarts hands one instance over count times, and then tries broken binaries.
func hotRestarts(ctx context.Context, cfg config, b binaries) (*result, float64, error) {
	if err := b.install("a"); err != nil {
		return nil, 0, err
	}
	p, err := b.start(ctx, "127.0.0.1:0", "127.0.0.1:0")
	if err != nil {
		return nil, 0, err
	}
	defer p.out.Close()
	pid := p.pid
	defer func() { _ = end(pid, syscall.SIGKILL) }()
	l, err := startLoad(ctx, []string{p.calls}, p.requests)
	if err != nil {
		return nil, 0, err
	}
	defer l.stop()
	r := &result{}
	versions := []string{"a", "b"}
	for i := range cfg.count {
		if err := wait.For(ctx, calm); err != nil {
			return nil, 0, err
		}
		version := versions[(i+1)%2]
		if err := b.install(version); err != nil {
			return nil, 0, err
		}
		began := time.Now()
		if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
			return nil, 0, err
		}
		if err := reap(ctx, pid); err != nil {
			return nil, 0, err
		}
		r.restarted(began, time.Now())
		if pid, err = l.servedBy(ctx, version); err != nil {
			return nil, 0, err
		}
	}
	if err := wait.For(ctx, calm); err != nil {
		return nil, 0, err
	}
	rollbackOK := 1.0
	for _, broken := range []string{"ends", "sick"} {
		if err := b.install(broken); err != nil {
			return nil, 0, err
		}
		if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
			return nil, 0, err
		}
		if err := wait.For(ctx, brokenWait); err != nil {
			return nil, 0, err
		}
		now, err := l.servedBy(ctx, "")
		if err != nil {
			return nil, 0, err
		}
		if now != pid {
			rollbackOK = 0
		}
	}
	l.collect(r)
	fmt.Println(r.row("hot"))
	return r, rollbackOK, nil
}

// rollingRestarts restarts all instances count times, one after the other.
func rollingRestarts(ctx context.Context, cfg config, b binaries) (*result, error) {
	if err := b.install("a"); err != nil {
		return nil, err
	}
	all, addrs := make([]instance, instances), make([]string, instances)
	defer func() {
		for _, p := range all {
			_ = end(p.pid, syscall.SIGKILL)
			_ = p.out.Close()
		}
	}()
	for i := range all {
		var err error
		if all[i], err = b.start(ctx, "127.0.0.1:0", "127.0.0.1:0"); err != nil {
			return nil, err
		}
		addrs[i] = all[i].calls
	}
	l, err := startLoad(ctx, addrs, "")
	if err != nil {
		return nil, err
	}
	defer l.stop()
	r := &result{}
	versions := []string{"a", "b"}
	for n := range cfg.count {
		if err := wait.For(ctx, calm); err != nil {
			return nil, err
		}
		version := versions[(n+1)%2]
		if err := b.install(version); err != nil {
			return nil, err
		}
		began := time.Now()
		for i, p := range all {
			if err := end(p.pid, syscall.SIGTERM); err != nil {
				return nil, err
			}
			_ = p.out.Close()
			if all[i], err = b.start(ctx, p.calls, p.requests); err != nil {
				return nil, err
			}
			if err := l.served(ctx, fmt.Sprintf("%s/%d", version, all[i].pid)); err != nil {
				return nil, err
			}
		}
		r.restarted(began, time.Now())
	}
	if err := wait.For(ctx, calm); err != nil {
		return nil, err
	}
	l.collect(r)
	fmt.Println(r.row("rolling"))
	return r, nil
}

// binaries are the versions, and the file that is started.
type binaries struct{ dir string }

func (b binaries) build(ctx context.Context, version string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", "-X main.version="+version, "-o", filepath.Join(b.dir, version), "./restart/instance")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build version %s (run this from framework/bench): %w\n%s", version, err, out)
	}
	return nil
}

// install puts a version in the place of the one before, as deployments do.
func (b binaries) install(version string) error {
	next := filepath.Join(b.dir, "next")
	if err := os.Link(filepath.Join(b.dir, version), next); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(b.dir, "current"))
}

// instance is a process that serves.
type instance struct {
	pid             int
	calls, requests string
	out             *os.File // what it and those after it write: it stays open for them
}

func (b binaries) start(ctx context.Context, calls, requests string) (p instance, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return p, err
	}
	p.out = r
	cmd := exec.Command(filepath.Join(b.dir, "current"), calls, requests) //nolint:noctx // it is ended by a signal
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // without a terminal
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return p, err
	}
	p.pid = cmd.Process.Pid
	if err := cmd.Process.Release(); err != nil { // reap waits for it
		return p, err
	}
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return p, err
	}
	if _, err := fmt.Fscan(r, &p.calls, &p.requests); err != nil {
		end(p.pid, syscall.SIGKILL)
		return p, fmt.Errorf("an instance did not begin to serve: %w", err)
	}
	return p, ctx.Err()
}

// end signals a process and waits for its end.
func end(pid int, s syscall.Signal) error {
	if err := syscall.Kill(pid, s); err != nil {
		return err
	}
	return reap(context.Background(), pid)
}

// reap waits for the end of a process.
func reap(ctx context.Context, pid int) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		var status syscall.WaitStatus
		switch got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil); {
		case err != nil:
			return fmt.Errorf("wait for process %d: %w", pid, err)
		case got == pid && status.Exited() && status.ExitStatus() != 0:
			return fmt.Errorf("process %d ended with %d", pid, status.ExitStatus())
		case got == pid:
			return nil
		}
		if err := wait.For(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("process %d did not end within %v", pid, patience)
}
