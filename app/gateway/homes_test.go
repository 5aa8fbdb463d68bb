// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/sluice-rpc/sluice/app/gateway"
	"github.com/sluice-rpc/sluice/app/id"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// line is the way to the gateway of region 1.
type line struct {
	to http.Handler

	mu   sync.Mutex
	cut  bool     // guarded by mu
	sent []string // guarded by mu; method and path of what went over it
}

func (l *line) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	cut := l.cut
	if !cut {
		l.sent = append(l.sent, r.Method+" "+r.URL.Path)
	}
	l.mu.Unlock()
	if cut {
		return nil, errors.New("the ocean")
	}
	w := httptest.NewRecorder()
	l.to.ServeHTTP(w, r)
	return w.Result(), nil
}

func (l *line) takeSent() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := l.sent
	l.sent = nil
	return sent
}

func (l *line) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
}

// abroad gives the gateways of regions 1, where everybody is at home, and 2, whose
// services know the same.
func abroad(t *testing.T) (home, there *gateway.Gateway, l *line) {
	t.Helper()
	f := newFake(t)
	nowhere := func(id.Region) http.RoundTripper { return nil }
	home = f.gateway(t, func(c *gateway.Config) { c.Region, c.Homes = 1, nowhere })
	l = &line{to: home}
	there = f.gateway(t, func(c *gateway.Config) {
		c.Region, c.Homes = 2, func(r id.Region) http.RoundTripper {
			if r != 1 {
				return nil
			}
			return l
		}
	})
	return home, there, l
}

// TestDoorsAbroad: posts, comments and likes are served where the user is, all else at
// his home.
func TestDoorsAbroad(t *testing.T) {
	home, there, l := abroad(t)
	mary, u := join(t, home, "mary")
	var post struct {
		ID string `json:"id"`
	}
	mary.call("POST", "/posts", map[string]string{"text": "from home"}).want(t, 201, &post)
	away := &client{t: t, h: there, token: mary.token}
	for _, d := range []struct {
		method, path string
		body         any
		status       int
		here         bool
	}{
		{"GET", "/posts/" + post.ID, nil, 200, true},
		{"POST", "/posts/" + post.ID + "/comments", map[string]string{"text": "hello"}, 201, true},
		{"PUT", "/posts/" + post.ID + "/like", nil, 204, true},
		{"GET", "/users/" + u.ID, nil, 200, true},
		{"GET", "/me", nil, 200, false},
		{"GET", "/timeline", nil, 200, false},
		{"GET", "/notices", nil, 200, false},
		{"POST", "/posts", map[string]string{"text": "from abroad"}, 201, false},
		{"GET", "/friends", nil, 200, false},
	} {
		a := away.call(d.method, d.path, d.body)
		want := []string{d.method + " " + d.path}
		if d.here {
			want = nil
		}
		if sent := l.takeSent(); a.StatusCode != d.status || !slices.Equal(sent, want) {
			t.Errorf("%s %s: %d %s, sent home %v, want %d and %v", d.method, d.path, a.StatusCode, a.text, sent, d.status, want)
		}
	}
	l.setCut(true)
	away.call("GET", "/posts/"+post.ID, nil).want(t, 200, nil)
	a := away.call("GET", "/timeline", nil)
	if p := a.problem(t); a.StatusCode != 503 || p.Type != "home-unreachable" || a.Header.Get("Retry-After") != "5" {
		t.Errorf("with the line cut: %d %+v, Retry-After %q", a.StatusCode, p, a.Header.Get("Retry-After"))
	}
}

// TestSessionsAbroad: who logs in and out abroad does so at his home.
func TestSessionsAbroad(t *testing.T) {
	home, there, l := abroad(t)
	join(t, home, "mary")
	away := &client{t: t, h: there}
	var s struct {
		Token string `json:"token"`
	}
	away.call("POST", "/sessions", map[string]string{"name": "mary", "password": "correct horse"}).want(t, 201, &s)
	if sent := l.takeSent(); !slices.Equal(sent, []string{"POST /sessions"}) || s.Token == "" {
		t.Errorf("sent home %v, token %q", sent, s.Token)
	}
	away.call("POST", "/sessions", map[string]string{"name": "mary", "password": "wrong horse"}).want(t, 401, nil)
	away.token = s.Token
	away.call("GET", "/me", nil).want(t, 200, nil)
	l.takeSent()
	away.call("DELETE", "/sessions/current", nil).want(t, 204, nil)
	if sent := l.takeSent(); !slices.Equal(sent, []string{"DELETE /sessions/current"}) {
		t.Errorf("sent home %v", sent)
	}
	away.call("GET", "/me", nil).want(t, 401, nil)
}

// TestNoCircles: two regions that each take the other for somebody's home do not send his
// requests back and forth.
func TestNoCircles(t *testing.T) {
	home, there, _ := abroad(t)
	mary, _ := join(t, home, "mary")
	away := &client{t: t, h: there, token: mary.token}
	a := away.call("GET", "/timeline", nil, "Moments-Forwarded", "1")
	if a.StatusCode != 503 {
		t.Errorf("a request that has been sent on already: %d", a.StatusCode)
	}
}

// placed hears from where people log in.
type placed struct {
	momentsv1.AccountServiceClient
	from *[]string
}

func (p placed) LogIn(ctx context.Context, r *momentsv1.LogInRequest) (*momentsv1.LogInResponse, error) {
	*p.from = append(*p.from, r.GetSource())
	return p.AccountServiceClient.LogIn(ctx, r)
}

// TestPlaceAbroad: who guesses passwords by way of other regions is counted at his own
// place, which the gateways of those regions are believed, and nobody else.
func TestPlaceAbroad(t *testing.T) {
	f := newFake(t)
	var from []string
	home := f.gateway(t, func(c *gateway.Config) {
		c.Region, c.Homes = 1, func(id.Region) http.RoundTripper { return nil }
		c.Accounts = placed{c.Accounts, &from}
	})
	l := &line{to: http.HandlerFunc(home.ServePeer)}
	there := f.gateway(t, func(c *gateway.Config) {
		c.Region, c.Homes = 2, func(id.Region) http.RoundTripper { return l }
	})
	join(t, home, "mary")
	from = nil
	body := map[string]string{"name": "mary", "password": "a wrong one", "device": "x"}
	for _, tt := range []struct {
		name string
		h    http.Handler
		head []string
		want string
	}{
		{"at home", home, nil, "192.0.2.1"},
		{"at home, lying", home, []string{"Moments-Place", "203.0.113.7"}, "192.0.2.1"},
		{"abroad", there, nil, "192.0.2.1"},
		{"abroad, lying", there, []string{"Moments-Place", "203.0.113.7"}, "192.0.2.1"},
		{"by a gateway", http.HandlerFunc(home.ServePeer), []string{"Moments-Place", "203.0.113.7"}, "203.0.113.7"},
		{"by a gateway, IPv6", http.HandlerFunc(home.ServePeer), []string{"Moments-Place", "2001:db8:1:2:3::4"}, "2001:db8:1:2::/64"},
		{"by a gateway that does not know", http.HandlerFunc(home.ServePeer), []string{"Moments-Place", "somewhere"}, "192.0.2.1"},
	} {
		(&client{t: t, h: tt.h}).call("POST", "/sessions", body, tt.head...).refused(t, 401, "bad-credentials", "")
		if len(from) != 1 || from[0] != tt.want {
			t.Errorf("%s: the service heard of %q, want %q", tt.name, from, tt.want)
		}
		from = nil
	}
}
