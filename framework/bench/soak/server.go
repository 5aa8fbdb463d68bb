// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/bench/wait"
	"github.com/sluice-rpc/sluice/framework/grpcserver"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
)

// childArg as the first argument makes the program a server.
const childArg = "child"

// addresses are those of a server; empty ones are free ports.
type addresses struct{ Calls, Streams, Admin string }

// maxInFlight is how many calls a server takes at once, so that some are refused.
const maxInFlight = 100

// serve is a server, which ends with its standard input.
func serve(args []string) error {
	var at addresses
	if len(args) != 1 {
		return errors.New("want addresses")
	}
	if err := json.Unmarshal([]byte(args[0]), &at); err != nil {
		return err
	}
	g := grpcserver.New(grpcserver.Config{Addr: at.Streams})
	srv := framework.NewServer(framework.ServerConfig{
		Service: "soak", Addr: at.Calls, Admin: at.Admin, MaxInFlight: maxInFlight, DrainTimeout: time.Second,
	}, framework.WithTransport(g), framework.WithLogger(slog.New(slog.DiscardHandler)))
	testpb.NewServer().Register(srv)
	new(testpb.FlowService).Register(srv)
	if err := srv.Listen(); err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(addresses{srv.Addr(), g.Addr(), srv.AdminAddr()}); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() { // ends with the process that started this one
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	return srv.Run(ctx)
}

// server is a process that serves.
type server struct {
	at  addresses
	cmd *exec.Cmd
}

// startServer runs this very program as a server and waits until it listens.
func startServer(ctx context.Context, at addresses) (*server, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for _, addr := range []*string{&at.Calls, &at.Streams, &at.Admin} {
		if *addr == "" {
			*addr = "127.0.0.1:0"
		}
	}
	text, err := json.Marshal(at)
	if err != nil {
		return nil, err
	}
	s := &server{cmd: exec.CommandContext(ctx, exe, childArg, string(text))}
	s.cmd.Stderr = os.Stderr
	if _, err = s.cmd.StdinPipe(); err != nil { // held open until the server has ended
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := json.NewDecoder(out).Decode(&s.at); err != nil {
		s.kill()
		return nil, fmt.Errorf("a server did not begin to serve: %w", err)
	}
	return s, nil
}

// kill ends it with no time for anything.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// moments is Moments in one process, with people.
type moments struct {
	binary, dir, admin string
	cmd                *exec.Cmd
	out                *io.PipeWriter
}

// gatewayLine is how Moments says where its admin pages are.
var gatewayLine = regexp.MustCompile(`^ +gateway +\S+, admin http://(\S+)`)

func startMoments(ctx context.Context) (m *moments, err error) {
	dir, err := os.MkdirTemp("", "sluice-soak-")
	if err != nil {
		return nil, err
	}
	m = &moments{binary: dir + "/moments", dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.stop())
		}
	}()
	fmt.Println("building Moments ...")
	module, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/sluice-rpc/sluice").Output()
	if err != nil {
		return m, fmt.Errorf("find the module of Moments (run this from framework/bench): %w", err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-C", strings.TrimSpace(string(module)), "-o", m.binary, "./app/cmd/moments")
	if msg, err := build.CombinedOutput(); err != nil {
		return m, fmt.Errorf("build Moments: %w\n%s", err, msg)
	}
	r, w := io.Pipe()
	m.out = w
	up := exec.CommandContext(ctx, m.binary, "up", "--addr", "127.0.0.1:0", "--data", m.dir+"/data", "--limits", "off", "--password-cost", "min", "--console", "off")
	// Its caches take a part of the memory there is, and would fill for hours with a machine's.
	up.Env = append(os.Environ(), "GOMEMLIMIT=256MiB")
	up.Stdout, up.Stderr = w, w
	up.Cancel = func() error { return up.Process.Signal(syscall.SIGTERM) }
	up.WaitDelay = 20 * time.Second
	if err := up.Start(); err != nil {
		return m, err
	}
	m.cmd = up
	found := make(chan string, 1)
	go func() { // ends with the program
		for lines := bufio.NewScanner(r); lines.Scan(); {
			if match := gatewayLine.FindStringSubmatch(lines.Text()); match != nil && len(found) == 0 {
				found <- match[1]
			}
		}
	}()
	select {
	case m.admin = <-found:
	case <-time.After(time.Minute):
		return m, errors.New("Moments did not come up within a minute")
	}
	if msg, err := exec.CommandContext(ctx, m.binary, "seed", "--users", "40", "--data", m.dir+"/data").CombinedOutput(); err != nil {
		return m, fmt.Errorf("seed Moments: %w\n%s", err, msg)
	}
	return m, nil
}

// load uses Moments until ctx ends, with new connections every twenty seconds, and four
// times as much for the time of fill, so that caches are full by then. A run in which a call
// failed is counted: what came late on a busy machine is no leak.
func (m *moments) load(ctx context.Context, l *load, fill time.Duration) error {
	began := time.Now()
	for seed := 1; ctx.Err() == nil; seed++ {
		rate := "150"
		if time.Since(began) < fill {
			rate = "600"
		}
		use := exec.CommandContext(ctx, m.binary, "load", "--mode", "X", "--rate", rate, "--duration", "20s", "--data", m.dir+"/data", "--seed", fmt.Sprint(seed))
		if msg, err := use.CombinedOutput(); err != nil && ctx.Err() == nil {
			if l.momentsFailed.Add(1) == 1 {
				fmt.Printf("a run of moments load failed:\n%s\n", msg[bytes.LastIndexByte(bytes.TrimSpace(msg), '\n')+1:])
			}
		}
		l.momentsRuns.Add(1)
		_ = wait.For(ctx, time.Second)
	}
	return nil
}

func (m *moments) stop() error {
	var err error
	if m.cmd != nil {
		_ = m.cmd.Process.Signal(syscall.SIGTERM)
		err = m.cmd.Wait()
		_ = m.out.Close()
	}
	return errors.Join(err, os.RemoveAll(m.dir))
}
