// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// relation gives how viewer stands to author, and checks that who has kept the answers
// of the version before is told of every change.
func (w *world) relation(viewer, author string, strangers bool) (*momentsv1.Relation, uint64) {
	w.t.Helper()
	res, err := w.Relations(w.t.Context(), &momentsv1.RelationsRequest{ViewerId: viewer, AuthorIds: []string{author}, Strangers: strangers})
	if err != nil {
		w.t.Fatal(err)
	}
	return res.GetRelations()[0], res.GetVersion()
}

func (w *world) choose(user, other string, change func(*momentsv1.UpdateFriendSettingsRequest)) {
	w.t.Helper()
	req := &momentsv1.UpdateFriendSettingsRequest{UserId: user, OtherId: other}
	change(req)
	if _, err := w.UpdateFriendSettings(w.t.Context(), req); err != nil {
		w.t.Fatal(err)
	}
}

func TestFriendSettingsReachBothSides(t *testing.T) {
	w := newWorld(t)
	a, b := w.register("aa"), w.register("bb")
	w.must("request", a, b)
	w.must("accept", b, a)
	for _, c := range []struct {
		name       string
		change     func(*momentsv1.UpdateFriendSettingsRequest)
		aOfB, bOfA string // h: the author hides; v: the viewer does; o: off
	}{
		{"hide mine", func(r *momentsv1.UpdateFriendSettingsRequest) { r.HideMine = proto.Bool(true) }, "", "h"},
		{"and hide theirs", func(r *momentsv1.UpdateFriendSettingsRequest) { r.HideTheirs = proto.Bool(true) }, "v", "h"},
		{"and chat-only", func(r *momentsv1.UpdateFriendSettingsRequest) { r.ChatOnly = proto.Bool(true) }, "vo", "ho"},
		{"nothing is said", func(*momentsv1.UpdateFriendSettingsRequest) {}, "vo", "ho"},
		{"hide mine is taken back", func(r *momentsv1.UpdateFriendSettingsRequest) { r.HideMine = proto.Bool(false) }, "vo", "o"},
		{"all is taken back", func(r *momentsv1.UpdateFriendSettingsRequest) {
			r.HideTheirs, r.ChatOnly = proto.Bool(false), proto.Bool(false)
		}, "", ""},
	} {
		_, versionA := w.relation(a, b, false)
		_, versionB := w.relation(b, a, false)
		was := [2]string{w.letters(a, b), w.letters(b, a)}
		w.choose(a, b, c.change)
		if got := w.letters(a, b); got != c.aOfB {
			t.Errorf("%s: a of b %q, want %q", c.name, got, c.aOfB)
		}
		if got := w.letters(b, a); got != c.bOfA {
			t.Errorf("%s: b of a %q, want %q", c.name, got, c.bOfA)
		}
		_, newA := w.relation(a, b, false)
		_, newB := w.relation(b, a, false)
		if (was[0] != c.aOfB) != (newA != versionA) || (was[1] != c.bOfA) != (newB != versionB) {
			t.Errorf("%s: versions %d to %d and %d to %d do not follow the changes", c.name, versionA, newA, versionB, newB)
		}
	}
}

// letters gives a relation in short: h, v and o as above.
func (w *world) letters(viewer, author string) (s string) {
	w.t.Helper()
	r, _ := w.relation(viewer, author, false)
	for _, f := range []struct {
		on     bool
		letter string
	}{{r.GetAuthorHides(), "h"}, {r.GetViewerHides(), "v"}, {r.GetOff(), "o"}} {
		if f.on {
			s += f.letter
		}
	}
	return s
}

func TestFriendSettingsStay(t *testing.T) {
	w := newWorld(t)
	a, b := w.register("aa"), w.register("bb")
	w.choose(a, b, func(r *momentsv1.UpdateFriendSettingsRequest) { r.HideMine = proto.Bool(true) }) // strangers so far
	if r, _ := w.relation(b, a, false); r.GetAuthorHides() {
		t.Error("told of a stranger without being asked")
	}
	if r, _ := w.relation(b, a, true); !r.GetAuthorHides() {
		t.Error("not told of a stranger")
	}
	w.must("request", a, b)
	w.must("accept", b, a)
	if got := w.letters(b, a); got != "h" {
		t.Errorf("as friends: %q", got)
	}
	w.must("unfriend", b, a)
	w.must("request", b, a)
	w.must("accept", a, b)
	if got := w.letters(b, a); got != "h" {
		t.Errorf("as friends again: %q", got)
	}
	w.must("block", a, b)
	if r, _ := w.relation(b, a, true); !r.GetOff() || r.GetFriends() {
		t.Errorf("blocked: %v", r)
	}
	if r, _ := w.relation(a, b, true); !r.GetOff() {
		t.Errorf("who blocks: %v", r)
	}
	list, err := w.ListFriendSettings(t.Context(), &momentsv1.ListFriendSettingsRequest{UserId: a})
	if err != nil || len(list.GetSettings()) != 1 || !list.GetSettings()[0].GetBlocked() || !list.GetSettings()[0].GetHideMine() {
		t.Errorf("list %v, %v", list, err)
	}
	w.must("unblock", a, b)
	w.choose(a, b, func(r *momentsv1.UpdateFriendSettingsRequest) { r.HideMine = proto.Bool(false) })
	if list, err = w.ListFriendSettings(t.Context(), &momentsv1.ListFriendSettingsRequest{UserId: a}); err != nil || len(list.GetSettings()) != 0 {
		t.Errorf("list %v, %v; want nobody", list, err)
	}
	if r, _ := w.relation(b, a, true); r.GetOff() || r.GetAuthorHides() {
		t.Errorf("all taken back: %v", r)
	}
}

func window(wd momentsv1.AlbumWindow) *momentsv1.AlbumWindow { return &wd }

// TestSettingsSpread: a friend who has kept the old window has to ask again at once,
// whatever fails on the way, and a start of the service finishes what a crash cut off.
func TestSettingsSpread(t *testing.T) {
	for _, fault := range []memkv.Fault{memkv.None, memkv.Unavailable, memkv.UnknownLost, memkv.UnknownApplied} {
		for at := range 5 {
			t.Run(fmt.Sprintf("fault %d at write %d", fault, at), func(t *testing.T) {
				w := newWorld(t)
				author := w.register("author")
				var friends []string
				for i := range 3 {
					f := w.register(fmt.Sprintf("friend%d", i))
					w.must("request", author, f)
					w.must("accept", f, author)
					friends = append(friends, f)
				}
				versions := map[string]uint64{}
				for _, f := range friends {
					_, versions[f] = w.relation(f, author, false)
				}
				var mu sync.Mutex
				writes := 0
				w.store.SetFaults(func(c memkv.Call) memkv.Fault {
					mu.Lock()
					defer mu.Unlock()
					if c.Method == memkv.Apply {
						if writes++; writes == at+1 {
							return fault
						}
					}
					return memkv.None
				})
				req := &momentsv1.UpdateSettingsRequest{
					UserId: author, AlbumWindow: window(momentsv1.AlbumWindow_ALBUM_WINDOW_MONTH), OpenToStrangers: proto.Bool(true), IdempotencyKey: "k",
				}
				_, err := w.UpdateSettings(t.Context(), req)
				w.store.SetFaults(nil)
				if err != nil {
					w = restarted(t, w)
					if _, err := w.UpdateSettings(t.Context(), req); err != nil {
						t.Fatalf("repeat: %v", err)
					}
				}
				for _, f := range friends {
					r, version := w.relation(f, author, false)
					if r.GetAlbumWindow() != momentsv1.AlbumWindow_ALBUM_WINDOW_MONTH || r.GetOpenToStrangers() {
						t.Errorf("a friend is told %v", r)
					}
					if version == versions[f] {
						t.Error("a friend who has kept the old window does not notice")
					}
				}
				stranger := w.register("stranger")
				if r, _ := w.relation(stranger, author, true); !r.GetOpenToStrangers() || r.GetAlbumWindow() != momentsv1.AlbumWindow_ALBUM_WINDOW_MONTH {
					t.Errorf("a stranger is told %v", r)
				}
				if n := rows(t, w.store, "w"); n != 0 {
					t.Errorf("%d marks are left", n)
				}
			})
		}
	}
}

func TestSettingsErrors(t *testing.T) {
	w := newWorld(t)
	a := w.register("aa")
	_, err := w.UpdateSettings(t.Context(), &momentsv1.UpdateSettingsRequest{UserId: a, AlbumWindow: window(99)})
	wantProblem(t, err, rpc.InvalidArgument, "invalid")
	_, err = w.UpdateFriendSettings(t.Context(), &momentsv1.UpdateFriendSettingsRequest{UserId: a, OtherId: a})
	wantProblem(t, err, rpc.InvalidArgument, "invalid")
	b := w.register("bb")
	req := &momentsv1.UpdateFriendSettingsRequest{UserId: a, OtherId: b, ChatOnly: proto.Bool(true), IdempotencyKey: "k"}
	for range 2 {
		if _, err := w.UpdateFriendSettings(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	req.ChatOnly = proto.Bool(false)
	_, err = w.UpdateFriendSettings(t.Context(), req)
	wantProblem(t, err, rpc.FailedPrecondition, "idempotency-conflict")
}

func TestTags(t *testing.T) {
	w := newWorld(t)
	a, b, c, d := w.register("aa"), w.register("bb"), w.register("cc"), w.register("dd")
	ctx := t.Context()
	create := func(name, key string, users ...string) (*momentsv1.Tag, error) {
		res, err := w.CreateTag(ctx, &momentsv1.CreateTagRequest{UserId: a, Name: name, UserIds: users, IdempotencyKey: key})
		return res.GetTag(), err
	}
	family, err := create(" family ", "k", c, b, b)
	if err != nil || family.GetName() != "family" || family.GetPeople() != 2 {
		t.Fatalf("tag %v, %v", family, err)
	}
	if again, err := create(" family ", "k", c, b, b); err != nil || again.GetTagId() != family.GetTagId() {
		t.Errorf("the same key: %v, %v", again, err)
	}
	_, err = create("other", "k")
	wantProblem(t, err, rpc.FailedPrecondition, "idempotency-conflict")
	_, err = create("Ｆａｍｉｌｙ", "")
	wantProblem(t, err, rpc.AlreadyExists, "name-taken")
	work, err := create("work", "", d)
	if err != nil {
		t.Fatal(err)
	}
	resolve := func(tags ...string) []string {
		t.Helper()
		res, err := w.ResolveTags(ctx, &momentsv1.ResolveTagsRequest{UserId: a, TagIds: tags})
		if err != nil {
			t.Fatal(err)
		}
		return res.GetUserIds()
	}
	want := func(what string, got []string, users ...string) {
		t.Helper()
		slices.Sort(users)
		if !slices.Equal(got, users) {
			t.Errorf("%s: %v, want %v", what, got, users)
		}
	}
	want("one tag", resolve(family.GetTagId()), b, c)
	want("two tags", resolve(work.GetTagId(), family.GetTagId(), work.GetTagId()), b, c, d)
	update := &momentsv1.UpdateTagRequest{
		UserId: a, TagId: family.GetTagId(), Name: proto.String("kin"), AddIds: []string{d, b}, RemoveIds: []string{c}, IdempotencyKey: "u",
	}
	for range 2 {
		res, err := w.UpdateTag(ctx, update)
		if err != nil || res.GetTag().GetName() != "kin" || res.GetTag().GetPeople() != 2 {
			t.Fatalf("update: %v, %v", res, err)
		}
	}
	want("changed", resolve(family.GetTagId()), b, d)
	_, err = w.UpdateTag(ctx, &momentsv1.UpdateTagRequest{UserId: a, TagId: family.GetTagId(), Name: proto.String("WORK")})
	wantProblem(t, err, rpc.AlreadyExists, "name-taken")
	if _, err = w.UpdateTag(ctx, &momentsv1.UpdateTagRequest{UserId: a, TagId: family.GetTagId(), Name: proto.String("KIN")}); err != nil {
		t.Errorf("another spelling of the own name: %v", err)
	}
	// Tags are their owner's alone.
	_, err = w.GetTag(ctx, &momentsv1.GetTagRequest{UserId: b, TagId: family.GetTagId()})
	wantProblem(t, err, rpc.NotFound, "not-found")
	_, err = w.ResolveTags(ctx, &momentsv1.ResolveTagsRequest{UserId: b, TagIds: []string{family.GetTagId()}})
	wantProblem(t, err, rpc.NotFound, "not-found")
	list, err := w.ListTags(ctx, &momentsv1.ListTagsRequest{UserId: a})
	if err != nil || len(list.GetTags()) != 2 || list.GetTags()[0].GetName() != "KIN" || len(list.GetTags()[0].GetUserIds()) != 0 {
		t.Errorf("list %v, %v", list, err)
	}
	for range 2 {
		if _, err := w.DeleteTag(ctx, &momentsv1.DeleteTagRequest{UserId: a, TagId: family.GetTagId()}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = w.GetTag(ctx, &momentsv1.GetTagRequest{UserId: a, TagId: family.GetTagId()})
	wantProblem(t, err, rpc.NotFound, "not-found")
	for i := range 99 {
		if _, err := create(fmt.Sprint("tag ", i), ""); err != nil {
			t.Fatal(err)
		}
	}
	_, err = create("one too many", "")
	wantProblem(t, err, rpc.FailedPrecondition, "limit")
}

// TestTagNamesAreUnique: of many who make the same tag at once one does.
func TestTagNamesAreUnique(t *testing.T) {
	w := newWorld(t)
	a := w.register("aa")
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for range 8 {
		wg.Go(func() {
			if _, err := w.CreateTag(t.Context(), &momentsv1.CreateTagRequest{UserId: a, Name: "family"}); err == nil {
				mu.Lock()
				defer mu.Unlock()
				made++
			}
		})
	}
	wg.Wait()
	if made != 1 {
		t.Errorf("%d tags of one name", made)
	}
}
