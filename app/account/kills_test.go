// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-rpc/sluice/app/account"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/idcqueue/queuetest"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// mortal is the account service of a region with its queue, which can be killed at any
// batch that it applies.
type mortal struct {
	t            *testing.T
	number, peer id.Region
	store        *memkv.Store
	service      *account.Service
	queue        *idcqueue.Queue
	stop         func()
	tags         int

	applied atomic.Int64 // batches since arm
	dead    chan struct{}
}

func (m *mortal) start() {
	m.t.Helper()
	cfg := config(m.store)
	cfg.Region, cfg.Peers, cfg.Logger = m.number, []id.Region{m.peer}, slog.New(slog.DiscardHandler)
	others := new(movers)
	cfg.Posts, cfg.Timeline = movedPosts{movers: others}, movedTimelines{movers: others}
	var err error
	if m.service, err = account.New(m.t.Context(), cfg); err != nil {
		m.t.Fatal(err)
	}
	m.queue, err = idcqueue.New(m.t.Context(), idcqueue.Config{
		Service: "account", Region: m.number, Store: m.store, Outbox: m.service.Outbox(), Peers: cfg.Peers, Log: cfg.Logger, Side: m.service.Side(),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(m.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.service.Run(ctx) }) // a killed one says nothing
	m.stop = func() { cancel(); wg.Wait() }
}

// arm has the service die of the nth batch from now on, counted from 1: it is durable, and
// nothing that follows from it is done. To die before the next one would be no other state
// of the store.
func (m *mortal) arm(nth int) {
	m.dead = make(chan struct{})
	m.applied.Store(0)
	die, died := sync.OnceFunc(func() { close(m.dead) }), new(atomic.Bool)
	m.store.SetFaults(func(c memkv.Call) memkv.Fault {
		switch {
		case died.Load():
			return memkv.Unavailable
		case c.Method != memkv.Apply || int(m.applied.Add(1)) != nth:
			return memkv.None
		}
		died.Store(true)
		die()
		return memkv.UnknownApplied
	})
}

// revive starts who was killed again.
func (m *mortal) revive() {
	m.t.Helper()
	m.stop()
	m.store.Crash()
	var err error
	if m.store, err = m.store.Reopen(); err != nil {
		m.t.Fatal(err)
	}
	m.start()
}

// joinMortals connects two regions until cut is called.
func joinMortals(a, b *mortal) (cut func()) {
	ctx, cancel := context.WithCancel(a.t.Context())
	var wg sync.WaitGroup
	for _, way := range [][2]*mortal{{a, b}, {b, a}} {
		from, to := queuetest.Pipe()
		wg.Go(func() { _ = way[0].queue.Serve(ctx, way[1].number, true, from); from.End(nil) })
		wg.Go(func() { _ = way[1].queue.Serve(ctx, way[0].number, false, to); to.End(nil) })
	}
	return func() { cancel(); wg.Wait() }
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for range 6000 {
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s does not come true within a minute", what)
}

// takes reports why a region does not take what somebody writes: a tag, which is not there
// yet whatever comes over the line meanwhile.
func (m *mortal) takes(u string) error {
	m.tags++
	_, err := m.service.CreateTag(m.t.Context(), &momentsv1.CreateTagRequest{UserId: u, Name: fmt.Sprint("tag ", m.tags)})
	return err
}

// kill is of one region, with a batch of a move.
type kill struct {
	region id.Region
	nth    int
	back   bool // who is moved is called back at once
}

// killers are two regions that take turns in being killed.
type killers struct {
	a, b *mortal
	cut  func()
	name int
}

// survives moves somebody from region 1 to 2 with one kill, and reports whether the move
// had so many batches. After it one region takes her writes, and she has what she had.
func (w *killers) survives(t *testing.T, k kill) (happened bool) {
	t.Helper()
	ctx, victim := t.Context(), w.a
	if k.region == 2 {
		victim = w.b
	}
	w.name++
	name := fmt.Sprint("Mary-", w.name)
	who, err := w.a.service.Register(ctx, &momentsv1.RegisterRequest{Name: name, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	mary := who.GetProfile().GetUserId()
	uid := user(t, mary)
	if _, err := w.a.service.CreateTag(ctx, &momentsv1.CreateTagRequest{UserId: mary, Name: "family"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "region 2 knows her", func() bool {
		_, err := w.b.service.GetProfile(ctx, &momentsv1.GetProfileRequest{UserId: mary})
		return err == nil
	})
	time.Sleep(500 * time.Millisecond) // what else is to be written is
	victim.arm(k.nth)
	order := func() {
		_, _ = w.a.service.Rehome(ctx, uid, 2) // given again below if it was lost
		if k.back {
			_, _ = w.a.service.CallBack(ctx, uid)
		}
	}
	order()
	decided := func() bool {
		x, y := w.a.service.HomeOf(uid), w.b.service.HomeOf(uid)
		return x == y && x.Next == 0 && x.Epoch > 0
	}
	select {
	case <-victim.dead:
		happened = true
		w.cut()
		victim.revive()
		w.cut = joinMortals(w.a, w.b)
		order()
	case <-time.After(3 * time.Second):
		victim.store.SetFaults(nil)
	}
	eventually(t, "both regions know where she is at home", decided)
	home, other := w.b, w.a
	if h := w.a.service.HomeOf(uid); h.Region == 1 {
		home, other = w.a, w.b
		if !k.back {
			t.Errorf("she is at home at %+v", h)
		}
	}
	eventually(t, "her home takes her writes", func() bool { return home.takes(mary) == nil })
	if err := other.takes(mary); !isMoving(err) {
		t.Errorf("region %d takes her writes too: %v", other.number, err)
	}
	tags, err := home.service.ListTags(ctx, &momentsv1.ListTagsRequest{UserId: mary})
	if err != nil || len(tags.GetTags()) == 0 || tags.GetTags()[0].GetName() != "family" {
		t.Errorf("her tags are %v, %v", tags, err)
	}
	if _, err := home.service.LogIn(ctx, &momentsv1.LogInRequest{Name: name, Password: password}); err != nil {
		t.Error(err)
	}
	eventually(t, "nothing private is left where she is not", func() bool {
		for key, row := range queuetest.Rows(t, other.store, "u"+privateTables, kv.SlotOf(uid[:])) {
			if id.User([]byte(key[1:])) == uid && (key[0] != 'u' || hasPassword(row)) {
				return false
			}
		}
		return true
	})
	return happened
}

// TestKillsDuringAMove kills either region at each batch of a move, also of one that is
// called off.
func TestKillsDuringAMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &killers{
			a: &mortal{t: t, number: 1, peer: 2, store: memkv.New()},
			b: &mortal{t: t, number: 2, peer: 1, store: memkv.New()},
		}
		w.a.start()
		w.b.start()
		w.cut = joinMortals(w.a, w.b)
		kills := []kill{{region: 2}, {region: 1, back: true}, {region: 1}, {region: 2, back: true}}
		if raceDetector {
			kills = kills[:2] // with all that is done in any of them, if not in all orders
		}
		for _, k := range kills {
			for happened := true; happened && !t.Failed(); {
				k.nth++
				happened = w.survives(t, k)
			}
			if t.Logf("%+v did not happen any more", k); k.nth < 3 {
				t.Errorf("%+v does not happen: a move has more batches in each region", k)
			}
		}
		w.cut()
		w.a.stop()
		w.b.stop()
	})
}
