// SPDX-License-Identifier: Apache-2.0

// Command crowd fills servers with connections that nothing comes over, up to their limit,
// and looks what becomes of it.
//
//	go run ./crowd -json ../../build/bench-crowd.jsonl
//	go run ./crowd -connections 100000
//
// A process may have so many files (ulimit -n), so that there are as many servers as it
// takes, each with a process that holds the other ends, from a loopback address of its own.
// With all there, at every server: a hundred more must be closed at once, calls over a
// connection that was there before must be answered, and when one goes another one must be
// taken. It exits 0 when it has measured, whether or not a goal is met.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/bench/figure"
	"github.com/sluice-rpc/sluice/framework/bench/wait"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
)

const (
	more     = 100              // connections beyond the limit
	probes   = 50               // calls at each server, when all are there
	reserve  = 500              // files of a process that are not for connections
	patience = 60 * time.Second // for anything at all
)

type config struct {
	connections int
	settle      time.Duration
	json        string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		if err := childMain(os.Args[2:]); err != nil {
			fmt.Fprintf(os.Stderr, "crowd: %v: %v\n", os.Args[2:], err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var cfg config
	flags := flag.NewFlagSet("crowd", flag.ContinueOnError)
	flags.IntVar(&cfg.connections, "connections", 0, "how many; 0: as many as one process may have files")
	flags.DurationVar(&cfg.settle, "settle", 5*time.Second, "how long they are idle before memory is read")
	flags.StringVar(&cfg.json, "json", "", "file to write the metrics to, one JSON object a line")
	switch err := flags.Parse(os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil || flags.NArg() > 0 || cfg.connections < 0:
		fmt.Fprintln(os.Stderr, "crowd: want -connections of at least 0, and no arguments", err)
		os.Exit(2)
	}
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "crowd: the run is void:", err)
		stop()
		os.Exit(1)
	}
}

// full is a server with all the connections that it takes.
type full struct {
	many            int
	server, holder  *proc
	conn            *framework.Conn
	before, crowded memory
}

func (f *full) stop() {
	if f.conn != nil {
		_ = f.conn.Close()
	}
	for _, p := range []*proc{f.holder, f.server} {
		if p != nil {
			p.stop()
		}
	}
}

func run(ctx context.Context, cfg config) error {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	most := int(files.Cur) - reserve
	if most < more {
		return fmt.Errorf("ulimit -n is %d: at least %d", files.Cur, reserve+more)
	}
	if cfg.connections == 0 {
		cfg.connections = most
	}
	fmt.Printf("%d connections, at most %d a server (ulimit -n %d). Load average %s before.\n", cfg.connections, most, files.Cur, figure.LoadAverage())
	var all []*full
	defer func() {
		for _, f := range all {
			f.stop()
		}
	}()
	began := time.Now()
	for left := cfg.connections; left > 0; left -= most {
		f := &full{many: min(left, most)}
		all = append(all, f)
		if err := f.fill(ctx, len(all)); err != nil {
			return fmt.Errorf("server %d: %w", len(all), err)
		}
		fmt.Printf("  server %d of %d has %d connections after %.1f s\n", len(all), (cfg.connections+most-1)/most, f.many, time.Since(began).Seconds())
	}
	if err := wait.For(ctx, cfg.settle); err != nil {
		return err
	}
	var rss, heap, refused float64
	var calls []float64
	for i, f := range all {
		var err error
		if f.crowded, err = f.server.memory(); err != nil {
			return err
		}
		rss += float64(f.crowded.RSS) - float64(f.before.RSS)
		heap += float64(f.crowded.Heap) - float64(f.before.Heap)
		ms, n, err := f.crowdedOut(ctx)
		if err != nil {
			return fmt.Errorf("server %d: %w", i+1, err)
		}
		calls, refused = append(calls, ms...), refused+float64(n)
	}
	slices.Sort(calls)
	refusedShare := figure.Of("idle.refused_share", "share", []float64{refused / float64(more*len(all))})
	refusedShare.Judge(figure.AtLeast(1), refused/float64(more*len(all)))
	many := float64(cfg.connections)
	metrics := []figure.Metric{
		figure.Of("idle.connections", "connections", []float64{many}),
		figure.Of("idle.bytes_per_connection", "bytes", []float64{rss / many}),
		figure.Of("idle.heap_per_connection", "bytes", []float64{heap / many}),
		refusedShare,
		figure.Of("idle.probe_ms", "ms", calls),
		figure.Of("idle.probe_max_ms", "ms", calls[len(calls)-1:]),
	}
	fmt.Println()
	for _, m := range metrics {
		fmt.Printf("%-28s %10.4g %s\n", m.Name, m.Value, m.Unit)
	}
	if cfg.json == "" {
		return nil
	}
	return figure.Write(cfg.json, metrics)
}

// fill starts a server and lets it have all the connections that it takes but for one,
// which is this process's.
func (f *full) fill(ctx context.Context, number int) (err error) {
	if f.server, err = start(ctx, "serve", fmt.Sprint(f.many+1)); err != nil {
		return err
	}
	f.conn, err = framework.Dial(framework.ClientConfig{Service: "crowd", Addrs: []string{f.server.said}, Connections: 1})
	if err != nil {
		return err
	}
	if _, err := testpb.NewEchoClient(f.conn).Echo(ctx, &testpb.EchoRequest{}); err != nil {
		return err
	}
	if f.before, err = f.server.memory(); err != nil {
		return err
	}
	source := fmt.Sprintf("127.0.%d.%d", number/250, 2+number%250)
	f.holder, err = start(ctx, "hold", f.server.said, source, fmt.Sprint(f.many))
	return err
}

// crowdedOut looks how the full server behaves: how long calls take, in ms, and how many
// of those who come now are closed at once. Then it lets one go and another one come.
func (f *full) crowdedOut(ctx context.Context) (ms []float64, refused int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client := testpb.NewEchoClient(f.conn)
	for range more {
		closed, err := closedAtOnce(ctx, f.server.said)
		if err != nil {
			return nil, 0, err
		}
		if closed {
			refused++
		}
	}
	for range probes {
		began := time.Now()
		if _, err := client.Echo(ctx, &testpb.EchoRequest{Data: make([]byte, 100)}); err != nil {
			return nil, 0, fmt.Errorf("a call over a connection that was there before: %w", err)
		}
		ms = append(ms, float64(time.Since(began))/1e6)
	}
	if err := f.holder.letOneGo(); err != nil {
		return nil, 0, err
	}
	next, err := framework.Dial(framework.ClientConfig{Service: "crowd", Addrs: []string{f.server.said}, Connections: 1})
	if err != nil {
		return nil, 0, err
	}
	defer next.Close()
	for {
		_, err := testpb.NewEchoClient(next).Echo(ctx, &testpb.EchoRequest{})
		if err == nil {
			return ms, refused, nil
		}
		if wait.For(ctx, 50*time.Millisecond) != nil {
			return nil, 0, fmt.Errorf("one has gone, and nobody is taken instead: %w", err)
		}
	}
}

// closedAtOnce says whether the server closes a new connection.
func closedAtOnce(ctx context.Context, addr string) (bool, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return false, err
	}
	defer nc.Close()
	if err := nc.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return false, err
	}
	_, err = nc.Read(make([]byte, 1))
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET), nil
}
