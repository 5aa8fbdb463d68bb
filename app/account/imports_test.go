// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"fmt"
	"testing"

	"github.com/sluice-rpc/sluice/app/account"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

func (w *world) imports(user string, others ...string) (int, error) {
	res, err := w.ImportFriends(w.t.Context(), &momentsv1.ImportFriendsRequest{UserId: user, OtherIds: others})
	return int(res.GetImported()), err
}

func (w *world) mustImport(want int, user string, others ...string) {
	w.t.Helper()
	if n, err := w.imports(user, others...); err != nil || n != want {
		w.t.Fatalf("%d imported, %v; want %d", n, err, want)
	}
}

// TestImportFriends: what was imported on both sides is a friendship like any other, and
// what there was before stays.
func TestImportFriends(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, c, d := w.register("anna"), w.register("bert"), w.register("carl"), w.register("dora")
	w.must("block", a, d)
	w.must("request", b, c)

	w.mustImport(2, a, b, c, b, d) // twice is once, and whom she blocks is no friend
	w.mustImport(0, a, b, c, d)
	w.mustImport(1, b, a, c) // c's answer is still waited for
	w.mustImport(1, c, a, b)
	if !w.areFriends(a, b) || !w.areFriends(a, c) || w.areFriends(b, c) || w.areFriends(a, d) {
		t.Error("those imported and no others should be friends")
	}
	if got := w.requests(c); len(got) != 1 || got[0] != b {
		t.Errorf("requests of %v wait, want that of b", got)
	}

	if got := w.must("request", a, b); got != friends {
		t.Errorf("asking a friend gives %v", got)
	}
	w.must("unfriend", b, a)
	if w.areFriends(a, b) {
		t.Error("they are friends after unfriending")
	}
	w.mustImport(0, a, b)
	w.mustImport(0, b, a)
	if w.areFriends(a, b) {
		t.Error("an import repeated undoes an unfriending")
	}
	w.must("request", a, b)
	w.must("accept", b, a)
	if !w.areFriends(a, b) {
		t.Error("they cannot be friends again")
	}
}

// TestImportFriendsOfRegions: what fills a batch leaves room for the record of it.
func TestImportFriendsOfRegions(t *testing.T) {
	t.Parallel()
	s := newStrait(t)
	anna := s.a.register("anna")
	all := make([]string, 60)
	for i := range all {
		all[i] = s.a.register(fmt.Sprintf("friend%d", i))
	}
	s.a.mustImport(len(all), anna, all...)
	s.a.mustImport(1, all[0], anna)
	s.carry()
	if !s.b.areFriends(anna, all[0]) {
		t.Error("the other region does not know an imported friendship")
	}
}

func TestImportFriendsErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *account.Config) { c.MaxFriends = 60 })
	const stranger = "00000000000000000000000007"
	a := w.register("anna")
	all := make([]string, 61)
	for i := range all {
		all[i] = w.register(fmt.Sprintf("friend%d", i))
	}
	for _, c := range []struct {
		name   string
		user   string
		others []string
		code   rpc.Code
		kind   string
	}{
		{"no id", "x", nil, rpc.InvalidArgument, "invalid"},
		{"nobody's id", stranger, all[:1], rpc.NotFound, "not-found"},
		{"an other who is none", a, []string{all[0], stranger}, rpc.NotFound, "not-found"},
		{"an other of no form", a, []string{"x"}, rpc.InvalidArgument, "invalid"},
		{"himself", a, []string{a}, rpc.InvalidArgument, "invalid"},
		{"too many for a call", a, make([]string, 501), rpc.InvalidArgument, "invalid"},
		{"more than one may have", a, all, rpc.FailedPrecondition, "limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := w.imports(c.user, c.others...)
			wantProblem(t, err, c.code, c.kind)
		})
	}
	// Part by part: what went in before the limit was met stays, and repeating goes on.
	if _, err := w.imports(a, all[:60]...); err != nil {
		t.Fatal(err)
	}
	res, err := w.ListFriends(t.Context(), &momentsv1.ListFriendsRequest{UserId: a})
	if err != nil || len(res.GetUserIds()) != 60 {
		t.Errorf("%d friends, %v; want 60", len(res.GetUserIds()), err)
	}
}
