// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/discovery"
)

// firstTime is how long the targets wait for services of which nothing was told yet.
const firstTime = 2 * time.Second

// A Discovery gives the admin ports of services' instances as a source tells of them, so
// that processes come and go by themselves. It is safe for concurrent use.
type Discovery struct {
	source discovery.Source
	names  []string
	told   chan struct{} // closed once all services were told of

	mu       sync.Mutex
	services map[string]followed // guarded by mu
	missing  int                 // services of which nothing was told yet; guarded by mu
}

// followed is what was told of one service.
type followed struct {
	known   bool
	targets []Target
	silent  int   // instances that say no admin port
	err     error // the source will never find out
}

// Discover makes a Discovery of some services. Nothing is asked before Run. The source may
// be any, for example that of package framework/discovery/etcd.
func Discover(source discovery.Source, services ...string) (*Discovery, error) {
	names := slices.Compact(slices.Sorted(slices.Values(services)))
	switch {
	case len(names) == 0:
		return nil, errors.New("console: name the services whose instances are to be found")
	case names[0] == "":
		return nil, errors.New("console: a service to be found has no name")
	case len(names) > MaxTargets:
		return nil, fmt.Errorf("console: %d services to be found: at most %d", len(names), MaxTargets)
	}
	return &Discovery{
		source: source, names: names, told: make(chan struct{}),
		services: make(map[string]followed, len(names)), missing: len(names),
	}, nil
}

// Run follows the services until ctx ends. It is called once, by the Console that the
// Discovery was given to. What goes wrong is told by Targets.
func (d *Discovery) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, name := range d.names {
		all.Go(func() {
			err := d.source.Watch(ctx, name, func(all []discovery.Instance) { d.take(name, targetsOf(name, all)) })
			if err != nil && ctx.Err() == nil {
				d.take(name, followed{err: fmt.Errorf("console: service %s: %w", name, err)})
			}
		})
	}
	all.Wait()
}

// targetsOf gives the admin ports of the instances of a service. A process that drains is
// still worth looking at.
func targetsOf(service string, all []discovery.Instance) followed {
	var f followed
	for _, i := range all {
		t, err := ParseTarget(i.Admin)
		if i.Admin == "" || err != nil {
			f.silent++
			continue
		}
		t.Name = cut(service+" "+i.Addr, maxTargetName)
		f.targets = append(f.targets, t)
	}
	return f
}

func (d *Discovery) take(service string, f followed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.services[service]
	if f.known = true; f.err != nil {
		f.targets = old.targets
	}
	if d.services[service] = f; !old.known {
		if d.missing--; d.missing == 0 {
			close(d.told)
		}
	}
}

// Targets implements the type of that name. The first time it waits for the source, two
// seconds at most.
func (d *Discovery) Targets(ctx context.Context) ([]Target, error) {
	wait := time.NewTimer(firstTime)
	defer wait.Stop()
	select {
	case <-d.told:
	case <-wait.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []Target
	var errs []error
	var unknown []string
	for _, name := range d.names {
		f := d.services[name]
		switch {
		case !f.known:
			unknown = append(unknown, name)
		case f.err != nil:
			errs = append(errs, f.err)
		case f.silent > 0:
			errs = append(errs, fmt.Errorf("console: service %s: %d of %d instances do not say where their admin port is: register them with it", name, f.silent, f.silent+len(f.targets)))
		}
		all = append(all, f.targets...)
	}
	if len(unknown) > 0 {
		errs = append(errs, fmt.Errorf("console: nothing was told of the instances of %s yet", strings.Join(unknown, ", ")))
	}
	return all, errors.Join(errs...)
}
