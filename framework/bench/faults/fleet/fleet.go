// SPDX-License-Identifier: Apache-2.0

// Package fleet is the instances that drills let go wrong, each a process of its own, and
// the callers that see what comes of it.
package fleet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"

	"github.com/sluice-rpc/sluice/framework/bench/wait"
)

// Fleet is the instances. It is for one goroutine.
type Fleet struct{ All []*Instance }

// Instance is one process.
type Instance struct {
	Name, Addr string
	cmd        *exec.Cmd
	in         io.WriteCloser
}

// Start starts the instances.
func Start(ctx context.Context) (*Fleet, error) {
	f := &Fleet{}
	for i := range Instances {
		p, err := StartOne(ctx, "serve", fmt.Sprintf("instance-%d", i), "127.0.0.1:0")
		if err != nil {
			f.Stop()
			return nil, err
		}
		f.All = append(f.All, p)
	}
	return f, nil
}

// Stop kills all.
func (f *Fleet) Stop() {
	for _, p := range f.All {
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
		p.Kill()
	}
}

// Addrs gives where they serve.
func (f *Fleet) Addrs() (addrs []string) {
	for _, p := range f.All {
		addrs = append(addrs, p.Addr)
	}
	return addrs
}

// Names gives what they answer with.
func (f *Fleet) Names() (names []string) {
	for _, p := range f.All {
		names = append(names, p.Name)
	}
	return names
}

// Plant makes one instance go wrong.
func (f *Fleet) Plant(ctx context.Context, i int, kind string) error {
	p := f.All[i]
	switch kind {
	case "frozen":
		return p.cmd.Process.Signal(syscall.SIGSTOP)
	case "slow":
		_, err := fmt.Fprintln(p.in, "slow")
		return err
	case "killed":
		p.Kill()
		return nil
	default:
		return f.Replace(ctx, i, kind)
	}
}

// Heal makes it as it was.
func (f *Fleet) Heal(ctx context.Context, i int, kind string) error {
	p := f.All[i]
	switch kind {
	case "frozen":
		return p.cmd.Process.Signal(syscall.SIGCONT)
	case "slow":
		_, err := fmt.Fprintln(p.in, "quick")
		return err
	default:
		return f.Replace(ctx, i, "serve")
	}
}

// Replace ends a process and lets another one take its port.
func (f *Fleet) Replace(ctx context.Context, i int, role string) error {
	old := f.All[i]
	old.Kill()
	p, err := StartOne(ctx, role, old.Name, old.Addr)
	if err != nil {
		return err
	}
	f.All[i] = p
	return nil
}

// Kill ends it at once.
func (p *Instance) Kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// StartOne runs this very program as an instance and waits until it listens.
func StartOne(ctx context.Context, role, name, addr string) (*Instance, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &Instance{Name: name, cmd: exec.CommandContext(ctx, exe, ChildArg, role, name, addr)}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		p.Kill()
		return nil, fmt.Errorf("%s as %s did not start: %w", name, role, errors.Join(lines.Err(), io.ErrUnexpectedEOF))
	}
	p.Addr = lines.Text()
	return p, nil
}

// ChildArg as the first argument makes a program an instance; the rest is for Main.
const ChildArg = "child"

// A Register keeps the instance at addr where its callers look until ctx ends.
type Register func(ctx context.Context, addr string) error

// Main is an instance, and gives its exit status. A nil register is for callers that know.
func Main(args []string, register Register) int {
	if err := child(args, register); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %v\n", args, err)
		return 1
	}
	return 0
}

// child is an instance ("serve NAME ADDR"), or what holds its port ("resetting",
// "garbage"). It writes its address and ends when its standard input does.
func child(args []string, register Register) error {
	if len(args) != 3 {
		return errors.New("want a role, a name and an address")
	}
	switch role, name, addr := args[0], args[1], args[2]; role {
	case "serve":
		return serve(name, addr, register)
	case "resetting":
		return hold(addr, func(nc net.Conn) {
			_ = nc.(*net.TCPConn).SetLinger(0) // the close is then a reset
		})
	case "garbage":
		return hold(addr, func(nc net.Conn) {
			buf := make([]byte, 4096)
			for {
				if _, err := nc.Write([]byte("HTTP/1.1 400 Bad Request\r\nServer: somebody else\r\n\r\n")); err != nil {
					return
				}
				if _, err := nc.Read(buf); err != nil {
					return
				}
			}
		})
	default:
		return fmt.Errorf("unknown role %s", role)
	}
}

// hold accepts connections and does something else with them than serve calls.
func hold(addr string, do func(net.Conn)) error {
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println(lis.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = lis.Close()
	}()
	for {
		nc, err := lis.Accept()
		if err != nil {
			return nil // closed when standard input has ended
		}
		go func() {
			defer func() { _ = nc.Close() }()
			do(nc)
		}()
	}
}

// handler answers with the name of its instance.
type handler struct {
	testpb.UnimplementedEchoServer
	name string
	slow *atomic.Bool
}

func (h handler) Echo(ctx context.Context, req *testpb.EchoRequest) (*testpb.EchoResponse, error) {
	if h.slow.Load() {
		if err := wait.For(context.WithoutCancel(ctx), 4*Deadline); err != nil {
			return nil, err
		}
	}
	return &testpb.EchoResponse{Name: h.name, Data: req.Data}, nil
}

// serve is without admission: what else the machine does must not decide what is seen.
func serve(name, addr string, register Register) error {
	h := handler{name: name, slow: new(atomic.Bool)}
	srv := framework.NewServer(framework.ServerConfig{Service: Service, Addr: addr, Admission: framework.Off, DrainTimeout: time.Second},
		framework.WithLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))))
	testpb.RegisterEchoServer(srv, h)
	if err := srv.Listen(); err != nil {
		return err
	}
	fmt.Println(srv.Addr())
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		defer stop()
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			h.slow.Store(lines.Text() == "slow")
		}
	}()
	var g errgroup.Group
	if register != nil {
		g.Go(func() error { return register(ctx, srv.Addr()) })
	}
	g.Go(func() error { return srv.Run(ctx) })
	return g.Wait()
}
