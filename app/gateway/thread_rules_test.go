// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-rpc/sluice/app/cluster/clustertest"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework/edge"
)

// What stands under a post, through the public API and all services.

type remark struct {
	ID      string `json:"id"`
	Text    string `json:"text"`
	ReplyTo string `json:"reply_to"`
	Deleted bool   `json:"deleted"`
}

type thread struct {
	Comments     []remark `json:"comments"`
	CommentCount int      `json:"comment_count"`
	LikeIDs      []string `json:"like_ids"`
	LikeCount    int      `json:"like_count"`
	Liked        bool     `json:"liked"`
}

func (p person) thread(post string) (t thread) {
	p.t.Helper()
	p.call("GET", "/posts/"+post, nil).want(p.t, 200, &t)
	return t
}

// reads checks what somebody reads under a post, "-" for a deleted mark, on the post's
// own page, in the timeline and in pages of two.
func (p person) reads(post string, want ...string) {
	p.t.Helper()
	line := func(all []remark) string {
		var texts []string
		for _, c := range all {
			if c.Deleted {
				c.Text += "-"
			}
			texts = append(texts, c.Text)
		}
		return strings.Join(texts, "|")
	}
	own := p.thread(post)
	live := 0
	for _, c := range own.Comments {
		if !c.Deleted {
			live++
		}
	}
	var paged []remark
	for cursor := ""; ; {
		var got page[remark]
		p.call("GET", "/posts/"+post+"/comments?limit=2&cursor="+url.QueryEscape(cursor), nil).want(p.t, 200, &got)
		paged = append(slices.Clone(got.Items), paged...)
		if cursor = got.NextCursor; cursor == "" {
			break
		}
	}
	if got := line(own.Comments); got != strings.Join(want, "|") || line(paged) != got || own.CommentCount != live {
		p.t.Errorf("%s reads %q, in pages %q, counted %d; want %q", p.Name, got, line(paged), own.CommentCount, want)
	}
}

// TestOnlyFriendsWords: a like or comment is shown to its writer and his friends, a
// reply only to who also knows whom it answers, and counts tell no more.
func TestOnlyFriendsWords(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary, li, han, rose := newPerson(t, g, "mary"), newPerson(t, g, "lilei"), newPerson(t, g, "hanmei"), newPerson(t, g, "rose")
	for _, p := range []person{li, han, rose} {
		mary.befriend(p)
	}
	li.befriend(han)
	post := mary.post("hello").ID
	first := li.says(post, "", "Li")
	han.says(post, first, "Han to Li")
	rose.says(post, "", "Rose")
	answer := mary.says(post, first, "Mary to Li")
	han.says(post, answer, "Han to Mary")
	for _, p := range []person{li, rose} {
		if !p.like(post) {
			t.Fatal("no like")
		}
	}
	mary.reads(post, "Li", "Han to Li", "Rose", "Mary to Li", "Han to Mary")
	li.reads(post, "Li", "Han to Li", "Mary to Li", "Han to Mary")
	rose.reads(post, "Rose")
	likes := func(p person, want ...string) {
		t.Helper()
		th := p.thread(post)
		if !slices.Equal(th.LikeIDs, want) || th.LikeCount != len(want) || th.Liked != slices.Contains(want, p.ID) {
			t.Errorf("%s sees likes %v, %d", p.Name, th.LikeIDs, th.LikeCount)
		}
		var got page[string]
		p.call("GET", "/posts/"+post+"/likes", nil).want(t, 200, &got)
		if !slices.Equal(got.Items, want) {
			t.Errorf("%s sees the page of likes %v", p.Name, got.Items)
		}
	}
	likes(mary, li.ID, rose.ID)
	likes(han, li.ID)
	likes(rose, rose.ID)
	// What one does not see cannot be answered or deleted, nor told from what never was.
	never := id.Comment{1}.String()
	for _, c := range []string{first, never} {
		if p := rose.call("POST", "/posts/"+post+"/comments", map[string]string{"text": "?", "reply_to": c}).problem(t); p.Status != 404 || p.Type != "not-found" {
			t.Errorf("a reply: %+v", p)
		}
		if p := rose.call("DELETE", "/posts/"+post+"/comments/"+c, nil).problem(t); p.Status != 404 || p.Type != "not-found" {
			t.Errorf("a delete: %+v", p)
		}
	}
	// Unfriending acts at once, and being friends again brings it back.
	li.call("DELETE", "/friends/"+han.ID, nil).want(t, 200, nil)
	han.reads(post, "Han to Mary")
	li.befriend(han)
	han.reads(post, "Li", "Han to Li", "Mary to Li", "Han to Mary")
}

// TestCausesFirst: whatever many say at once, all read it in one order, answers after
// what they answer, and one's own session sees what it wrote (G1 to G6, G9).
func TestCausesFirst(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary := newPerson(t, g, "mary")
	fans := make([]person, 4)
	for i := range fans {
		fans[i] = newPerson(t, g, fmt.Sprint("fan", i))
		mary.befriend(fans[i])
		for _, other := range fans[:i] {
			other.befriend(fans[i])
		}
	}
	post := mary.post("hello").ID
	var wg sync.WaitGroup
	for i, f := range fans {
		wg.Go(func() {
			session := ""
			for n := range 10 {
				last := ""
				var headers []string
				if session != "" {
					headers = []string{"Moments-Session", session}
				}
				res := f.call("GET", "/posts/"+post, nil, headers...)
				var th thread
				res.want(t, 200, &th)
				if len(th.Comments) > 0 {
					last = th.Comments[len(th.Comments)-1].ID
				}
				a := f.call("POST", "/posts/"+post+"/comments", map[string]string{"text": fmt.Sprint(i, "/", n), "reply_to": last}, headers...)
				a.want(t, 201, nil)
				if session = a.Header.Get("Moments-Session"); session == "" || len(session) > 1024 {
					t.Errorf("session %q", session)
				}
			}
		})
	}
	wg.Wait()
	want := mary.thread(post).Comments
	if len(want) != 40 {
		t.Errorf("%d comments, want 40", len(want))
	}
	place := map[string]int{}
	for i, c := range want {
		place[c.ID] = i
	}
	if len(place) != len(want) {
		t.Error("an id was given twice")
	}
	for i, c := range want {
		if at, ok := place[c.ReplyTo]; c.ReplyTo != "" && (!ok || at >= i) {
			t.Errorf("%s stands before what it answers", c.Text)
		}
	}
	for _, f := range fans {
		if got := f.thread(post).Comments; !slices.Equal(got, want) {
			t.Errorf("%s reads another order", f.Name)
		}
	}
	// A token is its user's and comes back unchanged only.
	session := fans[0].call("PUT", "/posts/"+post+"/like", nil).Header.Get("Moments-Session")
	for name, p := range map[string]edge.Problem{
		"another's": fans[1].call("GET", "/posts/"+post, nil, "Moments-Session", session).problem(t),
		"mangled":   fans[0].call("PUT", "/posts/"+post+"/like", nil, "Moments-Session", "A"+session).problem(t),
	} {
		if p.Status != 400 || p.Field != "Moments-Session" {
			t.Errorf("%s token: %+v", name, p)
		}
	}
}

// TestOneKeyOnce: under one key a comment, a like and a delete happen once.
func TestOneKeyOnce(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary, li := newPerson(t, g, "mary"), newPerson(t, g, "lilei")
	mary.befriend(li)
	post, other := mary.post("one").ID, mary.post("another").ID
	var ids [8]string
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() { ids[i] = li.says(post, "", "tea", "Idempotency-Key", "k") })
	}
	wg.Wait()
	if slices.ContainsFunc(ids[:], func(v string) bool { return v != ids[0] }) {
		t.Errorf("one key made %v", ids)
	}
	mary.says(post, "", "tea", "Idempotency-Key", "k") // another user's same key
	mary.reads(post, "tea", "tea")
	li.call("PUT", "/posts/"+post+"/like", nil, "Idempotency-Key", "l").want(t, 204, nil)
	li.call("DELETE", "/posts/"+post+"/like", nil, "Idempotency-Key", "u").want(t, 204, nil)
	li.call("PUT", "/posts/"+post+"/like", nil, "Idempotency-Key", "l").want(t, 204, nil)
	if n := mary.thread(post).LikeCount; n != 0 {
		t.Errorf("a repeated like counts: %d", n)
	}
	li.call("DELETE", "/posts/"+post+"/comments/"+ids[0], nil, "Idempotency-Key", "d").want(t, 204, nil)
	li.call("DELETE", "/posts/"+post+"/comments/"+ids[0], nil, "Idempotency-Key", "d").want(t, 204, nil)
	second := li.says(post, "", "more")
	for name, p := range map[string]edge.Problem{
		"another text":    li.call("POST", "/posts/"+post+"/comments", map[string]string{"text": "coffee"}, "Idempotency-Key", "k").problem(t),
		"another post":    li.call("POST", "/posts/"+other+"/comments", map[string]string{"text": "tea"}, "Idempotency-Key", "k").problem(t),
		"another deed":    li.call("PUT", "/posts/"+post+"/like", nil, "Idempotency-Key", "k").problem(t),
		"another comment": li.call("DELETE", "/posts/"+post+"/comments/"+second, nil, "Idempotency-Key", "d").problem(t),
	} {
		if p.Type != "idempotency-conflict" {
			t.Errorf("%s under a used key: %+v", name, p)
		}
	}
}

// TestDeletedCommentIsFinal: who may delete, what stays, and that no repetition
// brings anything back (G10).
func TestDeletedCommentIsFinal(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary, li, han := newPerson(t, g, "mary"), newPerson(t, g, "lilei"), newPerson(t, g, "hanmei")
	mary.befriend(li)
	mary.befriend(han)
	li.befriend(han)
	post := mary.post("hello").ID
	first := li.says(post, "", "Li", "Idempotency-Key", "first")
	reply := han.says(post, first, "Han to Li")
	if p := han.call("DELETE", "/posts/"+post+"/comments/"+first, nil).problem(t); p.Status != 404 {
		t.Errorf("a third person deletes: %+v", p)
	}
	li.call("DELETE", "/posts/"+post+"/comments/"+first, nil).want(t, 204, nil)
	mary.reads(post, "-", "Han to Li") // a mark, without its text
	if again := li.says(post, "", "Li", "Idempotency-Key", "first"); again != first {
		t.Errorf("the repeated request made %s", again)
	}
	mary.reads(post, "-", "Han to Li")
	if p := han.call("POST", "/posts/"+post+"/comments", map[string]string{"text": "?", "reply_to": first}).problem(t); p.Status != 404 {
		t.Errorf("an answer to what is deleted: %+v", p)
	}
	mary.call("DELETE", "/posts/"+post+"/comments/"+reply, nil).want(t, 204, nil) // any, on her own post
	mary.reads(post)                                                              // the mark goes with the last answer
}
