// SPDX-License-Identifier: Apache-2.0

// Package etcd finds the instances of services in etcd, and registers them there. It is a
// module of its own: who does not use it has none of etcd's dependencies.
//
// An instance is one key, PREFIX/SERVICE/ADDR, whose value is the discovery.Instance as
// JSON, under a lease: when its process dies the key goes with the lease. While etcd is
// away clients go on with the instances that they know last.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sluice-rpc/sluice/framework/discovery"
)

// DefaultPrefix is where keys begin when no prefix is given.
const DefaultPrefix = "/sluice/instances"

const (
	askWithin  = 5 * time.Second // longest that etcd may take for an answer
	retryFirst = 100 * time.Millisecond
	retryLast  = 5 * time.Second
	// lookEvery is how often etcd is asked whether it is there, less than leases last: it gives
	// them all their time again when it starts.
	lookEvery = 3 * time.Second
	// held is how long instances stay listed after etcd was away that are there no more: they
	// may have yet to register again, their leases having ended. Who is really gone does not
	// answer, which clients know best.
	held = 30 * time.Second
)

// Source is a discovery.Source that follows etcd. It is safe for concurrent use.
type Source struct {
	Client *clientv3.Client
	Prefix string       // empty means DefaultPrefix
	Log    *slog.Logger // nil means slog.Default()
}

var _ discovery.Source = Source{}

func keys(prefix, service string) string {
	if prefix == "" {
		prefix = DefaultPrefix
	}
	return strings.TrimSuffix(prefix, "/") + "/" + service + "/"
}

// Watch implements discovery.Source. A value that is no instance is left out, and told to
// the log.
func (s Source) Watch(ctx context.Context, service string, changed func([]discovery.Instance)) error {
	log := s.Log
	if log == nil {
		log = slog.Default()
	}
	f := &follower{
		client: s.Client, under: keys(s.Prefix, service), log: log.With(slog.String("service", service)), changed: changed,
	}
	for wait := retryFirst; ctx.Err() == nil; wait = min(2*wait, retryLast) {
		listed, err := f.follow(ctx)
		if ctx.Err() != nil {
			break
		}
		if listed {
			wait = retryFirst
		}
		f.log.Warn("etcd cannot be followed, the instances known last go on", slog.Any("err", err))
		f.away = true
		sleep(ctx, wait)
		connect(s.Client)
	}
	return nil
}

// follower follows one service.
type follower struct {
	client  *clientv3.Client
	under   string // all its keys begin so
	log     *slog.Logger
	changed func([]discovery.Instance)

	values map[string]discovery.Instance // by key
	last   []discovery.Instance          // told
	told   bool
	away   bool // etcd is, or has been within held
}

// follow lists and then watches, until etcd fails. It says whether it could list.
func (f *follower) follow(ctx context.Context) (listed bool, err error) {
	ask, cancel := context.WithTimeout(ctx, askWithin)
	res, err := f.client.Get(ask, f.under, clientv3.WithPrefix())
	cancel()
	if err != nil {
		return false, fmt.Errorf("list %s: %w", f.under, err)
	}
	f.values = map[string]discovery.Instance{}
	for _, kv := range res.Kvs {
		f.put(string(kv.Key), kv.Value)
	}
	f.tell()

	watching, stop := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer stop()
	events := f.client.Watch(watching, f.under, clientv3.WithPrefix(), clientv3.WithRev(res.Header.Revision+1))
	believe := time.NewTimer(held)
	defer believe.Stop()
	// The watch is silent when etcd is away, and goes on with what has ended since.
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-believe.C:
			f.away = false
			f.tell()
		case <-look.C:
			ask, cancel := context.WithTimeout(ctx, askWithin)
			_, err := f.client.Get(ask, f.under, clientv3.WithPrefix(), clientv3.WithCountOnly())
			cancel()
			if err != nil {
				return true, fmt.Errorf("look after %s: %w", f.under, err)
			}
		case e, ok := <-events:
			if !ok {
				return true, errors.New("the watch has ended")
			}
			if err := e.Err(); err != nil {
				return true, fmt.Errorf("watch %s: %w", f.under, err)
			}
			for _, ev := range e.Events {
				if ev.Type == clientv3.EventTypeDelete {
					delete(f.values, string(ev.Kv.Key))
				} else {
					f.put(string(ev.Kv.Key), ev.Kv.Value)
				}
			}
			f.tell()
		}
	}
}

func (f *follower) put(key string, value []byte) {
	i, err := discovery.Parse(value)
	if err == nil && key != f.under+i.Addr {
		err = fmt.Errorf("it is of %s", i.Addr)
	}
	if err != nil {
		f.log.Error("instance in etcd left out", slog.String("key", key), slog.Any("err", err))
		delete(f.values, key)
		return
	}
	f.values[key] = i
}

// tell tells of what has changed.
func (f *follower) tell() {
	known := f.values
	if f.away {
		known = maps.Clone(f.values)
		for _, i := range f.last {
			if _, ok := known[f.under+i.Addr]; !ok {
				known[f.under+i.Addr] = i
			}
		}
	}
	all := slices.SortedFunc(maps.Values(known), func(a, b discovery.Instance) int { return strings.Compare(a.Addr, b.Addr) })
	if f.told && slices.Equal(all, f.last) {
		return
	}
	f.last, f.told = all, true
	f.changed(all)
}

// connect lets the client try at once: gRPC waits for up to two minutes after many attempts.
func connect(c *clientv3.Client) {
	if conn := c.ActiveConnection(); conn != nil { // a server in this process has none
		conn.ResetConnectBackoff()
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
