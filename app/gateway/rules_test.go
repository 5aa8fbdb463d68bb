// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-rpc/sluice/app/cluster/clustertest"
	"github.com/sluice-rpc/sluice/app/id"
)

// The rules of what may be seen, through the public API and all services. Each test is
// named after the rule that it shows.

// person is somebody with a session.
type person struct {
	*client
	user
}

func newPerson(t *testing.T, h http.Handler, name string) person {
	t.Helper()
	c, u := join(t, h, name)
	return person{c, u}
}

func (p person) befriend(o person) {
	p.t.Helper()
	befriend(p.t, p.client, o.client, p.user, o.user)
}

// post publishes; body may be a text or a whole request.
func (p person) post(body any) post {
	p.t.Helper()
	if text, ok := body.(string); ok {
		body = map[string]string{"text": text}
	}
	var out post
	p.call("POST", "/posts", body).want(p.t, 201, &out)
	return out
}

// set changes what one has set about another.
func (p person) set(o person, what string, on bool) {
	p.t.Helper()
	p.call("PATCH", "/friends/"+o.ID+"/settings", map[string]bool{what: on}).want(p.t, 200, nil)
}

func (p person) ids(path string) []string {
	p.t.Helper()
	ids := []string{}
	for cursor := ""; ; {
		var got page[post]
		p.call("GET", path+"?limit=5&cursor="+url.QueryEscape(cursor), nil).want(p.t, 200, &got)
		for _, item := range got.Items {
			ids = append(ids, item.ID)
		}
		if cursor = got.NextCursor; cursor == "" {
			return ids
		}
	}
}

func (p person) timeline() []string { p.t.Helper(); return p.ids("/timeline") }

func (p person) album(o person) []string { p.t.Helper(); return p.ids("/users/" + o.ID + "/album") }

func (p person) sees(post string) bool { return p.call("GET", "/posts/"+post, nil).StatusCode == 200 }

func (p person) like(post string) bool {
	return p.call("PUT", "/posts/"+post+"/like", nil).StatusCode == 204
}

func (p person) comment(post string) bool {
	return p.call("POST", "/posts/"+post+"/comments", map[string]string{"text": "hello"}).StatusCode == 201
}

// dot tells whose post raises the red dot, empty for nobody's.
func (p person) dot() string {
	p.t.Helper()
	var head struct {
		Fresh    bool   `json:"fresh"`
		AuthorID string `json:"author_id"`
	}
	p.call("GET", "/timeline/head", nil).want(p.t, 200, &head)
	return head.AuthorID
}

// arrived waits until a post has been fanned out to somebody.
func (p person) arrived(post string) {
	p.t.Helper()
	eventually(p.t, "the post", func() bool { return slices.Contains(p.timeline(), post) })
}

// where says which doors to a post are open to somebody.
func (p person) where(author person, post string) string {
	p.t.Helper()
	open := []string{}
	for name, on := range map[string]bool{
		"detail": p.sees(post), "timeline": slices.Contains(p.timeline(), post), "album": slices.Contains(p.album(author), post),
		"like": p.like(post), "comment": p.comment(post), "dot": p.dot() == author.ID,
	} {
		if on {
			open = append(open, name)
		}
	}
	slices.Sort(open)
	return strings.Join(open, " ")
}

const (
	allDoors  = "album comment detail dot like timeline"
	noDoor    = ""
	albumOnly = "album comment detail like"
)

func TestFriendship(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary, li, zoe := newPerson(t, g, "mary"), newPerson(t, g, "lilei"), newPerson(t, g, "zoe")
	mary.befriend(li)
	first := mary.post("first").ID
	li.arrived(first)
	check := func(what string, who person, want string) {
		t.Helper()
		if got := who.where(mary, first); got != want {
			t.Errorf("%s: open are %q, want %q", what, got, want)
		}
	}
	check("a friend", li, allDoors)
	check("a stranger", zoe, noDoor)
	zoe.call("POST", "/friend-requests", map[string]string{"user": mary.ID}).want(t, 200, nil)
	check("who has asked", zoe, noDoor)
	check("a withdrawn request is none", zoe, noDoor)
	zoe.call("DELETE", "/friend-requests/"+mary.ID, nil).want(t, 200, nil)
	if p := mary.call("POST", "/friend-requests/"+zoe.ID+"/accept", nil).problem(t); p.Type != "no-request" {
		t.Errorf("accepting a withdrawn request: %+v", p)
	}

	li.call("DELETE", "/friends/"+mary.ID, nil).want(t, 200, nil)
	check("unfriended", li, noDoor)
	mary.befriend(li)
	check("friends again", li, allDoors)
	if got := li.timeline(); len(got) != 1 {
		t.Errorf("friends again: %v, want the post once", got)
	}
	mary.call("PUT", "/blocks/"+li.ID, nil).want(t, 200, nil)
	check("blocked", li, noDoor)
	li.call("POST", "/friend-requests", map[string]string{"user": mary.ID}).want(t, 200, nil)
	var asking page[any]
	mary.call("GET", "/friend-requests", nil).want(t, 200, &asking)
	if len(asking.Items) != 0 {
		t.Error("somebody blocked has asked")
	}
	mary.call("DELETE", "/blocks/"+li.ID, nil).want(t, 200, nil)
	check("unblocked is no friend yet", li, noDoor)
	mary.befriend(li)
	check("friends after a block", li, allDoors)

	// A new friend's newest posts are filled in.
	mary.befriend(zoe)
	zoe.arrived(first)
}

func TestOpenToStrangers(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary, zoe, ann := newPerson(t, g, "mary"), newPerson(t, g, "zoe"), newPerson(t, g, "ann")
	mary.befriend(ann)
	var public []string
	for i := range 12 {
		public = append(public, mary.post(fmt.Sprint(i)).ID)
		mary.post(map[string]any{"text": "for myself", "audience": "only_me"})
		mary.post(map[string]any{"text": "for some", "audience": "deny", "deny_users": []string{ann.ID}})
	}
	slices.Reverse(public)
	if got := zoe.album(mary); len(got) != 0 {
		t.Errorf("closed: a stranger sees %v", got)
	}
	mary.call("PATCH", "/me/settings", map[string]bool{"open_to_strangers": true}).want(t, 200, nil)
	if got := zoe.album(mary); !slices.Equal(got, public[:10]) {
		t.Errorf("open: a stranger sees\n%v, want\n%v", got, public[:10])
	}
	if !zoe.sees(public[9]) || zoe.sees(public[10]) {
		t.Error("the tenth is to be seen by its link, the eleventh is not")
	}
	if zoe.like(public[0]) || zoe.comment(public[0]) {
		t.Error("a stranger may look only")
	}
	if len(zoe.timeline()) != 0 || zoe.dot() != "" {
		t.Error("a stranger's posts are in the timeline")
	}
	mary.call("PUT", "/blocks/"+zoe.ID, nil).want(t, 200, nil)
	if len(zoe.album(mary)) != 0 || zoe.sees(public[0]) {
		t.Error("somebody blocked sees what strangers see")
	}
	mary.call("DELETE", "/blocks/"+zoe.ID, nil).want(t, 200, nil)
	mary.call("DELETE", "/posts/"+public[0], nil).want(t, 204, nil)
	if got := zoe.album(mary); !slices.Equal(got, public[1:11]) {
		t.Errorf("after a deletion a stranger sees %v", got)
	}
	mary.call("PATCH", "/me/settings", map[string]bool{"open_to_strangers": false}).want(t, 200, nil)
	if len(zoe.album(mary)) != 0 || zoe.sees(public[1]) {
		t.Error("closed again, but open")
	}
}

func TestVisibility(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary := newPerson(t, g, "mary")
	friends := map[string]person{}
	for _, name := range []string{"ann", "ben", "cid", "dan"} {
		friends[name] = newPerson(t, g, name)
		mary.befriend(friends[name])
	}
	id := func(names ...string) []string {
		var out []string
		for _, n := range names {
			out = append(out, friends[n].ID)
		}
		return out
	}
	var family struct {
		ID     string `json:"id"`
		People int    `json:"people"`
	}
	mary.call("POST", "/tags", map[string]any{"name": "family", "users": id("ann", "ben")}).want(t, 201, &family)
	tag := []string{family.ID}
	type request = map[string]any
	for _, c := range []struct {
		name string
		req  request
		want string // who of the friends sees it
	}{
		{"all friends", request{"audience": "friends"}, "ann ben cid dan"},
		{"nothing said", request{}, "ann ben cid dan"},
		{"only me", request{"audience": "only_me"}, ""},
		{"some people", request{"audience": "allow", "allow_users": id("ann", "cid")}, "ann cid"},
		{"a tag", request{"audience": "allow", "allow_tags": tag}, "ann ben"},
		{"a tag and a person", request{"audience": "allow", "allow_tags": tag, "allow_users": id("dan")}, "ann ben dan"},
		{"an empty allow list", request{"audience": "allow"}, ""},
		{"all but a person", request{"audience": "deny", "deny_users": id("ben")}, "ann cid dan"},
		{"all but a tag", request{"audience": "deny", "deny_tags": tag}, "cid dan"},
		{"deny beats allow", request{"audience": "allow", "allow_tags": tag, "deny_users": id("ann")}, "ben"},
		{"a denied tag beats allow", request{"audience": "allow", "allow_users": id("ann", "cid"), "deny_tags": tag}, "cid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.req["text"] = c.name
			p := mary.post(c.req).ID
			last := mary.post("a later one, for all").ID
			var seen []string
			for _, name := range slices.Sorted(maps.Keys(friends)) {
				f := friends[name]
				f.arrived(last) // and so the one before has, if it is going to
				detail, album, line := f.sees(p), slices.Contains(f.album(mary), p), slices.Contains(f.timeline(), p)
				if detail != album || album != line {
					t.Errorf("%s: by its link %v, in the album %v, in the timeline %v", name, detail, album, line)
				}
				if detail {
					seen = append(seen, name)
				}
			}
			if got := strings.Join(seen, " "); got != c.want {
				t.Errorf("seen by %q, want %q", got, c.want)
			}
			if !mary.sees(p) || !slices.Contains(mary.timeline(), p) {
				t.Error("the author does not see it")
			}
		})
	}

	t.Run("later edits of a tag change nothing", func(t *testing.T) {
		p := mary.post(request{"text": "family", "audience": "allow", "allow_tags": tag}).ID
		mary.call("PATCH", "/tags/"+family.ID, request{"add": id("dan"), "remove": id("ann"), "name": "relatives"}).want(t, 200, &family)
		if family.People != 2 {
			t.Errorf("the tag has %d people", family.People)
		}
		if !friends["ann"].sees(p) || friends["dan"].sees(p) {
			t.Error("an edit of the tag changed who sees the post")
		}
		mary.call("DELETE", "/tags/"+family.ID, nil).want(t, 204, nil)
		if !friends["ann"].sees(p) || !friends["ben"].sees(p) {
			t.Error("the deletion of the tag changed who sees the post")
		}
	})
	t.Run("all and only me", func(t *testing.T) {
		p, ann := mary.post(request{"text": "a secret", "audience": "only_me"}).ID, friends["ann"]
		mary.call("PUT", "/posts/"+p+"/audience", request{"audience": "friends"}, "Idempotency-Key", "a1").want(t, 204, nil)
		ann.arrived(p)
		mary.call("PUT", "/posts/"+p+"/audience", request{"audience": "only_me"}).want(t, 204, nil)
		if got := ann.where(mary, p); strings.ReplaceAll(got, "dot", "") != noDoor { // the dot is another post's
			t.Errorf("only for its author: open are %q", got)
		}
		mary.call("PUT", "/posts/"+p+"/audience", request{"audience": "friends"}, "Idempotency-Key", "a1").want(t, 204, nil)
		if ann.sees(p) {
			t.Error("a repeated request acted again")
		}
		chosen := mary.post(request{"text": "chosen", "audience": "deny", "deny_users": id("ann")}).ID
		if prob := mary.call("PUT", "/posts/"+chosen+"/audience", request{"audience": "friends"}).problem(t); prob.Type != "audience-fixed" {
			t.Errorf("problem = %+v", prob)
		}
		if prob := ann.call("PUT", "/posts/"+p+"/audience", request{"audience": "friends"}).problem(t); prob.Status != 404 {
			t.Errorf("another's post: %+v", prob)
		}
	})
}

func TestDenyBeatsAllow(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary, li := newPerson(t, g, "mary"), newPerson(t, g, "lilei")
	mary.befriend(li)
	named := mary.post(map[string]any{"text": "for li", "audience": "allow", "allow_users": []string{li.ID}}).ID
	li.arrived(named)
	mary.set(li, "hide_mine", true)
	if got := li.where(mary, named); got != noDoor {
		t.Errorf("named, but hidden from: open are %q", got)
	}
	both := mary.post(map[string]any{"text": "x", "audience": "allow", "allow_users": []string{li.ID}, "deny_users": []string{li.ID}}).ID
	mary.set(li, "hide_mine", false)
	if li.sees(both) || !li.sees(named) {
		t.Error("allowed and denied, or only allowed")
	}
}

func TestSettings(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary, li := newPerson(t, g, "mary"), newPerson(t, g, "lilei")
	mary.befriend(li)
	marys, lis := mary.post("Mary's").ID, li.post("Li's").ID
	li.arrived(marys)
	mary.arrived(lis)
	for _, c := range []struct {
		name       string
		by, about  person
		what       string
		toLi, toMa string // what is open of Mary's post to Li, and of Li's to Mary
	}{
		{"do not let him see mine", mary, li, "hide_mine", noDoor, allDoors},
		{"hide his", mary, li, "hide_theirs", allDoors, albumOnly},
		{"chat-only", mary, li, "chat_only", noDoor, noDoor},
		{"chat-only by the other", li, mary, "chat_only", noDoor, noDoor},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.by.set(c.about, c.what, true)
			if got := li.where(mary, marys); got != c.toLi {
				t.Errorf("of Mary's to Li: %q, want %q", got, c.toLi)
			}
			if got := mary.where(li, lis); got != c.toMa {
				t.Errorf("of Li's to Mary: %q, want %q", got, c.toMa)
			}
			var set page[struct {
				User user `json:"user"`
			}]
			c.by.call("GET", "/friend-settings", nil).want(t, 200, &set)
			if len(set.Items) != 1 || set.Items[0].User.ID != c.about.ID {
				t.Errorf("set about %+v", set)
			}
			c.about.call("GET", "/friend-settings", nil).want(t, 200, &set)
			if len(set.Items) != 0 {
				t.Error("the other is told")
			}
			c.by.set(c.about, c.what, false)
			if a, b := li.where(mary, marys), mary.where(li, lis); a != allDoors || b != allDoors {
				t.Errorf("taken back: %q and %q", a, b)
			}
		})
	}
	// The edges of the windows are package privacy's to show; here they are set.
	var settings struct {
		AlbumWindow string `json:"album_window"`
		Open        bool   `json:"open_to_strangers"`
	}
	for _, window := range []string{"3_days", "1_month", "6_months", "all"} {
		mary.call("PATCH", "/me/settings", map[string]string{"album_window": window}).want(t, 200, nil)
		mary.call("GET", "/me/settings", nil).want(t, 200, &settings)
		if settings.AlbumWindow != window || settings.Open {
			t.Errorf("settings = %+v, want the window %s", settings, window)
		}
		if got := li.where(mary, marys); got != allDoors {
			t.Errorf("a new post within %s: %q", window, got)
		}
	}
}

func TestLimits(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary, li, zoe := newPerson(t, g, "mary"), newPerson(t, g, "lilei"), newPerson(t, g, "zoe")
	mary.befriend(li)
	type request = map[string]any
	media := func(n int) []string {
		var ids []string
		for range n {
			ids = append(ids, newID[id.Media](newFake(t)).String())
		}
		return ids
	}
	one := media(1)[0]
	var tag struct {
		ID string `json:"id"`
	}
	mary.call("POST", "/tags", request{"name": "family"}).want(t, 201, &tag)
	for _, c := range []struct {
		name         string
		method, path string
		body         any
		status       int
		kind, field  string
	}{
		{"neither text nor media nor link", "POST", "/posts", request{"location": "here"}, 400, "invalid", "text"},
		{"ten photos", "POST", "/posts", request{"media": media(10)}, 400, "invalid", "media"},
		{"a photo twice", "POST", "/posts", request{"media": []string{one, one}}, 400, "invalid", "media"},
		{"media of wrong type", "POST", "/posts", `{"text":"a","media":"x"}`, 400, "invalid-json", "media"},
		{"no id of a medium", "POST", "/posts", request{"media": []string{"../../etc/passwd"}}, 400, "invalid", "media"},
		{"a script for a link", "POST", "/posts", request{"link": request{"url": "javascript:alert(1)"}}, 400, "invalid", "link.url"},
		{"a file for a link", "POST", "/posts", request{"link": request{"url": "file:///etc/passwd"}}, 400, "invalid", "link.url"},
		{"a link without a host", "POST", "/posts", request{"link": request{"url": "https:///x"}}, 400, "invalid", "link.url"},
		{"a link with a name in it", "POST", "/posts", request{"link": request{"url": "https://a:b@example.com/"}}, 400, "invalid", "link.url"},
		{"a link with a line in it", "POST", "/posts", request{"link": request{"url": "https://example.com/\r\nX-Odd: 1"}}, 400, "invalid", "link.url"},
		{"a link without a URL", "POST", "/posts", request{"link": request{"title": "a"}}, 400, "invalid", "link.url"},
		{"a long link", "POST", "/posts", request{"link": request{"url": "https://example.com/" + strings.Repeat("a", 2048)}}, 400, "invalid", "link.url"},
		{"a long title", "POST", "/posts", request{"link": request{"url": "https://example.com/", "title": strings.Repeat("题", 101)}}, 400, "invalid", "link.title"},
		{"an unknown member of a link", "POST", "/posts", `{"link":{"url":"https://example.com/","fetch":true}}`, 400, "invalid-json", "fetch"},
		{"a long location", "POST", "/posts", request{"text": "a", "location": strings.Repeat("址", 101)}, 400, "invalid", "location"},
		{"a location of two lines", "POST", "/posts", request{"text": "a", "location": "a\r\nb"}, 400, "invalid", "location"},
		{"a NUL in a location", "POST", "/posts", `{"text":"a","location":"a\u0000b"}`, 400, "invalid", "location"},
		{"an audience that is none", "POST", "/posts", request{"text": "a", "audience": "everybody"}, 400, "invalid", "audience"},
		{"an audience of wrong type", "POST", "/posts", `{"text":"a","audience":1}`, 400, "invalid-json", "audience"},
		{"an allow list with another audience", "POST", "/posts", request{"text": "a", "allow_users": []string{li.ID}}, 400, "invalid", "allow_users"},
		{"a deny list for oneself", "POST", "/posts", request{"text": "a", "audience": "only_me", "deny_users": []string{li.ID}}, 400, "invalid", "deny_users"},
		{"no id of a person", "POST", "/posts", request{"text": "a", "audience": "allow", "allow_users": []string{"li"}}, 400, "invalid", "allow_users"},
		{"no id of a tag", "POST", "/posts", request{"text": "a", "audience": "allow", "allow_tags": []string{"family"}}, 404, "not-found", "allow_tags"},
		{"nobody's tag", "POST", "/posts", request{"text": "a", "audience": "allow", "allow_tags": []string{one}}, 404, "not-found", "allow_tags"},
		{"reminding a stranger", "POST", "/posts", request{"text": "a", "remind": []string{zoe.ID}}, 400, "invalid", "remind"},
		{"reminding one who may not see it", "POST", "/posts", request{"text": "a", "audience": "only_me", "remind": []string{li.ID}}, 400, "invalid", "remind"},
		{"reminding somebody twice", "POST", "/posts", request{"text": "a", "remind": []string{li.ID, li.ID}}, 400, "invalid", "remind"},
		{"reminding oneself", "POST", "/posts", request{"text": "a", "remind": []string{mary.ID}}, 400, "invalid", "remind"},
		{"reminding eleven", "POST", "/posts", request{"text": "a", "remind": slices.Repeat([]string{li.ID}, 11)}, 400, "invalid", "remind"},

		{"a window that is none", "PATCH", "/me/settings", request{"album_window": "2_weeks"}, 400, "invalid", "album_window"},
		{"a window of wrong type", "PATCH", "/me/settings", `{"album_window":3}`, 400, "invalid-json", "album_window"},
		{"an unknown setting", "PATCH", "/me/settings", `{"admin":true}`, 400, "invalid-json", "admin"},
		{"settings about oneself", "PATCH", "/friends/" + mary.ID + "/settings", request{"chat_only": true}, 400, "invalid", "user"},
		{"settings about nobody", "PATCH", "/friends/" + one + "/settings", request{"chat_only": true}, 404, "not-found", ""},
		{"settings about no id", "PATCH", "/friends/x/settings", request{"chat_only": true}, 404, "not-found", ""},
		{"a setting of wrong type", "PATCH", "/friends/" + li.ID + "/settings", `{"chat_only":"yes"}`, 400, "invalid-json", "chat_only"},
		{"looking at settings about nobody", "GET", "/friends/" + one + "/settings", nil, 404, "not-found", ""},
		{"a forged cursor of settings", "GET", "/friend-settings?cursor=x", nil, 400, "invalid", "cursor"},
		{"blocking oneself", "PUT", "/blocks/" + mary.ID, nil, 400, "invalid", "user"},
		{"blocking nobody", "PUT", "/blocks/" + one, nil, 404, "not-found", ""},
		{"unblocking nobody", "DELETE", "/blocks/x", nil, 404, "not-found", ""},
		{"withdrawing from nobody", "DELETE", "/friend-requests/" + one, nil, 404, "not-found", ""},

		{"a tag without a name", "POST", "/tags", `{}`, 400, "invalid", "name"},
		{"a blank tag", "POST", "/tags", request{"name": "  "}, 400, "invalid", "name"},
		{"a long tag", "POST", "/tags", request{"name": strings.Repeat("签", 33)}, 400, "invalid", "name"},
		{"a tag that turns text round", "POST", "/tags", request{"name": "a\u202eb"}, 400, "invalid", "name"},
		{"a tag that is there", "POST", "/tags", request{"name": "FAMILY"}, 409, "name-taken", "name"},
		{"a tag with no person", "POST", "/tags", request{"name": "b", "users": []string{"x"}}, 400, "invalid", "users"},
		{"a tag of wrong type", "POST", "/tags", `{"name":["a"]}`, 400, "invalid-json", "name"},
		{"another's tag", "GET", "/tags/" + one, nil, 404, "not-found", ""},
		{"no id of a tag in the path", "GET", "/tags/x", nil, 404, "not-found", ""},
		{"renaming another's tag", "PATCH", "/tags/" + one, request{"name": "b"}, 404, "not-found", ""},
		{"adding no person", "PATCH", "/tags/" + tag.ID, request{"add": []string{"x"}}, 400, "invalid", "add"},
		{"removing no person", "PATCH", "/tags/" + tag.ID, request{"remove": []string{"x"}}, 400, "invalid", "remove"},
		{"deleting no tag", "DELETE", "/tags/x", nil, 404, "not-found", ""},

		{"another audience than two", "PUT", "/posts/" + one + "/audience", request{"audience": "deny"}, 400, "invalid", "audience"},
		{"the audience of nobody's post", "PUT", "/posts/" + one + "/audience", request{"audience": "friends"}, 404, "not-found", ""},
		{"the audience of no post", "PUT", "/posts/x/audience", request{"audience": "friends"}, 404, "not-found", ""},
		{"a month that is none", "GET", "/users/" + mary.ID + "/album?month=2026-13", nil, 400, "invalid", "month"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := *mary.client
			m.t = t
			if got := m.call(c.method, c.path, c.body).problem(t); got.Status != c.status || got.Type != c.kind || got.Field != c.field {
				t.Errorf("problem = %+v", got)
			}
		})
	}
	if got := mary.album(mary); len(got) != 0 {
		t.Errorf("stored was %v", got)
	}

	var whole struct {
		post
		Link struct {
			URL   string `json:"url"`
			Title string `json:"title"`
		} `json:"link"`
		Location string   `json:"location"`
		Remind   []string `json:"remind_ids"`
	}
	li.arrived(mary.post(request{
		"text": strings.Repeat("字", 2000), "location": "上海 <外滩>", "remind": []string{li.ID},
		"link": request{"url": "http://127.0.0.1:1/never-fetched?a=<b>", "title": "A <title>"},
	}).ID)
	li.call("GET", "/posts/"+li.timeline()[0], nil).want(t, 200, &whole)
	if whole.Link.URL != "http://127.0.0.1:1/never-fetched?a=<b>" || whole.Link.Title != "A <title>" || whole.Location != "上海 <外滩>" ||
		!slices.Equal(whole.Remind, []string{li.ID}) || len([]rune(whole.Text)) != 2000 {
		t.Errorf("post = %+v", whole)
	}
}

// TestPrivacyMatrix is package privacy's table through the API: eight ways to stand to
// the author of a post with a photo, who comments on it and likes it, and all doors to
// it. Who is kept away now could see everything before, and has taken part.
func TestPrivacyMatrix(t *testing.T) {
	g := at(t, clustertest.Start(t))
	open := func(a, _ person) {
		a.call("PATCH", "/me/settings", map[string]bool{"open_to_strangers": true}).want(t, 200, nil)
	}
	for _, c := range []struct {
		name   string
		friend bool // before the change
		change func(author, viewer person)
		want   string
	}{
		{"a friend", true, nil, "album comment comments counts detail dot like likes media notices timeline"},
		{"hidden from", true, func(a, v person) { a.set(v, "hide_mine", true) }, ""},
		{"not wanted", true, func(a, v person) { v.set(a, "hide_theirs", true) }, "album comment comments counts detail like likes media notices"},
		{"chat-only", true, func(a, v person) { a.set(v, "chat_only", true) }, ""},
		{"a stranger", false, nil, ""},
		{"a stranger to one who is open", false, open, "album detail media"},
		{"blocked by one who is open", true, func(a, v person) {
			open(a, v)
			a.call("PUT", "/blocks/"+v.ID, nil).want(t, 200, nil)
		}, ""},
		{"the author", false, nil, "album comment comments counts detail like likes media notices timeline"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := strings.ReplaceAll(c.name, " ", "-")
			author := newPerson(t, g, "a-"+name)
			viewer, mark := author, newPerson(t, g, "m-"+name)
			if c.name != "the author" {
				viewer = newPerson(t, g, "v-"+name)
			}
			if c.friend {
				author.befriend(viewer)
			}
			author.befriend(mark)
			photo := author.photo(64).ID
			p := author.post(map[string]any{"text": "a post", "media": []string{photo}}).ID
			mark.arrived(p) // and so it is about to for everybody
			if c.friend {
				viewer.arrived(p)
				viewer.says(p, "", "while I may")
			}
			mark.says(p, "", "by a friend of the author")
			author.says(p, "", "by the author")
			author.call("PUT", "/posts/"+p+"/like", nil).want(t, 204, nil)
			if c.friend {
				eventually(t, "a notice", func() bool { return viewer.isToldOf(p) })
			}
			if c.change != nil {
				c.change(author, viewer)
			}
			author.says(p, "", "after the change")
			eventually(t, "the last notice", func() bool { return mark.toldOf(p) > 2 }) // two comments and a like: who else is told, is told with Mark

			var seen detail
			if a := viewer.call("GET", "/posts/"+p, nil); a.StatusCode == 200 {
				a.want(t, 200, &seen)
			}
			liked := viewer.call("GET", "/posts/"+p+"/likes", nil)
			got := strings.Fields(viewer.where(author, p))
			for door, on := range map[string]bool{
				"comments": slices.ContainsFunc(seen.Comments, func(c comment) bool { return c.WriterID == author.ID }),
				"counts":   seen.CommentCount > 0 && seen.LikeCount > 0,
				"likes":    strings.Contains(string(liked.text), author.ID),
				"media":    len(seen.Media) > 0 && fetch(t, g, seen.Media[0].URLs["full"]).StatusCode == 200,
				"notices":  viewer.isToldOf(p),
			} {
				if on {
					got = append(got, door)
				}
			}
			slices.Sort(got)
			if all := strings.Join(got, " "); all != c.want {
				t.Errorf("open are %q, want %q", all, c.want)
			}
			if slices.Contains(got, "detail") {
				return
			}
			// What is closed is closed: no answer has the post or its photo in it.
			for _, path := range []string{"/timeline", "/timeline/head", "/timeline/newer", "/users/" + author.ID + "/album", "/posts/" + p, "/posts/" + p + "/comments", "/posts/" + p + "/likes", "/notices"} {
				if a := viewer.call("GET", path, nil); strings.Contains(string(a.text), p) || strings.Contains(string(a.text), photo) {
					t.Errorf("%s tells of it: %s", path, a.text)
				}
			}
			if n, listed := viewer.unread(), len(viewer.allNotices(nil)); n != listed {
				t.Errorf("%d are unread, %d are listed", n, listed)
			}
		})
	}
}

// toldOf counts somebody's notices of a post.
func (p person) toldOf(post string) (n int) {
	p.t.Helper()
	var got page[notice]
	p.call("GET", "/notices?limit=100", nil).want(p.t, 200, &got)
	for _, one := range got.Items {
		if one.PostID == post {
			n++
		}
	}
	return n
}

func (p person) isToldOf(post string) bool { p.t.Helper(); return p.toldOf(post) > 0 }

// TestHiddenIsLikeMissing: each way to be kept from a post answers as if the post
// had never been, to the byte, at every door that names it.
func TestHiddenIsLikeMissing(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary, never := newPerson(t, g, "mary"), newID[id.Post](newFake(t)).String()
	p := mary.post("a post").ID
	for _, c := range []struct {
		name string
		make func(person)
	}{
		{"a stranger", func(person) {}},
		{"hidden from", func(v person) { mary.befriend(v); mary.set(v, "hide_mine", true) }},
		{"chat-only", func(v person) { mary.befriend(v); v.set(mary, "chat_only", true) }},
		{"blocked", func(v person) { mary.befriend(v); mary.call("PUT", "/blocks/"+v.ID, nil).want(t, 200, nil) }},
		{"unfriended", func(v person) { mary.befriend(v); v.call("DELETE", "/friends/"+mary.ID, nil).want(t, 200, nil) }},
		{"only for its author", func(v person) {
			mary.befriend(v)
			mary.call("PUT", "/posts/"+p+"/audience", map[string]string{"audience": "only_me"}).want(t, 204, nil)
		}},
		{"deleted", func(v person) {
			mary.befriend(v)
			mary.call("DELETE", "/posts/"+p, nil).want(t, 204, nil)
		}},
	} {
		viewer := newPerson(t, g, "viewer-"+strings.ReplaceAll(c.name, " ", "-"))
		c.make(viewer)
		for _, door := range []struct {
			method, path string
			body         any
		}{
			{"GET", "/posts/%s", nil},
			{"DELETE", "/posts/%s", nil},
			{"PUT", "/posts/%s/audience", map[string]string{"audience": "friends"}},
			{"PUT", "/posts/%s/like", nil},
			{"DELETE", "/posts/%s/like", nil},
			{"POST", "/posts/%s/comments", map[string]string{"text": "a"}},
			{"DELETE", "/posts/%s/comments/" + never, nil},
		} {
			shape := func(post string) string {
				a := viewer.call(door.method, fmt.Sprintf(door.path, post), door.body)
				prob := a.problem(t)
				prob.TraceID = ""
				for _, h := range []string{"Traceparent", "Date", "Content-Length"} {
					a.Header.Del(h)
				}
				return fmt.Sprint(prob, a.Header)
			}
			if hidden, missing := shape(p), shape(never); hidden != missing {
				t.Errorf("%s: %s %s:\nhidden  %s\nmissing %s", c.name, door.method, door.path, hidden, missing)
			}
		}
		for _, path := range []string{"/users/%s/album", "/users/%s/album?month=2026-11"} {
			closed := viewer.call("GET", fmt.Sprintf(path, mary.ID), nil)
			nobody := viewer.call("GET", fmt.Sprintf(path, never), nil)
			if closed.StatusCode != nobody.StatusCode || string(closed.text) != string(nobody.text) {
				t.Errorf("%s: album %d %s, of nobody %d %s", c.name, closed.StatusCode, closed.text, nobody.StatusCode, nobody.text)
			}
		}
		if viewer.dot() != "" || len(viewer.timeline()) != 0 {
			t.Errorf("%s: something is in the timeline", c.name)
		}
	}
}

func TestDeletedIsFinal(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary, li := newPerson(t, g, "mary"), newPerson(t, g, "lilei")
	mary.befriend(li)
	var p post
	mary.call("POST", "/posts", map[string]string{"text": "gone"}, "Idempotency-Key", "p").want(t, 201, &p)
	li.arrived(p.ID)
	if prob := li.call("DELETE", "/posts/"+p.ID, nil).problem(t); prob.Status != 404 {
		t.Errorf("another's post: %+v", prob)
	}
	if !li.sees(p.ID) {
		t.Error("another has deleted the post")
	}
	mary.call("DELETE", "/posts/"+p.ID, nil, "Idempotency-Key", "d").want(t, 204, nil)
	mary.call("DELETE", "/posts/"+p.ID, nil, "Idempotency-Key", "d").want(t, 204, nil)
	mary.call("DELETE", "/posts/"+p.ID, nil).want(t, 204, nil)
	if got := li.where(mary, p.ID); got != noDoor {
		t.Errorf("deleted: open are %q", got)
	}
	if got := mary.where(mary, p.ID); got != noDoor {
		t.Errorf("deleted: open to its author are %q", got)
	}
	// The request that made it, repeated, makes nothing.
	var again post
	mary.call("POST", "/posts", map[string]string{"text": "gone"}, "Idempotency-Key", "p").want(t, 201, &again)
	if again.ID != p.ID || mary.sees(p.ID) {
		t.Errorf("a repeated request brought %s back", p.ID)
	}
	other := mary.post("other").ID
	if prob := mary.call("DELETE", "/posts/"+other, nil, "Idempotency-Key", "d").problem(t); prob.Type != "idempotency-conflict" {
		t.Errorf("a key for two deletions: %+v", prob)
	}
	if prob := mary.call("PUT", "/posts/"+p.ID+"/audience", map[string]string{"audience": "friends"}).problem(t); prob.Status != 404 {
		t.Errorf("a deleted post is changed: %+v", prob)
	}
}
