// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/comment"
	"github.com/sluice-rpc/sluice/app/lockfile"
	"github.com/sluice-rpc/sluice/app/ocean/emulator"
	"github.com/sluice-rpc/sluice/app/pki"
	"github.com/sluice-rpc/sluice/app/topology"
)

// Files in the directory of a World, beside NAME and NAME.yaml of each region, and the key
// of links, which is the same in all.
const (
	numbersFile = "regions.json" // name -> number
	certsDir    = "certs"
)

const (
	maxRegions    = 8
	worldReady    = 2 * time.Minute     // for all regions to be ready at the start
	renewLeafLeft = 15 * 24 * time.Hour // a certificate that ends sooner is renewed at the start
)

// WorldConfig is what a World needs.
type WorldConfig struct {
	Dir     string   // of its regions' data
	Regions []string // names
	Addr    string   // of the first region's page; the others get the next ports
	Clocks  map[string]time.Duration
	Line    emulator.Setting // of every line at the start
	Split   bool             // each service a process of its own
	Binary  string           // the moments command
	Flags   []string         // more flags for its up command
	Stderr  io.Writer        // of the regions' processes
	Log     *slog.Logger
}

var errDiedComing = errors.New("its process has ended")

// World runs several regions on this machine, each a process of its own at least, and
// the emulated lines between them. It starts again what dies.
type World struct {
	cfg      WorldConfig
	log      *slog.Logger
	lock     *lockfile.Lock
	wasReady atomic.Bool // all regions were ready once

	changing sync.Mutex         // held while a region joins or leaves
	begin    func(*worldRegion) // guarded by changing; starts a region and what leads to and from it; nil while Run does not run

	mu      sync.Mutex
	regions []*worldRegion // guarded by mu
	lines   []WorldLine    // guarded by mu
	doors   []*door        // guarded by mu
}

// WorldRegion is a region of a World.
type WorldRegion struct {
	Name   string
	Number uint32
	URL    string // of its page and API
	Dir    string // of its data
	Clock  time.Duration
}

type worldRegion struct {
	WorldRegion
	addr string // of the page
	file string // its configuration

	mu     sync.Mutex
	pid    int                // guarded by mu
	coming bool               // guarded by mu; it joins and was not ready yet
	drain  bool               // guarded by mu; it takes no writes any more
	stop   context.CancelFunc // guarded by mu; ends its process
	ended  chan struct{}      // guarded by mu; closed when that has ended
	failed error              // guarded by mu; why it has ended by itself, while it was coming
}

// WorldLine is the line between two regions of a World, the one that was named first
// first.
type WorldLine struct {
	A, B string
	*emulator.Line
}

// door is where a region finds a service of another one.
type door struct {
	lis     net.Listener
	line    *emulator.Line
	reverse bool
	from    *worldRegion
	whose   *worldRegion
	role    topology.Role
	stop    context.CancelFunc // nil before it is carried
}

// NewWorld prepares regions: their numbers, which they keep for ever, certificates,
// configurations and lines. Run or Close gives everything back.
func NewWorld(ctx context.Context, cfg WorldConfig) (_ *World, err error) {
	w := &World{cfg: cfg, log: cfg.Log}
	if w.log == nil {
		w.log = slog.Default()
	}
	if len(cfg.Regions) < 2 || len(cfg.Regions) > maxRegions {
		return nil, fmt.Errorf("%d regions: name 2 to %d", len(cfg.Regions), maxRegions)
	}
	if w.cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(w.cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the regions: %w", err)
	}
	if _, err := os.Lstat(filepath.Join(w.cfg.Dir, stampFile)); err == nil {
		return nil, fmt.Errorf("%s holds the data of one region: choose another directory with --data", w.cfg.Dir)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	w.lock, err = lockfile.Take(filepath.Join(w.cfg.Dir, lockFile))
	if held, ok := errors.AsType[*lockfile.HeldError](err); ok {
		return nil, fmt.Errorf("%w: %s, %w; stop it or choose another directory with --data", ErrInUse, w.cfg.Dir, held)
	}
	if err != nil {
		return nil, err
	}
	certs := pki.Dir(filepath.Join(w.cfg.Dir, certsDir))
	if err := certs.Init(time.Now()); err != nil && !errors.Is(err, pki.ErrExists) {
		return nil, err
	}
	for _, name := range cfg.Regions {
		if _, err := w.add(ctx, name); err != nil {
			return nil, err
		}
	}
	for name := range w.cfg.Clocks {
		if _, ok := w.find(name); !ok {
			return nil, fmt.Errorf("the clock of %s: there is no such region", name)
		}
	}
	return w, w.configure()
}

// add gives a region its number, address and certificate, and makes the lines between it and
// those that there are.
func (w *World) add(ctx context.Context, name string) (*worldRegion, error) {
	if err := checkRegionName(name); err != nil {
		return nil, err
	}
	number, err := w.number(name)
	if err != nil {
		return nil, err
	}
	if err := renew(pki.Dir(filepath.Join(w.cfg.Dir, certsDir)), name); err != nil {
		return nil, err
	}
	page, err := w.page(ctx)
	if err != nil {
		return nil, err
	}
	r := &worldRegion{
		WorldRegion: WorldRegion{Name: name, Number: number, URL: "http://" + page, Dir: filepath.Join(w.cfg.Dir, name), Clock: w.cfg.Clocks[name]},
		addr:        page, file: filepath.Join(w.cfg.Dir, name+".yaml"),
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.openDoorsLocked(ctx, r); err != nil {
		return nil, err
	}
	w.regions = append(w.regions, r)
	return r, nil
}

func checkRegionName(name string) error {
	if name == certsDir {
		return fmt.Errorf("region %q: the certificates of the regions are in the directory of that name; use another one", name)
	}
	return pki.CheckName(name)
}

// number gives a region's number, a new one if it has none yet.
func (w *World) number(name string) (number uint32, err error) {
	file := filepath.Join(w.cfg.Dir, numbersFile)
	numbers, err := readNumbers(file)
	if err != nil {
		return 0, err
	}
	number, known := numbers[name]
	if known {
		return number, nil
	}
	for _, n := range numbers {
		number = max(number, n)
	}
	number++
	if number > comment.MaxRegion {
		return 0, fmt.Errorf("region %s: all %d numbers of regions have been given, and none is given again", name, comment.MaxRegion)
	}
	numbers[name] = number
	return number, writeNumbers(file, numbers)
}

func writeNumbers(file string, numbers map[string]uint32) error {
	b, err := json.Marshal(numbers)
	if err == nil {
		err = writeFile(file, append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep the numbers of the regions: %w", err)
	}
	return nil
}

// page gives the address of the next region's page.
func (w *World) page(ctx context.Context) (string, error) {
	all, ports := w.all(), 1
	if w.cfg.Split {
		ports = gateways
	}
	addr := loopback(w.cfg.Addr)
	for i := range all {
		if i == len(all)-1 {
			addr = all[i].addr
			for range ports {
				addr = nextPort(addr, w.cfg.Addr)
			}
		}
	}
	return freeAddr(ctx, addr)
}

// all gives the regions that there are now.
func (w *World) all() []*worldRegion {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.regions)
}

// readNumbers gives the numbers that regions of a directory have been given: none is
// ever given to another one.
func readNumbers(file string) (map[string]uint32, error) {
	numbers := map[string]uint32{}
	b, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return numbers, nil
	case err != nil:
		return nil, fmt.Errorf("read the numbers of the regions: %w", err)
	}
	if err := json.Unmarshal(b, &numbers); err != nil {
		return nil, fmt.Errorf("read the numbers of the regions in %s: %w", file, err)
	}
	names := map[uint32]string{}
	for _, name := range slices.Sorted(maps.Keys(numbers)) {
		n := numbers[name]
		if n == 0 || n > comment.MaxRegion {
			return nil, fmt.Errorf("%s gives region %s the number %d: want 1 to %d", file, name, n, comment.MaxRegion)
		}
		if other, taken := names[n]; taken {
			return nil, fmt.Errorf("%s gives the number %d to both %s and %s: each needs one of its own, and keeps it for ever", file, n, other, name)
		}
		names[n] = name
	}
	return numbers, nil
}

// renew has a certificate for a region that is good for a while.
func renew(certs pki.Dir, name string) error {
	now := time.Now()
	cert, err := pki.ReadCert(certs.Cert(name))
	switch {
	case err == nil && cert.NotAfter.Sub(now) > renewLeafLeft:
		return nil
	case err == nil || errors.Is(err, fs.ErrNotExist):
		for _, file := range []string{certs.Cert(name), certs.Key(name)} { // these are ours
			if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return certs.Issue(name, pki.MaxLeafLife, now)
	}
	return err
}

// freeAddr gives an address with a port in place of port 0, and finds out early that
// one is taken.
func freeAddr(ctx context.Context, addr string) (string, error) {
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return "", listenError("the page of a region", err)
	}
	defer func() { _ = lis.Close() }() // it was only a question
	return lis.Addr().String(), nil
}

// openDoorsLocked makes the lines between a new region and the others, and where they find
// each other.
func (w *World) openDoorsLocked(ctx context.Context, a *worldRegion) error {
	for _, b := range w.regions {
		line := WorldLine{A: b.Name, B: a.Name, Line: emulator.NewLine(w.cfg.Line)}
		w.lines = append(w.lines, line)
		for _, role := range topology.Facing() {
			for _, reverse := range []bool{false, true} {
				d := &door{line: line.Line, reverse: reverse, role: role, from: b, whose: a}
				if reverse {
					d.from, d.whose = a, b
				}
				var err error
				if d.lis, err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
					return listenError("an emulated line", err)
				}
				w.doors = append(w.doors, d)
			}
		}
	}
	return nil
}

// configure writes the configuration of each region.
func (w *World) configure() error {
	certs := pki.Dir(filepath.Join(w.cfg.Dir, certsDir))
	key, err := keptLinkKey(filepath.Join(w.cfg.Dir, linkKeyFile))
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.regions {
		t := topology.Default()
		t.Line.CA, t.Line.Cert, t.Line.Key = certs.Authority(), certs.Cert(r.Name), certs.Key(r.Name)
		for _, other := range w.regions {
			if other == r {
				continue
			}
			p := topology.Peer{Number: other.Number, Name: other.Name}
			for _, d := range w.doors {
				if d.from == r && d.whose == other {
					*p.At(d.role) = d.lis.Addr().String()
				}
			}
			t.Regions = append(t.Regions, p)
		}
		b := fmt.Appendf(nil, "# Written by moments up --regions.\nregion:\n  number: %d\n  name: %q\n  clock: %v\nfiles:\n  link-key: \"%x\"\n", r.Number, r.Name, r.Clock, key)
		if err := writeFile(r.file, AppendRegions(b, t), 0o600); err != nil {
			return fmt.Errorf("write the configuration of region %s: %w", r.Name, err)
		}
	}
	return nil
}

// Regions gives the regions in the order in which they were named.
func (w *World) Regions() []WorldRegion {
	regions := w.all()
	all := make([]WorldRegion, len(regions))
	for i, r := range regions {
		all[i] = r.WorldRegion
	}
	return all
}

// Lines gives the lines between each two regions.
func (w *World) Lines() []WorldLine {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.lines)
}

// State gives how a region runs now; it fails while the region does not.
func (w *World) State(name string) (*State, error) {
	r, ok := w.find(name)
	if !ok {
		return nil, fmt.Errorf("there is no region %s", name)
	}
	return r.state()
}

func (w *World) find(name string) (*worldRegion, bool) {
	for _, r := range w.all() {
		if r.Name == name {
			return r, true
		}
	}
	return nil, false
}

// state gives what the process of the region says of itself, not one before it.
func (r *worldRegion) state() (*State, error) {
	s, err := ReadState(r.Dir)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.PID != r.pid {
		return nil, fmt.Errorf("%w: region %s is starting", ErrNotRunning, r.Name)
	}
	return s, nil
}

// find gives where the door leads now: a region that has been started again listens
// elsewhere.
func (d *door) find() (string, error) {
	s, err := d.whose.state()
	if err != nil {
		return "", err
	}
	var at string
	switch d.role {
	case topology.Gateway:
		if len(s.Gateways) > 0 {
			at = s.Gateways[0].Line
		}
	default:
		at = s.Services[d.role].Line
	}
	if at == "" {
		return "", fmt.Errorf("region %s has no %s", d.whose.Name, d.role)
	}
	return at, nil
}

// Run starts all regions, calls up when they are ready, and keeps them running until
// ctx ends; then it stops them. An error of up, or a region that does not become ready
// at the start, ends it too.
func (w *World) Run(ctx context.Context, up func(context.Context) error) (err error) {
	defer func() { err = errors.Join(err, w.Close()) }()
	group, ctx := errgroup.WithContext(ctx)
	w.changing.Lock()
	w.begin = func(r *worldRegion) { w.start(ctx, group, r) }
	for _, r := range w.all() {
		w.begin(r)
	}
	w.changing.Unlock()
	group.Go(func() error {
		if err := w.whenReady(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil // stopped before
		}
		return up(ctx)
	})
	<-ctx.Done()
	w.changing.Lock() // nothing is begun after this
	w.begin = nil
	w.changing.Unlock()
	return group.Wait()
}

// start carries what is not carried yet, and keeps a region running until it is stopped, or
// ctx ends.
func (w *World) start(ctx context.Context, group *errgroup.Group, r *worldRegion) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.doors {
		if d.stop == nil {
			var own context.Context
			own, d.stop = context.WithCancel(ctx)
			group.Go(func() error { return d.line.Carry(own, d.lis, d.find, d.reverse) })
		}
	}
	own, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop, r.ended, r.failed = stop, ended, nil
	group.Go(func() error {
		defer close(ended)
		defer stop()
		wasUp := func() bool { return w.wasReady.Load() && !r.diedComing(errDiedComing) }
		err := keepRunning(own, w.log, "region "+r.Name, wasUp, func(ctx context.Context) error { return w.runOnce(ctx, r) })
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case own.Err() != nil: // it alone was stopped
			w.log.WarnContext(ctx, "a region that was stopped has not ended as it should", "name", r.Name, "err", err)
		case !r.diedComing(err): // else who waits for it is told
			return err
		}
		return nil
	})
}

// comes says that a region joins, until it has arrived.
func (r *worldRegion) comes() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.coming = true
}

// diedComing reports whether a region whose process has ended was still coming. Then it
// never arrives: it is not started again.
func (r *worldRegion) diedComing(why error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.coming {
		r.failed = why
	}
	return r.coming
}

// arrived ends the coming of a region, unless its process has ended before.
func (r *worldRegion) arrived() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.coming = r.failed != nil
	return r.failed
}

// whenReady returns when all regions are ready, or ctx has ended.
func (w *World) whenReady(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, worldReady)
	defer cancel()
	for _, r := range w.all() {
		if err := r.ready(limit, r.URL+"/readyz"); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // stopped by its owner
			}
			return fmt.Errorf("region %s is not ready after %v: %w", r.Name, worldReady, err)
		}
	}
	w.wasReady.Store(true)
	return nil
}

// ready waits until a region runs, and a page of it, if any, says that it is ready. It fails
// when its process has ended for good.
func (r *worldRegion) ready(ctx context.Context, page string) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	r.mu.Lock()
	ended := r.ended
	r.mu.Unlock()
	for {
		_, err := r.state()
		if err == nil {
			one, cancel := context.WithTimeout(ctx, time.Second)
			err = untilReady(one, page)
			cancel()
		}
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		case <-ended:
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.failed != nil {
				return r.failed
			}
			return err
		}
	}
}

func (w *World) runOnce(ctx context.Context, r *worldRegion) error {
	args := []string{"up", "--config", r.file, "--data", r.Dir, "--addr", r.addr, "--console", "off", "--until-stdin-ends"}
	r.mu.Lock()
	drain := r.drain
	r.mu.Unlock()
	switch {
	case drain:
		args = append(args, "--drain")
	case w.cfg.Split:
		args = append(args, "--split")
	}
	cmd := exec.Command(w.cfg.Binary, append(args, w.cfg.Flags...)...) //nolint:noctx // ending it is asked for through its input
	cmd.Stderr = w.cfg.Stderr
	return runProcess(ctx, "region "+r.Name, cmd, func(pid int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.pid = pid
	}, func() error { return nil })
}

// Close gives back what NewWorld has taken. Run does it too.
func (w *World) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for _, d := range w.doors {
		if err := d.lis.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	w.doors = nil
	if w.lock != nil {
		errs = append(errs, w.lock.Release())
		w.lock = nil
	}
	return errors.Join(errs...)
}
