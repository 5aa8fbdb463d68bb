// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// usual is the load at the start, as a part of the measured capacity.
const usual = .7

// demo is one run.
type demo struct {
	Length time.Duration // until it ends by itself; 0 for never
	Script []step
	Screen *screen
}

// run starts the tiers, measures them, and shows them under load until it is time,
// somebody quits or ctx ends. When it returns no process and no goroutine is left. It
// gives what it has seen.
func (d demo) run(ctx context.Context) (seen report, err error) {
	r := &running{demo: d, setting: setting{Load: 1, Admission: true}}
	defer func() {
		err = errors.Join(err, r.halt())
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = nil // stopped as asked
		}
		seen = report{capacity: r.capacity, phases: r.phases}
	}()
	if err := r.start(ctx); err != nil {
		return seen, err
	}
	d.Screen.say("middle is process %d, leaf is process %d; measuring what they can do ...", r.tiers.middle.cmd.Process.Pid, r.tiers.leaf.cmd.Process.Pid)
	if r.capacity, err = r.front.measure(ctx, r.tiers.client); err != nil {
		return seen, err
	}
	d.Screen.say("capacity: %.0f tasks a second; the usual load is %.1f of it", r.capacity, usual)
	return seen, r.loop(ctx)
}

// report is what a run has seen.
type report struct {
	capacity float64 // tasks a second
	phases   []phase
}

// running is a demo that runs. It is one goroutine's.
type running struct {
	demo
	setting
	front    front
	tiers    *tiers
	capacity float64 // tasks a second
	elapsed  int     // seconds under load
	steps    int     // of the script, taken
	last     [2]int64
	phases   []phase

	stopLoad context.CancelFunc // nil while there is none
	load     sync.WaitGroup
}

// phase is the time under one setting.
type phase struct {
	setting
	from, seconds int
	figures       figures
	leafDone      int64
}

// maxPhases bounds the summary.
const maxPhases = 32

// start brings up the tiers of the setting.
func (r *running) start(ctx context.Context) (err error) {
	if r.tiers, err = startTiers(ctx, r.Admission); err != nil {
		return err
	}
	r.last = [2]int64{}
	return r.front.ready(ctx, r.tiers.client)
}

func (r *running) drive(ctx context.Context) {
	ctx, r.stopLoad = context.WithCancel(ctx)
	client := r.tiers.client
	r.load.Go(func() { r.front.drive(ctx, client) })
}

// halt ends the load and then the tiers. What was under way counts too.
func (r *running) halt() error {
	if r.stopLoad != nil {
		r.stopLoad()
		r.stopLoad = nil
	}
	r.load.Wait()
	if n := len(r.phases); n > 0 {
		r.phases[n-1].figures.add(r.front.meter.take())
	}
	t := r.tiers
	r.tiers = nil
	return t.stop()
}

func (r *running) loop(ctx context.Context) error {
	if _, err := r.follow(ctx); err != nil {
		return err
	}
	r.front.setRate(r.Load * usual * r.capacity)
	if r.stopLoad == nil {
		r.drive(ctx)
	}
	r.snapshot(ctx)
	r.begin()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		quit, restarted := false, false
		var err error
		select {
		case <-ctx.Done():
			quit = true
		case key := <-r.Screen.keys():
			quit, restarted, err = r.press(ctx, key)
		case <-tick.C:
			if quit, err = r.second(ctx); err == nil && !quit {
				restarted, err = r.follow(ctx)
			}
		}
		if err != nil {
			return err
		}
		if quit {
			return nil
		}
		if restarted {
			tick.Reset(time.Second)
		}
	}
}

// second shows one second; it is the last if the demo is over.
func (r *running) second(ctx context.Context) (over bool, err error) {
	for _, p := range []*process{r.tiers.middle, r.tiers.leaf} {
		if p.died() {
			return false, fmt.Errorf("the %s is gone", p.name) // why comes with the end of halt
		}
	}
	f := r.front.meter.take()
	states := r.snapshot(ctx)
	r.elapsed++
	p := &r.phases[len(r.phases)-1]
	p.seconds++
	p.figures.add(f)
	p.leafDone += states[1].Done
	r.Screen.draw(&view{
		elapsed: r.elapsed, setting: r.setting, capacity: r.capacity, figures: f,
		tiers: states,
	})
	return r.Length > 0 && time.Duration(r.elapsed)*time.Second >= r.Length, nil
}

// press does what a key asks for.
func (r *running) press(ctx context.Context, key byte) (quit, restarted bool, err error) {
	want := r.setting
	switch key {
	case 'q':
		return true, false, nil
	case '5':
		want.Load = 5
	case '1':
		want.Load = 1
	case 'o':
		want.Admission = !want.Admission
	}
	restarted, err = r.change(ctx, want)
	return false, restarted, err
}

// follow takes the steps of the script that are due.
func (r *running) follow(ctx context.Context) (restarted bool, err error) {
	want := r.setting
	for r.steps < len(r.Script) && r.Script[r.steps].After <= time.Duration(r.elapsed)*time.Second {
		r.Script[r.steps].Change(&want)
		r.steps++
	}
	return r.change(ctx, want)
}

// change goes over to another setting. Admission is what a server is started with, so
// the tiers are started again for it.
func (r *running) change(ctx context.Context, want setting) (restarted bool, err error) {
	if want == r.setting {
		return false, nil
	}
	restarted = want.Admission != r.Admission
	r.setting = want
	r.front.setRate(want.Load * usual * r.capacity)
	if restarted {
		if want.Admission {
			r.Screen.say("starting middle and leaf again with admission on ...")
		} else {
			r.Screen.say("starting middle and leaf again with admission off: they will take all that comes ...")
		}
		if err := r.halt(); err != nil {
			return true, err
		}
		if err := r.start(ctx); err != nil {
			return true, err
		}
		r.drive(ctx)
		r.snapshot(ctx)
	}
	r.begin()
	return restarted, nil
}

// begin opens a phase.
func (r *running) begin() {
	if n := len(r.phases); n > 0 && r.phases[n-1].seconds == 0 {
		r.phases = r.phases[:n-1] // nothing was seen of it
	}
	if len(r.phases) == maxPhases {
		r.phases = r.phases[1:]
	}
	r.phases = append(r.phases, phase{setting: r.setting, from: r.elapsed})
}

// snapshot asks the tiers how they are.
func (r *running) snapshot(ctx context.Context) (states [2]tierState) {
	var asked sync.WaitGroup
	for i, p := range []*process{r.tiers.middle, r.tiers.leaf} {
		asked.Go(func() { states[i] = p.state(ctx) })
	}
	asked.Wait()
	for i := range states {
		total := states[i].Done
		states[i].Done -= r.last[i]
		if states[i].Known {
			r.last[i] = total
		} else {
			states[i].Done = 0
		}
	}
	return states
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}
