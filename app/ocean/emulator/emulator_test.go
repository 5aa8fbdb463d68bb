// SPDX-License-Identifier: Apache-2.0

package emulator_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-rpc/sluice/app/ocean/emulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers each line with the same one until the test ends.
func echo(t *testing.T) (addr string) {
	t.Helper()
	lis := listen(t)
	var all sync.WaitGroup
	t.Cleanup(func() { _ = lis.Close(); all.Wait() })
	all.Go(func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = conn.Close() }()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	return lis.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return lis
}

// carry has a line carry connections to an echo, and gives a way to make one.
func carry(t *testing.T, l *emulator.Line, reverse bool) func() *client {
	t.Helper()
	to, lis := echo(t), listen(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Carry(ctx, lis, emulator.Fixed(to), reverse) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return func() *client {
		conn, err := net.Dial("tcp", lis.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		return &client{t: t, conn: conn, in: bufio.NewReader(conn)}
	}
}

type client struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (c *client) say(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) hear(want string) {
	c.t.Helper()
	got, err := c.in.ReadString('\n')
	if err != nil || strings.TrimSpace(got) != want {
		c.t.Fatalf("heard %q, %v, want %q", got, err, want)
	}
}

// silence checks that nothing comes for a moment. It can only ever pass wrongly, never
// fail wrongly.
func (c *client) silence() {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	if b, err := c.in.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("heard %q, %v, want nothing", b, err)
	}
	_ = c.conn.SetDeadline(time.Now().Add(20 * time.Second))
}

func set(t *testing.T, l *emulator.Line, which emulator.Ends, change func(*emulator.Setting)) {
	t.Helper()
	if err := l.Set(which, change); err != nil {
		t.Fatal(err)
	}
}

func TestDelay(t *testing.T) {
	const delay = 40 * time.Millisecond
	l := emulator.NewLine(emulator.Setting{Delay: delay})
	c := carry(t, l, false)()
	began := time.Now()
	c.say("hello")
	c.hear("hello")
	if took := time.Since(began); took < 2*delay {
		t.Errorf("there and back took %v, want at least %v", took, 2*delay)
	}
}

func TestRate(t *testing.T) {
	l := emulator.NewLine(emulator.Setting{Rate: 1 << 20})
	c := carry(t, l, false)()
	const size = 256 << 10
	began := time.Now()
	go func() { _, _ = c.conn.Write(make([]byte, size)) }() // the reading below waits for it
	if _, err := io.CopyN(io.Discard, c.in, size); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("256 KiB at 1 MiB/s took %v", took)
	}
	if _, _, there, back := l.Is(); there != size || back != size {
		t.Errorf("carried %d and %d bytes, want %d", there, back, size)
	}
}

func TestCutHoldsAndHealCarries(t *testing.T) {
	tests := []struct {
		name    string
		cut     emulator.Ends
		reverse bool
	}{
		{"both ways", emulator.Both, false},
		{"what the dialler says", emulator.There, false},
		{"what it hears", emulator.Back, false},
		{"dialled by the second end", emulator.Back, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := emulator.NewLine(emulator.Setting{})
			dial := carry(t, l, tt.reverse)
			c := dial()
			c.say("before")
			c.hear("before")
			set(t, l, tt.cut, func(s *emulator.Setting) { s.Cut = true })
			c.say("meanwhile")
			late := dial() // connects to the kernel, no further
			late.say("late")
			c.silence()
			late.silence()
			set(t, l, emulator.Both, func(s *emulator.Setting) { s.Cut = false })
			c.hear("meanwhile")
			late.hear("late")
		})
	}
}

func TestEndDoesNotCrossACut(t *testing.T) {
	l := emulator.NewLine(emulator.Setting{})
	to := listen(t)
	lis := listen(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Carry(ctx, lis, emulator.Fixed(to.Addr().String()), false) }()
	t.Cleanup(func() { stop(); <-ended; _ = to.Close() })
	near, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := to.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = far.Close() }()
	// The line knows of the connection a moment after the far end does.
	if _, err := near.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	set(t, l, emulator.Both, func(s *emulator.Setting) { s.Cut = true })
	_ = near.Close()
	_ = far.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("during the cut: %v, want silence", err)
	}
	set(t, l, emulator.Both, func(s *emulator.Setting) { s.Cut = false })
	_ = far.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("after it: %v, want the end", err)
	}
}

func TestWhoGivesUpDuringACutIsNotJoined(t *testing.T) {
	l := emulator.NewLine(emulator.Setting{Cut: true})
	to, lis := listen(t), listen(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Carry(ctx, lis, emulator.Fixed(to.Addr().String()), false) }()
	t.Cleanup(func() { stop(); <-ended; _ = to.Close() })
	for i := range 300 { // more than a line has room for
		conn, err := net.Dial("tcp", lis.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 { // the others end in order
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		_ = conn.Close()
	}
	last, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = last.Close() }()
	if _, err := io.WriteString(last, "last"); err != nil {
		t.Fatal(err)
	}
	set(t, l, emulator.Both, func(s *emulator.Setting) { s.Cut = false })
	for { // some may be joined that the kernel had not told of
		far, err := to.Accept()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4)
		_, err = io.ReadFull(far, b)
		_ = far.Close()
		if err == nil && string(b) == "last" {
			return
		}
	}
}

func TestValidate(t *testing.T) {
	l := emulator.NewLine(emulator.Setting{})
	for _, s := range []emulator.Setting{{Delay: -1}, {Delay: emulator.MaxDelay + 1}, {Rate: 1}, {Rate: -1}} {
		if err := l.Set(emulator.Both, func(is *emulator.Setting) { *is = s }); err == nil {
			t.Errorf("%+v was taken", s)
		}
	}
	if there, back, _, _ := l.Is(); there != (emulator.Setting{}) || back != (emulator.Setting{}) {
		t.Errorf("it has changed: %+v, %+v", there, back)
	}
}
