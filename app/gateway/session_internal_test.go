// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// desk is an account service with one session, and the stamp of the slot that it is in.
type desk struct {
	momentsv1.AccountServiceClient

	mu             sync.Mutex // guards all below
	process, stamp uint64
	lasts          time.Duration
	ended, deaf    bool // deaf: nobody answers Stamps
	asked          int
}

func (d *desk) Authenticate(context.Context, *momentsv1.AuthenticateRequest) (*momentsv1.AuthenticateResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	if d.ended {
		return nil, &rpc.Error{Code: rpc.Unauthenticated}
	}
	return &momentsv1.AuthenticateResponse{
		UserId: "mary", SessionId: "phone", MaxAgeMs: 1000, LastsMs: uint64(d.lasts / time.Millisecond),
		Process: d.process, Slot: 1, Stamp: d.stamp,
	}, nil
}

func (d *desk) Stamps(context.Context, *momentsv1.StampsRequest) (*momentsv1.StampsResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deaf {
		return nil, &rpc.Error{Code: rpc.Unavailable}
	}
	return &momentsv1.StampsResponse{Process: d.process, Stamps: []uint64{0, d.stamp}}, nil
}

// TestSessionsByStamps: a session is asked for again only when something has been written where
// it is stored, or once a second while that is not known, and one that has ended is refused
// within a second.
func TestSessionsByStamps(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*desk)
		asks   int // more, in the 30 s after the change, used every 100 ms
		ended  bool
	}{
		{name: "nothing is written", change: func(*desk) {}, asks: 0},
		{name: "something is written", change: func(d *desk) { d.stamp++ }, asks: 1},
		{name: "the session ends", change: func(d *desk) { d.stamp++; d.ended = true }, ended: true},
		{name: "the session ends while nobody tells", change: func(d *desk) { d.ended, d.deaf = true, true }, ended: true},
		{name: "another process", change: func(d *desk) { d.process++ }, asks: 1},
		{name: "no stamp", change: func(d *desk) { d.stamp = 0 }, asks: 30},
		{name: "nobody tells", change: func(d *desk) { d.deaf = true }, asks: 30},
		{name: "the session lasts 10 s", change: func(d *desk) { d.stamp++; d.lasts = 10 * time.Second }, asks: 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &desk{process: 1, stamp: 7, lasts: time.Hour}
				s := newSessions(d, time.Now)
				go s.follow(t.Context())
				synctest.Wait()
				use := func(rounds int) (refused time.Duration) {
					began := time.Now()
					for range rounds {
						time.Sleep(100 * time.Millisecond)
						synctest.Wait()
						if got, err := s.find(t.Context(), "token"); err != nil {
							return time.Since(began)
						} else if got.user != "mary" || got.id != "phone" {
							t.Fatalf("found %+v", got)
						}
					}
					return 0
				}
				if use(300); d.asked != 1 {
					t.Fatalf("asked %d times before anything has changed, want 1", d.asked)
				}
				time.Sleep(10 * time.Millisecond) // between two questions
				d.mu.Lock()
				c.change(d)
				d.asked = 0
				d.mu.Unlock()
				refused := use(300)
				switch {
				case c.ended && (refused == 0 || refused > maxSessionAge):
					t.Errorf("refused after %v, want within a second", refused)
				case !c.ended && refused != 0:
					t.Errorf("refused after %v", refused)
				case !c.ended && (d.asked < c.asks || d.asked > c.asks+1):
					t.Errorf("asked %d times, want %d", d.asked, c.asks)
				}
			})
		})
	}
}

// TestSessionsAreAskedForNowAndThen: the account service knows when sessions are used.
func TestSessionsAreAskedForNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{process: 1, stamp: 7, lasts: 30 * 24 * time.Hour}
		s := newSessions(d, time.Now)
		go s.follow(t.Context())
		for range 3600 {
			time.Sleep(time.Second)
			if _, err := s.find(t.Context(), "token"); err != nil {
				t.Fatal(err)
			}
		}
		if d.asked < 6 || d.asked > 7 {
			t.Errorf("asked %d times in an hour, want 6 or 7", d.asked)
		}
	})
}
