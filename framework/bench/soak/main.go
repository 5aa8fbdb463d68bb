// SPDX-License-Identifier: Apache-2.0

// Command soak keeps servers and their callers busy for half an hour, with all that wears,
// and looks whether anything grows: goroutines, files, memory.
//
//	go run ./soak -duration 30m -json ../../build/test-soak.jsonl
//	go run ./soak -duration 5m -moments=false
//
// One server is looked at, and the client, which is this process: calls, bursts that are
// refused, calls that come too late or whose callers leave, connections that come and go,
// streams of every kind, some of which nobody ends, and a second server that is killed every
// ten seconds and starts again. Beside them runs Moments in one process with forty people,
// whose page is read and written by connections that come and go, with the caches of a small
// container, which are full soon.
//
// Every few seconds each is asked what it has. The first third is left out: pools and
// caches fill, and tables of who has called are made. Of the rest soak.WHO.WHAT_slope is how
// much more there is a minute, by Theil and Sen (the median of the slopes of all pairs, so
// that one burst says nothing), soak.WHO.WHAT the median, and soak.WHO.WHAT_growth the share
// of it that the slope adds in the measured time. It exits 0 when it has measured, whether
// or not a goal is met.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/framework/bench/figure"
	"github.com/sluice-rpc/sluice/framework/bench/wait"
)

type config struct {
	duration time.Duration
	every    time.Duration // between two samples
	moments  bool
	json     string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		if err := serve(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "soak: server:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var cfg config
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.DurationVar(&cfg.duration, "duration", 30*time.Minute, "how long to go on, at least 3s")
	flags.DurationVar(&cfg.every, "every", 0, "between two samples; 0: a 360th of the duration, at least 1s")
	flags.BoolVar(&cfg.moments, "moments", true, "with Moments")
	flags.StringVar(&cfg.json, "json", "", "file to write the metrics to, one JSON object a line")
	switch err := flags.Parse(os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil || flags.NArg() > 0 || cfg.duration < 3*time.Second:
		fmt.Fprintln(os.Stderr, "soak: want -duration of at least 3s, and no arguments", err)
		os.Exit(2)
	}
	if cfg.every <= 0 {
		cfg.every = max(cfg.duration/360, time.Second)
	}
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "soak: the run is void:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg config) (err error) {
	server, err := startServer(ctx, addresses{})
	if err != nil {
		return err
	}
	defer server.kill()
	who := []watched{{name: "server", admin: server.at.Admin}, {name: "client"}}

	var m *moments
	if cfg.moments {
		if m, err = startMoments(ctx); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, m.stop()) }()
		who = append(who, watched{name: "moments", admin: m.admin})
	}
	ctx, stop := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	defer func() {
		stop()
		err = errors.Join(err, g.Wait())
	}()
	l := &load{}
	if m != nil {
		g.Go(func() error { return m.load(ctx, l, cfg.duration/3) })
	}
	if err := l.start(ctx, g, server.at); err != nil {
		return err
	}
	fmt.Printf("%v of calls, refusals, connections, streams and restarts, a sample every %v. Load average %s before.\n\n",
		cfg.duration, cfg.every, figure.LoadAverage())
	if err := watch(ctx, cfg, who, l); err != nil {
		return err
	}
	all := report(cfg, who)
	all = append(all, l.report()...)
	if cfg.json == "" {
		return nil
	}
	return figure.Write(cfg.json, all)
}

// watch samples everybody until the time is up, and shows it thirty times.
func watch(ctx context.Context, cfg config, who []watched, l *load) error {
	head := fmt.Sprintf("%8s", "")
	for _, w := range who {
		head += fmt.Sprintf("  | %-8s %6s %6s %8s %8s", w.name, "gorout", "files", "live MB", "RSS MB")
	}
	fmt.Println(head)
	began := time.Now()
	shown := time.Duration(-1)
	for time.Since(began) < cfg.duration {
		if err := wait.For(ctx, cfg.every); err != nil {
			return err
		}
		at := time.Since(began)
		row := fmt.Sprintf("%8s", at.Round(time.Second))
		for i := range who {
			s, err := who[i].sample(ctx)
			if err != nil {
				return fmt.Errorf("ask %s: %w", who[i].name, err)
			}
			s.at = at
			who[i].samples = append(who[i].samples, s)
			row += fmt.Sprintf("  | %8s %6.0f %6.0f %8.1f %8.1f", "", s.goroutines, s.files, s.live/1e6, s.rss/1e6)
		}
		if next := at / (cfg.duration / 30); next != shown {
			shown = next
			fmt.Printf("%s  | %d calls, %d refused\n", row, l.ok.Load(), l.refused.Load())
		}
	}
	return nil
}

// limits are how much more there may be after the measured time, as a share.
var limits = map[string]float64{"goroutines": .05, "files": .05, "live_bytes": .1, "rss_bytes": .1}

// report gives slope, median and growth of everything.
func report(cfg config, who []watched) (all []figure.Metric) {
	fmt.Printf("\nwithout the first third; %-26s %12s %14s %10s\n", "", "median", "more a minute", "growth")
	for _, w := range who {
		counted := w.samples[len(w.samples)/3:]
		for _, what := range []struct {
			name, unit string
			of         func(sample) float64
		}{
			{"goroutines", "goroutines", func(s sample) float64 { return s.goroutines }},
			{"files", "files", func(s sample) float64 { return s.files }},
			{"live_bytes", "bytes", func(s sample) float64 { return s.live }},
			{"rss_bytes", "bytes", func(s sample) float64 { return s.rss }},
		} {
			at, values := make([]float64, len(counted)), make([]float64, len(counted))
			for i, s := range counted {
				at[i], values[i] = s.at.Minutes(), what.of(s)
			}
			_, median, _ := figure.Quartiles(values)
			slope := theilSen(at, values)
			growth := slope * (2 * cfg.duration / 3).Minutes() / max(median, 1)
			name := "soak." + w.name + "." + what.name
			judged := figure.Of(name+"_growth", "share", []float64{growth})
			judged.Judge(figure.AtMost(limits[what.name]), growth)
			all = append(all, figure.Of(name, what.unit, values), figure.Of(name+"_slope", what.unit+"/min", []float64{slope}), judged)
			met := "met"
			if !*judged.Met {
				met = "MISSED"
			}
			fmt.Printf("%-50s %12.4g %14.4g %9.1f%%  goal <= %.0f%% %s\n", name, median, slope, 100*growth, 100*limits[what.name], met)
		}
	}
	return all
}
