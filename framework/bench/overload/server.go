// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	kitexserver "github.com/cloudwego/kitex/server"
	"github.com/zeromicro/go-zero/core/load"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/bench/kitex_gen/echo"
	"github.com/sluice-rpc/sluice/framework/bench/kitex_gen/echo/echoservice"
	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"

	sluicev1 "github.com/sluice-rpc/sluice/framework/bench/idl/sluice/v1"
	leafv1 "github.com/sluice-rpc/sluice/framework/bench/overload/idl/leaf/v1"

	"github.com/sluice-rpc/sluice/framework/bench/wait"
)

// The kinds of servers.
const (
	kindOurs     = "ours"     // admission on
	kindOff      = "off"      // no admission
	kindFixed    = "fixed"    // no admission, but as many calls at once as there are cores
	kindGoZero   = "go-zero"  // no admission, but go-zero's shedder
	kindRefusing = "refusing" // admission on, everything is refused
	kindKitex    = "kitex"    // bare kitex, mux transport; serves the echo alone
)

// maxTasks is how many tasks of a cell a server can count calls for.
const maxTasks = 1 << 20

// A leaf does work of known cost, and answers echoes.
type leaf struct {
	loops float64 // that a core does in 1 µs
	ran   atomic.Int64
	done  []atomic.Uint32 // calls by task
}

func (l *leaf) work(ctx context.Context, req *leafv1.WorkRequest) (*leafv1.WorkResponse, error) {
	l.ran.Add(1)
	if req.GetTask() < maxTasks {
		l.done[req.GetTask()].Add(1)
	}
	spin(int(float64(req.GetSpinUs()) * l.loops))
	if req.GetSleepUs() > 0 {
		if err := wait.For(ctx, time.Duration(req.GetSleepUs())*time.Microsecond); err != nil {
			return nil, err
		}
	}
	return &leafv1.WorkResponse{}, nil
}

// serverMain is a server: KIND, loops a µs, and for go-zero its threshold.
func serverMain(kind string, args []string) error {
	if len(args) != 2 {
		return errors.New("want loops and threshold")
	}
	loops, err := strconv.ParseFloat(args[0], 64)
	if err != nil {
		return err
	}
	threshold, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	l := &leaf{loops: loops, done: make([]atomic.Uint32, maxTasks)}
	addr, err := l.serve(kind, threshold)
	if err != nil {
		return err
	}
	first, err := sample()
	if err != nil {
		return err
	}
	first.Addr = addr
	return obey(first, func(o order) (report, error) {
		if o.Op != opSample {
			return report{}, fmt.Errorf("a server cannot %s", o.Op)
		}
		r, err := sample()
		r.Ran = l.ran.Load()
		r.Done = make([]byte, min(o.Tasks, maxTasks-1))
		for i := range r.Done {
			r.Done[i] = byte(min(l.done[i+1].Load(), 255))
		}
		return r, err
	})
}

func (l *leaf) serve(kind string, threshold int64) (addr string, err error) {
	if kind == kindKitex {
		// Kitex tells nobody which port it was given: give it a listener.
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		srv := echoservice.NewServer(&bareEcho{l: l}, kitexserver.WithMuxTransport(), kitexserver.WithListener(ln))
		go serving(srv.Run)
		return ln.Addr().String(), nil
	}
	cfg := framework.ServerConfig{Service: "leaf", Admission: framework.Off}
	opts := []framework.ServerOption{framework.WithLogger(slog.New(slog.DiscardHandler))}
	switch kind {
	case kindOff:
	case kindOurs:
		cfg.Admission = framework.On
	case kindRefusing:
		cfg.Admission = framework.On
		admit.Process().Pin(qos.PriorityOf(qos.Critical, 0))
	case kindFixed:
		opts = append(opts, framework.WithServerInterceptors(fixed(runtime.GOMAXPROCS(0))))
	case kindGoZero:
		opts = append(opts, framework.WithServerInterceptors(goZero(threshold)))
	default:
		return "", fmt.Errorf("there is no kind %q of servers", kind)
	}
	srv := framework.NewServer(cfg, opts...)
	leafv1.RegisterLeafServiceServer(srv, leafService{l})
	sluicev1.RegisterEchoServiceServer(srv, echoService{l: l})
	if err := srv.Listen(); err != nil {
		return "", err
	}
	go serving(func() error { return srv.Run(context.Background()) })
	return srv.Addr(), nil
}

// serving runs a server until the process ends; a server that stops earlier takes the
// process, and so the run, with it.
func serving(run func() error) {
	err := run()
	fmt.Fprintln(os.Stderr, "the server stopped:", err)
	os.Exit(1)
}

type leafService struct{ *leaf }

func (s leafService) Work(ctx context.Context, req *leafv1.WorkRequest) (*leafv1.WorkResponse, error) {
	return s.work(ctx, req)
}

func (s leafService) Dear(ctx context.Context, req *leafv1.WorkRequest) (*leafv1.WorkResponse, error) {
	return s.work(ctx, req)
}

func (s leafService) Wait(ctx context.Context, req *leafv1.WorkRequest) (*leafv1.WorkResponse, error) {
	return s.work(ctx, req)
}

type echoService struct {
	sluicev1.UnimplementedEchoServiceServer
	l *leaf
}

func (s echoService) Echo(_ context.Context, req *sluicev1.EchoRequest) (*sluicev1.EchoResponse, error) {
	s.l.ran.Add(1)
	return &sluicev1.EchoResponse{Id: req.Id, Name: req.Name, Data: req.Data}, nil
}

type bareEcho struct{ l *leaf }

func (s *bareEcho) Echo(_ context.Context, req *echo.EchoRequest) (*echo.EchoResponse, error) {
	s.l.ran.Add(1)
	return &echo.EchoResponse{Id: req.Id, Name: req.Name, Data: req.Data}, nil
}

func (s *bareEcho) Hold(ctx context.Context, req *echo.EchoRequest) (*echo.EchoResponse, error) {
	return s.Echo(ctx, req)
}

// errBusy is what the peers' servers refuse with.
var errBusy = &rpc.Error{Code: rpc.ResourceExhausted, Reason: rpc.ReasonOverload, NotRun: true, Message: "busy"}

// fixed lets in n calls at once and refuses the others.
func fixed(n int) rpc.ServerInterceptor {
	slots := make(chan struct{}, n)
	return func(_ *rpc.Method, next rpc.Handler) rpc.Handler {
		return func(ctx context.Context, req proto.Message) (proto.Message, error) {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
				return next(ctx, req)
			default:
				return nil, errBusy
			}
		}
	}
}

// goZero is the shedder of go-zero as its own servers use it, one for a process.
func goZero(threshold int64) rpc.ServerInterceptor {
	load.DisableLog()
	shedder := load.NewAdaptiveShedder(load.WithCpuThreshold(threshold))
	return func(_ *rpc.Method, next rpc.Handler) rpc.Handler {
		return func(ctx context.Context, req proto.Message) (proto.Message, error) {
			promise, err := shedder.Allow()
			if err != nil {
				return nil, errBusy
			}
			res, err := next(ctx, req)
			if err != nil || ctx.Err() != nil {
				promise.Fail()
			} else {
				promise.Pass()
			}
			return res, err
		}
	}
}

// spun keeps the loop of spin from being removed.
var spun atomic.Uint64

// spin uses a core for n rounds of a loop.
//
//go:noinline
func spin(n int) {
	x := uint64(88172645463325252)
	for range n {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	spun.Store(x)
}

// calibrate gives how many rounds of spin's loop a core does in 1 µs: the best of
// many short runs by the thread's own clock, which other work on the core does not
// move.
func calibrate() (report, error) {
	const rounds = 2_000_000
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	best := 0.
	for range 50 {
		var from, to unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &from); err != nil {
			return report{}, fmt.Errorf("read the thread's clock: %w", err)
		}
		spin(rounds)
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &to); err != nil {
			return report{}, fmt.Errorf("read the thread's clock: %w", err)
		}
		best = max(best, rounds/(float64(to.Nano()-from.Nano())/1e3))
	}
	return report{Value: best}, nil
}
