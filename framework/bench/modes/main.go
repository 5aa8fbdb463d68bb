// SPDX-License-Identifier: Apache-2.0

// Command modes measures the modes of serving with three handlers: one that waits, one
// that blocks in C, and one that computes.
//
//	go run ./modes -json ../../build/bench-modes.jsonl
//
// Each cell is a fresh server process under a closed loop of callers: calls a second, the
// latency that 99 of 100 keep, and the resident memory and threads of the server at the
// end, with its workers in the mode process. Admission is off: the modes are measured, not
// what it makes of them. Then workers of the mode process are killed under load. It exits 0
// when it has measured.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/bench/figure"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
)

// childArg as the first argument makes the program a server, of the mode and the number of
// workers that follow.
const childArg = "child"

// The work of the handlers.
const (
	waits    = 5 * time.Millisecond // of the first two
	computes = 200 * time.Microsecond
)

// cells are what is measured of each mode.
var cells = []struct {
	handler string
	callers int
}{{"io", 500}, {"cgo", 500}, {"cpu", 50}}

var modes = []string{framework.ModeCoroutine, framework.ModeThread, framework.ModeProcess}

func main() {
	if len(os.Args) == 4 && os.Args[1] == childArg {
		if err := serve(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "modes:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	window := flag.Duration("window", 2*time.Second, "how long a cell is measured")
	path := flag.String("json", "", "file to write the metrics to, one JSON object a line")
	flag.Parse()
	if err := run(ctx, *window, *path); err != nil {
		fmt.Fprintln(os.Stderr, "modes: the run is void:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, window time.Duration, path string) error {
	fmt.Printf("io waits %v, cgo blocks in %s for %v, cpu computes for %v; %v a cell, load average %s before\n\n%-10s %-6s %8s %12s %10s %8s %8s\n",
		waits, blockIn, waits, computes, window, figure.LoadAverage(), "mode", "", "callers", "calls/s", "p99 ms", "MB", "threads")
	var all []figure.Metric
	for _, c := range cells {
		for _, mode := range modes {
			got, err := measure(ctx, mode, c.handler, c.callers, window)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", mode, c.handler, err)
			}
			fmt.Printf("%-10s %-6s %8d %12.0f %10.1f %8.0f %8.0f\n", mode, c.handler, c.callers, got.rate, got.p99, got.mb, got.threads)
			prefix := "modes." + mode + "." + c.handler + "."
			all = append(all,
				figure.Of(prefix+"rate", "calls/s", []float64{got.rate}), figure.Of(prefix+"p99_ms", "ms", []float64{got.p99}),
				figure.Of(prefix+"mb", "MB", []float64{got.mb}), figure.Of(prefix+"threads", "threads", []float64{got.threads}))
		}
	}
	more, err := kills(ctx)
	if err != nil {
		return fmt.Errorf("kills: %w", err)
	}
	all = append(all, more...)
	if path == "" {
		return nil
	}
	return figure.Write(path, all)
}

type cell struct{ rate, p99, mb, threads float64 }

// server is a server process.
type server struct {
	cmd  *exec.Cmd
	in   io.Closer
	addr string
}

// begin starts a server of a mode; 0 workers are as many as there are by default.
func begin(ctx context.Context, mode string, workers int) (*server, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &server{cmd: exec.CommandContext(ctx, exe, childArg, mode, strconv.Itoa(workers))}
	s.cmd.Stderr = os.Stderr
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := fmt.Fscan(out, &s.addr); err != nil {
		return nil, errors.Join(fmt.Errorf("the server did not begin to serve: %w", err), s.end())
	}
	return s, nil
}

func (s *server) pid() int { return s.cmd.Process.Pid }

func (s *server) end() error { return errors.Join(s.in.Close(), s.cmd.Wait()) }

// used gives the resident memory, in MB, and the threads of the server with its workers.
func (s *server) used() (mb, threads float64, err error) {
	pids, err := children(s.pid())
	if err != nil {
		return 0, 0, err
	}
	for _, pid := range append(pids, s.pid()) {
		kb, err := status(pid, "VmRSS:")
		if err != nil {
			return 0, 0, err
		}
		n, err := status(pid, "Threads:")
		if err != nil {
			return 0, 0, err
		}
		mb, threads = mb+kb/1024, threads+n
	}
	return mb, threads, nil
}

// measure runs one cell.
func measure(ctx context.Context, mode, handler string, callers int, window time.Duration) (c cell, err error) {
	server, err := begin(ctx, mode, 0)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, server.end()) }()
	conn, err := framework.Dial(framework.ClientConfig{Service: "modes", Addrs: []string{server.addr}})
	if err != nil {
		return c, err
	}
	defer conn.Close()
	client := testpb.NewEchoClient(conn)

	begin := time.Now().Add(window / 4) // what comes before is warm-up
	end := begin.Add(window)
	var mu sync.Mutex
	var took []float64 // ms; guarded by mu
	var failed error   // guarded by mu
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil {
				began := time.Now()
				_, err := client.Echo(ctx, &testpb.EchoRequest{Name: handler})
				mu.Lock()
				if err != nil {
					failed = errors.Join(failed, err)
				} else if began.After(begin) {
					took = append(took, float64(time.Since(began))/1e6)
				}
				stop := failed != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return c, failed
	}
	if len(took) == 0 {
		return c, fmt.Errorf("no call began and ended within %v: -window must be longer", window)
	}
	slices.Sort(took)
	c.rate, c.p99 = float64(len(took))/window.Seconds(), took[len(took)*99/100]
	c.mb, c.threads, err = server.used()
	return c, err
}

// status reads a number that Linux tells of a process.
func status(pid int, field string) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(field)); ok {
			return strconv.ParseFloat(string(bytes.Fields(rest)[0]), 64)
		}
	}
	return 0, fmt.Errorf("process %d tells no %s", pid, field)
}

type handler struct{ testpb.UnimplementedEchoServer }

// Echo implements testpb.EchoServer.
func (handler) Echo(_ context.Context, req *testpb.EchoRequest) (*testpb.EchoResponse, error) {
	switch req.Name {
	case "io":
		<-time.After(waits)
	case "cgo":
		block(waits)
	case "cpu":
		for end := time.Now().Add(computes); time.Now().Before(end); {
		}
	}
	return &testpb.EchoResponse{Id: int64(os.Getpid())}, nil
}

// serve serves until standard input ends.
func serve(mode, workers string) error {
	n, err := strconv.Atoi(workers)
	if err != nil {
		return err
	}
	srv := framework.NewServer(framework.ServerConfig{Service: "modes", Mode: mode, Workers: n, Admission: framework.Off},
		framework.WithLogger(slog.New(slog.DiscardHandler)))
	testpb.RegisterEchoServer(srv, handler{})
	if err := srv.Listen(); err != nil {
		return err
	}
	fmt.Println(srv.Addr())
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		defer stop()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	return srv.Run(ctx)
}
