// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/check"
	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/comment/causal/sim"
	"github.com/sluice-rpc/sluice/app/id"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// The causal bench asks three things of the comment log between regions: whether the checker would notice a mistake (each planted
// fault, in how many seeds), whether there is one (seeds of the simulation with none planted), and what a comment costs, also to the outbox that sends it.

type causalConfig struct {
	seeds  uint64
	from   uint64
	rounds int
	json   string
}

func parseCausal(args []string) (*causalConfig, error) {
	c := new(causalConfig)
	fs := flag.NewFlagSet("bench causal", flag.ContinueOnError)
	fs.Uint64Var(&c.seeds, "seeds", 2000, "seeds of the simulation that are run with no fault planted")
	fs.Uint64Var(&c.from, "from", 1, "the first of them")
	fs.IntVar(&c.rounds, "rounds", 5, "how often each cost is measured")
	fs.StringVar(&c.json, "json", "", "file for the metrics, one JSON object a line")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 || c.seeds < 1 || c.rounds < 1 {
		return nil, errors.New("seeds and rounds start at 1, and everything is a flag: see -help")
	}
	return c, nil
}

func causalMain(ctx context.Context, args []string, out io.Writer) error {
	c, err := parseCausal(args)
	if err != nil {
		return err
	}
	var metrics []metric
	emit := func(m metric) {
		metrics = append(metrics, m)
		fmt.Fprintln(out, m)
	}
	if err := planted(ctx, out, emit); err != nil {
		return err
	}
	if err := cleanSeeds(ctx, c, out, emit); err != nil {
		return err
	}
	if err := causalCosts(ctx, c.rounds, emit); err != nil {
		return err
	}
	if err := outboxCosts(ctx, out, emit); err != nil {
		return err
	}
	if c.json == "" {
		return nil
	}
	return writeJSON(out, c.json, metrics)
}

// faultSeeds is within how many seeds a planted fault has to be noticed.
const faultSeeds = 1000

// planted counts the faults that are noticed.
func planted(ctx context.Context, out io.Writer, emit func(metric)) error {
	caught, most := 0, uint64(0)
	fmt.Fprintf(out, "planted fault                     first seen at seed, as\n")
	for _, f := range sim.Faults() {
		seed := uint64(1)
		var first *check.Verdict
		for ; seed <= faultSeeds && first == nil; seed++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			if v := sim.Run(sim.NewPlan(seed), f).Verdict; v.Err() != nil {
				first = v
			}
		}
		if first == nil {
			fmt.Fprintf(out, "  %-31s not in %d seeds\n", f, faultSeeds)
			continue
		}
		caught++
		most = max(most, seed-1)
		fmt.Fprintf(out, "  %-31s %4d  %s\n", f, seed-1, first.Violations[0].Rule)
	}
	emit(newMetric("check.planted_caught", "", []float64{float64(caught)}, atLeast(float64(len(sim.Faults())))))
	emit(newMetric("check.planted_seeds_max", "", []float64{float64(most)}, atMost(faultSeeds)))
	return nil
}

// cleanSeeds runs seeds with no fault on all cores.
func cleanSeeds(ctx context.Context, c *causalConfig, out io.Writer, emit func(metric)) error {
	var next, clean, operations atomic.Uint64
	var mu sync.Mutex
	var total sim.Stats // guarded by mu
	var wrong []string  // guarded by mu
	next.Store(c.from)
	began := time.Now()
	done := make(chan struct{})
	var wg, shower sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for ctx.Err() == nil {
				seed := next.Add(1) - 1
				if seed >= c.from+c.seeds {
					return
				}
				r := sim.Run(sim.NewPlan(seed), sim.None)
				mu.Lock()
				total.Add(&r.Stats)
				switch err := r.Verdict.Err(); {
				case err != nil:
					wrong = append(wrong, fmt.Sprintf("seed %d: %v\n%s", seed, err, r.Verdict.Violations[0]))
				case r.Stats.Unsettled+r.Stats.Forks > 0:
					wrong = append(wrong, fmt.Sprintf("seed %d: at rest %v, forks %d", seed, r.Stats.Unsettled == 0, r.Stats.Forks))
				default:
					clean.Add(1)
				}
				mu.Unlock()
				operations.Add(uint64(len(r.History)))
			}
		})
	}
	shower.Go(func() {
		tick := time.NewTicker(showEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				fmt.Fprintf(out, "  %d of %d seeds\n", min(next.Load()-c.from, c.seeds), c.seeds)
			}
		}
	})
	wg.Wait()
	close(done)
	shower.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, w := range wrong {
		fmt.Fprintln(out, w)
	}
	took := time.Since(began).Seconds()
	fmt.Fprintf(out, "simulated: %+v\n", total)
	emit(newMetric("sim.seeds_clean", "", []float64{float64(clean.Load())}, atLeast(float64(c.seeds))))
	emit(newMetric("sim.seeds_per_s", "1/s", []float64{float64(c.seeds) / took}, nil))
	emit(newMetric("sim.calls_checked", "", []float64{float64(operations.Load())}, nil))
	emit(newMetric("sim.records", "", []float64{float64(total.Records)}, nil))

	equal := 0
	const twice = 20
	for seed := c.from; seed < c.from+twice; seed++ {
		a, b := sim.Run(sim.NewPlan(seed), sim.None), sim.Run(sim.NewPlan(seed), sim.None)
		if a.Trace == b.Trace {
			equal++
		}
	}
	emit(newMetric("sim.equal_of_20", "", []float64{float64(equal)}, atLeast(twice)))
	return nil
}

// causalCosts measures what records cost with four regions.
func causalCosts(ctx context.Context, rounds int, emit func(metric)) error {
	const n = 10_001
	records, err := fourRegions(n)
	if err != nil {
		return err
	}
	var fold, merge, reversed, checked []float64
	each := func(began time.Time, of int) float64 { return float64(time.Since(began).Nanoseconds()) / float64(of) }
	history := talkHistory(records)
	for range rounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		now := records[n-1].ID.Time()
		hold, head := causal.NewHold(1000), causal.Head{}
		began := time.Now()
		for i := range records {
			m := hold.Merge(head, causal.Rules{}, now, records[i:i+1])
			head = m.Head
		}
		merge = append(merge, each(began, n))

		hold, head = causal.NewHold(1000), causal.Head{}
		began = time.Now()
		for i := 0; i+16 <= n; i += 16 { // as bad as 16 records in flight can come
			packet := slices.Clone(records[i : i+16])
			slices.Reverse(packet)
			head = hold.Merge(head, causal.Rules{}, now, packet).Head
		}
		reversed = append(reversed, each(began, n-n%16))

		var thread causal.Thread
		began = time.Now()
		for i := range records {
			thread.Fold(&records[i])
		}
		fold = append(fold, each(began, n))

		began = time.Now()
		if err := check.History(history).Err(); err != nil {
			return err
		}
		checked = append(checked, each(began, len(history)))
	}
	emit(newMetric("causal.merge_ns", "ns", merge, nil))
	emit(newMetric("causal.merge_reversed_ns", "ns", reversed, nil))
	emit(newMetric("causal.fold_ns", "ns", fold, nil))
	emit(newMetric("check.ns_per_call", "ns", checked, nil))

	whole := 0
	for i := range records {
		whole += wireSize(&records[i])
	}
	emit(newMetric("causal.comment10001.bytes", "B", []float64{float64(wireSize(&records[n-1]))}, atMost(4096)))
	emit(newMetric("causal.comment10001.whole_set_bytes", "B", []float64{float64(whole)}, nil))
	var head causal.Head
	for i := range records {
		head = head.After(&records[i])
	}
	emit(newMetric("causal.head_bytes", "B", []float64{float64(len(head.Encode()))}, nil))
	return nil
}

// fourRegions makes a thread of n comments, each answering the one before, from four regions in turn, in order.
func fourRegions(n int) ([]causal.Record, error) {
	now := time.UnixMilli(1_780_000_000_000)
	var gens [4]*id.Generator
	for i := range gens {
		g, err := id.NewGenerator(id.Region(i+1), 1, func() time.Time { return now })
		if err != nil {
			return nil, err
		}
		gens[i] = g
	}
	records := make([]causal.Record, 0, n)
	var head causal.Head
	for i := range n {
		fresh, err := id.New[id.Comment](gens[i%4])
		if err != nil {
			return nil, err
		}
		r := causal.Record{Kind: causal.Add, Writer: id.User{15: byte(i%100 + 1)}, Key: fmt.Sprintf("key-%024d", i), Body: fmt.Sprintf("a comment of some forty characters, %d", i)}
		if i > 0 {
			r.Parent, r.ReplyTo = records[i-1].ID, records[i-1].Writer
		}
		if r, head, err = head.Next(r, fresh, now); err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}

// wireSize is what a record takes in the message that regions send.
func wireSize(r *causal.Record) int {
	m := &momentsv1.CommentRecord{
		PostId: r.Post[:], Id: r.ID[:], Seq: r.Seq, Kind: momentsv1.CommentKind(r.Kind), WriterId: r.Writer[:], ParentId: r.Parent[:],
		ReplyToId: r.ReplyTo[:], IdempotencyKey: r.Key, Body: r.Body, Hash: r.Hash[:],
	}
	for _, e := range r.Deps {
		m.Deps = append(m.Deps, &momentsv1.VectorEntry{Region: uint32(e.Region), Seq: e.Seq})
	}
	return proto.Size(m)
}

// talkHistory is a history in which 1,000 comments are made, each after its writer has read all.
func talkHistory(records []causal.Record) []check.Op {
	const n = 1000
	var ops []check.Op
	list := make([]check.Comment, 0, n)
	for i := range n {
		u := fmt.Sprint("u", i%20)
		at := int64(10 * i)
		seen := check.Comment{ID: records[i].ID.String(), Writer: u, Text: records[i].Body}
		ops = append(ops,
			check.Op{Kind: check.Read, Session: u, User: u, Post: "p", Comments: list[:i:i], Start: at, End: at + 1},
			check.Op{Kind: check.Add, Session: u, User: u, Post: "p", ID: seen.ID, Text: seen.Text, Start: at + 2, End: at + 3})
		list = append(list, seen)
	}
	return ops
}
