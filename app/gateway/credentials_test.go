// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/cluster/clustertest"
	"github.com/sluice-rpc/sluice/app/gateway"
)

type sessionItem struct {
	ID         string    `json:"id"`
	Device     string    `json:"device"`
	CreatedAt  time.Time `json:"created_at"`
	LastUsedAt time.Time `json:"last_used_at"`
	Current    bool      `json:"current"`
}

func both(t *testing.T, test func(*testing.T, http.Handler)) {
	t.Run("alone", func(t *testing.T) { test(t, newFake(t).gateway(t)) })
	t.Run("with the services", func(t *testing.T) { test(t, at(t, clustertest.Start(t))) })
}

// again logs somebody in once more, from a device or with a User-Agent.
func again(t *testing.T, h http.Handler, name, password string, headers ...string) *client {
	t.Helper()
	c := &client{t: t, h: h}
	var s struct {
		Token string `json:"token"`
	}
	c.call("POST", "/sessions", map[string]string{"name": name, "password": password}, headers...).want(t, 201, &s)
	c.token = s.Token
	return c
}

// ended waits until a session is refused, which takes a second at most.
func ended(t *testing.T, c *client) {
	t.Helper()
	began := time.Now()
	for c.call("GET", "/me", nil).StatusCode != 401 {
		if time.Since(began) > 3*time.Second { // 1 s by contract; the rest is a busy machine's
			t.Fatal("the session goes on")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestSessionsThroughTheAPI(t *testing.T) { both(t, testSessions) }

func testSessions(t *testing.T, g http.Handler) {
	mary, _ := join(t, g, "mary")
	phone := again(t, g, "mary", "correct horse", "User-Agent",
		"Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36")
	desk := again(t, g, "mary", "correct horse", "User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0")
	var list page[sessionItem]
	phone.call("GET", "/sessions", nil).want(t, 200, &list)
	if len(list.Items) != 3 || list.Items[0].Device != "Firefox on Linux" || list.Items[1].Device != "Chrome on Android" {
		t.Fatalf("sessions = %+v", list.Items)
	}
	for i, s := range list.Items {
		if s.Current != (i == 1) || time.Since(s.CreatedAt) > time.Minute || s.LastUsedAt.Before(s.CreatedAt) {
			t.Errorf("session %d = %+v", i, s)
		}
	}
	mary.call("GET", "/me", nil).want(t, 200, nil)
	desk.call("GET", "/me", nil).want(t, 200, nil)
	phone.call("DELETE", "/sessions/"+list.Items[0].ID, nil).want(t, 204, nil)
	phone.call("DELETE", "/sessions/"+list.Items[0].ID, nil).want(t, 204, nil)
	ended(t, desk)
	mary.call("GET", "/me", nil).want(t, 200, nil)
	phone.call("DELETE", "/sessions?keep=current", nil).want(t, 204, nil)
	ended(t, mary)
	phone.call("GET", "/me", nil).want(t, 200, nil)
	phone.call("DELETE", "/sessions", nil).want(t, 204, nil)
	phone.call("GET", "/me", nil).want(t, 401, nil) // at once where it was asked for
}

func TestPasswordThroughTheAPI(t *testing.T) { both(t, testPassword) }

func testPassword(t *testing.T, g http.Handler) {
	mary, _ := join(t, g, "mary")
	other := again(t, g, "mary", "correct horse")
	other.call("GET", "/me", nil).want(t, 200, nil)
	mary.call("PUT", "/me/password", map[string]string{"old_password": "correct horse", "new_password": "battery staple"}, "Idempotency-Key", "k").want(t, 204, nil)
	ended(t, other)
	mary.call("GET", "/me", nil).want(t, 200, nil)
	mary.call("POST", "/sessions", map[string]string{"name": "mary", "password": "correct horse"}).want(t, 401, nil)
	again(t, g, "mary", "battery staple")
}

func TestProfileThroughTheAPI(t *testing.T) { both(t, testProfile) }

func testProfile(t *testing.T, g http.Handler) {
	mary, m := join(t, g, "mary")
	var got user
	mary.call("PATCH", "/me", map[string]string{"display_name": "Mary 🌸"}).want(t, 200, &got)
	if got.DisplayName != "Mary 🌸" || got.Name != m.Name {
		t.Errorf("profile = %+v", got)
	}
	mary.call("PATCH", "/me", map[string]string{}).want(t, 200, &got)
	if got.DisplayName != "Mary 🌸" {
		t.Errorf("after a change of nothing: %+v", got)
	}
}

// TestDeletedAccount: nothing of it is seen any more, by anybody and through any door.
func TestDeletedAccount(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary, m := join(t, g, "mary")
	li, l := join(t, g, "lilei")
	befriend(t, mary, li, m, l)
	var hers, his post
	mary.call("POST", "/posts", map[string]string{"text": "hers"}).want(t, 201, &hers)
	li.call("POST", "/posts", map[string]string{"text": "his"}).want(t, 201, &his)
	mary.call("POST", "/posts/"+his.ID+"/comments", map[string]string{"text": "her comment"}).want(t, 201, nil)
	mary.call("PUT", "/posts/"+his.ID+"/like", nil).want(t, 204, nil)
	mary.call("PUT", "/posts/"+hers.ID+"/like", nil).want(t, 204, nil)
	elsewhere := again(t, g, "mary", "correct horse")

	mary.call("POST", "/me/deletion", map[string]string{"password": "correct horse"}).want(t, 204, nil)
	mary.call("GET", "/me", nil).want(t, 401, nil)
	ended(t, elsewhere)
	mary.call("POST", "/sessions", map[string]string{"name": "mary", "password": "correct horse"}).want(t, 401, nil)
	mary.call("POST", "/accounts", map[string]string{"name": "mary", "password": "correct horse"}).want(t, 409, nil)
	li.call("GET", "/users/"+m.ID, nil).want(t, 404, nil)
	eventually(t, "the end of all that she left", func() bool {
		var friends page[user]
		li.call("GET", "/friends", nil).want(t, 200, &friends)
		var home page[post]
		li.call("GET", "/timeline", nil).want(t, 200, &home)
		var one post
		li.call("GET", "/posts/"+his.ID, nil).want(t, 200, &one)
		return len(friends.Items) == 0 && len(home.Items) == 1 && one.CommentCount == 0 && one.LikeCount == 0 && len(one.Comments) == 0 &&
			li.call("GET", "/posts/"+hers.ID, nil).StatusCode == 404
	})
	li.call("POST", "/friend-requests", map[string]string{"user": m.ID}).want(t, 404, nil)
}

// TestLogInFlood: 300 passwords a second are guessed, many times what the machine can
// hash of what a password really costs; whoever is logged in reads on: hardly a page is
// refused. As fast as they can the guessers, who are in this process, would take it all.
func TestLogInFlood(t *testing.T) {
	g := at(t, clustertest.Start(t, func(c *cluster.Config) { c.CheapPasswords, c.Topology.Gateway.Limits = false, true }))
	mary, _ := join(t, g, "mary")
	mary.call("POST", "/posts", map[string]string{"text": "undisturbed"}).want(t, 201, nil)
	stop := make(chan struct{})
	var flood sync.WaitGroup
	var mu sync.Mutex
	answers := map[int]int{}
	guesses := time.NewTicker(time.Second / 300)
	defer guesses.Stop()
	for range 64 {
		flood.Go(func() {
			guesser := &client{t: t, h: g}
			for {
				select {
				case <-stop:
					return
				case <-guesses.C:
				}
				a := guesser.call("POST", "/sessions", map[string]string{"name": "mary", "password": "a wrong guess"})
				mu.Lock()
				answers[a.StatusCode]++
				mu.Unlock()
			}
		})
	}
	const reads, most = 100, 10
	refused := 0
	for i := range reads {
		switch a := mary.call("GET", "/timeline", nil); a.StatusCode {
		case 200:
		case 503: // while the first guesses are hashed
			refused++
		default:
			t.Errorf("read %d during the flood: %d %s", i, a.StatusCode, a.text)
		}
	}
	if refused > most {
		t.Errorf("%d of %d reads were refused during the flood, want %d at most", refused, reads, most)
	}
	close(stop)
	flood.Wait()
	for status := range answers {
		if status != 401 && status != 429 && status != 503 && status != 504 { // 504: it waited for a worker till its deadline
			t.Errorf("a guess was answered %d", status)
		}
	}
	if answers[401] > 20 || answers[429] == 0 {
		t.Errorf("answers %v, want at most 20 guesses looked at and the others braked", answers)
	}
}

func TestDeviceOf(t *testing.T) {
	for _, c := range []struct{ name, agent, want string }{
		{"Chrome on Android", "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36", "Chrome on Android"},
		{"Safari on a phone", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1", "Safari on iPhone"},
		{"Edge", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0", "Edge on Windows"},
		{"WeChat", "Mozilla/5.0 (Linux; Android 13) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/116.0 Mobile MicroMessenger/8.0.49", "WeChat on Android"},
		{"a tool", "curl/8.5.0", "curl"},
		{"nothing", "", ""},
		{"markup", "<b>x</b>\r\n/1", "<b>x<"},
		{"no UTF-8", "\xff\xfe/1", ""},
		{"too long", strings.Repeat("x", 500), strings.Repeat("x", 40)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := gateway.DeviceOf(c.agent); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzDeviceOf(f *testing.F) {
	f.Add("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Safari/605.1.15")
	f.Fuzz(func(t *testing.T, agent string) {
		if got := gateway.DeviceOf(agent); !utf8.ValidString(got) || len(got) > 60 {
			t.Errorf("device %q", got)
		}
	})
}
