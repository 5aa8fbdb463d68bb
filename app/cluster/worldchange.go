// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/topology"
)

const (
	hearTime = 30 * time.Second       // for the regions to hear of a change
	lookTime = 100 * time.Millisecond // between two looks at how far it is
	askTime  = 5 * time.Second        // for one look

	takeBackTime = 30 * time.Second // for the others to hear that a region has not joined after all
)

// errNotNow: only a World that runs changes.
var errNotNow = errors.New("the regions are starting or stopping: try again")

// Join brings up one more region while the others run, with a number that none has had, and
// returns when it serves. The others know it before it starts, so that none misses what it
// makes; what there was before it comes meanwhile and after that: see Complete. If it fails,
// or ctx ends before the region serves, everything is as it was, but for the number.
func (w *World) Join(ctx context.Context, name string) (WorldRegion, error) {
	w.changing.Lock()
	defer w.changing.Unlock()
	all := w.all()
	switch _, there := w.find(name); {
	case w.begin == nil || !w.wasReady.Load():
		return WorldRegion{}, errNotNow
	case there:
		return WorldRegion{}, fmt.Errorf("region %s is there already", name)
	case len(all) == maxRegions:
		return WorldRegion{}, fmt.Errorf("there are %d regions, which is the limit", maxRegions)
	}
	if err := checkRegionName(name); err != nil {
		return WorldRegion{}, err
	}
	before, err := w.wasHere(name)
	if err != nil {
		return WorldRegion{}, err
	}
	r, err := w.add(ctx, name)
	if err != nil {
		w.forget(name) // lines may have been made
		return WorldRegion{}, err
	}
	r.comes()
	if err = w.configure(); err == nil {
		err = w.heard(ctx, all, r, true)
	}
	if err == nil {
		w.begin(r)
		limit, cancel := context.WithTimeout(ctx, worldReady)
		err = r.ready(limit, r.URL+"/readyz")
		cancel()
		if err == nil {
			err = r.arrived()
		}
		if err != nil {
			r.halt(false)
		}
	}
	if err != nil {
		return WorldRegion{}, errors.Join(fmt.Errorf("region %s has not joined: %w", name, err), w.takeBack(ctx, r, all, before))
	}
	return r.WorldRegion, nil
}

// wasHere reports whether a region comes back from an earlier time, with what it had then.
func (w *World) wasHere(name string) (bool, error) {
	numbers, err := readNumbers(filepath.Join(w.cfg.Dir, numbersFile))
	if err != nil {
		return false, err
	}
	dir := filepath.Join(w.cfg.Dir, name)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if _, known := numbers[name]; !known {
		return false, fmt.Errorf("%s is there, and is of no region that has a number: use another name, or move it away", dir)
	}
	return true, nil
}

// takeBack undoes a Join that has failed: nobody waits for the region any more, and gets
// another number if it is tried again. One that was here before keeps its own, and its data.
func (w *World) takeBack(ctx context.Context, r *worldRegion, others []*worldRegion, before bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeBackTime)
	defer cancel()
	w.forget(r.Name)
	err := errors.Join(w.configure(), os.Remove(r.file))
	if before {
		return err
	}
	// One that does not answer now hears of both from the others. It is known by none if none
	// has heard of it; then its number can be given to it again.
	known := false
	for _, o := range others {
		one, cancel := context.WithTimeout(ctx, askTime)
		known = endNumber(one, o, r) == nil || known
		cancel()
	}
	if !known {
		return err
	}
	return errors.Join(err, w.bury(r))
}

// endNumber has a region note that another one has left.
func endNumber(ctx context.Context, at, of *worldRegion) error {
	return OrderQueue(ctx, at.Dir, topology.Comment, QueueOrder{Do: QueueLeft, Region: strconv.Itoa(int(of.Number))}, nil)
}

// Complete waits until a region has all that the others had when it was called, and they
// have what it had.
func (w *World) Complete(ctx context.Context, name string) error {
	r, ok := w.find(name)
	if !ok {
		return fmt.Errorf("there is no region %s", name)
	}
	others := slices.DeleteFunc(w.all(), func(o *worldRegion) bool { return o == r })
	for _, o := range others {
		if err := sent(ctx, o, r); err != nil {
			return err
		}
		if err := sent(ctx, r, o); err != nil {
			return err
		}
	}
	return nil
}

// sent waits until a region has sent another one all that it had: no slot is to be sent as a
// whole, and what waits has been put just now.
func sent(ctx context.Context, from, to *worldRegion) error {
	const lately = time.Second
	return untilSo(ctx, func(ctx context.Context) error {
		pages, err := Queues(ctx, from.Dir)
		if err != nil {
			return fmt.Errorf("region %s: %w", from.Name, err)
		}
		for r, page := range pages {
			p := page.Queue.Peer(id.Region(to.Number))
			switch {
			case p == nil:
				return fmt.Errorf("%s of %s does not know %s yet", r, from.Name, to.Name)
			case p.Send.NeedsSnapshot > 0:
				return fmt.Errorf("%s of %s has %d slots to send to %s as a whole", r, from.Name, p.Send.NeedsSnapshot, to.Name)
			case p.Send.Depth > 0 && p.Send.LagMS > lately.Milliseconds():
				return fmt.Errorf("%s of %s has %d records for %s, the oldest of %v ago", r, from.Name, p.Send.Depth, to.Name, time.Duration(p.Send.LagMS)*time.Millisecond)
			}
		}
		return nil
	})
}

// untilSo looks until something is so, or ctx ends; then it tells what was not.
func untilSo(ctx context.Context, look func(context.Context) error) error {
	tick := time.NewTicker(lookTime)
	defer tick.Stop()
	for {
		one, cancel := context.WithTimeout(ctx, askTime)
		err := look(one)
		if cancel(); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("given up: %w", err)
		}
	}
}

// Leave lets a region go. Its gateways stop, so that it takes no writes any more; it runs on
// without them until all of the others have all that it had. Then they are told that it
// has left, it ends, and they forget it. Its directory is kept under another name, and its
// number is never given again. If that does not succeed before ctx ends, the region is
// started as it was.
//
// Who is at home in the region has to be moved before: see moments rehome.
func (w *World) Leave(ctx context.Context, name string) (err error) {
	w.changing.Lock()
	defer w.changing.Unlock()
	r, ok := w.find(name)
	others := slices.DeleteFunc(w.all(), func(o *worldRegion) bool { return o == r })
	switch {
	case w.begin == nil || !w.wasReady.Load():
		return errNotNow
	case !ok:
		return fmt.Errorf("there is no region %s", name)
	case len(others) < 2:
		return fmt.Errorf("only %d regions would be left: stop all, and start one alone", len(others))
	}
	r.halt(true)
	w.begin(r)
	if err := w.drained(ctx, r, others); err != nil {
		r.halt(false)
		if w.begin != nil {
			w.begin(r)
		}
		return fmt.Errorf("%s stays: %w", name, err)
	}
	r.halt(true)
	w.forget(name)
	// From here on it is over: nobody waits for it any more.
	err = errors.Join(w.configure(), w.heard(context.WithoutCancel(ctx), others, r, false))
	return errors.Join(err, w.bury(r))
}

// halt ends the process of a region. Drain is for its next start.
func (r *worldRegion) halt(drain bool) {
	r.mu.Lock()
	stop, ended := r.stop, r.ended
	r.drain = drain
	r.mu.Unlock()
	stop()
	<-ended
}

// drained waits until others have all of a region, and have it marked as left.
func (w *World) drained(ctx context.Context, r *worldRegion, others []*worldRegion) error {
	if err := r.ready(ctx, ""); err != nil {
		return err
	}
	err := untilSo(ctx, func(ctx context.Context) error {
		pages, err := Queues(ctx, r.Dir)
		if err != nil {
			return err
		}
		for role, page := range pages {
			for _, o := range others {
				p := page.Queue.Peer(id.Region(o.Number))
				if p == nil || p.Send.Depth > 0 || p.Send.NeedsSnapshot > 0 {
					return fmt.Errorf("region %s has not all of its %s yet", o.Name, role)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, o := range others {
		err := untilSo(ctx, func(ctx context.Context) error {
			pages, err := Queues(ctx, o.Dir)
			if err != nil {
				return fmt.Errorf("region %s: %w", o.Name, err)
			}
			for role, page := range pages {
				if p := page.Queue.Peer(id.Region(r.Number)); p != nil && p.Receive.InQuarantine > 0 {
					return fmt.Errorf("%s of %s holds %d records of it in quarantine: release or drop them (moments queue held --data %s)", role, o.Name, p.Receive.InQuarantine, o.Dir)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, o := range others {
		err := untilSo(ctx, func(ctx context.Context) error {
			return endNumber(ctx, o, r)
		})
		if err != nil {
			return fmt.Errorf("tell %s that it leaves: %w", o.Name, err)
		}
	}
	return nil
}

// heard waits until all services of some regions know another one, or know it no more. One
// that does not run hears of it when it starts.
func (w *World) heard(ctx context.Context, regions []*worldRegion, of *worldRegion, there bool) error {
	ctx, cancel := context.WithTimeout(ctx, hearTime)
	defer cancel()
	for _, o := range regions {
		err := untilSo(ctx, func(ctx context.Context) error {
			pages, err := Queues(ctx, o.Dir)
			if errors.Is(err, ErrNotRunning) {
				return nil
			}
			if err != nil {
				return err
			}
			for role, page := range pages {
				if knows := page.Queue.Peer(id.Region(of.Number)) != nil; knows != there {
					return fmt.Errorf("%s of %s has not heard of the change of %s", role, o.Name, of.Name)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// forget takes out a region, and all that leads to it and from it.
func (w *World) forget(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.regions = slices.DeleteFunc(w.regions, func(r *worldRegion) bool { return r.Name == name })
	w.lines = slices.DeleteFunc(w.lines, func(l WorldLine) bool { return l.A == name || l.B == name })
	w.doors = slices.DeleteFunc(w.doors, func(d *door) bool {
		gone := d.from.Name == name || d.whose.Name == name
		if gone && d.stop != nil {
			d.stop()
		} else if gone {
			_ = d.lis.Close() // nobody carries it yet
		}
		return gone
	})
}

// bury keeps what a region has left, if anything, under a name that no region has, and its
// number for good.
func (w *World) bury(r *worldRegion) error {
	file := filepath.Join(w.cfg.Dir, numbersFile)
	numbers, err := readNumbers(file)
	if err != nil {
		return err
	}
	left := fmt.Sprintf("%s.left-%d", r.Name, r.Number)
	// The name is free last: a new number must never come to what the old one has left.
	for from, to := range map[string]string{r.Dir: left, r.file: left + ".yaml"} {
		if err := os.Rename(from, filepath.Join(w.cfg.Dir, to)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	delete(numbers, r.Name)
	numbers[left] = r.Number
	return writeNumbers(file, numbers)
}
