// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// lastCut is how long all lines are cut at the end of a round.
	lastCut = 4 * time.Second
	// grace is what a region has after a process of it has been started again: until those that call it notice.
	grace = 2 * time.Second
	// backTime is what a killed process or region has to be ready again.
	backTime = time.Minute
)

// sea is what runs: the regions' processes and the lines between them, and what is broken of them now.
type sea struct {
	data  string // directory of the regions
	ocean string // URL of the page on which lines are set

	kills, cuts int // of their goroutines, until those have ended

	mu      sync.Mutex
	doors   map[string][]string  // guarded by mu; region -> its gateways' URLs
	down    map[string]bool      // guarded by mu; regions of which a process was killed and is not ready again
	trouble map[string]time.Time // guarded by mu; when that ended last
	broken  bool                 // guarded by mu; a line is
	changed time.Time            // guarded by mu; when broken did
}

func newSea(data string) *sea {
	return &sea{data: data, doors: map[string][]string{}, down: map[string]bool{}, trouble: map[string]time.Time{}}
}

// weather is how it was around a call.
type weather int

const (
	mixedSea weather = iota // it has changed meanwhile, or shortly before
	calmSea                 // all was whole
	cutSea                  // all processes ran, a line was broken
)

// around tells how it was during a call that began then, and whether all processes of its region ran.
func (s *sea) around(region string, began time.Time) (w weather, whole bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	runs := func(region string) bool { return !s.down[region] && s.trouble[region].Add(grace).Before(began) }
	whole = runs(region)
	switch {
	case slices.ContainsFunc(regionNames, func(r string) bool { return !runs(r) }): // they share the machine
		return mixedSea, whole
	case s.broken && s.changed.Before(began):
		return cutSea, whole
	case !s.broken && s.changed.Add(time.Second).Before(began):
		return calmSea, whole
	}
	return mixedSea, whole
}

func (s *sea) setBroken(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken, s.changed = is, time.Now()
}

func (s *sea) setDown(region string, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down[region] = is
	s.trouble[region] = time.Now()
}

// door gives the URL of a region's gateway; there may be several.
func (s *sea) door(region string, n int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.doors[region]
	if len(all) == 0 {
		return "http://" + region + ".invalid"
	}
	return all[n%len(all)]
}

// running is what a region says of its processes.
type running struct {
	PID      int `json:"pid"`
	Gateways []struct {
		URL string `json:"url"`
		PID int    `json:"pid"`
	} `json:"gateways"`
	Services map[string]struct {
		Admin string `json:"admin"`
		PID   int    `json:"pid"`
	} `json:"services"`
}

func (s *sea) running(region string) (*running, error) {
	b, err := os.ReadFile(filepath.Join(s.data, region, "run.json"))
	if err != nil {
		return nil, err
	}
	var is running
	return &is, json.Unmarshal(b, &is)
}

// processes are those of a region by name, the one that looks after the others first.
func (r *running) processes(region string) []server {
	all := []server{{region, r.PID}}
	for i, g := range r.Gateways {
		if g.PID != 0 && g.PID != r.PID {
			all = append(all, server{fmt.Sprintf("gateway %d of %s", i+1, region), g.PID})
		}
	}
	for name, s := range r.Services {
		if s.PID != 0 && s.PID != r.PID {
			all = append(all, server{name + " of " + region, s.PID})
		}
	}
	slices.SortFunc(all[1:], func(a, b server) int { return bytes.Compare([]byte(a.name), []byte(b.name)) })
	return all
}

// ours reports whether the process of that number was started on the drill's data: numbers are given again.
func (s *sea) ours(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return err == nil && bytes.Contains(b, []byte(s.data))
}

// find waits until all regions are up, and takes where their gateways are.
func (d *seaDrill) find(ctx context.Context) error {
	b, err := os.ReadFile(filepath.Join(d.data, "ocean.json"))
	if err != nil {
		return err
	}
	var said struct {
		URL string `json:"url"`
	}
	if err := json.Unmarshal(b, &said); err != nil {
		return err
	}
	d.ocean = said.URL
	for _, region := range regionNames {
		if err := d.ready(ctx, region, 0); err != nil {
			return err
		}
	}
	return nil
}

// ready asks all processes of a region whether they are ready, and takes where its gateways are. The process of that number must not be
// among them: it was killed.
func (d *seaDrill) ready(ctx context.Context, region string, killed int) error {
	is, err := d.running(region)
	if err != nil {
		return err
	}
	all := is.processes(region)
	for _, p := range all {
		if p.pid == killed || !d.ours(p.pid) {
			return fmt.Errorf("%s is not running", p.name)
		}
	}
	var doors []string
	for _, g := range is.Gateways {
		if err := d.get(ctx, g.URL+"/readyz", nil); err != nil {
			return fmt.Errorf("a gateway of %s: %w", region, err)
		}
		doors = append(doors, g.URL)
	}
	for name, s := range is.Services {
		if err := d.get(ctx, "http://"+s.Admin+"/readyz", nil); err != nil {
			return fmt.Errorf("%s of %s: %w", name, region, err)
		}
	}
	d.sea.mu.Lock()
	defer d.sea.mu.Unlock()
	d.doors[region] = doors
	return nil
}

var seaLines = [][2]string{{"sh", "hk"}, {"sh", "ca"}, {"hk", "ca"}}

// breakLines does harm to one line or region after the other until acting ends. At last all lines are cut.
func (d *seaDrill) breakLines(ctx, acting context.Context, chance *rand.Rand) error {
	for wait(acting, time.Duration(2000+chance.IntN(2000))*time.Millisecond) {
		lines := [][2]string{seaLines[chance.IntN(len(seaLines))]}
		lasts := time.Duration(2000+chance.IntN(6000)) * time.Millisecond
		change := map[string]any{"cut": true}
		what := ""
		switch chance.IntN(5) {
		case 0, 1:
			what = fmt.Sprintf("%s-%s is cut", lines[0][0], lines[0][1])
		case 2:
			from := lines[0][chance.IntN(2)]
			change["from"] = from
			what = fmt.Sprintf("%s-%s is cut for what %s sends", lines[0][0], lines[0][1], from)
		case 3:
			change = map[string]any{"delay_ms": 300}
			what = fmt.Sprintf("%s-%s takes 300 ms", lines[0][0], lines[0][1])
		case 4:
			dark := regionNames[chance.IntN(len(regionNames))]
			lines = slices.DeleteFunc(slices.Clone(seaLines), func(l [2]string) bool { return l[0] != dark && l[1] != dark })
			what = dark + " is dark"
		}
		d.say("%6.1f s  %s for %.1f s", d.now().Seconds(), what, lasts.Seconds())
		d.cuts++
		for _, l := range lines {
			if err := d.set(ctx, l, change); err != nil {
				return err
			}
		}
		d.setBroken(true)
		wait(acting, lasts)
		if err := d.healAll(ctx); err != nil {
			return err
		}
	}
	for _, l := range seaLines {
		if err := d.set(ctx, l, map[string]any{"cut": true}); err != nil {
			return err
		}
	}
	d.cuts++
	d.setBroken(true)
	return ctx.Err()
}

// breakProcesses kills one process after the other, or all of a region, and waits until they have been started again.
func (d *seaDrill) breakProcesses(ctx, acting context.Context, chance *rand.Rand) error {
	for wait(acting, time.Duration(3000+chance.IntN(7000))*time.Millisecond) {
		region := regionNames[chance.IntN(len(regionNames))]
		is, err := d.running(region)
		if err != nil {
			return err
		}
		all := is.processes(region)
		p := all[0]
		if len(all) > 1 && chance.IntN(4) > 0 {
			p = all[1+chance.IntN(len(all)-1)]
		}
		if !d.ours(p.pid) {
			return fmt.Errorf("%s, process %d, does not run any more", p.name, p.pid)
		}
		d.say("%6.1f s  %s is killed", d.now().Seconds(), p.name)
		d.setDown(region, true)
		if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %s: %w", p.name, err)
		}
		d.kills++
		limit, cancel := context.WithTimeout(ctx, backTime)
		err = d.until(limit, 50*time.Millisecond, func() error { return d.ready(limit, region, p.pid) })
		cancel()
		if err != nil {
			return fmt.Errorf("%s was killed and %s is not ready again: %w", p.name, region, err)
		}
		d.setDown(region, false)
	}
	return ctx.Err()
}

func (d *seaDrill) healAll(ctx context.Context) error {
	for _, l := range seaLines {
		if err := d.set(ctx, l, map[string]any{"cut": false, "delay_ms": d.delay.Milliseconds()}); err != nil {
			return err
		}
	}
	d.setBroken(false)
	return nil
}

func (d *seaDrill) set(ctx context.Context, l [2]string, change map[string]any) error {
	if _, err := d.call(ctx, http.MethodPost, d.ocean+"/api/lines/"+l[0]+"/"+l[1], nil, change, nil); err != nil {
		return fmt.Errorf("set the line %s-%s: %w", l[0], l[1], err)
	}
	return nil
}

// traffic is what the lines of a region have carried, both ways, probes and acknowledgements of all services included.
type traffic struct {
	total uint64
	with  map[string]uint64 // by the other region
}

func (d *seaDrill) carried(ctx context.Context, region string) (traffic, error) {
	var state struct {
		Lines []struct {
			A     string `json:"a"`
			B     string `json:"b"`
			There struct {
				Bytes uint64 `json:"bytes"`
			} `json:"there"`
			Back struct {
				Bytes uint64 `json:"bytes"`
			} `json:"back"`
		} `json:"lines"`
	}
	if err := d.get(ctx, d.ocean+"/api/state", &state); err != nil {
		return traffic{}, err
	}
	t := traffic{with: map[string]uint64{}}
	for _, l := range state.Lines {
		other := l.A
		switch region {
		case l.A:
			other = l.B
		case l.B:
		default:
			continue
		}
		t.with[other] = l.There.Bytes + l.Back.Bytes
		t.total += t.with[other]
	}
	if len(t.with) != len(regionNames)-1 {
		return traffic{}, errors.New("the page does not tell of all lines")
	}
	return t, nil
}
