// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/framework/bench/figure"
)

// goals are what the drill must show.
var goals = map[string]figure.Goal{
	"error_share_after_3s": {Op: "<=", Limit: .001},
	"attempts_ratio":       {Op: "<=", Limit: 1.1},
}

// Result is what the callers have seen of one fault.
type Result struct {
	Calls, Errors         int
	lateCalls, lateErrors int // begun three seconds after the fault
	Attempts              float64
	Recovery              time.Duration // until the instance is called again, or all are
	examples              []string
}

func (r *Result) share() float64 { return float64(r.lateErrors) / float64(max(r.lateCalls, 1)) }

func (r *Result) attemptsRatio() float64 { return r.Attempts / float64(max(r.Calls, 1)) }

// Report prints what the callers have seen, and gives the figures.
func (r *Result) Report(kind string) (all []figure.Metric) {
	fmt.Printf("%-10s %10d %10d %11.4f%% %14.4f %11.1fs\n", kind, r.Calls, r.Errors, 100*r.share(), r.attemptsRatio(), r.Recovery.Seconds())
	for _, e := range r.examples {
		fmt.Printf("           after 3 s: %s\n", e)
	}
	for _, m := range []figure.Metric{
		figure.Of("faults."+kind+".error_share_after_3s", "share", []float64{r.share()}),
		figure.Of("faults."+kind+".attempts_ratio", "attempts/call", []float64{r.attemptsRatio()}),
		figure.Of("faults."+kind+".recovery_s", "s", []float64{r.Recovery.Seconds()}),
		figure.Of("faults."+kind+".errors", "calls", []float64{float64(r.Errors)}),
		figure.Of("faults."+kind+".calls", "calls", []float64{float64(r.Calls)}),
	} {
		if g, ok := goals[m.Name[strings.LastIndex(m.Name, ".")+1:]]; ok {
			exact := r.share()
			if strings.HasSuffix(m.Name, "attempts_ratio") {
				exact = r.attemptsRatio()
			}
			m.Value = exact
			m.Judge(&g, exact)
		}
		all = append(all, m)
	}
	return all
}
