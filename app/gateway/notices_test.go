// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-rpc/sluice/app/cluster/clustertest"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// fakeNotices is a notify service that nobody tells anything.
type fakeNotices struct {
	momentsv1.NotifyServiceClient
	*fake
}

func (f fakeNotices) ListNotices(context.Context, *momentsv1.ListNoticesRequest) (*momentsv1.ListNoticesResponse, error) {
	return &momentsv1.ListNoticesResponse{}, nil
}

func (f fakeNotices) CountUnread(context.Context, *momentsv1.CountUnreadRequest) (*momentsv1.CountUnreadResponse, error) {
	return &momentsv1.CountUnreadResponse{}, nil
}

func (f fakeNotices) MarkRead(context.Context, *momentsv1.MarkReadRequest) (*momentsv1.MarkReadResponse, error) {
	return &momentsv1.MarkReadResponse{}, nil
}

type notice struct {
	ID        string `json:"id"`
	Kind      string `json:"kind"`
	ActorID   string `json:"actor_id"`
	PostID    string `json:"post_id"`
	CommentID string `json:"comment_id"`
	Text      string `json:"text"`
	Read      bool   `json:"read"`
}

// notices gives somebody's notices of posts, newest first, as "kind by name: text".
func (p person) notices(names map[string]string) []string {
	p.t.Helper()
	return slices.DeleteFunc(p.allNotices(names), func(line string) bool { return strings.HasPrefix(line, "friend_") })
}

func (p person) allNotices(names map[string]string) []string {
	p.t.Helper()
	all := []string{}
	for cursor := ""; ; {
		var got page[notice]
		p.call("GET", "/notices?limit=2&cursor="+url.QueryEscape(cursor), nil).want(p.t, 200, &got)
		for _, n := range got.Items {
			line := n.Kind + " by " + names[n.ActorID]
			if n.Text != "" {
				line += ": " + n.Text
			}
			all = append(all, line)
		}
		if cursor = got.NextCursor; cursor == "" {
			return all
		}
	}
}

// welcomed waits for as many notices of friendship, and marks them as read.
func (p person) welcomed(friends int) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%d notices of friendship", friends), func() bool { return p.unread() == friends })
	var got page[notice]
	p.call("GET", "/notices", nil).want(p.t, 200, &got)
	p.call("PUT", "/notices/read", map[string]string{"up_to": got.Items[0].ID}).want(p.t, 200, nil)
}

func (p person) unread() (n int) {
	p.t.Helper()
	var got struct {
		Unread int `json:"unread"`
	}
	p.call("GET", "/notices/unread", nil).want(p.t, 200, &got)
	return got.Unread
}

// hears waits until somebody has these notices, newest first.
func (p person) hears(names map[string]string, want ...string) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("notices %q", want), func() bool {
		return strings.Join(p.notices(names), "\n") == strings.Join(want, "\n")
	})
}

func (p person) says(post, replyTo, text string, headers ...string) (id string) {
	p.t.Helper()
	var c struct {
		ID string `json:"id"`
	}
	p.call("POST", "/posts/"+post+"/comments", map[string]string{"text": text, "reply_to": replyTo}, headers...).want(p.t, 201, &c)
	return c.ID
}

// TestNoticesThroughTheAPI: who is told of what, once, and of what not.
func TestNoticesThroughTheAPI(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary, li, han, rose := newPerson(t, g, "mary"), newPerson(t, g, "lilei"), newPerson(t, g, "hanmei"), newPerson(t, g, "rose")
	names := map[string]string{mary.ID: "mary", li.ID: "lilei", han.ID: "hanmei", rose.ID: "rose"}
	for _, p := range []person{li, han, rose} {
		mary.befriend(p)
	}
	li.befriend(han)
	mary.welcomed(3)
	post := mary.post("hello").ID
	li.arrived(post)

	// The owner is told; of one's own acts nobody is; a repetition is none.
	li.call("PUT", "/posts/"+post+"/like", nil).want(t, 204, nil)
	li.call("PUT", "/posts/"+post+"/like", nil).want(t, 204, nil)
	mary.says(post, "", "mine")
	mary.hears(names, "like by lilei")
	li.hears(names, "comment by mary: mine") // of earlier participants only
	// Earlier participants hear of later ones by their own friends.
	first := han.says(post, "", "from Han", "Idempotency-Key", "h")
	han.says(post, "", "from Han", "Idempotency-Key", "h")
	rose.says(post, "", "from Rose")
	mary.hears(names, "comment by rose: from Rose", "comment by hanmei: from Han", "like by lilei")
	li.hears(names, "comment by hanmei: from Han", "comment by mary: mine")
	// A reply is told as one, to whom it answers; the others who know both hear of it.
	li.says(post, first, "to Han")
	han.hears(names, "reply by lilei: to Han")
	mary.hears(names, "comment by lilei: to Han", "comment by rose: from Rose", "comment by hanmei: from Han", "like by lilei")
	rose.hears(names)
	// Liking again sends nothing new; while it is taken back there is nothing.
	li.call("DELETE", "/posts/"+post+"/like", nil).want(t, 204, nil)
	mary.hears(names, "comment by lilei: to Han", "comment by rose: from Rose", "comment by hanmei: from Han")
	li.call("PUT", "/posts/"+post+"/like", nil).want(t, 204, nil)
	rose.call("PUT", "/posts/"+post+"/like", nil).want(t, 204, nil)
	mary.hears(names, "like by rose", "comment by lilei: to Han", "comment by rose: from Rose", "comment by hanmei: from Han", "like by lilei")
	if n := mary.unread(); n != 5 {
		t.Errorf("%d unread, want 5", n)
	}
	// A deleted comment's text is in no notice, nor is what an unfriended one said.
	han.call("DELETE", "/posts/"+post+"/comments/"+first, nil, "Idempotency-Key", "d").want(t, 204, nil)
	han.call("DELETE", "/posts/"+post+"/comments/"+first, nil, "Idempotency-Key", "d").want(t, 204, nil)
	mary.call("DELETE", "/friends/"+rose.ID, nil).want(t, 200, nil)
	mary.hears(names, "comment by lilei: to Han", "like by lilei")
	if n := mary.unread(); n != 2 {
		t.Errorf("%d unread, want 2", n)
	}
	// Reading is up to a notice, on all devices, and takes no harm from nonsense.
	var list page[notice]
	mary.call("GET", "/notices", nil).want(t, 200, &list)
	var left struct {
		Unread int `json:"unread"`
	}
	mary.call("PUT", "/notices/read", map[string]string{"up_to": list.Items[1].ID}).want(t, 200, &left)
	if left.Unread != 1 || mary.unread() != 1 {
		t.Errorf("%d and %d unread, want 1", left.Unread, mary.unread())
	}
	for body, field := range map[string]string{`{}`: "up_to", `{"up_to":""}`: "up_to", `{"up_to":7}`: "up_to", `{"up_to":"` + li.ID + `"}`: "up_to_notice_id"} {
		if p := mary.call("PUT", "/notices/read", body).problem(t); p.Status != 400 || p.Field != field && p.Field != "up_to" {
			t.Errorf("%s: %+v", body, p)
		}
	}
	for _, query := range []string{"?cursor=x", "?limit=0", "?limit=101", "?cursor=" + strings.Repeat("A", 28)} {
		if p := mary.call("GET", "/notices"+query, nil).problem(t); p.Status != 400 {
			t.Errorf("%s: %+v", query, p)
		}
	}
	// Hidden posts are in no notice.
	mary.set(li, "hide_mine", true)
	li.hears(names)
}

// TestNoticesOfFriendship: who is asked hears of it, and who asked hears of the yes; of
// what does not stand any more nobody hears, and the unread ones are exact all the time.
func TestNoticesOfFriendship(t *testing.T) {
	address := clustertest.Start(t)
	g := at(t, address)
	mary, li, han := newPerson(t, g, "mary"), newPerson(t, g, "lilei"), newPerson(t, g, "hanmei")
	names := map[string]string{mary.ID: "mary", li.ID: "lilei", han.ID: "hanmei"}
	is := func(p person, want ...string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s's notices %q", p.Name, want), func() bool {
			return strings.Join(p.allNotices(names), "\n") == strings.Join(want, "\n") && p.unread() == len(want)
		})
	}
	ask := func(from, to person) {
		t.Helper()
		from.call("POST", "/friend-requests", map[string]string{"user": to.ID}, "Idempotency-Key", "ask-"+to.ID).want(t, 200, nil)
	}
	got, stop := li.listen(address)
	defer stop()
	until(t, got, "notices", func(data string) bool { return data == `{"unread":0}` })
	ask(mary, li)
	ask(mary, li)
	until(t, got, "notices", func(data string) bool { return data == `{"unread":1}` }) // it comes by itself
	is(li, "friend_request by mary")
	is(mary)
	li.call("POST", "/friend-requests/"+mary.ID+"/accept", nil).want(t, 200, nil)
	is(mary, "friend_accepted by lilei")
	ask(han, li)
	is(li, "friend_request by hanmei", "friend_request by mary")
	li.call("POST", "/friend-requests/"+han.ID+"/decline", nil).want(t, 200, nil)
	is(li, "friend_request by mary")
	is(han)
	ask(han, mary)
	is(mary, "friend_request by hanmei", "friend_accepted by lilei")
	han.call("DELETE", "/friend-requests/"+mary.ID, nil).want(t, 200, nil)
	is(mary, "friend_accepted by lilei")
	li.call("DELETE", "/friends/"+mary.ID, nil).want(t, 200, nil)
	is(mary)
	is(li)
	// The two again: another round, told once.
	li.call("POST", "/friend-requests", map[string]string{"user": mary.ID}).want(t, 200, nil)
	is(mary, "friend_request by lilei")
	is(li)
	// Who is blocked is not heard.
	mary.call("PUT", "/blocks/"+han.ID, nil).want(t, 200, nil)
	han.call("POST", "/friend-requests", map[string]string{"user": mary.ID}).want(t, 200, nil)
	is(mary, "friend_request by lilei")
}

// event is one server-sent event.
type event struct{ name, data string }

// listen opens a stream of events.
func (p person) listen(address string) (<-chan event, func()) {
	p.t.Helper()
	ctx, stop := context.WithCancel(p.t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", address+"/events", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	var res *http.Response
	eventually(p.t, "room for a stream", func() bool { // one that has ended is told a little later
		if res, err = http.DefaultClient.Do(req); err != nil {
			p.t.Fatal(err)
		}
		busy := res.StatusCode == http.StatusServiceUnavailable
		if busy {
			_ = res.Body.Close()
		}
		return !busy
	})
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		p.t.Fatalf("events: %s %q", res.Status, res.Header.Get("Content-Type"))
	}
	all := make(chan event, 100)
	done := make(chan struct{})
	go func() { // done is waited for
		defer close(done)
		defer close(all)
		in := bufio.NewScanner(res.Body)
		var e event
		for in.Scan() {
			switch name, value, _ := strings.Cut(in.Text(), ": "); {
			case name == "event":
				e.name = value
			case name == "data":
				e.data = value
			case in.Text() == "" && e.name != "":
				all <- e
				e = event{}
			}
		}
	}()
	return all, func() {
		stop()
		<-done
		_ = res.Body.Close()
	}
}

// until reads events up to the one that is wanted.
func until(t *testing.T, from <-chan event, name string, good func(data string) bool) {
	t.Helper()
	for e := range from {
		if e.name == name && good(e.data) {
			return
		}
	}
	t.Fatalf("the stream has ended without %s", name)
}

// TestEvents: the red dot and notices come by themselves; the stream ends with the
// session and is one of few.
func TestEvents(t *testing.T) {
	address := clustertest.Start(t)
	g := at(t, address)
	mary, li := newPerson(t, g, "mary"), newPerson(t, g, "lilei")
	mary.befriend(li)
	mary.welcomed(1)
	got, stop := mary.listen(address)
	defer stop()
	unread := func(n int) func(string) bool {
		return func(data string) bool { return data == fmt.Sprintf(`{"unread":%d}`, n) }
	}
	until(t, got, "head", func(data string) bool { return data == `{"fresh":false}` })
	until(t, got, "notices", unread(0))
	news := li.post("news").ID
	until(t, got, "head", func(data string) bool {
		var head struct {
			PostID string `json:"post_id"`
		}
		return json.Unmarshal([]byte(data), &head) == nil && head.PostID == news
	})
	mine := mary.post("mine").ID
	li.arrived(mine)
	li.call("PUT", "/posts/"+mine+"/like", nil).want(t, 204, nil)
	until(t, got, "notices", unread(1))
	var list page[notice]
	mary.call("GET", "/notices", nil).want(t, 200, &list)
	mary.call("PUT", "/notices/read", map[string]string{"up_to": list.Items[0].ID}).want(t, 200, nil)
	until(t, got, "notices", unread(0)) // on this device too
	// Who comes back is told how things stand.
	again, stopAgain := mary.listen(address)
	until(t, again, "notices", unread(0))
	stopAgain()
	for range 5 {
		_, stop := mary.listen(address)
		defer stop()
	}
	eventually(t, "room for six streams and no more", func() bool {
		return mary.call("GET", "/events", nil).problem(t).Type == "busy"
	})
	if p := (&client{t: t, h: g}).call("GET", "/events", nil).problem(t); p.Status != 401 {
		t.Errorf("without a session: %+v", p)
	}
	// After the session has ended nothing comes, and the stream ends.
	mary.call("DELETE", "/sessions/current", nil).want(t, 204, nil)
	li.call("DELETE", "/posts/"+mine+"/like", nil).want(t, 204, nil)
	li.says(mine, "", "are you there?")
	for e := range got {
		t.Errorf("after the session: %v", e)
	}
}

// TestEventsEndWithTheirSession: a stream ends when its session is ended from elsewhere,
// with nothing to tell, and the one that has ended it goes on.
func TestEventsEndWithTheirSession(t *testing.T) {
	address := clustertest.Start(t)
	g := at(t, address)
	mary, li := newPerson(t, g, "mary"), newPerson(t, g, "lilei")
	mary.befriend(li)
	for _, c := range []struct {
		name string
		end  func()
	}{
		{"all others", func() { mary.call("DELETE", "/sessions?keep=current", nil).want(t, 204, nil) }},
		{"a new password", func() {
			mary.call("PUT", "/me/password", map[string]string{"old_password": "correct horse", "new_password": "battery staple"}).want(t, 204, nil)
		}},
	} {
		desk := mary
		desk.client = again(t, g, "mary", "correct horse")
		got, stop := desk.listen(address)
		own, stopOwn := mary.listen(address)
		until(t, got, "notices", func(string) bool { return true })
		until(t, own, "notices", func(string) bool { return true })
		c.end()
		rest := 0
		for range got { // until it is closed; there may be something from before
			rest++
		}
		stop()
		post := li.post("after " + c.name).ID
		until(t, own, "head", func(data string) bool { return strings.Contains(data, post) })
		stopOwn()
		t.Logf("%s: %d events before the end", c.name, rest)
	}
}

// TestEventsEndAtShutdown: streams do not keep a gateway from stopping.
func TestEventsEndAtShutdown(t *testing.T) {
	var streams []<-chan event
	t.Run("while it runs", func(t *testing.T) {
		address := clustertest.Start(t)
		mary := newPerson(t, at(t, address), "mary")
		got, _ := mary.listen(address)
		until(t, got, "notices", func(string) bool { return true })
		streams = append(streams, got)
	})
	for range streams[0] {
		t.Error("an event after the end")
	}
}

func TestEventsWithoutSession(t *testing.T) {
	g := newFake(t).gateway(t)
	w := httptest.NewRecorder()
	g.ServeHTTP(w, httptest.NewRequest("GET", "/events", nil))
	if w.Code != 401 {
		t.Errorf("without a session: %d", w.Code)
	}
}
