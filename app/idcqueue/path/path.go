// SPDX-License-Identifier: Apache-2.0

// Package path joins a process to its peers in other regions: it dials and accepts
// under mutual TLS 1.3, measures each line all the time, and gives up a connection
// that does not answer, long before the kernel would.
//
// A Line keeps one Session to each peer that it has dialled, over which it sends, and
// takes one of each peer, over which it receives. A session is two connections, so that
// what steers is never stuck behind data. Who may connect is a list: a certificate of
// the private authority is not enough, its name must be listed.
//
// Today a session runs over TCP. Another transport gives two ordered streams as well,
// and changes nothing above.
package path

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
)

// What a Config without figures has.
const (
	DefaultHandshakeTimeout = 5 * time.Second
	DefaultMaxHandshakes    = 16
	DefaultProbeEvery       = 200 * time.Millisecond
	DefaultDeadAfter        = 2500 * time.Millisecond
	DefaultMaxMessage       = 1<<20 + 4<<10
)

// Bounds of the pause between two dials of a peer. It is short: a line that is back
// should carry again within seconds, and one dial costs a few packets.
const (
	firstPause    = 50 * time.Millisecond
	greatestPause = time.Second

	// firstDialTime bounds the first dial after a success. Later ones may take twice as
	// long each, up to HandshakeTimeout, in case the line has become slow. It is short
	// because the kernel sends a lost first packet again only after 1, 3 and 7 s.
	firstDialTime = 2 * time.Second
)

// Peer is a region as operators list it.
type Peer struct {
	Region id.Region
	Name   string // its certificate says idc://Name
	Addr   string // host:port on which it listens for this service
}

// Config is what a Line is made of. Fields without a default are required.
type Config struct {
	// Self is the own region; Addr is where to listen, port 0 takes a free one.
	Self Peer
	// Service is what the line is for, the same at both ends.
	Service string
	// Peers are those that are dialled and may connect, at first: see SetPeers.
	Peers []Peer
	// Files are read again when they change. Without them there never are peers.
	Files Files
	// Listener is bound already and takes the place of Self.Addr; may be nil.
	Listener net.Listener
	// HandshakeTimeout bounds how long somebody may take to prove who he is.
	HandshakeTimeout time.Duration
	// MaxHandshakes is the most that do so at a time.
	MaxHandshakes int
	// ProbeEvery is how often a session is probed.
	ProbeEvery time.Duration
	// DeadAfter is how long a session lives without an echo, at least: on a line with a
	// long round trip it is three of them and a second.
	DeadAfter time.Duration
	// MaxMessage bounds a message, in bytes.
	MaxMessage int
	// Log takes what operators should see; nil means slog.Default.
	Log *slog.Logger
	// Now tells the time for certificates; nil means time.Now.
	Now func() time.Time
}

func (c *Config) fill() error {
	if c.Service == "" || len(c.Service) > maxName {
		return fmt.Errorf("path: the service %q must have a name of at most %d bytes", c.Service, maxName)
	}
	if err := c.check(c.Peers); err != nil {
		return err
	}
	if c.HandshakeTimeout <= 0 {
		c.HandshakeTimeout = DefaultHandshakeTimeout
	}
	if c.MaxHandshakes <= 0 {
		c.MaxHandshakes = DefaultMaxHandshakes
	}
	if c.ProbeEvery <= 0 {
		c.ProbeEvery = DefaultProbeEvery
	}
	if c.DeadAfter <= 0 {
		c.DeadAfter = DefaultDeadAfter
	}
	if c.MaxMessage <= 0 {
		c.MaxMessage = DefaultMaxMessage
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.Log = c.Log.With("line", c.Service)
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

// check looks whether peers can be told from each other.
func (c *Config) check(peers []Peer) error {
	seen := map[id.Region]string{c.Self.Region: c.Self.Name}
	for _, p := range peers {
		if p.Name == "" || len(p.Name) > maxName || p.Addr == "" {
			return fmt.Errorf("path: peer %d (%q at %q) needs a name of at most %d bytes and an address", p.Region, p.Name, p.Addr, maxName)
		}
		for region, name := range seen {
			if region == p.Region || name == p.Name {
				return fmt.Errorf("path: regions %d (%s) and %d (%s) have the same number or name", region, name, p.Region, p.Name)
			}
		}
		seen[p.Region] = p.Name
	}
	return nil
}

// Line is one process's end of the lines to its peers. Its methods may be called
// concurrently.
type Line struct {
	cfg      Config
	files    *credentials // nil without Files
	listener net.Listener

	mu      sync.Mutex
	refused map[Refusal]uint64 // guarded by mu
	peers   []*link            // guarded by mu; replaced, its elements are never changed
	begin   func(*link)        // guarded by mu; keeps dialling a peer; nil while Run does not run
}

// link is what there is between this process and one peer.
type link struct {
	peer Peer
	wake chan struct{} // holds a token when the peer has been heard: dial now

	stop context.CancelFunc // ends the dialling; nil before that; set under the Line's mu, while the link is listed

	mu       sync.Mutex
	unlisted bool     // guarded by mu; there is no session any more
	dialled  *Session // guarded by mu; nil for none
	accepted *Session // guarded by mu; nil for none
	half     *half    // guarded by mu; nil for none
	dials    uint64   // guarded by mu
	sessions uint64   // guarded by mu
	deaths   uint64   // guarded by mu
	last     string   // guarded by mu; why the latest dial or session came to nothing
}

// half is the first connection of a session that waits for the second.
type half struct {
	nonce  nonce
	stream streamKind
	conn   *wire
	expire *time.Timer
}

// advised: one word about the machine is enough for all lines of a process.
var advised sync.Once

// New reads the certificates and binds the listener. Run serves.
func New(ctx context.Context, cfg Config) (_ *Line, err error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	l := &Line{cfg: cfg, listener: cfg.Listener, refused: map[Refusal]uint64{}}
	defer func() {
		if err != nil && l.listener != nil {
			err = errors.Join(err, l.listener.Close())
		}
	}()
	for _, p := range cfg.Peers {
		l.peers = append(l.peers, newLink(p))
	}
	if len(cfg.Peers) > 0 || cfg.Files != (Files{}) {
		if l.files, err = openCredentials(cfg.Files, cfg.Self.Name, alpnLine, cfg.Log, cfg.Now); err != nil {
			return nil, err
		}
		advised.Do(func() { adviseOnBuffers(ctx, cfg.Log) })
	}
	if l.listener == nil {
		if l.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", cfg.Self.Addr); err != nil {
			return nil, fmt.Errorf("listen for the peers of %s: %w", cfg.Service, err)
		}
	}
	return l, nil
}

func newLink(p Peer) *link { return &link{peer: p, wake: make(chan struct{}, 1)} }

// SetPeers has the line know these peers and no others, from now on. Those that are new are
// dialled, and accepted. Of those that are not listed any more the sessions end with
// ErrUnlisted; who of them connects is refused. One with another address is both. After
// an error nothing has changed.
func (l *Line) SetPeers(peers []Peer) error {
	if err := l.cfg.check(peers); err != nil {
		return err
	}
	if l.files == nil && len(peers) > 0 {
		return errors.New("path: a line without certificates has no peers: give it the files of the authority, the certificate and its key")
	}
	for _, k := range l.change(peers) { // beside l.mu, which who holds the mu of a link may take
		k.unlist() // first: a session ends for the first reason it is given
		if k.stop != nil {
			k.stop()
		}
	}
	return nil
}

// change makes the list of peers, and gives those that are on it no more.
func (l *Line) change(peers []Peer) (gone []*link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := make([]*link, len(peers))
	for i, p := range peers {
		for _, k := range l.peers {
			if k.peer == p {
				next[i] = k
			}
		}
		if next[i] == nil {
			next[i] = newLink(p)
		}
	}
	before := l.peers
	l.peers = next
	for _, k := range before {
		if !slices.Contains(next, k) {
			gone = append(gone, k)
		}
	}
	for _, k := range next {
		if l.begin != nil && !slices.Contains(before, k) {
			l.begin(k)
		}
	}
	return gone
}

// unlist ends what there is with a peer, for good.
func (k *link) unlist() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unlisted = true
	for _, s := range []*Session{k.dialled, k.accepted} {
		if s != nil {
			s.End(ErrUnlisted)
		}
	}
	if k.half != nil {
		k.half.drop()
		k.half = nil
	}
}

// links gives the peers that there are now.
func (l *Line) links() []*link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peers
}

// Addr gives the host:port on which peers are accepted.
func (l *Line) Addr() string { return l.listener.Addr().String() }

// Close gives back the listener of a Line whose Run never began.
func (l *Line) Close() error { return l.listener.Close() }

// Run dials and accepts until ctx ends and everything has ended; then it returns nil.
//
// Serve is called for each session, in a goroutine of its own. It owns the session
// until it returns, which ends it; its error says why, nil says nothing. When the
// session or ctx ends first, all methods of the session return and so must serve. For
// one peer and direction there is never more than one serve at a time: a new session of
// a peer ends the one before, which may be the remains of a process that is no more.
func (l *Line) Run(ctx context.Context, serve func(context.Context, *Session) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	l.mu.Lock()
	l.begin = func(k *link) {
		own, stop := context.WithCancel(ctx)
		k.stop = stop
		all.Go(func() {
			defer stop()
			l.keepDialling(own, k, serve)
		})
	}
	for _, k := range l.peers {
		l.begin(k)
	}
	l.mu.Unlock()
	defer func() { // whoever comes now comes too late
		l.mu.Lock()
		defer l.mu.Unlock()
		l.begin = nil
	}()
	return l.accept(ctx, &all, serve)
}

// keepDialling keeps one session to a peer until ctx ends.
func (l *Line) keepDialling(ctx context.Context, k *link, serve func(context.Context, *Session) error) {
	pause, limit := firstPause, min(firstDialTime, l.cfg.HandshakeTimeout)
	for ctx.Err() == nil {
		began := time.Now()
		s, err := l.dial(ctx, k, limit)
		if err == nil {
			limit = min(firstDialTime, l.cfg.HandshakeTimeout)
			err = l.serve(ctx, k, s, serve)
		} else {
			limit = min(2*limit, l.cfg.HandshakeTimeout)
			k.note(err)
		}
		if time.Since(began) > greatestPause { // it lived, or it took its time
			pause = firstPause
		}
		if ctx.Err() == nil {
			l.cfg.Log.InfoContext(ctx, "the peer is dialled again", "peer", k.peer.Name, "err", err, "within", pause)
		}
		timer := time.NewTimer(time.Duration(mathrand.Int64N(int64(pause)) + 1))
		select {
		case <-timer.C:
		case <-k.wake:
		case <-ctx.Done():
		}
		timer.Stop()
		pause = min(2*pause, greatestPause)
	}
}

// serve runs a session of a peer to its end.
func (l *Line) serve(ctx context.Context, k *link, s *Session, serve func(context.Context, *Session) error) error {
	k.mu.Lock()
	k.sessions++
	k.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { s.End(ErrClosed) })
	defer stop()
	s.start()
	err := serve(ctx, s)
	s.End(err)
	s.wait()
	k.forget(s)
	if ended := s.Err(); !errors.Is(ended, ErrClosed) {
		err = ended // it ended first: what serve met then is a consequence
	}
	if ctx.Err() != nil {
		return nil
	}
	k.note(err)
	switch {
	case errors.Is(err, ErrDead):
		k.mu.Lock()
		k.deaths++
		k.mu.Unlock()
	case errors.Is(err, ErrTampered):
		l.refuse(Tampered)
	}
	if err != nil {
		level := slog.LevelWarn
		if errors.Is(err, ErrClosed) {
			level = slog.LevelInfo
		}
		l.cfg.Log.Log(ctx, level, "a session with a peer has ended", "peer", k.peer.Name, "dialled", s.dialled, "lived", time.Since(s.since).Round(time.Millisecond), "err", err)
	}
	return err
}

// note keeps why the latest dial or session came to nothing.
func (k *link) note(err error) {
	if err == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last = err.Error()
}

// forget takes a session out that has ended.
func (k *link) forget(s *Session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dialled == s {
		k.dialled = nil
	}
	if k.accepted == s {
		k.accepted = nil
	}
	close(s.gone)
}

// dial makes a session to a peer.
func (l *Line) dial(ctx context.Context, k *link, limit time.Duration) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	k.mu.Lock()
	k.dials++
	k.mu.Unlock()
	var n nonce
	_, _ = rand.Read(n[:]) // never fails, by its documentation
	var wires [2]*wire
	var errs [2]error
	var both sync.WaitGroup
	for i, kind := range []streamKind{controlStream, dataStream} {
		both.Go(func() {
			if wires[i], errs[i] = l.dialOne(ctx, k.peer, kind, n); errs[i] != nil {
				cancel() // one alone is of no use
			}
		})
	}
	both.Wait()
	if errs[0] != nil || errs[1] != nil {
		for _, w := range wires {
			if w != nil {
				w.abort()
			}
		}
		if errs[0] == nil || errors.Is(errs[0], context.Canceled) {
			errs[0] = errs[1]
		}
		return nil, fmt.Errorf("dial %s at %s: %w", k.peer.Name, k.peer.Addr, errs[0])
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.unlisted {
		for _, w := range wires {
			w.abort()
		}
		return nil, ErrUnlisted
	}
	k.dialled = newSession(&l.cfg, k.peer, true, wires[0], wires[1])
	return k.dialled, nil
}

func (l *Line) dialOne(ctx context.Context, p Peer, kind streamKind, n nonce) (_ *wire, err error) {
	dialer := net.Dialer{KeepAlive: -1} // the probes know better
	raw, err := dialer.DialContext(ctx, "tcp", p.Addr)
	if err != nil {
		return nil, err
	}
	w := newWire(raw)
	defer func() {
		if err != nil {
			w.abort()
		}
	}()
	if err := tune(raw); err != nil {
		l.cfg.Log.DebugContext(ctx, "a connection is not tuned", "peer", p.Name, "err", err)
	}
	conn := tls.Client(w.raw, l.files.client(p.Name))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline) // fails only on a closed connection, as what follows does
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	began := time.Now()
	mine := hello{stream: kind, region: l.cfg.Self.Region, name: l.cfg.Self.Name, service: l.cfg.Service, nonce: n}
	if _, err := conn.Write(mine.append(nil)); err != nil {
		return nil, err
	}
	theirs, err := readHello(conn)
	if err != nil {
		return nil, fmt.Errorf("it did not answer the greeting: %w", err)
	}
	if why := theirs.check(p, l.cfg.Service); why != "" || theirs.nonce != n || theirs.stream != kind {
		return nil, fmt.Errorf("it greets as region %d (%s), service %s: %w", theirs.region, theirs.name, theirs.service, &refusedError{orElse(why, OtherName)})
	}
	w.round = time.Since(began)
	return l.finish(ctx, w, conn, p)
}

// finish makes a wire of a connection whose other end is known.
func (l *Line) finish(ctx context.Context, w *wire, conn *tls.Conn, p Peer) (*wire, error) {
	state := conn.ConnectionState()
	w.conn, w.cipher, w.until = conn, tls.CipherSuiteName(state.CipherSuite), state.PeerCertificates[0].NotAfter
	if state.CipherSuite != tls.TLS_AES_128_GCM_SHA256 && state.CipherSuite != tls.TLS_AES_256_GCM_SHA384 {
		// Go lets nobody choose among the suites of TLS 1.3: it prefers AES-GCM where both
		// ends have the instructions for it. Another one is as safe, and worth to be seen.
		l.refuse(OtherCipher)
		l.cfg.Log.WarnContext(ctx, "a line is not under AES-GCM", "peer", p.Name, "cipher", w.cipher)
	}
	return w, conn.SetDeadline(time.Time{})
}

// accept takes connections until ctx ends.
func (l *Line) accept(ctx context.Context, all *sync.WaitGroup, serve func(context.Context, *Session) error) error {
	stop := context.AfterFunc(ctx, func() { _ = l.listener.Close() })
	defer stop()
	slots := make(chan struct{}, l.cfg.MaxHandshakes)
	pause := firstPause
	for {
		raw, err := l.listener.Accept()
		if ctx.Err() != nil {
			if raw != nil {
				_ = raw.Close() // nobody has begun with it
			}
			l.dropHalves()
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept the peers of %s: %w", l.cfg.Service, err)
			}
			// No descriptors left, for example: it passes.
			l.cfg.Log.ErrorContext(ctx, "a connection cannot be accepted", "err", err)
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
			pause = min(2*pause, greatestPause)
			continue
		}
		pause = firstPause
		select {
		case slots <- struct{}{}:
		default:
			l.refuse(TooMany)
			_ = raw.Close() // refused
			continue
		}
		all.Go(func() {
			k, s := func() (*link, *Session) {
				defer func() { <-slots }()
				return l.greet(ctx, raw)
			}()
			if s == nil {
				return
			}
			// The session before has been ended; its serve returns first.
			if s.before != nil {
				<-s.before.gone
			}
			_ = l.serve(ctx, k, s, serve) // it has been logged
		})
	}
}

// dropHalves lets go of connections that wait for their other one.
func (l *Line) dropHalves() {
	for _, k := range l.links() {
		k.mu.Lock()
		if k.half != nil {
			k.half.drop()
			k.half = nil
		}
		k.mu.Unlock()
	}
}

func (h *half) drop() {
	h.expire.Stop()
	h.conn.abort()
}

// greet finds out who has connected. It gives a session when this was its second
// connection.
func (l *Line) greet(ctx context.Context, raw net.Conn) (*link, *Session) {
	w := newWire(raw)
	k, h, err := l.meet(ctx, w)
	if err != nil {
		w.abort()
		why := reasonOf(err)
		l.refuse(why)
		l.cfg.Log.WarnContext(ctx, "a connection was refused", "from", raw.RemoteAddr().String(), "reason", string(why), "err", err)
		return nil, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if ctx.Err() != nil {
		w.abort()
		return nil, nil
	}
	if k.unlisted { // a moment ago
		w.abort()
		l.refuse(UnknownName)
		return nil, nil
	}
	other := k.half
	if other == nil || other.nonce != h.nonce || other.stream == h.stream {
		if other != nil {
			other.drop() // of a dial that the peer has given up
		}
		mine := &half{nonce: h.nonce, stream: h.stream, conn: w}
		mine.expire = time.AfterFunc(l.cfg.HandshakeTimeout, func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			if k.half == mine {
				k.half = nil
				w.abort()
				l.refuse(Late)
			}
		})
		k.half = mine
		return nil, nil
	}
	other.expire.Stop()
	k.half = nil
	control, data := w, other.conn
	if h.stream == dataStream {
		control, data = data, control
	}
	s := newSession(&l.cfg, k.peer, false, control, data)
	if s.before = k.accepted; s.before != nil {
		s.before.End(ErrReplaced)
	}
	k.accepted = s
	if k.dialled == nil { // it is there: no reason to wait any more
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
	return k, s
}

// meet does the handshakes with who has connected.
func (l *Line) meet(ctx context.Context, w *wire) (*link, hello, error) {
	if l.files == nil {
		return nil, hello{}, &refusedError{UnknownName}
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.HandshakeTimeout)
	defer cancel()
	_ = tune(w.tcp) // it was told when dialling
	conn := tls.Server(w.raw, l.files.server(func(name string) bool { return l.named(name) != nil }))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, hello{}, err
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline) // as above
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	h, err := readHello(conn)
	if err != nil {
		return nil, h, err
	}
	k := l.named(nameOf(conn))
	if k == nil { // it has been listed a moment ago
		return nil, h, &refusedError{UnknownName}
	}
	if why := h.check(k.peer, l.cfg.Service); why != "" {
		return nil, h, &refusedError{why}
	}
	began := time.Now()
	mine := hello{stream: h.stream, region: l.cfg.Self.Region, name: l.cfg.Self.Name, service: l.cfg.Service, nonce: h.nonce}
	if _, err := conn.Write(mine.append(nil)); err != nil {
		return nil, h, err
	}
	w.round = time.Since(began) // no round trip yet: the probes measure it
	_, err = l.finish(ctx, w, conn, k.peer)
	return k, h, err
}

// named gives the link to the peer of that name, nil if it is not listed.
func (l *Line) named(name string) *link {
	for _, k := range l.links() {
		if k.peer.Name == name {
			return k
		}
	}
	return nil
}

func (l *Line) refuse(why Refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused[why]++
}
