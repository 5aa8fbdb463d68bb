// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sluice-rpc/sluice/framework/discovery"
)

// DefaultTTL is how long an instance stays registered that says nothing any more.
const DefaultTTL = 10 * time.Second

// Registration keeps one instance of a service registered. Make it with NewRegistration.
type Registration struct {
	Client *clientv3.Client
	Prefix string        // empty means DefaultPrefix
	TTL    time.Duration // in whole seconds; 0 means DefaultTTL
	Log    *slog.Logger  // nil means slog.Default()

	service string
	changes chan discovery.Instance // capacity 1: the latest that is not registered yet
}

// NewRegistration gives a registration that Run keeps.
func NewRegistration(client *clientv3.Client, service string, instance discovery.Instance) (*Registration, error) {
	i, err := instance.Check()
	if err != nil {
		return nil, fmt.Errorf("register %s: %w", service, err)
	}
	r := &Registration{Client: client, service: service, changes: make(chan discovery.Instance, 1)}
	r.changes <- i
	return r, nil
}

// Update changes what is registered, at once or when etcd is there again: that the
// instance drains, or its weight. Its address stays. It is not called concurrently.
func (r *Registration) Update(instance discovery.Instance) error {
	i, err := instance.Check()
	if err != nil {
		return fmt.Errorf("register %s: %w", r.service, err)
	}
	select {
	case <-r.changes: // not registered yet, and out of date
	default:
	}
	r.changes <- i
	return nil
}

// Run keeps the instance registered until ctx ends, and takes it out then. While etcd is
// away, or has lost the lease, it tries again and again.
func (r *Registration) Run(ctx context.Context) error {
	log := r.Log
	if log == nil {
		log = slog.Default()
	}
	log = log.With(slog.String("service", r.service))
	var i discovery.Instance
	select {
	case i = <-r.changes:
	case <-ctx.Done():
		return nil
	}
	for wait := retryFirst; ctx.Err() == nil; wait = min(2*wait, retryLast) {
		registered, err := r.keep(ctx, &i)
		if ctx.Err() != nil {
			break
		}
		if registered {
			wait = retryFirst
		}
		log.Warn("instance is not registered in etcd, trying again", slog.String("addr", i.Addr), slog.Any("err", err))
		sleep(ctx, wait)
		connect(r.Client)
	}
	return nil
}

// keep registers and keeps the lease until it is lost or ctx ends.
func (r *Registration) keep(ctx context.Context, i *discovery.Instance) (registered bool, err error) {
	ttl := r.TTL
	if ttl == 0 {
		ttl = DefaultTTL
	}
	ask, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	lease, err := r.Client.Grant(ask, int64(max(ttl/time.Second, 1)))
	if err != nil {
		return false, fmt.Errorf("lease: %w", err)
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = r.Client.Revoke(end, lease.ID) // else it ends by itself
	}()
	if err := r.put(ctx, *i, lease.ID); err != nil {
		return false, err
	}
	alive, stop := context.WithCancel(ctx) // or a lease that is replaced would be kept, too
	defer stop()
	beats, err := r.Client.KeepAlive(alive, lease.ID)
	if err != nil {
		return true, fmt.Errorf("keep lease: %w", err)
	}
	for {
		select {
		case _, ok := <-beats:
			if !ok {
				return true, errors.New("the lease was lost")
			}
		case *i = <-r.changes:
			if err := r.put(ctx, *i, lease.ID); err != nil {
				return true, err
			}
		case <-ctx.Done():
			return true, nil
		}
	}
}

func (r *Registration) put(ctx context.Context, i discovery.Instance, lease clientv3.LeaseID) error {
	value, err := json.Marshal(i)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	if _, err := r.Client.Put(ctx, keys(r.Prefix, r.service)+i.Addr, string(value), clientv3.WithLease(lease)); err != nil {
		return fmt.Errorf("register %s: %w", i.Addr, err)
	}
	return nil
}
