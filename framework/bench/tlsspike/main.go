// SPDX-License-Identifier: Apache-2.0

// Command tlsspike measures what TLS 1.3 costs on a multiplexed path, by three
// ways of putting crypto/tls under it; docs/adr/0004 draws the conclusion.
//
//	go run ./tlsspike -rounds 15
//
// Four connections carry a closed loop of echoes of 1,100 bytes, about one call of
// 1,000. Readers and writers are made like the framework's: frames are read where
// the bytes arrive, answered by a goroutine each, and written by a combiner, where
// whoever appends first flushes for everyone. Only what lies below differs. Both
// ends run in this process, so that a figure is the CPU of two ends and of two
// messages. Rounds are interleaved; ratios are of the same round.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/big"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	frameBytes  = 1100
	connections = 4
)

// A transport makes the two ends of one connection. Each end gives the bytes it
// has read to a sink, on one goroutine at a time, and sends what is given to its
// write, which the combiner calls from one goroutine at a time.
type transport struct {
	name string
	pair func(ctx context.Context, server, client sink) (serverWrite, clientWrite func([]byte) error, close func(), err error)
}

// sink takes bytes as they come and says how many of them it is done with.
type sink func(p []byte) (used int)

var transports = []transport{
	{"netpoll", netpollPair(nil)},
	{"netpoll+tls", netpollPair(newTLS())},
	{"net", netPair(nil)},
	{"net+tls", netPair(newTLS())},
}

func main() {
	rounds := flag.Int("rounds", 15, "interleaved rounds")
	callers := flag.Int("callers", 100, "callers of the closed loop")
	window := flag.Duration("window", time.Second, "measured window")
	yield := flag.Bool("yield", true, "let other goroutines run before a flush")
	flag.Parse()
	fmt.Printf("%s, %d cores, %d callers, yield %v, both ends in one process\n", runtime.Version(), runtime.NumCPU(), *callers, *yield)
	if err := handshakes(100); err != nil {
		log.Fatal(err)
	}
	cpu, rate, batch := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	for round := range *rounds {
		for i := range transports {
			t := transports[(i+round)%len(transports)]
			m, err := measure(t, *callers, *window, *yield)
			if err != nil {
				log.Fatalf("%s: %v", t.name, err)
			}
			cpu[t.name] = append(cpu[t.name], m.micros)
			rate[t.name] = append(rate[t.name], m.perSecond)
			batch[t.name] = append(batch[t.name], m.batch)
		}
	}
	fmt.Printf("%-12s %10s %14s %12s %22s %10s\n", "", "echoes/s", "frames a write", "µs an echo", "ratio to netpoll", "µs more")
	for _, t := range transports {
		ratios, more := make([]float64, *rounds), make([]float64, *rounds)
		for i := range ratios {
			base := cpu["netpoll"][i]
			ratios[i], more[i] = cpu[t.name][i]/base, cpu[t.name][i]-base
		}
		q := func(p float64) float64 { return quantile(ratios, p) }
		fmt.Printf("%-12s %10.0f %14.1f %12.2f    %5.2f [%.2f, %.2f] %10.2f\n", t.name,
			quantile(rate[t.name], 0.5), quantile(batch[t.name], 0.5), quantile(cpu[t.name], 0.5), q(0.5), q(0.25), q(0.75), quantile(more, 0.5))
	}
}

// measured is what one transport did in one window.
type measured struct {
	micros    float64 // CPU of an echo, both ends
	perSecond float64
	batch     float64 // frames a write of the clients, warm-up included
}

func measure(t transport, callers int, window time.Duration, yield bool) (measured, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ends := make([]*clientEnd, connections)
	for i := range ends {
		server, client := &serverEnd{}, &clientEnd{waiting: map[uint32]chan struct{}{}}
		server.out.yield, client.out.yield = yield, yield
		serverWrite, clientWrite, closeBoth, err := t.pair(ctx, server.read, client.read)
		if err != nil {
			return measured{}, err
		}
		defer closeBoth()
		server.out.write, client.out.write = serverWrite, clientWrite
		ends[i] = client
	}
	var done atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			frame := make([]byte, frameBytes)
			answer := make(chan struct{}, 1)
			for !stop.Load() {
				ends[i%connections].call(uint32(i), frame, answer)
				done.Add(1)
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	calls0, cpu0, at0 := done.Load(), cpuTime(), time.Now()
	time.Sleep(window)
	calls, cpu, took := done.Load()-calls0, cpuTime()-cpu0, time.Since(at0)
	stop.Store(true)
	wg.Wait()
	if calls == 0 {
		return measured{}, errors.New("no echo came back")
	}
	writes := 0
	for _, e := range ends {
		writes += e.out.count()
	}
	return measured{
		micros:    float64(cpu) / 1e3 / float64(calls),
		perSecond: float64(calls) / took.Seconds(),
		batch:     float64(done.Load()) / float64(writes),
	}, nil
}

// A frame is its length, a number, and filling.

func putFrame(p []byte, id uint32) {
	binary.BigEndian.PutUint32(p, uint32(len(p)))
	binary.BigEndian.PutUint32(p[4:], id)
}

// frames hands every whole frame in p to each and says how many bytes they were.
func frames(p []byte, each func(frame []byte)) (used int) {
	for len(p)-used >= 4 {
		n := int(binary.BigEndian.Uint32(p[used:]))
		if len(p)-used < n {
			break
		}
		each(p[used : used+n])
		used += n
	}
	return used
}

type serverEnd struct{ out combiner }

func (s *serverEnd) read(p []byte) int {
	return frames(p, func(frame []byte) {
		request := slices.Clone(frame) // as decoding copies the fields
		go s.out.send(request)
	})
}

type clientEnd struct {
	out     combiner
	mu      sync.Mutex
	waiting map[uint32]chan struct{}
}

func (c *clientEnd) call(id uint32, frame []byte, answer chan struct{}) {
	putFrame(frame, id)
	c.mu.Lock()
	c.waiting[id] = answer
	c.mu.Unlock()
	c.out.send(frame)
	<-answer
}

func (c *clientEnd) read(p []byte) int {
	return frames(p, func(frame []byte) {
		response := slices.Clone(frame)
		id := binary.BigEndian.Uint32(response[4:])
		c.mu.Lock()
		answer := c.waiting[id]
		delete(c.waiting, id)
		c.mu.Unlock()
		answer <- struct{}{}
	})
}

// combiner is the framework's writer without its limits. With yield, whoever is
// to flush lets the other goroutines run first, so that more frames share a write.
type combiner struct {
	write func([]byte) error
	yield bool

	mu         sync.Mutex
	writes     int // guarded by mu
	buf, spare []byte
	flushing   bool
}

func (c *combiner) send(frame []byte) {
	c.mu.Lock()
	c.buf = append(c.buf, frame...)
	if c.flushing {
		c.mu.Unlock()
		return
	}
	c.flushing = true
	if c.yield {
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	for len(c.buf) > 0 {
		out := c.buf
		c.buf = c.spare[:0]
		c.writes++
		c.mu.Unlock()
		if err := c.write(out); err != nil {
			log.Fatalf("write: %v", err)
		}
		c.mu.Lock()
		c.spare = out
	}
	c.flushing = false
	c.mu.Unlock()
}

func (c *combiner) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// tlsPair holds the configurations of both ends, each with a certificate.
type tlsPair struct{ server, client *tls.Config }

// newTLS makes mutual TLS 1.3. Records are as large as they may be: the small ones
// that crypto/tls begins a connection with are for browsers.
func newTLS() *tlsPair {
	cert, pool, err := selfSigned()
	if err != nil {
		log.Fatal(err)
	}
	base := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: pool, ClientCAs: pool,
		ServerName: "sluice.test", DynamicRecordSizingDisabled: true, SessionTicketsDisabled: true,
	}
	server := base.Clone()
	server.ClientAuth = tls.RequireAndVerifyClientCert
	return &tlsPair{server: server, client: base}
}

func selfSigned() (tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"sluice.test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool, nil
}

// handshakes measures the CPU of a full mutual handshake, both ends.
func handshakes(n int) error {
	p := newTLS()
	cpu := cpuTime()
	for range n {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		a, b, err := socketPair(ctx)
		if err != nil {
			cancel()
			return err
		}
		server, client := tls.Server(a, p.server), tls.Client(b, p.client)
		err = bothShake(ctx, server, client)
		_ = a.Close()
		_ = b.Close()
		cancel()
		if err != nil {
			return err
		}
	}
	fmt.Printf("a mutual handshake, ECDSA P-256: %.0f µs of CPU, both ends\n", float64(cpuTime()-cpu)/1e3/float64(n))
	return nil
}

func bothShake(ctx context.Context, server, client *tls.Conn) error {
	done := make(chan error, 1)
	go func() { done <- server.HandshakeContext(ctx) }()
	return errors.Join(client.HandshakeContext(ctx), <-done)
}

// socketPair gives both ends of a TCP connection over loopback.
func socketPair(ctx context.Context) (server, client net.Conn, err error) {
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer lis.Close()
	if client, err = new(net.Dialer).DialContext(ctx, "tcp", lis.Addr().String()); err != nil {
		return nil, nil, err
	}
	server, err = lis.Accept()
	return server, client, err
}

func cpuTime() time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		log.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

func quantile(values []float64, q float64) float64 {
	vs := slices.Sorted(slices.Values(values))
	return vs[int(q*float64(len(vs)-1)+0.5)]
}
