// SPDX-License-Identifier: Apache-2.0

// Package emulator stands for the sea between regions on one machine: it carries the
// bytes of TCP connections late, slowly, or not at all, and is changed while it runs.
//
// A cut holds bytes back and closes nothing, as a broken cable does: each end hears only
// silence, and what was under way comes after the cut is healed. Packets are not lost
// one by one here; that is a kernel's matter, and measured apart.
package emulator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	chunk       = 16 << 10               // the most that is carried as one piece
	holdMost    = 4 << 20                // bytes of a connection and direction that are under way; then it is not read
	queueTime   = 100 * time.Millisecond // how far ahead a full direction is booked, as the queue of a router
	maxConns    = 256                    // of a line; further ones wait in the kernel
	dialTimeout = 2 * time.Second
)

// Bounds of what a direction may be set to.
const (
	MaxDelay = 10 * time.Second
	MinRate  = 8 << 10 // bytes a second
)

// Setting is how one direction of a line is.
type Setting struct {
	Delay time.Duration // one way
	Rate  int64         // bytes a second; 0 for no limit
	Cut   bool
}

// Validate says what is wrong with a setting.
func (s Setting) Validate() error {
	if s.Delay < 0 || s.Delay > MaxDelay {
		return fmt.Errorf("a delay of %v: use 0 to %v", s.Delay, MaxDelay)
	}
	if s.Rate != 0 && s.Rate < MinRate {
		return fmt.Errorf("a rate of %d bytes/s: use 0 for no limit, or at least %d", s.Rate, MinRate)
	}
	return nil
}

// Line joins two regions. Its methods may be called concurrently.
type Line struct {
	there, back direction
	conns       chan struct{} // a token for each connection
}

// NewLine makes a line whose two directions are alike.
func NewLine(s Setting) *Line {
	l := &Line{conns: make(chan struct{}, maxConns)}
	for _, d := range []*direction{&l.there, &l.back} {
		d.setting, d.changed = s, make(chan struct{})
	}
	return l
}

// Ends names a direction of a line, or both.
type Ends int

// The directions.
const (
	Both  Ends = iota
	There      // from the first end to the second
	Back       // from the second to the first
)

// Set changes a direction, or both, from now on. Change gets the setting as it is.
func (l *Line) Set(which Ends, change func(*Setting)) error {
	for _, d := range l.directions(which) {
		if err := d.set(change); err != nil {
			return err
		}
	}
	return nil
}

// Is gives the settings of both directions, and the bytes that each has carried.
func (l *Line) Is() (there, back Setting, thereBytes, backBytes uint64) {
	there, thereBytes = l.there.is()
	back, backBytes = l.back.is()
	return there, back, thereBytes, backBytes
}

func (l *Line) directions(which Ends) []*direction {
	switch which {
	case There:
		return []*direction{&l.there}
	case Back:
		return []*direction{&l.back}
	default:
		return []*direction{&l.there, &l.back}
	}
}

// Carry takes connections from lis and carries each over the line to the address that to
// gives then, until ctx ends and all have ended. Reverse is for those that the second
// end dials.
func (l *Line) Carry(ctx context.Context, lis net.Listener, to func() (string, error), reverse bool) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = lis.Close() })()
	for {
		select {
		case l.conns <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		from, err := lis.Accept()
		if err != nil {
			<-l.conns
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("an emulated line: %w", err)
			}
			continue // of this one connection
		}
		all.Go(func() {
			defer func() { <-l.conns }()
			l.join(ctx, from, to, reverse)
		})
	}
}

// join carries one connection to its end.
func (l *Line) join(ctx context.Context, from net.Conn, to func() (string, error), reverse bool) {
	there, back := &l.there, &l.back
	if reverse {
		there, back = back, there
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = from.Close() })() // once is enough
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	// It is read at once, so that who gives up during a cut is not joined after it.
	sent, received := make(chan piece, holdMost/chunk), make(chan piece, holdMost/chunk)
	var joined atomic.Bool
	all.Go(func() {
		orderly := there.read(ctx, from, sent)
		// Its kernel would not have been told of a connection in a cut, and would have given up too.
		if !joined.Load() && (!orderly || there.isCut() || back.isCut()) {
			cancel()
		}
	})
	// The first packet goes there and one comes back before there is a connection.
	for _, d := range []*direction{there, back} {
		if !d.pass(ctx, d.book(time.Now(), 0)) {
			return
		}
	}
	onto, err := dial(ctx, to)
	if err != nil {
		reset(from) // a process that is not there answers just so
		return
	}
	joined.Store(true)
	keep := context.AfterFunc(ctx, func() { _ = onto.Close() })
	defer func() {
		if keep() { // not begun: nobody else closes it, and somebody may read it
			_ = onto.Close()
		}
	}()
	all.Go(func() { back.read(ctx, onto, received) })
	var both sync.WaitGroup
	both.Go(func() { there.pump(ctx, sent, onto, cancel) })
	both.Go(func() { back.pump(ctx, received, from, cancel) })
	both.Wait()
}

func dial(ctx context.Context, to func() (string, error)) (net.Conn, error) {
	addr, err := to()
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	return dialer.DialContext(ctx, "tcp", addr)
}

// Fixed is an address that does not change.
func Fixed(addr string) func() (string, error) { return func() (string, error) { return addr, nil } }

func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails only on a closed one
	}
	_ = conn.Close()
}

// direction is one way of a line.
type direction struct {
	mu      sync.Mutex
	setting Setting       // guarded by mu
	changed chan struct{} // guarded by mu; closed and replaced at each change
	free    time.Time     // guarded by mu; when all that is booked has been sent
	carried uint64        // guarded by mu
}

func (d *direction) set(change func(*Setting)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.setting
	change(&s)
	if err := s.Validate(); err != nil {
		return err
	}
	d.setting = s
	d.free = time.Time{} // what is booked keeps its time
	close(d.changed)
	d.changed = make(chan struct{})
	return nil
}

func (d *direction) is() (Setting, uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.setting, d.carried
}

func (d *direction) isCut() bool {
	s, _ := d.is()
	return s.Cut
}

// book gives when so many bytes that have come now arrive at the other end.
func (d *direction) book(now time.Time, bytes int) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.setting.Rate > 0 {
		if d.free.Before(now) {
			d.free = now
		}
		d.free = d.free.Add(time.Duration(bytes) * time.Second / time.Duration(d.setting.Rate))
		return d.free.Add(d.setting.Delay)
	}
	return now.Add(d.setting.Delay)
}

// pass waits until that moment has come and the direction is not cut. It reports
// whether that was before ctx ended.
func (d *direction) pass(ctx context.Context, due time.Time) bool {
	if !until(ctx, due) {
		return false
	}
	for {
		d.mu.Lock()
		cut, changed := d.setting.Cut, d.changed
		d.mu.Unlock()
		if !cut {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// room waits while the direction is booked too far ahead.
func (d *direction) room(ctx context.Context) bool {
	d.mu.Lock()
	free := d.free
	d.mu.Unlock()
	return until(ctx, free.Add(-queueTime))
}

func until(ctx context.Context, due time.Time) bool {
	wait := time.Until(due)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// piece is what is under way. The last one has no bytes: it is the end.
type piece struct {
	bytes []byte
	due   time.Time
	err   error // why it is the last
}

// pump carries pieces into a connection. An orderly end is carried as one, any other ends
// both connections, and neither before its time: an end does not cross a cut.
func (d *direction) pump(ctx context.Context, pieces <-chan piece, onto net.Conn, cancel context.CancelFunc) {
	for {
		var p piece
		select {
		case p = <-pieces:
		case <-ctx.Done():
			return
		}
		if !d.pass(ctx, p.due) {
			return
		}
		if p.err != nil {
			if tcp, ok := onto.(*net.TCPConn); ok && errors.Is(p.err, io.EOF) {
				_ = tcp.CloseWrite() // if it is closed, it has ended too
				return
			}
			reset(onto)
			cancel()
			return
		}
		d.mu.Lock()
		d.carried += uint64(len(p.bytes)) // before anybody can have got them
		d.mu.Unlock()
		if _, err := onto.Write(p.bytes); err != nil {
			cancel() // gone: the other direction ends with it
			return
		}
	}
}

// read books what comes from a connection until that ends. It reports whether the end
// was an orderly one.
func (d *direction) read(ctx context.Context, from net.Conn, pieces chan<- piece) (orderly bool) {
	for {
		if !d.room(ctx) {
			return false
		}
		p := piece{bytes: make([]byte, chunk)}
		var n int
		n, p.err = from.Read(p.bytes)
		p.bytes, p.due = p.bytes[:n], d.book(time.Now(), n)
		if n > 0 {
			p.err = nil // it comes again
		}
		select {
		case pieces <- p:
		case <-ctx.Done():
			return false
		}
		if p.err != nil {
			return errors.Is(p.err, io.EOF)
		}
	}
}
