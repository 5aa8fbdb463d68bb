// SPDX-License-Identifier: Apache-2.0

package path

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Why a session has ended.
var (
	// ErrClosed: one of the two ends wanted it.
	ErrClosed = errors.New("path: the session is closed")
	// ErrDead: the peer does not answer.
	ErrDead = errors.New("path: the line is silent")
	// ErrReplaced: the peer has connected anew.
	ErrReplaced = errors.New("path: the peer has begun a new session")
	// ErrUnlisted: the peer is none any more.
	ErrUnlisted = errors.New("path: the peer is not listed any more")
	// ErrExpired: the peer's certificate has ended meanwhile.
	ErrExpired = errors.New("path: the peer's certificate has expired")
	// ErrFlooded: control messages came faster than they were taken.
	ErrFlooded = errors.New("path: too many control messages are waiting")
	// ErrTampered: bytes were changed, added or left out on the way.
	ErrTampered = errors.New("path: the line does not carry what was sent")
	// ErrTooLarge: a message is larger than Config.MaxMessage. A session ends when the
	// peer's is.
	ErrTooLarge = errors.New("path: the message is too large")
)

// A frame is its length, 4 bytes that count what follows, its kind and its content.
const frameHeader = 4 + 1

const (
	frameMessage byte = 1
	frameProbe   byte = 2 // 8 bytes, which come back as they are
	frameEcho    byte = 3
)

const (
	inboxSize  = 256      // control messages that wait to be taken
	probeSize  = 8        // bytes
	keptBuffer = 64 << 10 // a larger buffer is not kept between messages

	suspectAfter  = time.Second // without an echo, or three round trips
	suspectRounds = 3
	echoesWaiting = 16
)

// Session is a line to a peer as long as it lasts. Its methods may be called
// concurrently, but for ReceiveData.
type Session struct {
	cfg     *Config
	peer    Peer
	dialled bool
	since   time.Time
	until   time.Time // when the peer's certificate ends
	control *wire
	data    *wire
	before  *Session // of the same peer, which must have gone; nil for none
	gone    chan struct{}

	inbox  chan []byte
	echoes chan [probeSize]byte // to be sent
	done   chan struct{}
	ended  atomic.Pointer[error]
	work   sync.WaitGroup

	mu       sync.Mutex
	srtt     time.Duration // guarded by mu
	minRTT   time.Duration // guarded by mu
	lastEcho time.Time     // guarded by mu
}

func newSession(cfg *Config, p Peer, dialled bool, control, data *wire) *Session {
	s := &Session{
		cfg: cfg, peer: p, dialled: dialled, since: time.Now(), until: control.until, control: control, data: data,
		gone: make(chan struct{}), inbox: make(chan []byte, inboxSize), echoes: make(chan [probeSize]byte, echoesWaiting), done: make(chan struct{}),
	}
	s.lastEcho = s.since
	if dialled { // the answer to the greeting has taken one
		s.srtt, s.minRTT = control.round, control.round
	}
	return s
}

// start begins to read control messages and to probe.
func (s *Session) start() {
	s.mu.Lock()
	s.lastEcho = time.Now()
	s.mu.Unlock()
	s.work.Go(s.readControl)
	s.work.Go(s.probe)
	s.work.Go(s.watch)
}

// wait returns when nothing of the session is left.
func (s *Session) wait() { s.work.Wait() }

// Peer gives who is at the other end: it has proven so, and it is listed.
func (s *Session) Peer() Peer { return s.peer }

// Dialled reports whether this end has dialled: then it is the one that sends data.
func (s *Session) Dialled() bool { return s.dialled }

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err gives why the session has ended, nil while it has not.
func (s *Session) Err() error {
	if p := s.ended.Load(); p != nil {
		return *p
	}
	return nil
}

// End ends the session for that reason, nil for ErrClosed. Only the first call has an
// effect. What has been sent just before may not arrive.
func (s *Session) End(err error) {
	if err == nil {
		err = ErrClosed
	}
	if !s.ended.CompareAndSwap(nil, &err) {
		return
	}
	close(s.done)
	if errors.Is(err, ErrDead) || errors.Is(err, ErrReplaced) || errors.Is(err, ErrUnlisted) {
		s.control.abort()
		s.data.abort()
		return
	}
	s.control.close()
	s.data.close()
}

// SendControl sends a message on the stream that data never delays.
func (s *Session) SendControl(msg []byte) error { return s.send(s.control, frameMessage, msg) }

// SendData sends a message on the stream of data. It waits while the line is full, until
// the session ends. A success means that the kernel has the bytes, no more.
func (s *Session) SendData(msg []byte) error { return s.send(s.data, frameMessage, msg) }

func (s *Session) send(w *wire, kind byte, content []byte) error {
	if len(content) > s.cfg.MaxMessage {
		return fmt.Errorf("%w: %d bytes, the most is %d", ErrTooLarge, len(content), s.cfg.MaxMessage)
	}
	if err := s.Err(); err != nil {
		return err
	}
	if err := w.write(kind, content); err != nil {
		s.End(s.fault(err))
		return s.Err()
	}
	return nil
}

// ReceiveControl gives the next control message, which is the caller's to keep. What
// came before the end of the session is still given.
func (s *Session) ReceiveControl(ctx context.Context) ([]byte, error) {
	select {
	case msg := <-s.inbox:
		return msg, nil
	default:
	}
	select {
	case msg := <-s.inbox:
		return msg, nil
	case <-s.done:
		return nil, s.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ReceiveData gives the next message of the stream of data. It is good until the next
// call. One goroutine calls it; who does not call it stops the peer.
func (s *Session) ReceiveData() ([]byte, error) {
	kind, content, err := s.data.read(s.cfg.MaxMessage)
	if err == nil && kind != frameMessage {
		err = fmt.Errorf("path: a frame of kind %d among data", kind)
	}
	if err != nil {
		s.End(s.fault(err))
		return nil, s.Err()
	}
	return content, nil
}

// fault says what the error of a connection means.
func (s *Session) fault(err error) error {
	switch {
	case tampered(err):
		return fmt.Errorf("%w: %w", ErrTampered, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("%w by the peer: %w", ErrClosed, err)
	}
	return err
}

// readControl takes control messages and answers probes until the session ends.
func (s *Session) readControl() {
	for {
		kind, content, err := s.control.read(s.cfg.MaxMessage)
		if err == nil {
			err = s.take(kind, content)
		}
		if err != nil {
			s.End(s.fault(err))
			return
		}
	}
}

func (s *Session) take(kind byte, content []byte) error {
	switch kind {
	case frameMessage:
		select {
		case s.inbox <- append([]byte(nil), content...):
			return nil
		default:
			return ErrFlooded
		}
	case frameProbe, frameEcho:
		if len(content) != probeSize {
			return fmt.Errorf("path: a probe of %d bytes, want %d", len(content), probeSize)
		}
		if kind == frameEcho {
			s.measure(time.Duration(binary.BigEndian.Uint64(content)))
			return nil
		}
		select {
		case s.echoes <- [probeSize]byte(content):
		default: // the answers to those before tell as much
		}
		return nil
	}
	return fmt.Errorf("path: a frame of kind %d, which this version does not know", kind)
}

// measure takes the echo of a probe that was sent so long after the session's start.
func (s *Session) measure(sent time.Duration) {
	now := time.Now()
	rtt := now.Sub(s.since) - sent
	if rtt < 0 || sent < 0 { // not what we have sent
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastEcho = now
	if s.srtt == 0 {
		s.srtt, s.minRTT = rtt, rtt
	}
	s.srtt += (rtt - s.srtt) / 8 // RFC 6298
	s.minRTT = min(s.minRTT, rtt)
}

// probe sends probes and answers the peer's until the session ends. It is not the
// reader, so that a peer that does not read cannot keep us from reading.
func (s *Session) probe() {
	tick := time.NewTicker(s.cfg.ProbeEvery)
	defer tick.Stop()
	for {
		var b [probeSize]byte
		binary.BigEndian.PutUint64(b[:], uint64(time.Since(s.since)))
		if s.send(s.control, frameProbe, b[:]) != nil {
			return
		}
		for waiting := true; waiting; {
			select {
			case echo := <-s.echoes:
				if s.send(s.control, frameEcho, echo[:]) != nil {
					return
				}
			case <-tick.C:
				waiting = false
			case <-s.done:
				return
			}
		}
	}
}

// watch ends the session when the peer is silent or may not be here any more. It writes
// nothing: a line that is cut blocks those who do.
func (s *Session) watch() {
	tick := time.NewTicker(s.cfg.ProbeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.done:
			return
		}
		silent, round := s.silence()
		if silent > s.deadline(round) {
			s.End(fmt.Errorf("%w: no echo for %v, a round trip takes %v", ErrDead, silent.Round(time.Millisecond), round.Round(time.Microsecond)))
			return
		}
		if s.cfg.Now().After(s.until) {
			s.End(ErrExpired)
			return
		}
	}
}

func (s *Session) silence() (silent, round time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.lastEcho), s.srtt
}

// deadline gives how long a session may be silent: on a line whose round trip is long,
// an echo is late for that alone.
func (s *Session) deadline(round time.Duration) time.Duration {
	return max(s.cfg.DeadAfter, suspectRounds*round+suspectAfter)
}

// Stats is what is known of a session's line.
type Stats struct {
	RTT, MinRTT   time.Duration `json:"-"`
	RTTMs         float64       `json:"rtt_ms"`
	Suspect       bool          `json:"suspect"`        // an echo is overdue
	Loss          float64       `json:"loss"`           // share of packets that were sent again; 0 where the kernel does not say
	Rate          uint64        `json:"rate"`           // bytes a second that arrive, by the kernel's measure; 0 where it does not say
	SentBytes     uint64        `json:"sent_bytes"`     // on the line, TLS included
	ReceivedBytes uint64        `json:"received_bytes"` // likewise
	Cipher        string        `json:"cipher"`
	Since         time.Time     `json:"since"`
}

// Stats measures.
func (s *Session) Stats() Stats {
	silent, round := s.silence()
	s.mu.Lock()
	least := s.minRTT
	s.mu.Unlock()
	st := Stats{
		RTT: round, MinRTT: least, RTTMs: float64(round) / float64(time.Millisecond),
		Suspect: silent > max(suspectAfter, suspectRounds*round),
		Cipher:  s.control.cipher, Since: s.since,
	}
	var sent, again uint64
	for _, w := range []*wire{s.control, s.data} {
		st.SentBytes += w.raw.sent.Load()
		st.ReceivedBytes += w.raw.received.Load()
		k := measureTCP(w.tcp)
		sent += k.sent
		again += k.again
		st.Rate = max(st.Rate, k.rate)
	}
	if sent > 0 {
		st.Loss = float64(again) / float64(sent)
	}
	return st
}

// wire is one connection of a session.
type wire struct {
	tcp    net.Conn // the socket
	raw    *counted // it, counted
	conn   net.Conn // TLS over that
	cipher string
	until  time.Time
	round  time.Duration // that greeting took

	mu  sync.Mutex // of writing
	out []byte     // guarded by mu; a frame on its way

	in  *bufio.Reader // its reader's
	buf []byte        // its reader's
}

func newWire(tcp net.Conn) *wire {
	raw := &counted{Conn: tcp}
	return &wire{tcp: tcp, raw: raw, conn: raw}
}

// counted counts the bytes of a connection.
type counted struct {
	net.Conn
	sent, received atomic.Uint64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.received.Add(uint64(n))
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.sent.Add(uint64(n))
	return n, err
}

// close lets the kernel bring what has been written to its end. TLS has its own word for
// an end, which could block on a full line; our ends are said by the queue.
func (w *wire) close() { _ = w.raw.Close() }

// abort throws away what has not been sent.
func (w *wire) abort() {
	if tcp, ok := w.tcp.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails only on a closed one
	}
	_ = w.raw.Close()
}

func (w *wire) write(kind byte, content []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = binary.BigEndian.AppendUint32(w.out[:0], uint32(1+len(content)))
	w.out = append(w.out, kind)
	w.out = append(w.out, content...)
	_, err := w.conn.Write(w.out)
	if cap(w.out) > keptBuffer {
		w.out = nil
	}
	return err
}

// read gives the next frame. Its content is good until the next call.
func (w *wire) read(most int) (kind byte, content []byte, err error) {
	if w.in == nil {
		w.in = bufio.NewReaderSize(w.conn, 16<<10)
	}
	var head [frameHeader]byte
	if _, err := io.ReadFull(w.in, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n == 0 || n > uint32(most)+1 {
		return 0, nil, fmt.Errorf("%w: the peer says %d bytes, the most is %d", ErrTooLarge, n, most)
	}
	n--
	if cap(w.buf) > keptBuffer && n <= keptBuffer {
		w.buf = nil
	}
	if uint32(cap(w.buf)) < n {
		w.buf = make([]byte, n)
	}
	w.buf = w.buf[:n]
	_, err = io.ReadFull(w.in, w.buf)
	return head[4], w.buf, err
}
