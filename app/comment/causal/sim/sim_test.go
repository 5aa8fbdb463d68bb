// SPDX-License-Identifier: Apache-2.0

package sim_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-rpc/sluice/app/check"
	"github.com/sluice-rpc/sluice/app/comment/causal/sim"
)

// seeds is how many are run, and from which on; SIM_SEEDS and SIM_FROM are for longer
// tests.
func seeds(t *testing.T) (from, n uint64) {
	from, n = 1, 2000
	if raceDetector { // each takes ten times as long, and there is but one goroutine
		n = 100
	}
	for name, into := range map[string]*uint64{"SIM_FROM": &from, "SIM_SEEDS": &n} {
		if text := os.Getenv(name); text != "" {
			v, err := strconv.ParseUint(text, 10, 64)
			if err != nil || v == 0 {
				t.Fatalf("%s=%q: give a number from 1 on", name, text)
			}
			*into = v
		}
	}
	return from, n
}

// fine tells what is wrong with a run in which no fault was planted.
func fine(r *sim.Result) string {
	switch {
	case r.Verdict.Err() != nil:
		return r.Verdict.Err().Error() + "\n" + r.Verdict.Violations[0].String()
	case r.Stats.Unsettled != 0:
		return "the regions have not come to rest"
	case r.Stats.Forks != 0:
		return "a place in a log was given twice"
	}
	return ""
}

// TestSeeds: whatever goes wrong around them, the regions keep every promise.
func TestSeeds(t *testing.T) {
	from, n := seeds(t)
	var next, failed atomic.Uint64
	var mu sync.Mutex
	var total sim.Stats // guarded by mu
	var wg sync.WaitGroup
	next.Store(from)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for failed.Load() < 5 {
				seed := next.Add(1) - 1
				if seed >= from+n {
					return
				}
				r := sim.Run(sim.NewPlan(seed), sim.None)
				if wrong := fine(r); wrong != "" {
					failed.Add(1)
					t.Errorf("seed %d: %s\n%s", seed, wrong, keep(t, seed))
				}
				mu.Lock()
				total.Add(&r.Stats)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d seeds from %d: %+v", n, from, total)
	// What never happens proves nothing.
	if n < 1000 {
		return
	}
	if total.Held == 0 || total.Dropped == 0 || total.Orphans == 0 || total.Behind == 0 || total.Collected == 0 ||
		total.Unanswered == 0 || total.Refused == 0 || total.Conflicts == 0 || total.Repeated == 0 {
		t.Errorf("something never happened: %+v", total)
	}
}

// keep makes a failing seed's plan small and writes it where it stays, if it is told to.
func keep(t *testing.T, seed uint64) string {
	plan := sim.Shrink(sim.NewPlan(seed), func(p sim.Plan) bool { return fine(sim.Run(p, sim.None)) != "" }, 1000)
	why := fine(sim.Run(plan, sim.None))
	var steps strings.Builder
	for _, s := range plan.Steps {
		fmt.Fprintf(&steps, "  %v\n", s)
	}
	if os.Getenv("SIM_KEEP") == "" {
		return fmt.Sprintf("with SIM_KEEP=1 its smallest plan goes to testdata: %s\n%v servers\n%s", why, plan.Regions, &steps)
	}
	b, err := plan.Encode(why)
	if err != nil {
		return err.Error()
	}
	if err := os.WriteFile(filepath.Join("testdata", fmt.Sprintf("seed-%d.json", seed)), b, 0o644); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("its smallest plan is in testdata: %s\n%v servers\n%s", why, plan.Regions, &steps)
}

// TestKept runs the plans that once found something, and says what.
func TestKept(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d plans, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			plan, why, err := sim.ParsePlan(b)
			if err != nil {
				t.Fatal(err)
			}
			if wrong := fine(sim.Run(plan, sim.None)); wrong != "" {
				t.Errorf("%s\nkept because: %s", wrong, why)
			}
		})
	}
}

// TestShrink: of a plan that shows a fault, hardly more is left than shows it.
func TestShrink(t *testing.T) {
	broken := func(p sim.Plan) bool {
		return sim.Run(p, sim.OrderByClock).Verdict.Broken[check.CausesFirst] > 0
	}
	plan := sim.NewPlan(1)
	small := sim.Shrink(plan, broken, 500)
	if !broken(small) || len(small.Steps) > 6 {
		t.Errorf("%d of %d steps are left, and show the fault: %v\n%v", len(small.Steps), len(plan.Steps), broken(small), small.Steps)
	}
}

// expected is what each fault must break, one of them at least.
var expected = map[sim.Fault][]check.Rule{
	sim.NoDependencyCheck:  {check.CausesShown},
	sim.SequenceBeforeSync: {check.OneEffect, check.Complete, check.Converged, check.ThinAir},
	sim.IDAfterRestart:     {check.OneID},
	sim.ModulusChanged:     {check.OneID},
	sim.DeleteRemovesRow:   {check.DeletedStays, check.Converged},
	sim.TombstoneEarly:     {check.CausesShown},
	sim.OrderByClock:       {check.CausesFirst},
	sim.OrderByArrival:     {check.OneOrder, check.Converged},
	sim.OverflowSkips:      {check.CausesShown, check.Complete, check.DeletedStays},
	sim.UnlikeWins:         {check.LikesRight},
	sim.KeysForgotten:      {check.OneEffect},
	sim.StaleRead:          {check.OwnWrites, check.MonotonicReads},
}

// TestPlantedFaults: each would be noticed within 1,000 seeds, for what it is.
func TestPlantedFaults(t *testing.T) {
	for _, f := range sim.Faults() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 1000; seed++ {
				v := sim.Run(sim.NewPlan(seed), f).Verdict
				for _, rule := range expected[f] {
					if v.Broken[rule] > 0 {
						t.Logf("seed %d: %s", seed, rule)
						return
					}
				}
			}
			t.Errorf("not caught in 1,000 seeds; want one of %v", expected[f])
		})
	}
}

// TestSameSeedSameRun: a run depends on its plan and on nothing else.
func TestSameSeedSameRun(t *testing.T) {
	traces := make(map[uint64]uint64)
	for seed := uint64(1); seed <= 30; seed++ {
		a, b := sim.Run(sim.NewPlan(seed), sim.None), sim.Run(sim.NewPlan(seed), sim.None)
		if a.Trace != b.Trace || a.Stats != b.Stats {
			t.Errorf("seed %d: traces %x and %x, %+v and %+v", seed, a.Trace, b.Trace, a.Stats, b.Stats)
		}
		if other, ok := traces[a.Trace]; ok {
			t.Errorf("seeds %d and %d have one trace", other, seed)
		}
		traces[a.Trace] = seed
	}
}
