// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/sluice-rpc/sluice/app/gateway"
)

// TestOneFloodTouchesNobodyElse: one user asks for far more than is allowed. He gets
// 429 for it, which costs the services nothing, and somebody else gets what he wants.
func TestOneFloodTouchesNobodyElse(t *testing.T) {
	f := newFake(t)
	g := f.gateway(t, func(c *gateway.Config) { c.Limits, c.RequestsPerSecond, c.RequestBurst = true, 1, 20 })
	mary, _ := join(t, g, "mary")
	li, _ := join(t, g, "lilei")
	var calls atomic.Int64
	f.mu.Lock()
	f.fail = func(context.Context, string) error { calls.Add(1); return nil }
	f.mu.Unlock()
	refused := 0
	for i := range 500 {
		before := calls.Load()
		a := mary.call("GET", "/me", nil)
		switch a.StatusCode {
		case 200:
		case 429:
			refused++
			if p := a.problem(t); p.Type != "rate-limited" || p.RetryAfterMS < 1 || a.Header.Get("Retry-After") == "" {
				t.Fatalf("problem = %+v, Retry-After = %q", p, a.Header.Get("Retry-After"))
			}
			if calls.Load() != before {
				t.Fatal("a request over the limit was a call to a service")
			}
		default:
			t.Fatalf("status = %d", a.StatusCode)
		}
		if i%50 == 0 {
			li.call("GET", "/me", nil).want(t, 200, nil)
		}
	}
	if refused < 400 {
		t.Errorf("%d of 500 were refused", refused)
	}
	li.call("POST", "/posts", map[string]string{"text": "undisturbed"}).want(t, 201, nil)
}

// TestForgedTokenIsNobody: a token that names somebody, and was not made here, must use
// up neither his limit nor his place.
func TestForgedTokenIsNobody(t *testing.T) {
	f := newFake(t)
	g := f.gateway(t, func(c *gateway.Config) { c.Limits, c.RequestsPerSecond, c.RequestBurst = true, 1, 5 })
	mary, u := join(t, g, "mary")
	forger := &client{t: t, h: g}
	for i := range 50 {
		forger.token = u.ID + strconv.Itoa(i)
		forger.call("GET", "/me", nil).want(t, 401, nil)
	}
	mary.call("GET", "/me", nil).want(t, 200, nil)
}

// TestUsersAreKnownBeforeTheyAreServed: the first request of a token, here one from
// another gateway, is nobody's; then it is its user's until the session ends.
func TestUsersAreKnownBeforeTheyAreServed(t *testing.T) {
	f := newFake(t)
	mary, u := join(t, f.gateway(t), "mary")
	g := f.gateway(t)
	there := &client{t: t, h: g, token: mary.token}
	if who := g.Whose(mary.token); who != "" {
		t.Errorf("a token that nobody has vouched for is %s's", who)
	}
	there.call("GET", "/me", nil).want(t, 200, nil)
	if who := g.Whose(mary.token); who != u.ID {
		t.Errorf("the token is %q's, want %s's", who, u.ID)
	}
	there.call("DELETE", "/sessions/current", nil).want(t, 204, nil)
	if who := g.Whose(mary.token); who != "" {
		t.Errorf("the token of an ended session is %s's", who)
	}
}
