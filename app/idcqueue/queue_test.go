// SPDX-License-Identifier: Apache-2.0

package idcqueue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/app/outbox"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

var graphs = framework.NewQueue("test.Queue/outbox", qos.Background)

// session is one end of a connection in memory.
type session struct {
	in, out *stream
	end     func()
	done    chan struct{}
	left    int // messages of data that it sends until it ends; 0 for no end
}

type stream struct{ control, data chan []byte }

var errEnded = errors.New("the session has ended")

// connect makes both ends of a connection.
func connect() (a, b *session) {
	make1 := func() *stream { return &stream{control: make(chan []byte, 256), data: make(chan []byte, 4)} }
	there, back, done := make1(), make1(), make(chan struct{})
	end := sync.OnceFunc(func() { close(done) })
	return &session{in: back, out: there, end: end, done: done}, &session{in: there, out: back, end: end, done: done}
}

func (s *session) send(to chan []byte, msg []byte) error {
	select {
	case to <- bytes.Clone(msg):
		return nil
	case <-s.done:
		return errEnded
	}
}

func (s *session) receive(ctx context.Context, from chan []byte) ([]byte, error) {
	select {
	case b := <-from:
		return b, nil
	case <-s.done:
		return nil, errEnded
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *session) SendControl(msg []byte) error { return s.send(s.out.control, msg) }

// SendData is called by one goroutine here.
func (s *session) SendData(msg []byte) error {
	err := s.send(s.out.data, msg)
	if s.left > 0 {
		if s.left--; s.left == 0 {
			s.end()
		}
	}
	return err
}

func (s *session) ReceiveControl(ctx context.Context) ([]byte, error) {
	return s.receive(ctx, s.in.control)
}

func (s *session) ReceiveData() ([]byte, error) { return s.receive(context.Background(), s.in.data) }
func (s *session) Done() <-chan struct{}        { return s.done }
func (s *session) End(error)                    { s.end() }

// place is a service in a region: rows under 'v', of which those of region r begin with
// that number. Every record adds one row.
type place struct {
	t      *testing.T
	region id.Region
	peer   id.Region
	store  *memkv.Store
	box    *outbox.Box
	queue  *idcqueue.Queue
	stop   func()
	alone  bool // at the start: the peer joins later
	// merging hinders a merge, if it is not nil.
	merging func(context.Context, *idcqueue.Part) error
}

func (p *place) start() {
	p.t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	peers := []id.Region{p.peer}
	if p.alone {
		peers = []id.Region{}
	}
	p.box = outbox.New(outbox.Config{Store: p.store, Queue: graphs, Peers: idcqueue.Consumers(peers), Log: quiet, Retain: outbox.Retention{Records: 500}})
	var err error
	p.queue, err = idcqueue.New(p.t.Context(), idcqueue.Config{
		Service: "test", Region: p.region, Store: p.store, Outbox: p.box, Peers: peers, Log: quiet,
		Side: idcqueue.Side{Apply: p.apply, Rows: p.rows, Merge: p.merge}, Limits: idcqueue.Limits{Turn: 5},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.box.Run(ctx); err != nil {
			p.t.Error(err)
		}
	})
	p.stop = func() { cancel(); wg.Wait() }
}

// crash loses what is not synced, and starts again.
func (p *place) crash() {
	p.t.Helper()
	p.stop()
	p.store.Crash()
	var err error
	if p.store, err = p.store.Reopen(); err != nil {
		p.t.Fatal(err)
	}
	p.start()
}

// without runs a function on the store as if there never were other regions.
func (p *place) without(f func()) {
	p.t.Helper()
	p.stop()
	box, alone := p.box, outbox.New(outbox.Config{Store: p.store, Queue: graphs, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(p.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := alone.Run(ctx); err != nil {
			p.t.Error(err)
		}
	})
	p.box = alone
	f()
	time.Sleep(time.Second) // what is to be kept of it is kept
	cancel()
	wg.Wait()
	p.box = box
	p.start()
}

func (p *place) write(slot kv.Slot, text string) {
	p.t.Helper()
	turn, err := p.box.Open(p.t.Context(), slot)
	if err != nil {
		p.t.Fatal(err)
	}
	defer turn.Close()
	key := append([]byte{'v', byte(p.region)}, text...)
	b := new(kv.Batch).Put(key, []byte(text))
	turn.Put(b, key, tracing.Origin{})
	if err := turn.Seal(b); err != nil {
		p.t.Fatal(err)
	}
	ver, err := p.store.Apply(p.t.Context(), slot, b)
	if err != nil {
		p.t.Fatal(err)
	}
	turn.Applied(ver)
}

// apply refuses what says "bad" unless it is released; a row that is there already fails
// the test: a record would have its effect twice.
func (p *place) apply(ctx context.Context, in *idcqueue.In) (int, error) {
	for i, r := range in.Records {
		if bytes.Contains(r.Body, []byte("bad")) && !in.Released {
			return i, idcqueue.Refuse("it says %q", r.Body)
		}
		it, err := p.store.Get(ctx, in.Slot, r.Body, kv.Linearizable)
		if err != nil {
			return 0, err
		}
		if it.Ver != 0 && bytes.Contains(r.Body, []byte("once")) {
			p.t.Errorf("%q comes twice", r.Body)
		}
		value := r.Body[2:]
		if bytes.Contains(r.Body, []byte("large")) {
			value = make([]byte, kv.MaxValue+1)
		}
		in.Batch.Put(r.Body, value)
	}
	return len(in.Records), nil
}

func (p *place) rows(ctx context.Context, _ id.Region, slot kv.Slot, from []byte) ([]idcqueue.Row, []byte, error) {
	r := kv.Prefix([]byte{'v', byte(p.region)}, 10)
	if from != nil {
		r.From = from
	}
	items, more, err := p.store.Scan(ctx, slot, r, kv.Linearizable)
	var rows []idcqueue.Row
	var next []byte
	for _, it := range items {
		rows = append(rows, idcqueue.Row{Key: it.Key, Value: it.Value})
		next = kv.Next(it.Key)
	}
	if !more {
		next = nil
	}
	return rows, next, err
}

func (p *place) merge(ctx context.Context, part *idcqueue.Part) (bool, error) {
	if p.merging != nil {
		if err := p.merging(ctx, part); err != nil {
			return false, err
		}
	}
	for _, r := range part.Rows {
		part.Batch.Put(r.Key, r.Value)
	}
	return false, nil
}

// has gives the texts of a region that stand in a slot.
func (p *place) has(slot kv.Slot, of id.Region) string {
	p.t.Helper()
	items, _, err := p.store.Scan(p.t.Context(), slot, kv.Prefix([]byte{'v', byte(of)}, 0), kv.Local)
	if err != nil {
		p.t.Fatal(err)
	}
	var texts []string
	for _, it := range items {
		texts = append(texts, string(it.Value))
	}
	return strings.Join(texts, " ")
}

// join connects two places until cut is called; a sends its log, b takes it.
func join(a, b *place) (cut func()) { return joinFor(a, b, 0) }

// joinFor connects them until so many messages of data have been sent.
func joinFor(a, b *place, messages int) (cut func()) {
	x, y := connect()
	x.left = messages
	ctx, cancel := context.WithCancel(a.t.Context())
	var wg sync.WaitGroup
	// What a session ends with is for the log of the line.
	wg.Go(func() { _ = a.queue.Serve(ctx, b.region, true, x); x.end() })
	wg.Go(func() { _ = b.queue.Serve(ctx, a.region, false, y); y.end() })
	return func() { x.end(); cancel(); wg.Wait() }
}

// pair makes two places that know each other.
func pair(t *testing.T) (a, b *place) {
	a = &place{t: t, region: 1, peer: 2, store: memkv.New()}
	b = &place{t: t, region: 2, peer: 1, store: memkv.New()}
	a.start()
	b.start()
	return a, b
}

// TestKills: cuts and crashes of either side at any time lose nothing, and nothing has
// its effect twice.
func TestKills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		a.write(7, "before")
		first := join(a, b) // a snapshot may have what the records after it bring again
		time.Sleep(time.Second)
		first()
		for round := range 12 {
			cut := join(a, b)
			for i := range 40 {
				a.write(kv.Slot(7+i%2*64), fmt.Sprintf("once-%02d-%02d", round, i))
				if i == 20 {
					time.Sleep(time.Duration(round) * 7 * time.Millisecond)
				}
			}
			cut()
			switch round % 3 {
			case 1:
				a.crash()
			case 2:
				b.crash()
			}
		}
		cut := join(a, b)
		time.Sleep(time.Minute)
		for _, slot := range []kv.Slot{7, 71} {
			if got, want := b.has(slot, 1), a.has(slot, 1); got != want {
				t.Errorf("slot %d has %s, want %s", slot, got, want)
			}
		}
		s, r := a.queue.Status().Peers[0].Send, b.queue.Status().Peers[0].Receive
		if s.State != idcqueue.Live || s.Depth != 0 || s.LagMS != 0 || s.NeedsSnapshot != 0 || s.Alarm != "" || r.State != idcqueue.Live || r.Alarm != "" || r.Backlog != 0 {
			t.Errorf("%+v\n%+v", s, r)
		}
		cut()
		a.stop()
		b.stop()
	})
}

// TestSnapshot: a region that has been away for too long gets the rows, then what
// follows.
func TestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		cut := join(a, b)
		a.write(7, "first")
		time.Sleep(time.Second)
		cut()
		for i := range 700 {
			a.write(7, fmt.Sprintf("%03d", i))
		}
		time.Sleep(time.Second)
		s := a.queue.Status().Peers[0].Send
		if s.Drops != 1 || s.NeedsSnapshot != 1 || s.Alarm == "" || s.State != idcqueue.Offline {
			t.Errorf("away: %+v", s)
		}
		cut = join(a, b)
		a.write(7, "once-last")
		time.Sleep(time.Minute)
		if got, want := b.has(7, 1), a.has(7, 1); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if s = a.queue.Status().Peers[0].Send; s.NeedsSnapshot != 0 || s.Alarm != "" || s.Parts < 70 {
			t.Errorf("back: %+v", s)
		}
		cut()
		a.stop()
		b.stop()
	})
}

// TestKillsDuringASnapshot: a snapshot that is cut, or whose ends crash, at any of its
// parts is sent again, and what was written meanwhile comes after it.
func TestKillsDuringASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		for i := range 600 { // more than is kept for a peer
			a.write(7, fmt.Sprintf("%03d", i))
		}
		time.Sleep(time.Second)
		for n := range 32 {
			cut := joinFor(a, b, 2*n+1) // a snapshot has 60 parts and some
			a.write(7, fmt.Sprintf("meanwhile %02d", n))
			time.Sleep(time.Duration(n%4) * 20 * time.Millisecond)
			cut()
			switch n % 5 {
			case 1:
				a.crash()
			case 2:
				b.crash()
			case 3:
				a.crash()
				b.crash()
			}
		}
		cut := join(a, b)
		time.Sleep(time.Minute)
		if got, want := b.has(7, 1), a.has(7, 1); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		s, r := a.queue.Status().Peers[0].Send, b.queue.Status().Peers[0].Receive
		if s.State != idcqueue.Live || s.Depth != 0 || s.NeedsSnapshot != 0 || s.Alarm != "" || r.State != idcqueue.Live || r.Alarm != "" || r.Backlog != 0 {
			t.Errorf("%+v\n%+v", s, r)
		}
		cut()
		a.stop()
		b.stop()
	})
}

// TestQuarantine: what is refused is kept aside and the slot goes on; it can be released
// or dropped, also after a restart.
func TestQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		cut := join(a, b)
		time.Sleep(time.Second)
		for _, text := range []string{"once-1", "bad-2", "once-3", "bad-4", "once-5"} {
			a.write(7, text)
		}
		time.Sleep(time.Second)
		cut()
		if got := b.has(7, 1); got != "once-1 once-3 once-5" {
			t.Errorf("%s", got)
		}
		b.crash()
		if r := b.queue.Status().Peers[0].Receive; r.InQuarantine != 2 || r.Alarm == "" {
			t.Errorf("%+v", r)
		}
		held, err := b.queue.Quarantine(t.Context())
		if err != nil || len(held) != 2 || held[0].Seq != 2 || held[0].Slot != 7 || string(held[0].Body[2:]) != "bad-2" || held[0].Reason == "" {
			t.Fatalf("%+v, %v", held, err)
		}
		if err := b.queue.Release(t.Context(), 1, 7, 2); err != nil {
			t.Fatal(err)
		}
		if err := b.queue.Drop(t.Context(), 1, 7, 4); err != nil {
			t.Fatal(err)
		}
		if err := b.queue.Release(t.Context(), 1, 7, 2); !errors.Is(err, idcqueue.ErrNotHeld) {
			t.Errorf("released twice: %v", err)
		}
		if got := b.has(7, 1); got != "bad-2 once-1 once-3 once-5" {
			t.Errorf("%s", got)
		}
		if r := b.queue.Status().Peers[0].Receive; r.InQuarantine != 0 || r.Alarm != "" {
			t.Errorf("%+v", r)
		}
		a.stop()
		b.stop()
	})
}

// TestTooLargeToStore: a record of which the store takes no batch is put aside, alone.
func TestTooLargeToStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		cut := join(a, b)
		time.Sleep(time.Second)
		for _, text := range []string{"once-1", "large-2", "once-3"} {
			a.write(7, text)
		}
		time.Sleep(time.Second)
		cut()
		if got := b.has(7, 1); got != "once-1 once-3" {
			t.Errorf("%s", got)
		}
		if r := b.queue.Status().Peers[0].Receive; r.InQuarantine != 1 || r.Alarm == "" {
			t.Errorf("%+v", r)
		}
		if err := b.queue.Release(t.Context(), 1, 7, 2); err == nil {
			t.Error("it is let go, and cannot be stored")
		}
		if held, err := b.queue.Quarantine(t.Context()); err != nil || len(held) != 1 || held[0].Seq != 2 {
			t.Errorf("after the try %+v, %v are kept", held, err)
		}
		a.stop()
		b.stop()
	})
}

// TestRestored: the log of a store that was restored is stopped with an alarm, until
// somebody accepts it; then all of it is sent.
func TestRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		cut := join(a, b)
		a.write(7, "one")
		time.Sleep(time.Second)
		cut()
		a.stop()
		if err := idcqueue.Renew(t.Context(), a.store); err != nil {
			t.Fatal(err)
		}
		a.start()
		cut = join(a, b)
		a.write(7, "two")
		time.Sleep(5 * time.Second)
		s, r := a.queue.Status().Peers[0].Send, b.queue.Status().Peers[0].Receive
		if s.State != idcqueue.Stopped || s.Alarm == "" || r.State != idcqueue.Stopped || r.Alarm == "" || b.has(7, 1) != "one" {
			t.Errorf("%+v\n%+v", s, r)
		}
		if err := b.queue.Accept(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		cut()
		cut = join(a, b)
		time.Sleep(time.Minute)
		if got := b.has(7, 1); got != "one two" {
			t.Errorf("%s", got)
		}
		if s := a.queue.Status().Peers[0].Send; s.State != idcqueue.Live || s.Alarm != "" {
			t.Errorf("%+v", s)
		}
		cut()
		a.stop()
		b.stop()
	})
}

// TestFullDisk: where nothing can be applied, nothing is lost; it is an alarm, and goes
// on when there is room.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		cut := join(a, b)
		time.Sleep(time.Second)
		b.store.SetFaults(func(c memkv.Call) memkv.Fault {
			if c.Method == memkv.Apply {
				return memkv.Full
			}
			return memkv.None
		})
		a.write(7, "once-1")
		time.Sleep(time.Minute)
		if r := b.queue.Status().Peers[0].Receive; r.Alarm == "" || b.has(7, 1) != "" {
			t.Errorf("%+v", r)
		}
		b.store.SetFaults(nil)
		time.Sleep(time.Minute)
		if r := b.queue.Status().Peers[0].Receive; r.Alarm != "" || b.has(7, 1) != "once-1" {
			t.Errorf("%+v", r)
		}
		cut()
		a.stop()
		b.stop()
	})
}

// TestJoinsAndLeaves: a region that joins while there is written gets what was there and all
// that follows; one that has left gets nothing, is refused and counted, and gets all that it
// has missed if it joins again, whether it or the others have been started anew or not.
func TestJoinsAndLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &place{t: t, region: 1, peer: 2, store: memkv.New(), alone: true}
		b := &place{t: t, region: 2, peer: 1, store: memkv.New()}
		a.start()
		b.start()
		if err := a.queue.Join(t.Context(), 1); err == nil {
			t.Error("a region joins itself")
		}
		n := 0
		write := func() {
			for range 30 {
				a.write(kv.Slot(7+n%2*64), fmt.Sprintf("%03d", n))
				n++
			}
		}
		write()
		for round := range 4 {
			for range 2 { // the second changes nothing
				if err := a.queue.Join(t.Context(), 2); err != nil {
					t.Fatal(err)
				}
			}
			write()
			cut := join(a, b)
			write()
			time.Sleep(time.Minute)
			write()
			time.Sleep(time.Second)
			for _, slot := range []kv.Slot{7, 71} {
				if got, want := b.has(slot, 1), a.has(slot, 1); got != want {
					t.Errorf("round %d: slot %d has %s, want %s", round, slot, got, want)
				}
			}
			if st := a.queue.Status(); len(st.Peers) != 1 || st.Peers[0].Send.NeedsSnapshot != 0 || st.Peers[0].Send.Depth != 0 {
				t.Errorf("round %d: %+v", round, st)
			}
			before := b.has(7, 1)
			a.queue.Leave(2)
			a.queue.Leave(2)
			write()
			time.Sleep(time.Second)
			late := join(a, b)
			back := join(b, a) // what it says itself is not heard, either
			time.Sleep(time.Second)
			late()
			back()
			if got := b.has(7, 1); got != before {
				t.Errorf("round %d: what is written after it has left comes: %s", round, got)
			}
			if st := a.queue.Status(); len(st.Peers) != 0 || st.Strangers < 2 {
				t.Errorf("round %d: %+v", round, st)
			}
			cut()
			switch round {
			case 1:
				a.crash()
			case 2:
				b.crash()
			}
		}
		a.stop()
		b.stop()
	})
}

// TestAlone: what a region has written while it ran as the only one, which has no number in
// the log, reaches the others when it is back, though they have the log's last record; also
// if the batch with it fails the first time, or its outcome is not known.
func TestAlone(t *testing.T) {
	for name, fault := range map[string]memkv.Fault{"well": memkv.None, "lost": memkv.UnknownLost, "applied": memkv.UnknownApplied} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := pair(t)
				cut := join(a, b)
				a.write(7, "before")
				time.Sleep(time.Second)
				cut()
				a.without(func() {
					a.write(7, "alone")
					a.write(8, "alone") // of a slot that the other has nothing of
				})
				failed := false
				b.store.SetFaults(func(c memkv.Call) memkv.Fault {
					if failed || c.Method != memkv.Apply || c.Slot != 7 {
						return memkv.None
					}
					failed = true
					return fault
				})
				cut = join(a, b)
				time.Sleep(time.Minute)
				for _, slot := range []kv.Slot{7, 8} {
					if got, want := b.has(slot, 1), a.has(slot, 1); got != want {
						t.Errorf("slot %d has %s, want %s", slot, got, want)
					}
				}
				if !failed {
					t.Error("nothing was applied")
				}
				if s := a.queue.Status().Peers[0].Send; s.NeedsSnapshot != 0 || s.Alarm != "" || s.Depth != 0 {
					t.Errorf("%+v", s)
				}
				a.write(7, "once-after")
				time.Sleep(time.Second)
				if got, want := b.has(7, 1), a.has(7, 1); got != want {
					t.Errorf("%s, want %s", got, want)
				}
				cut()
				a.stop()
				b.stop()
			})
		})
	}
}

// slow is an end of a session that takes a moment to say something, and longer to end.
type slow struct{ *session }

func (s slow) SendControl(msg []byte) error {
	time.Sleep(100 * time.Millisecond)
	return s.session.SendControl(msg)
}

func (s slow) End(err error) {
	time.Sleep(time.Second)
	s.session.End(err)
}

// TestStopInSnapshot: who stops in the middle of a snapshot that ends where it was before
// says nothing of having it, and gets it again.
func TestStopInSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		cut := join(a, b)
		a.write(7, "before")
		time.Sleep(time.Second)
		cut()
		a.without(func() { a.write(7, "alone") })
		begun := make(chan struct{})
		b.merging = func(ctx context.Context, part *idcqueue.Part) error {
			if part.Slot != 7 {
				return nil
			}
			close(begun)
			<-ctx.Done()
			return ctx.Err()
		}
		x, y := connect()
		stopping, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = a.queue.Serve(t.Context(), 2, true, x); x.end() })
		wg.Go(func() { _ = b.queue.Serve(stopping, 1, false, slow{y}); y.end() })
		<-begun
		time.Sleep(time.Second)
		a.write(8, "beside") // so that the other one is saying something when it stops
		time.Sleep(100 * time.Millisecond)
		stop()
		wg.Wait()
		b.merging = nil
		cut = join(a, b)
		time.Sleep(time.Minute)
		if got, want := b.has(7, 1), a.has(7, 1); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		cut()
		a.stop()
		b.stop()
	})
}

// TestQuarantineOfAPartAgain: a part of a snapshot that is refused, and refused again when
// the snapshot was cut and comes anew, is in quarantine once, and counted once.
func TestQuarantineOfAPartAgain(t *testing.T) {
	for name, fault := range map[string]memkv.Fault{"known": memkv.None, "lost": memkv.UnknownLost, "applied": memkv.UnknownApplied} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := pair(t)
				a.without(func() {
					for i := range 25 { // three parts
						a.write(7, fmt.Sprintf("%03d", i))
					}
				})
				second, failed := make(chan struct{}), fault == memkv.None
				b.merging = func(ctx context.Context, part *idcqueue.Part) error {
					switch {
					case part.Slot != 7:
						return nil
					case part.Start == nil && !part.Released:
						if !failed { // what puts it aside
							b.store.SetFaults(func(c memkv.Call) memkv.Fault {
								if failed || c.Method != memkv.Apply || c.Slot != 7 {
									return memkv.None
								}
								failed = true
								return fault
							})
						}
						return idcqueue.Refuse("it is the first")
					case part.Start != nil && second != nil:
						close(second)
						<-ctx.Done()
						return ctx.Err()
					}
					return nil
				}
				cut := join(a, b)
				<-second
				cut()
				second = nil
				cut = join(a, b)
				time.Sleep(time.Minute)
				if r := b.queue.Status().Peers[0].Receive; !failed || r.InQuarantine != 1 || r.Quarantined < 2 {
					t.Errorf("%+v, want one in quarantine that was refused twice", r)
				}
				held, err := b.queue.Quarantine(t.Context())
				if err != nil || len(held) != 1 || !held[0].Part {
					t.Fatalf("%+v, %v, want one part", held, err)
				}
				if err := b.queue.Release(t.Context(), 1, 7, held[0].Seq); err != nil {
					t.Fatal(err)
				}
				if r := b.queue.Status().Peers[0].Receive; r.InQuarantine != 0 || r.Alarm != "" || b.has(7, 1) != a.has(7, 1) {
					t.Errorf("%+v, %s, want %s", r, b.has(7, 1), a.has(7, 1))
				}
				cut()
				a.stop()
				b.stop()
			})
		})
	}
}

// TestQuarantineUnknown: what is refused is put aside once, also if the outcome of that is
// not known, and what follows is applied.
func TestQuarantineUnknown(t *testing.T) {
	for name, fault := range map[string]memkv.Fault{"lost": memkv.UnknownLost, "applied": memkv.UnknownApplied} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := pair(t)
				cut := join(a, b)
				a.write(7, "first")
				time.Sleep(time.Second)
				failed := false
				b.store.SetFaults(func(c memkv.Call) memkv.Fault {
					if failed || c.Method != memkv.Apply || c.Slot != 7 {
						return memkv.None
					}
					failed = true
					return fault
				})
				a.write(7, "bad")
				a.write(7, "once-after")
				time.Sleep(time.Minute)
				if r := b.queue.Status().Peers[0].Receive; !failed || r.InQuarantine != 1 || b.has(7, 1) != "first once-after" {
					t.Errorf("%s, %+v", b.has(7, 1), r)
				}
				cut()
				a.stop()
				b.stop()
			})
		})
	}
}
