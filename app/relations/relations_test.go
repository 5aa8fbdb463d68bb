// SPDX-License-Identifier: Apache-2.0

package relations_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/relations"
	"github.com/sluice-rpc/sluice/app/relations/relationstest"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

func user(n int) id.User { return id.User{14: byte(n >> 8), 15: byte(n)} }

// TestNeverOld changes friendships at random and asks through small caches: every
// answer must be as things stand.
func TestNeverOld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var account relationstest.Account
		c := relations.NewCache(&account, rapid.IntRange(1, 40).Draw(t, "cache"))
		const people = 12
		someone := rapid.IntRange(1, people)
		for range 60 {
			x, y := user(someone.Draw(t, "x")), user(someone.Draw(t, "y"))
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				if x != y {
					account.Befriend(x, y)
				}
			case 1:
				account.Part(x, y)
			default:
				var others []id.User
				for _, n := range rapid.SliceOfN(rapid.IntRange(0, people), 0, 10).Draw(t, "others") {
					others = append(others, user(n))
				}
				set, err := c.Get(t.Context(), x, others)
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range others {
					got := set.Of(o)
					if got.Self != (o == x) || !got.Self && got.Friends != account.Friends(x, o) {
						t.Fatalf("%v of %v: %+v, friends %v", x, o, got, account.Friends(x, o))
					}
				}
			}
		}
	})
}

// TestManyAuthors: more than one call may ask for are asked for in several.
func TestManyAuthors(t *testing.T) {
	var account relationstest.Account
	me := user(5000)
	var others []id.User
	for n := range 2500 {
		others = append(others, user(n))
		if n%2 == 1 {
			account.Befriend(me, user(n))
		}
	}
	c := relations.NewCache(&account, 10_000)
	for range 2 {
		set, err := c.Get(t.Context(), me, others)
		if err != nil {
			t.Fatal(err)
		}
		for n, o := range others {
			if set.Of(o).Friends != (n%2 == 1) {
				t.Fatalf("friend %d: %+v", n, set.Of(o))
			}
		}
	}
	if n := account.Calls.Load(); n != 4 {
		t.Errorf("%d calls, want 3 to learn and 1 to confirm", n)
	}
}

// TestFriendsNeverOld changes friendships at random and asks who somebody's friends are,
// with the version that was just found or without one, in a small cache.
func TestFriendsNeverOld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var account relationstest.Account
		c := relations.NewFriends(&account, rapid.IntRange(1, 40).Draw(t, "cache"))
		const people = 40
		someone := rapid.IntRange(1, people)
		for range 100 {
			x, y := user(someone.Draw(t, "x")), user(someone.Draw(t, "y"))
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				if x != y {
					account.Befriend(x, y)
				}
			case 2:
				account.Part(x, y)
			default:
				version := uint64(0)
				if rapid.Bool().Draw(t, "version known") {
					res, err := account.Relations(t.Context(), &momentsv1.RelationsRequest{ViewerId: x.String(), AuthorIds: []string{y.String()}})
					if err != nil {
						t.Fatal(err)
					}
					version = res.GetVersion()
				}
				set, err := c.At(t.Context(), x, version)
				if err != nil {
					t.Fatal(err)
				}
				friends := 0
				for n := range people + 1 {
					o := user(n)
					want := account.Friends(x, o)
					if got := set.Of(o); got.Self != (o == x) || !got.Self && got.Friends != want {
						t.Fatalf("%v of %v: %+v, friends %v", x, o, got, want)
					}
					if want {
						friends++
					}
				}
				if n := len(set.Friends()); n != friends {
					t.Fatalf("%d friends, want %d", n, friends)
				}
			}
		}
	})
}
