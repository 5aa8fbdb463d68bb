// SPDX-License-Identifier: Apache-2.0

package path_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-rpc/sluice/app/idcqueue/path"
	"github.com/sluice-rpc/sluice/app/idcqueue/path/pathtest"
	"github.com/sluice-rpc/sluice/app/ocean/emulator"
	"github.com/sluice-rpc/sluice/app/pki"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}

var (
	sh = path.Peer{Region: 1, Name: "sh"}
	hk = path.Peer{Region: 2, Name: "hk"}
)

func TestSession(t *testing.T) {
	a, b := pathtest.Pair(t, sh, hk)
	if a.Peer().Name != "hk" || b.Peer().Name != "sh" || !a.Dialled() || b.Dialled() {
		t.Fatalf("ends: %+v %v, %+v %v", a.Peer(), a.Dialled(), b.Peer(), b.Dialled())
	}
	large := bytes.Repeat([]byte("x"), path.DefaultMaxMessage)
	for _, s := range [][2]*path.Session{{a, b}, {b, a}} {
		sent := make(chan error, 1)
		go func() {
			for _, msg := range [][]byte{[]byte("one"), {}, large, []byte("two")} {
				if err := s[0].SendData(msg); err != nil {
					sent <- err
					return
				}
			}
			sent <- s[0].SendControl([]byte("steer"))
		}()
		for _, want := range [][]byte{[]byte("one"), {}, large, []byte("two")} {
			got, err := s[1].ReceiveData()
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("got %d bytes, %v, want %d", len(got), err, len(want))
			}
		}
		if got, err := s[1].ReceiveControl(t.Context()); err != nil || string(got) != "steer" {
			t.Fatalf("got %q, %v", got, err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
	st := a.Stats()
	if st.RTT <= 0 || st.MinRTT <= 0 || st.Suspect || st.SentBytes < uint64(len(large)) || st.ReceivedBytes < uint64(len(large)) {
		t.Errorf("stats: %+v", st)
	}
	if !strings.Contains(st.Cipher, "_GCM_") {
		t.Errorf("cipher %s", st.Cipher)
	}
	if err := a.SendData(append(large, 1)); !errors.Is(err, path.ErrTooLarge) {
		t.Errorf("a message too large: %v", err)
	}
	if a.Err() != nil {
		t.Errorf("it has ended the session: %v", a.Err())
	}
}

func TestControlPassesData(t *testing.T) {
	a, b := pathtest.Pair(t, sh, hk)
	var sending sync.WaitGroup
	sending.Go(func() { // until the line is full, since nobody takes them
		for a.SendData(make([]byte, 1<<20)) == nil {
			continue
		}
	})
	for range 3 {
		if err := a.SendControl([]byte("now")); err != nil {
			t.Fatal(err)
		}
		if msg, err := b.ReceiveControl(t.Context()); err != nil || string(msg) != "now" {
			t.Fatalf("got %q, %v", msg, err)
		}
	}
	a.End(nil)
	sending.Wait()
}

func TestEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(a, b *path.Session)
		want error // at b
	}{
		{"by the other end", func(a, _ *path.Session) { a.End(nil) }, path.ErrClosed},
		{"by an error of the other end", func(a, _ *path.Session) { a.End(errors.New("disk full")) }, path.ErrClosed},
		{"by control messages that nobody takes", func(a, _ *path.Session) {
			for a.SendControl([]byte("ack")) == nil {
				continue
			}
		}, path.ErrFlooded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := pathtest.Pair(t, sh, hk)
			tt.end(a, b)
			if _, err := b.ReceiveData(); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			<-b.Done()
			for {
				if _, err := b.ReceiveControl(t.Context()); err != nil {
					if !errors.Is(err, tt.want) {
						t.Errorf("control: got %v, want %v", err, tt.want)
					}
					break
				}
			}
		})
	}
}

// door is a line that waits for others, and who it serves.
type door struct {
	*path.Line
	addr  string
	files map[string]path.Files
	met   chan *path.Session
}

func openDoor(t *testing.T, change func(*path.Config)) *door {
	t.Helper()
	lis := pathtest.Listen(t)
	d := &door{addr: lis.Addr().String(), files: pathtest.Files(t, "sh", "hk", "stranger"), met: make(chan *path.Session, 1)}
	nowhere := pathtest.Listen(t)
	_ = nowhere.Close() // refuses, so that the dials do not get in the way
	peer := hk
	peer.Addr = nowhere.Addr().String()
	cfg := path.Config{Self: sh, Peers: []path.Peer{peer}, Files: d.files["sh"], Listener: lis, Service: "comment", HandshakeTimeout: 10 * time.Second}
	if change != nil {
		change(&cfg)
	}
	var err error
	if d.Line, err = path.New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	pathtest.Run(t, d.Line, func(_ context.Context, s *path.Session) error {
		d.met <- s
		<-s.Done()
		return nil
	})
	return d
}

// counted waits until a refusal has been counted.
func (d *door) counted(t *testing.T, why path.Refusal) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for d.Status().Refused[why] == 0 {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s is not counted: %v", why, d.Status().Refused)
		}
	}
	if len(d.Status().Refused) != 1 {
		t.Errorf("more is counted: %v", d.Status().Refused)
	}
}

// admits checks that a peer is served.
func (d *door) admits(t *testing.T) {
	t.Helper()
	nonce := []byte("0123456789abcdef")
	for _, stream := range []byte{1, 2} {
		conn := d.dial(t, d.config(t, "hk"))
		if _, err := conn.Write(greeting(stream, 2, nonce, "hk", "comment")); err != nil {
			t.Fatal(err)
		}
	}
	s := <-d.met
	if s.Peer().Name != "hk" {
		t.Errorf("served %+v", s.Peer())
	}
}

func (d *door) dial(t *testing.T, cfg *tls.Config) *tls.Conn {
	t.Helper()
	raw, err := net.Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	return tls.Client(raw, cfg)
}

func (d *door) config(t *testing.T, name string) *tls.Config {
	t.Helper()
	own, err := tls.LoadX509KeyPair(d.files[name].Cert, d.files[name].Key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: []string{"idcq/1"}, InsecureSkipVerify: true}
}

// greeting is what each end says first, as hello.go has it.
func greeting(stream byte, region uint16, nonce []byte, name, service string) []byte {
	b := append([]byte("idcq"), 1, stream)
	b = binary.BigEndian.AppendUint16(b, region)
	b = append(b, nonce...)
	b = append(append(b, byte(len(name))), name...)
	return append(append(b, byte(len(service))), service...)
}

func TestRefused(t *testing.T) {
	nonce := []byte("0123456789abcdef")
	say := func(t *testing.T, d *door, cfg *tls.Config, b []byte) {
		conn := d.dial(t, cfg)
		_, _ = conn.Write(b) // it may be refused before that
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("it was answered %d bytes", n)
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*path.Config)
		do     func(t *testing.T, d *door)
		want   path.Refusal
	}{
		{"another authority", nil, func(t *testing.T, d *door) {
			d.files["hk"] = pathtest.Files(t, "hk")["hk"]
			say(t, d, d.config(t, "hk"), greeting(1, 2, nonce, "hk", "comment"))
			d.files = map[string]path.Files{"hk": {}}
		}, path.Authority},
		{"no certificate", nil, func(t *testing.T, d *door) {
			cfg := d.config(t, "hk")
			cfg.Certificates = nil
			say(t, d, cfg, nil)
		}, path.Authority},
		{"an expired certificate", func(c *path.Config) {
			c.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
		}, func(t *testing.T, d *door) { say(t, d, d.config(t, "hk"), nil) }, path.Expired},
		{"a name that is not listed", nil, func(t *testing.T, d *door) {
			say(t, d, d.config(t, "stranger"), greeting(1, 2, nonce, "stranger", "comment"))
		}, path.UnknownName},
		{"the own name", nil, func(t *testing.T, d *door) {
			say(t, d, d.config(t, "sh"), greeting(1, 1, nonce, "sh", "comment"))
		}, path.UnknownName},
		{"it greets as another region", nil, func(t *testing.T, d *door) {
			say(t, d, d.config(t, "hk"), greeting(1, 1, nonce, "sh", "comment"))
		}, path.OtherName},
		{"it greets with another number", nil, func(t *testing.T, d *door) {
			say(t, d, d.config(t, "hk"), greeting(1, 3, nonce, "hk", "comment"))
		}, path.OtherName},
		{"another service", nil, func(t *testing.T, d *door) {
			say(t, d, d.config(t, "hk"), greeting(1, 2, nonce, "hk", "post"))
		}, path.OtherService},
		{"another protocol", nil, func(t *testing.T, d *door) {
			cfg := d.config(t, "hk")
			cfg.NextProtos = nil
			say(t, d, cfg, greeting(1, 2, nonce, "hk", "comment"))
		}, path.Handshake},
		{"TLS 1.2", nil, func(t *testing.T, d *door) {
			cfg := d.config(t, "hk")
			cfg.MaxVersion = tls.VersionTLS12
			say(t, d, cfg, nil)
		}, path.Handshake},
		{"garbage inside of TLS", nil, func(t *testing.T, d *door) {
			say(t, d, d.config(t, "hk"), bytes.Repeat([]byte("garbage "), 100))
		}, path.NoHello},
		{"a later version", nil, func(t *testing.T, d *door) {
			b := greeting(1, 2, nonce, "hk", "comment")
			b[4] = 2
			say(t, d, d.config(t, "hk"), b)
		}, path.NoHello},
		{"plain text", nil, func(t *testing.T, d *door) {
			conn, err := net.Dial("tcp", d.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_, _ = conn.Write(greeting(1, 2, nonce, "hk", "comment"))
			_, _ = io.Copy(io.Discard, conn)
		}, path.NotTLS},
		{"nothing is said", func(c *path.Config) { c.HandshakeTimeout = 50 * time.Millisecond }, func(t *testing.T, d *door) {
			conn, err := net.Dial("tcp", d.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_, _ = io.Copy(io.Discard, conn)
		}, path.Late},
		{"one connection alone", func(c *path.Config) { c.HandshakeTimeout = time.Second }, func(t *testing.T, d *door) {
			conn := d.dial(t, d.config(t, "hk"))
			_, _ = conn.Write(greeting(1, 2, nonce, "hk", "comment"))
			_, _ = io.Copy(io.Discard, conn)
		}, path.Late},
		{"it goes away in the middle", nil, func(t *testing.T, d *door) {
			conn, err := net.Dial("tcp", d.addr)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
		}, path.HungUp},
		{"too many at a time", func(c *path.Config) { c.MaxHandshakes = 1 }, func(t *testing.T, d *door) {
			first, err := net.Dial("tcp", d.addr)
			if err != nil {
				t.Fatal(err)
			}
			second, err := net.Dial("tcp", d.addr)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, second)
			d.counted(t, path.TooMany)
			_ = second.Close()
			_ = first.Close() // counted too, later
			d.files = map[string]path.Files{"hk": {}}
		}, path.TooMany},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := openDoor(t, tt.change)
			tt.do(t, d)
			if tt.want != path.TooMany {
				d.counted(t, tt.want)
			}
			if tt.want != path.Expired && tt.want != path.Late && d.files["hk"].CA != "" {
				d.admits(t)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	files := pathtest.Files(t, "sh", "hk")
	other := pathtest.Files(t, "sh")["sh"]
	for _, tt := range []struct {
		name   string
		change func(*path.Config)
		want   string
	}{
		{"no files", func(c *path.Config) { c.Files = path.Files{} }, "moments certs"},
		{"another region's certificate", func(c *path.Config) { c.Files = files["hk"] }, `names region "hk"`},
		{"a certificate of another authority", func(c *path.Config) { c.Files.Cert, c.Files.Key = other.Cert, other.Key }, "not of an authority"},
		{"another key", func(c *path.Config) { c.Files.Key = files["hk"].Key }, "hk.key"},
		{"the own number again", func(c *path.Config) { c.Peers[0].Region = 1 }, "same number or name"},
		{"the own name again", func(c *path.Config) { c.Peers[0].Name = "sh" }, "same number or name"},
		{"no address", func(c *path.Config) { c.Peers[0].Addr = "" }, "address"},
		{"no service", func(c *path.Config) { c.Service = "" }, "service"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			self, peer := sh, hk
			self.Addr, peer.Addr = "127.0.0.1:0", "127.0.0.1:1"
			cfg := path.Config{Self: self, Peers: []path.Peer{peer}, Files: files["sh"], Service: "comment"}
			tt.change(&cfg)
			l, err := path.New(t.Context(), cfg)
			if err == nil {
				_ = l.Close()
				t.Fatal("it was taken")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want something about %q", err, tt.want)
			}
		})
	}
}

// TestDiallerRefuses: who listens must be the peer as well.
func TestDiallerRefuses(t *testing.T) {
	files := pathtest.Files(t, "sh", "hk", "stranger")
	for _, tt := range []struct {
		name  string
		files path.Files
		want  string
	}{
		{"another authority", pathtest.Files(t, "hk")["hk"], "unknown authority"},
		{"another region", files["stranger"], `names region "stranger"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			own, err := tls.LoadX509KeyPair(tt.files.Cert, tt.files.Key)
			if err != nil {
				t.Fatal(err)
			}
			lis, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: []string{"idcq/1"}})
			if err != nil {
				t.Fatal(err)
			}
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
						b, _ := io.ReadAll(io.LimitReader(conn, 1))
						if len(b) > 0 {
							t.Errorf("it was told something")
						}
					})
				}
			})
			peer := hk
			peer.Addr = lis.Addr().String()
			l, err := path.New(t.Context(), path.Config{
				Self: sh, Peers: []path.Peer{peer}, Files: files["sh"], Listener: pathtest.Listen(t), Service: "comment",
			})
			if err != nil {
				t.Fatal(err)
			}
			pathtest.Run(t, l, func(context.Context, *path.Session) error { t.Error("served"); return nil })
			eventually(t, func() bool { return strings.Contains(l.Status().Peers[0].Last, tt.want) })
			if st := l.Status().Peers[0]; st.State != path.Down || st.Dials == 0 {
				t.Errorf("status: %+v", st)
			}
		})
	}
}

func eventually(t *testing.T, so func() bool) {
	t.Helper()
	if !within(20*time.Second, so) {
		t.Fatal("it does not come to that")
	}
}

// within waits for something to be so, and says whether it has come to that.
func within(limit time.Duration, so func() bool) bool {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); !so(); <-tick.C {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// sea is two lines joined by an emulated one.
type sea struct {
	line     *emulator.Line
	sh, hk   *path.Line
	sessions chan *path.Session // that sh has dialled
	files    map[string]path.Files
}

func openSea(t *testing.T, dial string, change func(*path.Config)) *sea {
	t.Helper()
	o := &sea{line: emulator.NewLine(emulator.Setting{}), sessions: make(chan *path.Session, 16), files: pathtest.Files(t, "sh", "hk")}
	lisSH, lisHK, door, doorBack := pathtest.Listen(t), pathtest.Listen(t), pathtest.Listen(t), pathtest.Listen(t)
	ctx, stop := context.WithCancel(t.Context())
	var carrying sync.WaitGroup
	carrying.Go(func() { _ = o.line.Carry(ctx, door, emulator.Fixed(lisHK.Addr().String()), false) })
	carrying.Go(func() { _ = o.line.Carry(ctx, doorBack, emulator.Fixed(lisSH.Addr().String()), true) })
	t.Cleanup(func() { stop(); carrying.Wait() })
	if dial == "" {
		dial = door.Addr().String()
	}
	peers := []path.Peer{{Region: 1, Name: "sh", Addr: doorBack.Addr().String()}, {Region: 2, Name: "hk", Addr: dial}}
	var lines [2]*path.Line
	for i, lis := range []net.Listener{lisSH, lisHK} {
		cfg := path.Config{
			Self: peers[i], Peers: []path.Peer{peers[1-i]}, Files: o.files[peers[i].Name], Listener: lis, Service: "comment",
			ProbeEvery: 10 * time.Millisecond, DeadAfter: 300 * time.Millisecond,
		}
		if change != nil {
			change(&cfg)
		}
		var err error
		if lines[i], err = path.New(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	o.sh, o.hk = lines[0], lines[1]
	pathtest.Run(t, o.sh, func(_ context.Context, s *path.Session) error {
		if s.Dialled() {
			o.sessions <- s
		}
		<-s.Done()
		return nil
	})
	pathtest.Run(t, o.hk, func(_ context.Context, s *path.Session) error {
		for {
			msg, err := s.ReceiveData()
			if err != nil {
				return nil
			}
			if s.SendControl(msg) != nil {
				return nil
			}
		}
	})
	return o
}

func talk(t *testing.T, s *path.Session, say string) {
	t.Helper()
	if err := s.SendData([]byte(say)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.ReceiveControl(t.Context()); err != nil || string(got) != say {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestSilenceEndsASessionAndItIsDialledAgain(t *testing.T) {
	for _, tt := range []struct {
		name string
		cut  emulator.Ends
	}{{"a cut line", emulator.Both}, {"a line that is cut one way", emulator.There}, {"a line that is cut the other way", emulator.Back}} {
		t.Run(tt.name, func(t *testing.T) {
			o := openSea(t, "", nil)
			s := <-o.sessions
			talk(t, s, "before")
			cut := func(on bool) {
				if err := o.line.Set(tt.cut, func(is *emulator.Setting) { is.Cut = on }); err != nil {
					t.Fatal(err)
				}
			}
			cut(true)
			<-s.Done()
			if err := s.Err(); !errors.Is(err, path.ErrDead) && !errors.Is(err, path.ErrClosed) && tt.cut != emulator.Both {
				t.Errorf("it ended with %v", err)
			} else if tt.cut == emulator.Both && !errors.Is(err, path.ErrDead) {
				t.Errorf("it ended with %v, want %v", err, path.ErrDead)
			}
			if err := s.SendData([]byte("too late")); err == nil {
				t.Error("a dead session sends")
			}
			eventually(t, func() bool { return o.sh.Status().Peers[0].State == path.Down })
			cut(false)
			talk(t, <-o.sessions, "after")
			st := o.sh.Status().Peers[0]
			// Of a line that is cut one way the other side may be the one to give it up.
			if st.State == path.Down || tt.cut == emulator.Both && (st.Last == "" || st.Deaths == 0) {
				t.Errorf("status: %+v", st)
			}
		})
	}
}

func TestRoundTripIsMeasured(t *testing.T) {
	o := openSea(t, "", nil)
	s := <-o.sessions
	const delay = 30 * time.Millisecond
	quick := func() bool { least := s.Stats().MinRTT; return least > 0 && least < delay }
	eventually(t, quick) // a busy machine may take longer at first
	if err := o.line.Set(emulator.Both, func(is *emulator.Setting) { is.Delay = delay }); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return s.Stats().RTT >= 3*delay/2 })
	if !quick() {
		t.Errorf("the least is %v", s.Stats().MinRTT)
	}
}

// tap is a forwarder that keeps what it carries, and may change it.
type tap struct {
	mu     sync.Mutex
	seen   bytes.Buffer // guarded by mu; both directions of all connections
	change func(n int64, b []byte) []byte
}

func (p *tap) carry(t *testing.T, to string) (addr string) {
	t.Helper()
	lis := pathtest.Listen(t)
	var all sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(func() { stop(); _ = lis.Close(); all.Wait() })
	pump := func(from, onto net.Conn, there bool) {
		defer func() { _, _ = from.Close(), onto.Close() }()
		b := make([]byte, 32<<10)
		var n int64
		for {
			k, err := from.Read(b)
			if err != nil {
				return
			}
			out := b[:k]
			p.mu.Lock()
			_, _ = p.seen.Write(out)
			if there && p.change != nil {
				out = p.change(n, out)
			}
			p.mu.Unlock()
			n += int64(k)
			if _, err := onto.Write(out); err != nil {
				return
			}
		}
	}
	all.Go(func() {
		for {
			from, err := lis.Accept()
			if err != nil {
				return
			}
			onto, err := net.Dial("tcp", to)
			if err != nil {
				_ = from.Close()
				continue
			}
			context.AfterFunc(ctx, func() { _, _ = from.Close(), onto.Close() })
			all.Go(func() { pump(from, onto, true) })
			all.Go(func() { pump(onto, from, false) })
		}
	})
	return lis.Addr().String()
}

func (p *tap) set(change func(int64, []byte) []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change = change
}

func (p *tap) captured() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.seen.Bytes())
}

// tapped is a line from sh to hk with a tap on it.
func tapped(t *testing.T) (*sea, *tap) {
	t.Helper()
	// The address of hk is known only after openSea: a listener in between.
	p := &tap{}
	lis := pathtest.Listen(t)
	addr := p.carry(t, lis.Addr().String())
	o := openSea(t, addr, nil)
	var all sync.WaitGroup
	t.Cleanup(func() { _ = lis.Close(); all.Wait() })
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	l := emulator.NewLine(emulator.Setting{})
	all.Go(func() { _ = l.Carry(ctx, lis, emulator.Fixed(o.hk.Addr()), false) })
	return o, p
}

func TestTheLineHoldsNoText(t *testing.T) {
	o, p := tapped(t)
	s := <-o.sessions
	text := "the sea is wide, 海很宽"
	for range 20 {
		talk(t, s, text)
	}
	seen := p.captured()
	if len(seen) < 20*len(text) {
		t.Fatalf("%d bytes were seen", len(seen))
	}
	for _, word := range []string{text, "sea", "海", "comment"} {
		if bytes.Contains(seen, []byte(word)) {
			t.Errorf("%q is on the line", word)
		}
	}
}

func TestChangedBytesAreRefusedAndCounted(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func([]byte) []byte
	}{
		{"a flipped bit", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }},
		{"a replayed record", func(b []byte) []byte { return append(bytes.Clone(b), b...) }},
		{"a cut record", func(b []byte) []byte { return b[:len(b)/2] }},
		{"a record that is left out", func([]byte) []byte { return nil }},
		{"garbage", func(b []byte) []byte { return bytes.Repeat([]byte{23, 3, 3, 0, 32, 7}, 1+len(b)/6) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, p := tapped(t)
			refused := func() bool { return o.hk.Status().Refused[path.Tampered] > 0 }
			// On a busy machine a session may end by its silence first, and the change then
			// meets the greeting of the next.
			for tries := 0; !refused(); tries++ {
				if tries == 5 {
					t.Fatal("it is never refused as changed")
				}
				s := <-o.sessions
				talk(t, s, "before")
				var once sync.Once
				p.set(func(_ int64, b []byte) []byte {
					once.Do(func() { b = tt.change(b) })
					return b
				})
				<-s.Done()
				within(3*time.Second, refused)
			}
			talk(t, <-o.sessions, "after")
		})
	}
}

// TestAReplayedConnectionIsRefused: who has captured a whole connection gets nowhere by
// saying it again.
func TestAReplayedConnectionIsRefused(t *testing.T) {
	var mu sync.Mutex
	var there bytes.Buffer
	o, p := tapped(t)
	p.set(func(n int64, b []byte) []byte {
		mu.Lock()
		defer mu.Unlock()
		_, _ = there.Write(b)
		return b
	})
	(<-o.sessions).End(nil)
	s := <-o.sessions
	talk(t, s, "once")
	mu.Lock()
	said := bytes.Clone(there.Bytes())
	mu.Unlock()
	conn, err := net.Dial("tcp", o.hk.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	before := o.hk.Status().Peers[0].Sessions
	_, _ = conn.Write(said)
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.Copy(io.Discard, conn)
	eventually(t, func() bool { return len(o.hk.Status().Refused) > 0 })
	talk(t, s, "still there")
	if after := o.hk.Status().Peers[0].Sessions; after != before {
		t.Errorf("%d sessions, %d before", after, before)
	}
}

func TestReplacedSession(t *testing.T) {
	d := openDoor(t, nil)
	d.admits(t)
	nonce := []byte("another nonce 12")
	for _, stream := range []byte{2, 1} {
		conn := d.dial(t, d.config(t, "hk"))
		if _, err := conn.Write(greeting(stream, 2, nonce, "hk", "comment")); err != nil {
			t.Fatal(err)
		}
	}
	s := <-d.met // only after the first serve has returned
	if s.Err() != nil {
		t.Errorf("the new one has ended: %v", s.Err())
	}
	if st := d.Status().Peers[0]; st.Sessions != 2 {
		t.Errorf("status: %+v", st)
	}
}

func TestCertificatesAreReadAgain(t *testing.T) {
	o := openSea(t, "", nil)
	s := <-o.sessions
	talk(t, s, "before")
	before := o.sh.Status().Until
	// A new certificate of the same authority takes the place of the old one. Until both
	// files are there, the old ones are used.
	dir := pki.Dir(strings.TrimSuffix(o.files["sh"].CA, "/authority.crt"))
	for _, file := range []string{o.files["sh"].Cert, o.files["sh"].Key} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	s.End(nil)
	s = <-o.sessions
	talk(t, s, "without the files")
	if err := dir.Issue("sh", 10*time.Hour, time.Now()); err != nil {
		t.Fatal(err)
	}
	s.End(nil)
	talk(t, <-o.sessions, "with new ones")
	if until := o.sh.Status().Until; !until.After(before) {
		t.Errorf("the certificate ends on %v, before it was %v", until, before)
	}
}

func TestSessionEndsWithTheCertificate(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	o := openSea(t, "", func(c *path.Config) {
		c.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	s := <-o.sessions
	talk(t, s, "before")
	mu.Lock()
	now = now.Add(2 * time.Hour)
	mu.Unlock()
	<-s.Done()
	if err := s.Err(); !errors.Is(err, path.ErrExpired) && !errors.Is(err, path.ErrClosed) {
		t.Errorf("it ended with %v", err)
	}
	eventually(t, func() bool { return strings.Contains(o.sh.Status().Peers[0].Last, "expired") })
}

func TestWithoutPeers(t *testing.T) {
	self := sh
	self.Addr = "127.0.0.1:0"
	l, err := path.New(t.Context(), path.Config{Self: self, Service: "comment"})
	if err != nil {
		t.Fatal(err)
	}
	pathtest.Run(t, l, func(context.Context, *path.Session) error { t.Error("served"); return nil })
	if conn, err := net.Dial("tcp", l.Addr()); err == nil { // it may be gone before that
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
	eventually(t, func() bool { return l.Status().Refused[path.UnknownName] == 1 })
}

// TestPeersComeAndGo: who is listed while the line runs is dialled and accepted; who is
// not listed any more is cut off, refused and counted.
func TestPeersComeAndGo(t *testing.T) {
	o := openSea(t, "", func(c *path.Config) {
		if c.Self.Name == "sh" {
			c.Peers = nil
		}
	})
	refused := func() uint64 { return o.sh.Status().Refused[path.UnknownName] }
	eventually(t, func() bool { return refused() > 0 })
	back := o.hk.Status() // its address is that of the door to it
	hk := hk
	hk.Addr = back.Addr
	if err := o.sh.SetPeers([]path.Peer{hk, {Region: 2, Name: "ca", Addr: "x:1"}}); err == nil {
		t.Error("two peers have one number")
	}
	for range 2 {
		if err := o.sh.SetPeers([]path.Peer{hk}); err != nil {
			t.Fatal(err)
		}
		s := <-o.sessions
		talk(t, s, "welcome")
		eventually(t, func() bool { return o.sh.Status().Peers[0].Accepted != nil })
		if err := o.sh.SetPeers([]path.Peer{hk}); err != nil || s.Err() != nil {
			t.Errorf("to list it again is %v, its session %v", err, s.Err())
		}
		if err := o.sh.SetPeers(nil); err != nil {
			t.Fatal(err)
		}
		<-s.Done()
		if !errors.Is(s.Err(), path.ErrUnlisted) {
			t.Errorf("it ended with %v", s.Err())
		}
		if st := o.sh.Status(); len(st.Peers) != 0 {
			t.Errorf("status: %+v", st)
		}
		before := refused()
		eventually(t, func() bool { return refused() > before })
	}
	bare, err := path.New(t.Context(), path.Config{Self: path.Peer{Region: 1, Name: "sh", Addr: "127.0.0.1:0"}, Service: "comment"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bare.Close() }()
	if err := bare.SetPeers([]path.Peer{hk}); err == nil {
		t.Error("a line without certificates takes a peer")
	}
}
