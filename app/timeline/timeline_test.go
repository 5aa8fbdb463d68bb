// SPDX-License-Identifier: Apache-2.0

package timeline_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

var mary, john, rose, stranger = user(1), user(2), user(3), user(4)

// friendly is a house in which Mary is a friend of John and of Rose, who do not know
// each other.
func friendly(t *testing.T) *house {
	h := build(t, houseConfig{})
	h.account.Befriend(mary, john)
	h.account.Befriend(mary, rose)
	return h
}

func want(t tb, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	t.Fatalf("%s: %d posts, want %d; from the %dth on %.200v, want %.200v", what, len(got), len(want), i,
		fmt.Sprint(got[i:]), fmt.Sprint(want[i:]))
}

func TestOwnPostIsFirstBeforeFanOut(t *testing.T) {
	h := friendly(t)
	p1 := h.publish(john, "one")
	h.drain()
	p2, p3 := h.publish(mary, "two"), h.publish(mary, "three")
	want(t, "before fan-out", h.home(mary, 2), []string{p3, p2, p1})
	want(t, "index before fan-out", h.index(mary), []string{p1})
	h.drain()
	want(t, "after fan-out", h.home(mary, 2), []string{p3, p2, p1})
	want(t, "a friend's", h.home(john, 2), []string{p3, p2, p1})
	want(t, "another's", h.home(rose, 2), []string{p3, p2})
	want(t, "a stranger's", h.home(stranger, 2), []string{})
}

func TestUnfriendAndFriendsAgain(t *testing.T) {
	h := friendly(t)
	p1 := h.publish(john, "one")
	h.drain()
	want(t, "friends", h.home(mary, 5), []string{p1})
	h.account.Part(mary, john)
	want(t, "unfriended", h.home(mary, 5), []string{})
	p2 := h.publish(john, "meanwhile")
	h.drain()
	want(t, "unfriended", h.home(mary, 5), []string{})
	h.account.Befriend(mary, john)
	for range 2 {
		if _, err := h.Timeline.Backfill(t.Context(), &momentsv1.BackfillRequest{ReaderId: mary.String(), AuthorId: john.String()}); err != nil {
			t.Fatal(err)
		}
		want(t, "friends again", h.home(mary, 5), []string{p2, p1})
	}
}

func TestBackfillIsOfFriendsOnlyAndOfFifty(t *testing.T) {
	h := friendly(t)
	var all []string
	for i := range 60 {
		all = append(all, h.publish(stranger, fmt.Sprint("post ", i)))
	}
	h.drain()
	fill := func() uint64 {
		res, err := h.Timeline.Backfill(t.Context(), &momentsv1.BackfillRequest{ReaderId: mary.String(), AuthorId: stranger.String()})
		if err != nil {
			t.Fatal(err)
		}
		return res.GetDeliveries()
	}
	if n := fill(); n != 0 {
		t.Errorf("%d posts of a stranger filled in", n)
	}
	h.account.Befriend(mary, stranger)
	if n := fill(); n != 50 {
		t.Errorf("%d posts of a new friend filled in, want 50", n)
	}
	slices.Reverse(all)
	want(t, "timeline", h.home(mary, 20), all[:50])
}

// TestBackfillWaitsForBothSides: a post made while only one side knows of the
// friendship is not lost between fan-out and back-fill.
func TestBackfillWaitsForBothSides(t *testing.T) {
	h := build(t, houseConfig{})
	h.account.BefriendHalf(mary, john)
	p1 := h.publish(john, "one")
	fill := func() error {
		_, err := h.Timeline.Backfill(t.Context(), &momentsv1.BackfillRequest{ReaderId: mary.String(), AuthorId: john.String()})
		return err
	}
	filled := make(chan error, 1)
	go func() { filled <- fill() }()
	h.drain()
	p2 := h.publish(john, "two")
	h.drain()
	select {
	case err := <-filled:
		filled <- err
		if err == nil {
			t.Fatal("it filled without waiting")
		}
	default:
	}
	h.account.Befriend(mary, john)
	if err := <-filled; err != nil { // it waited long enough, on a slow machine
		if err := fill(); err != nil {
			t.Fatal(err)
		}
	}
	want(t, "timeline", h.home(mary, 5), []string{p2, p1})
}

func TestHiddenFromTimelineOnly(t *testing.T) {
	h := friendly(t)
	p1, p2 := h.publish(john, "one"), h.publish(rose, "two")
	h.drain()
	h.account.Hide(mary, john, true)
	want(t, "hidden", h.home(mary, 5), []string{p2})
	if res := h.head(mary); res.GetPostId() != p2 {
		t.Errorf("red dot shows %v, want %v", res, p2)
	}
	album, err := h.Post.Album(t.Context(), &momentsv1.AlbumRequest{ViewerId: mary.String(), AuthorId: john.String()})
	if err != nil || len(album.GetPosts()) != 1 {
		t.Errorf("album %v, %v; want it readable", album, err)
	}
	h.account.Hide(mary, john, false)
	want(t, "shown again", h.home(mary, 5), []string{p2, p1})
}

func (h *house) head(viewer id.User) *momentsv1.HeadResponse {
	h.t.Helper()
	res, err := h.Timeline.Head(h.t.Context(), &momentsv1.HeadRequest{ViewerId: viewer.String()})
	if err != nil {
		h.t.Fatalf("head: %v", err)
	}
	return res
}

// TestForget: of a reader whose account is deleted nothing stays, and nothing of others
// goes.
func TestForget(t *testing.T) {
	h := friendly(t)
	h.publish(john, "one")
	h.publish(rose, "two")
	h.drain()
	at := h.page(mary, "", 5).GetNewestCursor()
	if _, err := h.Timeline.MarkSeen(t.Context(), &momentsv1.MarkSeenRequest{ViewerId: mary.String(), Cursor: at}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dry  bool
		want uint32
	}{{true, 3}, {false, 3}, {true, 0}, {false, 0}} { // two posts, and how far she has seen
		res, err := h.Timeline.Forget(t.Context(), &momentsv1.ForgetRequest{UserId: mary.String(), DryRun: c.dry})
		if err != nil || res.GetFound() != c.want {
			t.Errorf("dry %v: found %d, %v, want %d", c.dry, res.GetFound(), err, c.want)
		}
	}
	if len(h.index(mary)) != 0 || len(h.index(john)) == 0 {
		t.Errorf("indexes of %v and %v, want hers empty alone", h.index(mary), h.index(john))
	}
}

func TestRedDot(t *testing.T) {
	h := friendly(t)
	see := func(fresh bool, p string, author id.User) {
		t.Helper()
		res := h.head(mary)
		if res.GetFresh() != fresh || res.GetPostId() != p || fresh && res.GetAuthorId() != author.String() {
			t.Errorf("red dot %v, want %v %v", res, fresh, p)
		}
	}
	see(false, "", mary)
	h.publish(mary, "my own")
	h.drain()
	see(false, "", mary)
	p1 := h.publish(john, "one")
	h.drain()
	see(true, p1, john)
	p2 := h.publish(rose, "two")
	h.drain()
	see(true, p2, rose)
	h.account.Part(mary, rose)
	see(true, p1, john)
	old := h.page(mary, "", 5).GetNewestCursor()
	h.account.Befriend(mary, rose)
	mark := func(cursor string) {
		t.Helper()
		if _, err := h.Timeline.MarkSeen(t.Context(), &momentsv1.MarkSeenRequest{ViewerId: mary.String(), Cursor: cursor}); err != nil {
			t.Fatal(err)
		}
	}
	mark(old)
	see(true, p2, rose)
	mark(h.page(mary, "", 5).GetNewestCursor())
	see(false, "", mary)
	mark(old) // another device is behind
	see(false, "", mary)
	p3 := h.publish(john, "three")
	h.drain()
	see(true, p3, john)
	h.remove(john, p3)
	see(false, "", mary)
}

func TestNewer(t *testing.T) {
	h := friendly(t)
	p1 := h.publish(john, "one")
	h.drain()
	at := h.page(mary, "", 5).GetNewestCursor()
	newer := func(cursor string, limit uint32) *momentsv1.NewerResponse {
		t.Helper()
		res, err := h.Timeline.Newer(t.Context(), &momentsv1.NewerRequest{ViewerId: mary.String(), Cursor: cursor, Limit: limit})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	if res := newer(at, 5); len(res.GetItems()) != 0 || res.GetNewestCursor() != at || res.GetMore() {
		t.Errorf("nothing is newer, got %v", res)
	}
	p2, p3, p4 := h.publish(rose, "two"), h.publish(mary, "three"), h.publish(john, "four")
	h.drain()
	res := newer(at, 5)
	want(t, "newer", ids(res.GetItems()), []string{p4, p3, p2})
	if res.GetMore() {
		t.Error("says there is more")
	}
	res = newer(at, 2)
	want(t, "newer, two at most", ids(res.GetItems()), []string{p4, p3})
	if !res.GetMore() {
		t.Error("does not say that there is more")
	}
	want(t, "going on", ids(h.page(mary, res.GetNextCursor(), 5).GetItems()), []string{p2, p1})
	want(t, "without a place", ids(newer("", 9).GetItems()), []string{p4, p3, p2, p1})
}

func ids(items []*momentsv1.TimelineItem) []string {
	out := []string{}
	for _, it := range items {
		out = append(out, it.GetPost().GetId())
	}
	return out
}

func TestPagesAreFilledAfterFiltering(t *testing.T) {
	h := friendly(t)
	var kept []string
	for i := range 400 {
		author := john
		if i%40 == 0 {
			author = rose
		}
		p := h.publish(author, fmt.Sprint(i))
		if author == rose {
			kept = append(kept, p)
		}
	}
	h.drain()
	h.account.Part(mary, john)
	slices.Reverse(kept)
	want(t, "what is left", h.home(mary, 5), kept)
	h.account.Part(mary, rose)
	want(t, "nobody is left", h.home(mary, 5), []string{})
}

func TestCapIsTrimmedAndAlbumsGoOn(t *testing.T) {
	h := build(t, houseConfig{cap: 20})
	h.account.Befriend(mary, john)
	var all []string
	for i := range 300 {
		all = append(all, h.publish(john, fmt.Sprint(i)))
	}
	h.drain()
	slices.Reverse(all)
	stored := h.index(mary)
	if len(stored) < 20 || len(stored) > 200 {
		t.Errorf("index holds %d posts, want 20 and some", len(stored))
	}
	want(t, "index", stored, all[:len(stored)])
	for _, limit := range []int{1, 7, 19, 50, 100} {
		want(t, fmt.Sprintf("timeline by %d", limit), h.home(mary, limit), all)
	}
	newer, err := h.Timeline.Newer(t.Context(), &momentsv1.NewerRequest{ViewerId: mary.String(), Limit: 100, Cursor: h.place(mary, all, 90)})
	if err != nil || len(newer.GetItems()) != 90 || newer.GetItems()[89].GetPost().GetId() != all[89] {
		t.Errorf("newer than the 90th: %d items, %v", len(newer.GetItems()), err)
	}
}

// place gives the cursor of the nth post of a timeline, by paging to it.
func (h *house) place(viewer id.User, all []string, n int) string {
	h.t.Helper()
	for cursor := ""; ; {
		res := h.page(viewer, cursor, 1)
		if res.GetItems()[0].GetPost().GetId() == all[n] {
			return res.GetNewestCursor()
		}
		cursor = res.GetNextCursor()
	}
}

// TestPagesGoOnOverACut: a reader pages on while posts are made and the index is cut
// behind and before him, with a new friend's old posts and own posts among them.
func TestPagesGoOnOverACut(t *testing.T) {
	h := build(t, houseConfig{cap: 10})
	h.account.Befriend(mary, john)
	var old []string
	for i := range 80 {
		author := john
		switch i % 3 {
		case 1:
			author = mary
		case 2:
			author = rose // no friend yet
		}
		old = append(old, h.publish(author, fmt.Sprint(i)))
	}
	h.drain()
	h.account.Befriend(mary, rose)
	if _, err := h.Timeline.Backfill(t.Context(), &momentsv1.BackfillRequest{ReaderId: mary.String(), AuthorId: rose.String()}); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(old)
	want(t, "all", h.home(mary, 9), old)
	var got []string
	for cursor, page := "", 0; ; page++ {
		res := h.page(mary, cursor, 6)
		for _, it := range res.GetItems() {
			got = append(got, it.GetPost().GetId())
		}
		if cursor = res.GetNextCursor(); cursor == "" {
			break
		}
		for range 15 {
			h.publish(john, "meanwhile")
		}
		h.drain()
	}
	want(t, "while posts are made", got, old)
}

func TestThreadsOnThePage(t *testing.T) {
	h := friendly(t)
	p := h.publish(mary, "hello")
	h.comment(john, p, "", "from John")
	h.comment(rose, p, "", "from Rose")
	if _, err := h.Comment.Like(t.Context(), &momentsv1.LikeRequest{UserId: john.String(), PostId: p}); err != nil {
		t.Fatal(err)
	}
	see := func(viewer id.User, comments uint32) {
		t.Helper()
		th := h.page(viewer, "", 5).GetItems()[0].GetThread()
		if th.GetCommentCount() != comments || th.GetLikeCount() != 1 || th.GetLiked() != (viewer == john) {
			t.Errorf("%v sees %v, want %d comments and 1 like", viewer, th, comments)
		}
	}
	see(mary, 2) // own post, from the album
	h.drain()
	see(mary, 2) // from the index
	see(john, 1)
}

func TestBadRequests(t *testing.T) {
	h := friendly(t)
	h.publish(mary, "a")
	h.publish(mary, "b")
	mine := h.page(mary, "", 1).GetNextCursor()
	if mine == "" {
		t.Fatal("no cursor")
	}
	for name, call := range map[string]func() error{
		"viewer": func() error {
			_, err := h.Timeline.Home(t.Context(), &momentsv1.HomeRequest{ViewerId: "x"})
			return err
		},
		"limit": func() error {
			_, err := h.Timeline.Home(t.Context(), &momentsv1.HomeRequest{ViewerId: mary.String(), Limit: 101})
			return err
		},
		"garbage cursor": func() error {
			_, err := h.Timeline.Home(t.Context(), &momentsv1.HomeRequest{ViewerId: mary.String(), Cursor: "garbage"})
			return err
		},
		"foreign cursor": func() error {
			_, err := h.Timeline.Home(t.Context(), &momentsv1.HomeRequest{ViewerId: john.String(), Cursor: mine})
			return err
		},
		"newer's cursor": func() error {
			_, err := h.Timeline.Newer(t.Context(), &momentsv1.NewerRequest{ViewerId: john.String(), Cursor: mine})
			return err
		},
		"seen's cursor": func() error {
			_, err := h.Timeline.MarkSeen(t.Context(), &momentsv1.MarkSeenRequest{ViewerId: mary.String()})
			return err
		},
		"fan-out's post": func() error {
			_, err := h.Timeline.FanOut(t.Context(), &momentsv1.FanOutRequest{Posts: []*momentsv1.FanOutPost{{PostId: "x"}}})
			return err
		},
		"backfill's user": func() error {
			_, err := h.Timeline.Backfill(t.Context(), &momentsv1.BackfillRequest{ReaderId: "x"})
			return err
		},
		"index's place": func() error {
			_, err := h.Timeline.ListIndex(t.Context(), &momentsv1.ListIndexRequest{ReaderId: mary.String(), BeforeId: "x"})
			return err
		},
	} {
		err := call()
		var p momentsv1.Problem
		if rpc.CodeOf(err) != rpc.InvalidArgument || !rpc.Detail(err, &p) || p.GetType() != "invalid" || p.GetField() == "" {
			t.Errorf("%s: %v, %v; want an invalid field", name, err, &p)
		}
	}
}

// TestPagingLaws reads a timeline page by page while posts come and go: no page
// repeats a post, order is strict, and what was there all the time is there.
func TestPagingLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := build(t, houseConfig{cacheSize: rapid.IntRange(1, 50).Draw(t, "cache")})
		authors := []id.User{mary, john, rose}
		h.account.Befriend(mary, john)
		h.account.Befriend(mary, rose)
		alive, owner := map[string]bool{}, map[string]id.User{}
		post := func() {
			a := rapid.SampledFrom(authors).Draw(t, "author")
			p := h.publish(a, "x")
			alive[p], owner[p] = true, a
		}
		remove := func() {
			if all := sorted(alive); len(all) > 0 {
				p := rapid.SampledFrom(all).Draw(t, "victim")
				h.remove(owner[p], p)
				delete(alive, p)
			}
		}
		for range rapid.IntRange(0, 25).Draw(t, "posts") {
			post()
		}
		for range rapid.IntRange(0, 5).Draw(t, "deletes") {
			remove()
		}
		h.drain()
		for range rapid.IntRange(0, 4).Draw(t, "not fanned out") {
			p := h.publish(mary, "own")
			alive[p], owner[p] = true, mary
		}
		want(t, "at rest", h.home(mary, rapid.IntRange(1, 9).Draw(t, "limit")), sorted(alive))

		before := sorted(alive)
		var got []string
		for cursor := ""; ; {
			res := h.page(mary, cursor, rapid.IntRange(1, 5).Draw(t, "page"))
			got = append(got, ids(res.GetItems())...)
			if cursor = res.GetNextCursor(); cursor == "" {
				break
			}
			switch rapid.IntRange(0, 3).Draw(t, "meanwhile") {
			case 0:
				post()
			case 1:
				remove()
			case 2:
				h.drain()
			}
		}
		if !slices.IsSortedFunc(got, func(a, b string) int { return strings.Compare(b, a) }) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Fatalf("pages are not strictly newest first: %v", got)
		}
		for _, p := range before {
			if alive[p] && !slices.Contains(got, p) {
				t.Fatalf("%v was there all the time and is not in %v", p, got)
			}
		}
	})
}

// sorted gives ids newest first.
func sorted(set map[string]bool) []string {
	out := []string{}
	for p := range set {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b string) int { return strings.Compare(b, a) })
	return out
}
