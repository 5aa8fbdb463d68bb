// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/load"
)

func TestParseDrill(t *testing.T) {
	c, err := parseDrill([]string{"-mix", "20/10/70", "-spike", "5s"})
	if err != nil || c.mix != (load.Mix{load.VerbHome: 20, load.VerbPost: 10, load.VerbAlbum: 70}) || c.spike != 5*time.Second {
		t.Errorf("%+v, %v", c, err)
	}
	for _, args := range [][]string{{"-spike", "1ms"}, {"-step", "0s"}, {"-connections", "1"}, {"-mix", "half"}, {"midnight"}} {
		if _, err := parseDrill(args); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}

// TestRecovery: a second counts when it is quick again and serves again.
func TestRecovery(t *testing.T) {
	window := func(took time.Duration, refused int64) *load.Window {
		w := &load.Window{}
		for range 100 {
			w.Served.Record(took)
		}
		w.Verbs[load.VerbHome] = load.Tally{Offered: 100 + refused, Done: 100, Refused: refused}
		return w
	}
	n := &night{windows: []*load.Window{window(1, 0), window(1, 0), window(time.Second, 0), window(1, 2), window(14, 1), window(1, 0)}, spike: [2]int{1, 2}}
	if s, ever := n.recovery(10); s != 3 || !ever {
		t.Errorf("%d s, %v", s, ever)
	}
	n.windows = n.windows[:4]
	if s, ever := n.recovery(10); s != 2 || ever {
		t.Errorf("%d s, %v", s, ever)
	}
}

// TestClassesYieldInOrder: which of the three shares missed its goal.
func TestClassesYieldInOrder(t *testing.T) {
	for name, c := range map[string]struct {
		reads, posts, extras float64
		missed               []string
	}{
		"extras yield":            {.95, .92, .1, nil},
		"reads alone fill it":     {.55, .02, .01, nil},
		"extras before reads":     {.6, .6, .6, []string{"reads_share", "extras_share"}},
		"posts behind reads":      {.95, .5, .1, []string{"posts_share"}},
		"all is served":           {1, 1, 1, nil},
		"extras better than read": {.92, .92, .99, []string{"extras_share"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := &drill{drillConfig: &drillConfig{mix: load.MixX}, out: t.Output()}
			var missed []string
			d.classes(func(name, unit string, v float64, g *goal) *metric {
				m := newMetric(name, unit, []float64{v}, g)
				if m.Met != nil && !*m.Met {
					missed = append(missed, name)
				}
				return &m
			}, c.reads, c.posts, c.extras)
			if !slices.Equal(missed, c.missed) {
				t.Errorf("missed %v, want %v", missed, c.missed)
			}
		})
	}
}

func TestLooksAtAProcess(t *testing.T) {
	if residentOf(os.Getpid()) == 0 || residentOf(1<<30) != 0 || starvedOf(1<<30) != 0 {
		t.Error("memory of a process")
	}
	if _, err := cpuOfOne(1 << 30); err == nil {
		t.Error("the CPU time of no process")
	}
}
