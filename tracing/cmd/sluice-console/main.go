// SPDX-License-Identifier: Apache-2.0

// Command sluice-console shows the call graphs, traces, items and admission of a system
// of Sluice processes, in the browser or as text.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/framework/discovery"
	"github.com/sluice-rpc/sluice/tracing/console"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main without the process: it gives the exit code, 0 for success, 1 for a
// failure, 2 for a command line that was not understood.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	root := newRootCmd()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintf(stderr, "sluice-console: %v\n", err)
	var usage *usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// usageError is a command line that was not understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice-console",
		Short: "See a whole system: call graphs, traces, items, admission",
		Long: `Sluice-console pulls the admin ports of Sluice processes and shows what they have
counted: the exact call graph of each entry, traces, every item, and what admission
does. It needs nothing beside it and keeps a day in memory.`,
		Example: `  sluice-console serve --target post=127.0.0.1:7001 --target 127.0.0.1:7003
  sluice-console serve --targets processes.txt
  sluice-console serve --instances instances.yaml --service post --service timeline
  sluice-console graph --target 127.0.0.1:7001 --entry "POST /posts" --format mermaid`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
	})
	root.AddCommand(newServeCmd(), newGraphCmd())
	for _, cmd := range root.Commands() {
		cmd.Args = func(cmd *cobra.Command, given []string) error {
			if err := cobra.NoArgs(cmd, given); err != nil {
				return &usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
			}
			return nil
		}
	}
	return root
}

// targetFlags say which processes to pull.
type targetFlags struct {
	targets   []string
	file      string
	instances string
	services  []string
	tokenFile string
}

func (f *targetFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.targets, "target", nil, "[NAME=]HOST:PORT of an admin port; may be given many times")
	flags.StringVar(&f.file, "targets", "", "file with a target a line, read again before each pull")
	flags.StringVar(&f.instances, "instances", "", "file of instances as clients read it (discovery.File), looked at each second")
	flags.StringArrayVar(&f.services, "service", nil, "service of --instances whose processes to look at; may be given many times")
	flags.StringVar(&f.tokenFile, "token-file", "", "file with the admin token of the processes")
}

func (f *targetFlags) config(log *slog.Logger) (console.Config, error) {
	var static []console.Target
	for _, s := range f.targets {
		t, err := console.ParseTarget(s)
		if err != nil {
			return console.Config{}, &usageError{fmt.Errorf("--target: %w", err)}
		}
		static = append(static, t)
	}
	switch {
	case len(static) == 0 && f.file == "" && f.instances == "":
		return console.Config{}, &usageError{errors.New("no processes to look at: give --target HOST:PORT of their admin ports, --targets FILE, or --instances FILE")}
	case f.instances != "" && len(f.services) == 0:
		return console.Config{}, &usageError{errors.New("--instances: say with --service NAME which services to look at")}
	case f.instances == "" && len(f.services) > 0:
		return console.Config{}, &usageError{errors.New("--service: say with --instances FILE where its instances stand")}
	}
	sources := []console.Targets{console.Static(static...)}
	if f.file != "" {
		sources = append(sources, console.File(f.file))
	}
	cfg := console.Config{Log: log, Targets: console.Join(sources...)}
	if f.instances != "" {
		d, err := console.Discover(discovery.File{Path: f.instances, Log: log}, f.services...)
		if err != nil {
			return cfg, &usageError{fmt.Errorf("--service: %w", err)}
		}
		cfg.Discovery = d
	}
	if f.tokenFile != "" {
		b, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return cfg, fmt.Errorf("--token-file: %w", err)
		}
		cfg.Token = strings.TrimSpace(string(b))
	}
	return cfg, nil
}

func newServeCmd() *cobra.Command {
	var f targetFlags
	var addr string
	var every time.Duration
	var megabytes int
	var anyHost, verbose bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Pull processes and show them in the browser",
		Long: `Serve pulls all processes every ten seconds and shows the console's page until
Ctrl-C. Whoever can open the page sees all that it shows: it has no log-in, and
listens to this machine alone unless told otherwise.`,
		Example: `  sluice-console serve --target post=127.0.0.1:7001
  sluice-console serve --targets processes.txt --addr 127.0.0.1:7900`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			level := slog.LevelWarn
			if verbose {
				level = slog.LevelDebug
			}
			cfg, err := f.config(slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level})))
			if err != nil {
				return err
			}
			cfg.Every, cfg.GraphBytes, cfg.AnyHost = every, megabytes<<20, anyHost
			return serve(cmd.Context(), cfg, addr, cmd.OutOrStdout())
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&addr, "addr", "127.0.0.1:7900", "host:port of the page; without a host this machine alone, port 0 takes a free one")
	flags.DurationVar(&every, "every", console.DefaultEvery, "time between two pulls, from 1s on")
	flags.IntVar(&megabytes, "graph-memory", console.DefaultGraphBytes>>20, "MiB for call graphs; beyond, the oldest go early")
	flags.BoolVar(&anyHost, "any-host", false, "let the page be asked for under any host name, not only an address or localhost")
	flags.BoolVarP(&verbose, "verbose", "v", false, "log each pull that fails")
	return cmd
}

func serve(ctx context.Context, cfg console.Config, addr string, stdout io.Writer) error {
	c, err := console.New(cfg)
	if err != nil {
		return err
	}
	if host, port, err := net.SplitHostPort(addr); err == nil && host == "" {
		addr = net.JoinHostPort("127.0.0.1", port)
	}
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("--addr: %w", err)
	}
	_, _ = fmt.Fprintf(stdout, "The console is at http://%s\nStop with Ctrl-C.\n", lis.Addr())
	return c.Serve(ctx, lis)
}

func newGraphCmd() *cobra.Command {
	var f targetFlags
	var q console.GraphQuery
	var last time.Duration
	cmd := &cobra.Command{
		Use:   "graph",
		Short: "Print the call graph of an entry",
		Long: `Graph pulls all processes and prints the call graph of one entry, or of all: what
was counted since the processes started, or with --last what is counted from now on
for that long. Without a format it prints a table.`,
		Example: `  sluice-console graph --target 127.0.0.1:7001 --entry "POST /posts"
  sluice-console graph --targets processes.txt --entry "GET /timeline" --format svg > timeline.svg
  sluice-console graph --targets processes.txt --last 30s --format dot | dot -Tpdf > all.pdf`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.config(slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)))
			if err != nil {
				return err
			}
			out, err := console.Graph(cmd.Context(), cfg, last, q)
			if len(out) > 0 {
				if _, err := cmd.OutOrStdout().Write(out); err != nil {
					return err
				}
			}
			return err
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&q.Entry, "entry", "", `the entry, for example "POST /posts"; all if empty`)
	flags.StringVar(&q.Format, "format", "text", "text, dot, mermaid, svg or json")
	flags.DurationVar(&last, "last", 0, "count for so long from now on; 0 takes all since the processes started")
	flags.IntVar(&q.MaxHops, "hops", 0, "leave out what is further away; 0 is no limit")
	flags.StringVar(&q.Around, "around", "", `count hops from this method, "package.Service/Method"`)
	flags.Float64Var(&q.MinShare, "min-share", 0, "leave out edges with fewer calls than this share of the busiest edge's")
	return cmd
}
