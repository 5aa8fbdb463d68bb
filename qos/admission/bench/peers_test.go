// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"testing"
	"testing/synctest"
)

// TestPackagedPeers is the part of the program that needs a bubble: it runs what
// the environment asks for and writes the metrics to standard output.
func TestPackagedPeers(t *testing.T) {
	text := os.Getenv(peersEnv)
	if text == "" {
		t.Skip("the program starts this")
	}
	var args []string
	if err := json.Unmarshal([]byte(text), &args); err != nil {
		t.Fatal(err)
	}
	cfg, err := parse(args)
	if err != nil {
		t.Fatal(err)
	}
	out := json.NewEncoder(os.Stdout)
	for _, p := range cfg.packaged {
		var all []metric
		write := func(ms []metric) {
			for _, m := range ms {
				m.Metric = p.metricName(m.Metric)
				if err := out.Encode(m); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, e := range cfg.experiments() {
			tasks := e.cell.arrivals(cfg.seed)
			synctest.Test(t, func(*testing.T) {
				b := new(bubble)
				w := newWorldIn(b, e.cell, p, cfg.seed)
				b.follow(&w.sim)
				w.play(tasks)
			})
			ms := e.read(e.cell.measure(tasks))
			write(ms)
			all = append(all, ms...)
		}
		write(summary(all)[len(all):])
	}
}
