// SPDX-License-Identifier: Apache-2.0

// Package pathtest gives tests certificates and sessions: real ones, over loopback.
package pathtest

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/idcqueue/path"
	"github.com/sluice-rpc/sluice/app/pki"
)

// Files makes an authority, and certificates of it for those regions.
func Files(t testing.TB, names ...string) map[string]path.Files {
	t.Helper()
	dir := pki.Dir(t.TempDir())
	now := time.Now()
	if err := dir.Init(now); err != nil {
		t.Fatal(err)
	}
	files := map[string]path.Files{}
	for _, name := range names {
		if err := dir.Issue(name, time.Hour, now); err != nil {
			t.Fatal(err)
		}
		files[name] = path.Files{CA: dir.Authority(), Cert: dir.Cert(name), Key: dir.Key(name)}
	}
	return files
}

// Listen binds a free port of loopback.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return lis
}

// Run runs a line until the test ends.
func Run(t testing.TB, l *path.Line, serve func(context.Context, *path.Session) error) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx, serve) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("run a line: %v", err)
		}
	})
}

// Pair gives both ends of a session that a has dialled. They end with the test.
func Pair(t testing.TB, a, b path.Peer) (dialled, accepted *path.Session) {
	t.Helper()
	files := Files(t, a.Name, b.Name)
	lisA, lisB := Listen(t), Listen(t)
	a.Addr, b.Addr = lisA.Addr().String(), lisB.Addr().String()
	ends := make(chan *path.Session)
	hand := func(ctx context.Context, s *path.Session) error {
		if s.Dialled() == (s.Peer().Region == b.Region) { // the session from a to b
			select {
			case ends <- s:
			case <-s.Done():
			}
		}
		<-s.Done()
		if errors.Is(s.Err(), path.ErrClosed) {
			return nil
		}
		return s.Err()
	}
	for _, c := range []path.Config{
		{Self: a, Peers: []path.Peer{b}, Files: files[a.Name], Listener: lisA, Service: "test"},
		{Self: b, Peers: []path.Peer{a}, Files: files[b.Name], Listener: lisB, Service: "test"},
	} {
		l, err := path.New(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		Run(t, l, hand)
	}
	for range 2 {
		if s := <-ends; s.Dialled() {
			dialled = s
		} else {
			accepted = s
		}
	}
	return dialled, accepted
}
