// SPDX-License-Identifier: Apache-2.0

package timeline_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// publishFor publishes with a visibility choice.
func (h *house) publishFor(author id.User, audience momentsv1.Audience, allow, deny []id.User) string {
	h.t.Helper()
	req := &momentsv1.PublishRequest{AuthorId: author.String(), IdempotencyKey: h.key(), Text: "for some", Audience: audience}
	for _, u := range allow {
		req.AllowIds = append(req.AllowIds, u.String())
	}
	for _, u := range deny {
		req.DenyIds = append(req.DenyIds, u.String())
	}
	res, err := h.Post.Publish(h.t.Context(), req)
	if err != nil {
		h.t.Fatalf("publish: %v", err)
	}
	return res.GetPost().GetId()
}

// TestFanOutGoesByWhomAPostIsFor: it is in no index of somebody it is not for.
func TestFanOutGoesByWhomAPostIsFor(t *testing.T) {
	h := build(t, houseConfig{})
	h.account.Befriend(mary, john)
	h.account.Befriend(mary, rose)
	me := h.publishFor(mary, momentsv1.Audience_AUDIENCE_ONLY_ME, nil, nil)
	toJohn := h.publishFor(mary, momentsv1.Audience_AUDIENCE_ALLOW, []id.User{john}, nil)
	notJohn := h.publishFor(mary, momentsv1.Audience_AUDIENCE_DENY, nil, []id.User{john})
	nobody := h.publishFor(mary, momentsv1.Audience_AUDIENCE_ALLOW, []id.User{john}, []id.User{john})
	h.drain()
	want(t, "Mary's index", h.index(mary), []string{nobody, notJohn, toJohn, me})
	want(t, "John's index", h.index(john), []string{toJohn})
	want(t, "Rose's index", h.index(rose), []string{notJohn})

	set := func(a momentsv1.Audience) {
		t.Helper()
		if _, err := h.Post.SetAudience(t.Context(), &momentsv1.SetAudienceRequest{AuthorId: mary.String(), PostId: me, Audience: a}); err != nil {
			t.Fatal(err)
		}
		h.drain()
	}
	set(momentsv1.Audience_AUDIENCE_FRIENDS)
	want(t, "for all, John", h.home(john, 5), []string{toJohn, me})
	set(momentsv1.Audience_AUDIENCE_ONLY_ME)
	want(t, "for herself again, John", h.home(john, 5), []string{toJohn})
	want(t, "for herself again, Mary", h.home(mary, 5), []string{nobody, notJohn, toJohn, me})
}

// TestDotOfHiddenPosts: what cannot be seen raises no red dot, and what is seen below
// it does.
func TestDotOfHiddenPosts(t *testing.T) {
	h := build(t, houseConfig{})
	h.account.Befriend(mary, john)
	h.account.Befriend(mary, rose)
	shown := h.publish(rose, "to be seen")
	for range 10 {
		h.publish(john, "hidden")
	}
	h.drain()
	dot := func() string {
		t.Helper()
		res, err := h.Timeline.Head(t.Context(), &momentsv1.HeadRequest{ViewerId: mary.String()})
		if err != nil {
			t.Fatal(err)
		}
		return res.GetPostId()
	}
	for name, hide := range map[string]func(bool){
		"denied":    func(on bool) { h.account.Deny(john, mary, on) },
		"unwanted":  func(on bool) { h.account.Hide(mary, john, on) },
		"chat-only": func(on bool) { h.account.ChatOnly(mary, john, on) },
	} {
		hide(true)
		if got := dot(); got != shown {
			t.Errorf("%s: the dot is for %q, want Rose's %q", name, got, shown)
		}
		hide(false)
		if got := dot(); got == shown || got == "" {
			t.Errorf("no longer %s: the dot is for %q", name, got)
		}
	}
}

// TestSettingsAreReversible: who became a friend while he was kept out has the posts
// once he is not.
func TestSettingsAreReversible(t *testing.T) {
	h := build(t, houseConfig{})
	h.account.Deny(john, mary, true)
	h.account.Befriend(mary, john)
	p := h.publish(john, "hidden at first")
	if _, err := h.Timeline.Backfill(t.Context(), &momentsv1.BackfillRequest{ReaderId: mary.String(), AuthorId: john.String()}); err != nil {
		t.Fatal(err)
	}
	want(t, "denied", h.home(mary, 5), []string{})
	h.account.Deny(john, mary, false)
	want(t, "no longer denied", h.home(mary, 5), []string{p})
}

// TestRebuild damages an index in each way and has it filled anew.
func TestRebuild(t *testing.T) {
	h := build(t, houseConfig{cap: 20})
	h.account.Befriend(mary, john)
	var all []string
	for i := range 60 {
		author := []id.User{mary, john}[i%2]
		all = append(all, h.publish(author, fmt.Sprint(i)))
	}
	h.drain()
	slices.Reverse(all)
	rebuild := func() *momentsv1.RebuildResponse {
		t.Helper()
		foretold, err := h.Timeline.Rebuild(t.Context(), &momentsv1.RebuildRequest{ReaderId: mary.String(), DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		res, err := h.Timeline.Rebuild(t.Context(), &momentsv1.RebuildRequest{ReaderId: mary.String()})
		if err != nil {
			t.Fatal(err)
		}
		if foretold.GetAdded() != res.GetAdded() || foretold.GetRemoved() != res.GetRemoved() {
			t.Errorf("a dry run tells %v, then it is %v", foretold, res)
		}
		for _, limit := range []int{3, 20, 100} {
			want(t, fmt.Sprintf("timeline by %d", limit), h.home(mary, limit), all)
		}
		return res
	}
	rebuild()
	if res := rebuild(); res.GetAdded() != 0 || res.GetRemoved() != 0 {
		t.Errorf("a second rebuild: %v", res)
	}
	// Everything is lost.
	prefix := append([]byte{'t'}, mary[:]...)
	if _, err := h.timelines.Apply(t.Context(), kv.SlotOf(mary[:]), new(kv.Batch).DeleteRange(prefix, kv.PrefixEnd(prefix))); err != nil {
		t.Fatal(err)
	}
	if res := rebuild(); res.GetAdded() < 20 {
		t.Errorf("after a loss: %v", res)
	}
	// Something is there that never was.
	first, err := id.ParsePost(all[0])
	if err != nil {
		t.Fatal(err)
	}
	stray := first
	stray[0]-- // long ago
	key := slices.Clone(prefix)
	for _, b := range stray {
		key = append(key, ^b)
	}
	if _, err := h.timelines.Apply(t.Context(), kv.SlotOf(mary[:]), new(kv.Batch).Put(key, nil)); err != nil {
		t.Fatal(err)
	}
	rebuild()
	// Nobody's timeline.
	if _, err := h.Timeline.Rebuild(t.Context(), &momentsv1.RebuildRequest{ReaderId: user(9).String()}); err != nil {
		t.Error(err)
	}
}

// TestTimelineLaw changes friendships, settings and posts at random, with an index that
// is cut all the time: each timeline is what the rules make of what there is.
func TestTimelineLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := build(t, houseConfig{cap: 4, cacheSize: 20})
		h.run()
		people := []id.User{mary, john, rose, user(4)}
		someone := rapid.SampledFrom(people)
		type made struct {
			id     string
			author id.User
			allow  map[id.User]bool // nil: all
		}
		var posts []made
		deny, hide, off := map[[2]id.User]bool{}, map[[2]id.User]bool{}, map[[2]id.User]bool{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			x, y, on := someone.Draw(t, "x"), someone.Draw(t, "y"), rapid.Bool().Draw(t, "on")
			pair := [2]id.User{x, y}
			switch rapid.IntRange(0, 8).Draw(t, "step") {
			case 0, 1:
				if x != y && !h.account.Friends(x, y) {
					h.account.Befriend(x, y)
					h.settle() // what was made before is filled in below the index or in it
					for _, b := range [][2]id.User{{x, y}, {y, x}} {
						if _, err := h.Timeline.Backfill(t.Context(), &momentsv1.BackfillRequest{ReaderId: b[0].String(), AuthorId: b[1].String()}); err != nil {
							t.Fatal(err)
						}
					}
				}
			case 2:
				if x != y {
					deny[pair] = on
					h.account.Deny(x, y, on)
				}
			case 3:
				if x != y {
					hide[pair] = on
					h.account.Hide(x, y, on)
				}
			case 4:
				if x != y {
					off[pair], off[[2]id.User{y, x}] = on, on
					h.account.ChatOnly(x, y, on)
				}
			case 5:
				if len(posts) > 0 {
					i := rapid.IntRange(0, len(posts)-1).Draw(t, "post")
					h.remove(posts[i].author, posts[i].id)
					posts = slices.Delete(posts, i, i+1)
				}
			case 6:
				p := made{author: x, allow: map[id.User]bool{y: true}}
				p.id = h.publishFor(x, momentsv1.Audience_AUDIENCE_ALLOW, []id.User{y}, nil)
				posts = append(posts, p)
			default:
				posts = append(posts, made{id: h.publish(x, "for all"), author: x})
			}
		}
		h.settle()
		for _, viewer := range people {
			due := []string{}
			for _, p := range posts {
				to, from := [2]id.User{p.author, viewer}, [2]id.User{viewer, p.author}
				sees := h.account.Friends(viewer, p.author) && !deny[to] && !off[from] && !hide[from] && (p.allow == nil || p.allow[viewer])
				if p.author == viewer || sees {
					due = append(due, p.id)
				}
			}
			slices.Sort(due)
			slices.Reverse(due)
			if got := h.home(viewer, rapid.IntRange(1, 9).Draw(t, "limit")); !slices.Equal(got, due) {
				t.Fatalf("%v sees\n%v, want\n%v", viewer, got, due)
			}
		}
	})
}
