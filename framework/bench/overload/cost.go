// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/bench/figure"
	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"

	"github.com/sluice-rpc/sluice/framework/bench/wait"
)

// admitOnce gives the time and the allocations of one arrival and one end at the door,
// all cores at it.
func admitOnce() (report, error) {
	door := admit.New(runtime.GOMAXPROCS(0))
	door.Open()
	defer door.Close()
	var refused atomic.Int64
	r := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			var batch admit.Batch
			call := new(admission.Call)
			for pb.Next() {
				now := door.Now() // which a server needs anyway: for the deadline
				*call = admission.Call{Priority: qos.PriorityOf(qos.Browse, 7), Deadline: now + time.Second}
				if v := door.Arrive(now, call, &batch); v != admission.Run {
					refused.Add(1)
					return
				}
				door.Done(call)
			}
		})
	})
	if refused.Load() > 0 {
		return report{}, errors.New("a door with room for all has refused a call")
	}
	return report{Value: float64(r.T.Nanoseconds()) / float64(r.N), Mallocs: uint64(r.AllocsPerOp())}, nil
}

// admitPart measures the path of a call that is let in at once.
func admitPart(ctx context.Context, cfg config, res *results) error {
	if !cfg.wants("qos.admit.ns", "qos.admit.allocs") {
		return nil
	}
	for range cfg.rounds {
		p, err := start(ctx, append(append([]int(nil), cfg.server...), cfg.gen...), "admit")
		if err != nil {
			return err
		}
		if err := p.stop(); err != nil {
			return err
		}
		res.line("admit: %.0f ns, %d allocations", p.first.Value, p.first.Mallocs)
		res.add("qos.admit.ns", "ns/call", p.first.Value)
		res.add("qos.admit.allocs", "allocs", float64(p.first.Mallocs))
	}
	return nil
}

// An echo is one load of the part about costs: so many echoes at a time, of a size.
type echoLoad struct {
	name    string
	callers int
	bytes   int
	kinds   []string // of servers
	kitex   bool     // the calls of a client of bare kitex
}

var echoLoads = []echoLoad{
	{name: "c64", callers: 64, bytes: 1000, kinds: []string{kindKitex, kindRefusing, kindOurs, kindOff}},
	{name: "c1000", callers: 1000, bytes: 1000, kinds: []string{kindKitex, kindRefusing, kindOurs, kindOff}},
	{name: "1MB", callers: 16, bytes: 1 << 20, kinds: []string{kindKitex, kindRefusing}},
	{name: "empty", callers: 64, bytes: 0, kinds: []string{kindRefusing}},
	{name: "c64.kitex_client", callers: 64, bytes: 1000, kinds: []string{kindKitex, kindRefusing}, kitex: true},
	{name: "c1000.kitex_client", callers: 1000, bytes: 1000, kinds: []string{kindKitex, kindRefusing}, kitex: true},
}

// spent is what an answer costs a server.
type spent struct {
	micros, allocs, bytes float64
	perSecond, refused    float64 // share of the answers
}

// costPart measures what serving and refusing costs, for a flood that does not
// listen to levels.
func costPart(ctx context.Context, cfg config, res *results, round int) error {
	if !cfg.wants("qos.reject.payload_allocs", "qos.reject.allocs", "qos.reject.c64.cpu_ratio", "qos.reject.c1000.cpu_ratio",
		"qos.reject.cpu_ratio_1MB", "qos.served.cpu_ratio_vs_off") {
		return nil
	}
	got := map[string][]spent{}
	for _, l := range echoLoads {
		if err := echoes(ctx, cfg, l, round, got); err != nil {
			return fmt.Errorf("echo %s: %w", l.name, err)
		}
		for _, kind := range l.kinds {
			of := func(f func(spent) float64) float64 { return median(got[l.name+kind], f) }
			res.line("echo %-18s %-9s %8.0f/s  %7.2f µs  %6.2f allocs  %8.0f bytes a call; %.3f refused", l.name, kind,
				of(spent.rate), of(spent.cpu), of(spent.allocated), of(func(s spent) float64 { return s.bytes }), of(spent.share))
			for _, s := range got[l.name+kind] {
				// Ours may refuse some: at 1,000 a time it is overloaded if the machine is busy otherwise.
				if kind == kindRefusing && s.refused < 1 || kind != kindRefusing && kind != kindOurs && s.refused > 0 {
					return fmt.Errorf("echo %s against %s: %.3f of the calls were refused", l.name, kind, s.refused)
				}
			}
		}
	}
	of := func(load, a, b string) float64 {
		var ratios []float64
		for i, s := range got[load+a] {
			ratios = append(ratios, s.micros/got[load+b][i].micros)
		}
		_, m, _ := figure.Quartiles(ratios)
		return m
	}
	for _, load := range []string{"c64", "c1000", "c64.kitex_client", "c1000.kitex_client"} {
		res.add("qos.reject."+load+".cpu_ratio", "ratio", of(load, kindRefusing, kindKitex))
	}
	res.add("qos.reject.cpu_ratio_1MB", "ratio", of("1MB", kindRefusing, kindKitex))
	allocs := func(load string) float64 { return median(got[load+kindRefusing], spent.allocated) }
	res.add("qos.reject.allocs", "allocs", max(allocs("c64"), allocs("c1000")))
	// One for each payload would be 1. Less than a tenth is what the rest of the process
	// does meanwhile.
	res.add("qos.reject.payload_allocs", "allocs", max(0, math.Trunc((allocs("c64")-allocs("empty"))*10)/10))
	worst := 0.
	for _, load := range []string{"c64", "c1000"} {
		v := of(load, kindOurs, kindOff)
		worst = max(worst, v)
		res.add("qos.served."+load+".cpu_ratio_vs_off", "ratio", v)
	}
	res.add("qos.served.cpu_ratio_vs_off", "ratio", worst)
	return nil
}

func (s spent) rate() float64      { return s.perSecond }
func (s spent) cpu() float64       { return s.micros }
func (s spent) allocated() float64 { return s.allocs }
func (s spent) share() float64     { return s.refused }

func median(ss []spent, f func(spent) float64) float64 {
	var vs []float64
	for _, s := range ss {
		vs = append(vs, f(s))
	}
	_, m, _ := figure.Quartiles(vs)
	return m
}

// echoes measures one load against a server of each kind, which take turns: so other
// work on the machine weighs on all of them.
func echoes(ctx context.Context, cfg config, l echoLoad, round int, got map[string][]spent) (err error) {
	turns := cfg.turns
	if l.kitex {
		turns = (turns + 1) / 2 // a cross-check
	}
	gen, err := start(ctx, cfg.gen, "generator")
	if err != nil {
		return err
	}
	ps := []*proc{gen}
	defer func() { err = errors.Join(err, stopAll(ps...)) }()
	frames := make([][]byte, len(l.kinds))
	for i, kind := range l.kinds {
		server, err := cfg.startServer(ctx, cfg.server, kind)
		if err != nil {
			return err
		}
		ps = append(ps, server)
		if l.kitex {
			continue
		}
		r, err := gen.do(order{Op: opFrame, Addrs: []string{kind}, Bytes: l.bytes})
		if err != nil {
			return err
		}
		frames[i] = r.Frame
	}
	for turn := range turns {
		for i := range l.kinds {
			i = (i + turn + round) % len(l.kinds)
			s, err := flooded(ctx, ps[1+i], gen, l, frames[i])
			if err != nil {
				return fmt.Errorf("against %s: %w", l.kinds[i], err)
			}
			got[l.name+l.kinds[i]] = append(got[l.name+l.kinds[i]], s)
		}
	}
	return nil
}

// flooded measures a server under a flood.
func flooded(ctx context.Context, server, gen *proc, l echoLoad, frame []byte) (s spent, err error) {
	const (
		warmUp, window   = 100 * time.Millisecond, 250 * time.Millisecond
		fewest, patience = 20, 40 // answers, and windows to wait for so many
	)
	if _, err := gen.do(order{Op: opFlood, Addrs: []string{server.first.Addr}, Callers: l.callers, Bytes: l.bytes, Frame: frame}); err != nil {
		return s, err
	}
	var atServer, atGen [2]report
	for i, longer := range []time.Duration{warmUp, window} {
		for range patience {
			if err := wait.For(ctx, longer); err != nil {
				return s, err
			}
			if atServer[i], err = server.do(order{Op: opSample}); err != nil {
				return s, err
			}
			if atGen[i], err = gen.do(order{Op: opSample}); err != nil {
				return s, err
			}
			if atGen[i].Ran-atGen[0].Ran >= fewest*int64(i) {
				break
			}
		}
	}
	if _, err := gen.do(order{Op: opStop}); err != nil {
		return s, err
	}
	calls := float64(atGen[1].Ran - atGen[0].Ran)
	if calls == 0 {
		return s, errors.New("nothing was answered")
	}
	return spent{
		micros:    float64(atServer[1].CPU-atServer[0].CPU) / 1e3 / calls,
		allocs:    float64(atServer[1].Mallocs-atServer[0].Mallocs) / calls,
		bytes:     float64(atServer[1].Bytes-atServer[0].Bytes) / calls,
		perSecond: calls / (atGen[1].At - atGen[0].At).Seconds(),
		refused:   float64(atGen[1].Refused-atGen[0].Refused) / calls,
	}, nil
}
