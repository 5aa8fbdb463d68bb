// SPDX-License-Identifier: Apache-2.0

package causal_test

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
)

// states is what two registries must agree on.
func states(g *causal.Registry) map[id.Region]causal.Membership {
	all := make(map[id.Region]causal.Membership)
	for _, m := range g.Members() {
		all[m.Number] = m.State
	}
	return all
}

// drawRegistry makes a registry by changes as operators make them.
func drawRegistry(t *rapid.T, name string) *causal.Registry {
	g, err := causal.NewRegistry(1, 2)
	if err != nil {
		t.Fatal(err)
	}
	for range rapid.IntRange(0, 8).Draw(t, name) {
		n := id.Region(rapid.IntRange(1, 6).Draw(t, "number"))
		next, err := g.Join(n)
		if err != nil {
			next, err = g.End(n, causal.Membership(rapid.IntRange(1, 2).Draw(t, "state")))
		}
		if err == nil {
			g = next
		}
	}
	return g
}

// TestRegistryUnion: what regions have decided apart from each other comes to the same
// in whatever order they hear of it, and nobody comes back.
func TestRegistryUnion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawRegistry(t, "a"), drawRegistry(t, "b"), drawRegistry(t, "c")
		ab := a.Union(b)
		if got, want := states(ab.Union(c)), states(c.Union(b).Union(a)); !reflect.DeepEqual(got, want) {
			t.Fatalf("a, b, c make %v, and c, b, a %v", got, want)
		}
		if again := ab.Union(b); again != ab {
			t.Fatalf("hearing of %v twice makes %v of %v", states(b), states(again), states(ab))
		}
		for _, g := range []*causal.Registry{a, b} {
			for n, state := range states(g) {
				if states(ab)[n] < state {
					t.Fatalf("region %d is %v, and was %v", n, states(ab)[n], state)
				}
			}
		}
		if ab != a && ab.Epoch() <= max(a.Epoch(), b.Epoch()) {
			t.Fatalf("epoch %d after %d and %d", ab.Epoch(), a.Epoch(), b.Epoch())
		}
		back, err := causal.ParseRegistry(ab.Encode())
		if err != nil || !reflect.DeepEqual(back, ab) {
			t.Fatalf("%v is read as %v, %v", states(ab), back, err)
		}
	})
}

func FuzzParseRegistry(f *testing.F) {
	g, _ := causal.NewRegistry(1, 2, 300)
	g, _ = g.End(2, causal.Lost)
	f.Add(g.Encode())
	f.Add([]byte{1, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := causal.ParseRegistry(b)
		if err == nil && string(got.Encode()) != string(b) {
			t.Errorf("%x is read, and written as %x", b, got.Encode())
		}
	})
}
