// SPDX-License-Identifier: Apache-2.0

package idcqueue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue/flow"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/outbox"
)

// Config is what a Queue is made of. Fields without a default are required.
type Config struct {
	// Service names whose log it is; both ends must say the same.
	Service string
	// Region is the number of the own region.
	Region id.Region
	// Store is the service's own.
	Store kv.Store
	// Outbox is that store's. Its Peers are the Consumer names of these Peers.
	Outbox *outbox.Box
	// Peers are the other regions that there are at first; Join and Leave change that.
	Peers []id.Region
	// Side is the service.
	Side Side
	// Limits bound what is under way.
	Limits Limits
	// Log takes what operators should see; nil means slog.Default.
	Log *slog.Logger
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
}

// Limits bound what is under way with one peer. Zero fields mean the defaults.
type Limits struct {
	// Credit is how many bytes may have come without being applied; 0 means 16 MiB, which
	// is four times what is on a line of 100 Mbit/s and 300 ms.
	Credit uint64
	// BatchBytes closes a batch, and BatchWait is the least time between two of a line
	// that is not busy; 0 means 64 KiB and 5 ms.
	BatchBytes int
	BatchWait  time.Duration
	// AckWait is how long an acknowledgement waits for others; 0 means 50 ms.
	AckWait time.Duration
	// Rate bounds what is sent to a peer, in bytes a second before they are compressed, so
	// that catching up leaves something of the line to others; 0 means no bound.
	Rate uint64
	// Workers is how many slots are applied at a time for one peer; 0 means 16.
	Workers int
	// Turn is how many records of a slot are given to Apply at a time; 0 means 64.
	Turn int
	// StopPause is how long a session in which a peer was stopped is left alone; 0 means
	// 30 s.
	StopPause time.Duration
}

// Session is one connection with a peer; *path.Session is one. Messages of a stream keep
// their order. All methods end when the session does.
type Session interface {
	SendControl(msg []byte) error
	SendData(msg []byte) error
	ReceiveControl(ctx context.Context) ([]byte, error)
	// ReceiveData is called by one goroutine; its result is used until the next call.
	ReceiveData() ([]byte, error)
	Done() <-chan struct{}
	End(err error)
}

// Queue is the queue of one service to all its peers. Its methods may be called
// concurrently.
type Queue struct {
	cfg   Config
	codec *flow.Codec
	own   flow.Incarnation

	changing  sync.Mutex                          // held by Join and Leave
	peers     atomic.Pointer[map[id.Region]*peer] // replaced, never changed
	strangers atomic.Uint64                       // sessions of regions that are no peers
}

// peer is another region.
type peer struct {
	q      *Queue
	region id.Region
	out    *outbox.Peer
	log    *slog.Logger

	sendTurn, receiveTurn chan struct{} // hold a token while there is no such session
	look                  chan struct{} // holds a token when somebody has looked at what is stopped

	mu       sync.Mutex
	sending  sendState    // guarded by mu
	taking   receiveState // guarded by mu
	gone     bool         // guarded by mu; it has left
	sessions []Session    // guarded by mu; those under way
}

// New makes a Queue. It takes the incarnation of the store, or makes it, and reads how
// far the peers are applied.
func New(ctx context.Context, cfg Config) (*Queue, error) {
	if cfg.Service == "" || cfg.Store == nil || cfg.Outbox == nil || cfg.Side.Apply == nil || cfg.Side.Rows == nil || cfg.Side.Merge == nil {
		return nil, errors.New("idcqueue: Config needs Service, Store, Outbox and a Side with Apply, Rows and Merge")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Limits.Workers <= 0 {
		cfg.Limits.Workers = 16
	}
	if cfg.Limits.StopPause <= 0 {
		cfg.Limits.StopPause = 30 * time.Second
	}
	codec, err := flow.NewCodec()
	if err != nil {
		return nil, err
	}
	own, err := incarnation(ctx, cfg.Store)
	if err != nil {
		return nil, err
	}
	q := &Queue{cfg: cfg, codec: codec, own: own}
	peers := map[id.Region]*peer{}
	for _, r := range cfg.Peers {
		out := cfg.Outbox.Peer(Consumer(r))
		if out == nil || r == cfg.Region || peers[r] != nil {
			return nil, fmt.Errorf("idcqueue: peer %d of region %d is named twice, or the outbox has no consumer %q", r, cfg.Region, Consumer(r))
		}
		peers[r] = q.newPeer(r, out)
	}
	if err := q.load(ctx, peers); err != nil {
		return nil, err
	}
	q.peers.Store(&peers)
	return q, nil
}

func (q *Queue) newPeer(r id.Region, out *outbox.Peer) *peer {
	p := &peer{
		q: q, region: r, out: out, log: q.cfg.Log.With("service", q.cfg.Service, "peer", r),
		sendTurn: make(chan struct{}, 1), receiveTurn: make(chan struct{}, 1), look: make(chan struct{}, 1),
	}
	p.sendTurn <- struct{}{}
	p.receiveTurn <- struct{}{}
	return p
}

// peer gives the other region of a number, nil if it is none of the peers.
func (q *Queue) peer(r id.Region) *peer { return (*q.peers.Load())[r] }

// Join adds a peer while the queue works, to the outbox as well. It is sent all that there
// is, once there is a session, and goes on with its log where that was applied before. A
// peer that is there already is no error, and changes nothing.
func (q *Queue) Join(ctx context.Context, r id.Region) error {
	q.changing.Lock()
	defer q.changing.Unlock()
	if r == q.cfg.Region || r == 0 {
		return fmt.Errorf("idcqueue: region %d cannot be a peer of region %d", r, q.cfg.Region)
	}
	if q.peer(r) != nil {
		return nil
	}
	out, err := q.cfg.Outbox.Join(Consumer(r))
	if err != nil {
		return err
	}
	p := q.newPeer(r, out)
	if err := q.load(ctx, map[id.Region]*peer{r: p}); err != nil {
		q.cfg.Outbox.Leave(Consumer(r))
		return err
	}
	next := maps.Clone(*q.peers.Load())
	next[r] = p
	q.peers.Store(&next)
	return nil
}

// Leave takes a peer out, if there is one, and ends its sessions. The outbox keeps nothing
// for it any more; how far its own log is applied stays. A session that it begins later is
// refused and counted.
func (q *Queue) Leave(r id.Region) {
	q.changing.Lock()
	defer q.changing.Unlock()
	p := q.peer(r)
	if p == nil {
		return
	}
	next := maps.Clone(*q.peers.Load())
	delete(next, r)
	q.peers.Store(&next)
	p.mu.Lock()
	p.gone = true
	for _, s := range p.sessions {
		s.End(ErrLeft)
	}
	p.mu.Unlock()
	q.cfg.Outbox.Leave(Consumer(r))
}

// ErrLeft is why the sessions of a peer end that has left, and why it gets no other.
var ErrLeft = errors.New("idcqueue: the region is no peer of this one any more")

// enter notes a session that is under way, unless its peer has left.
func (p *peer) enter(s Session) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.gone {
		p.sessions = append(p.sessions, s)
	}
	return !p.gone
}

func (p *peer) exit(s Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sessions = slices.DeleteFunc(p.sessions, func(one Session) bool { return one == s })
}

// Incarnation tells the log of this store from that of other copies.
func (q *Queue) Incarnation() string { return q.own.String() }

// helloWait bounds the exchange of hellos.
const helloWait = 10 * time.Second

// Serve runs one session with a peer until it ends. The one that has dialled sends its
// log; the other takes it. There may be one of each at a time; a second one waits for the
// first to end.
func (q *Queue) Serve(ctx context.Context, from id.Region, dialled bool, s Session) error {
	p := q.peer(from)
	if p == nil || !p.enter(s) {
		q.strangers.Add(1)
		return fmt.Errorf("region %d: %w", from, ErrLeft)
	}
	defer p.exit(s)
	turn, run := p.receiveTurn, p.receive
	if dialled {
		turn, run = p.sendTurn, p.send
	}
	select {
	case <-turn:
		defer func() { turn <- struct{}{} }()
	case <-s.Done():
		return nil
	case <-ctx.Done():
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { s.End(nil) })()
	err := run(ctx, s)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// stopped tells the other end and the operator why nothing goes on, and leaves the
// session alone for a while: somebody has to look.
func (p *peer) stopped(ctx context.Context, s Session, reason string) {
	p.log.ErrorContext(ctx, "the queue between two regions is stopped", "reason", reason)
	if msg, _, err := p.q.codec.Encode(&flow.Bye{Text: reason}); err == nil {
		_ = s.SendControl(msg) // if it is gone, the next session says it again
	}
	t := time.NewTimer(p.q.cfg.Limits.StopPause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-s.Done():
	case <-p.look:
	case <-t.C:
	}
}

// errBye is why the peer has ended a session.
type errBye struct{ reason string }

func (e *errBye) Error() string { return "idcqueue: the peer says: " + e.reason }

// stopReason gives why an error must stop the peer, if it must.
func stopReason(err error) (string, bool) {
	var stop *flow.ErrStop
	if errors.As(err, &stop) {
		return stop.Reason, true
	}
	var bye *errBye
	if errors.As(err, &bye) {
		return bye.Error(), true
	}
	return "", false
}

// control receives the next control message.
func (p *peer) control(ctx context.Context, s Session) (flow.Message, error) {
	b, err := s.ReceiveControl(ctx)
	if err != nil {
		return nil, err
	}
	m, _, err := p.q.codec.Decode(b)
	if err != nil {
		return nil, err
	}
	if bye, ok := m.(*flow.Bye); ok {
		return nil, &errBye{reason: bye.Text}
	}
	return m, nil
}

// hello receives the peer's Hello.
func (p *peer) hello(ctx context.Context, s Session) (*flow.Hello, error) {
	ctx, cancel := context.WithTimeout(ctx, helloWait)
	defer cancel()
	m, err := p.control(ctx, s)
	if err != nil {
		return nil, err
	}
	h, ok := m.(*flow.Hello)
	if !ok || h.Region != p.region {
		return nil, fmt.Errorf("idcqueue: region %d begins with %T, want its hello", p.region, m)
	}
	return h, nil
}

func (p *peer) say(s Session, m flow.Message) error {
	b, _, err := p.q.codec.Encode(m)
	if err != nil {
		return err
	}
	return s.SendControl(b)
}

// pause waits, and reports false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// minBackOff and maxBackOff bound the pause after something failed; what has failed for
// longer than alarmAfter is an alarm.
const (
	minBackOff, maxBackOff = 20 * time.Millisecond, 5 * time.Second
	alarmAfter             = 10 * time.Second
)
