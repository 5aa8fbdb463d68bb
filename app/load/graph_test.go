// SPDX-License-Identifier: Apache-2.0

package load_test

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-rpc/sluice/app/load"
)

func TestReadGraph(t *testing.T) {
	g, err := load.ReadGraph(strings.NewReader("# a comment\n1 0\n\n% another\n 3\t0 \n0 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := [][]int32{{1, 3}, {0}, nil, {0}}
	if len(g.Friends) != len(want) {
		t.Fatalf("people = %d, want %d", len(g.Friends), len(want))
	}
	for i := range want {
		if !slices.Equal(g.Friends[i], want[i]) {
			t.Errorf("friends of %d = %v, want %v", i, g.Friends[i], want[i])
		}
	}
	if g.People() != 4 || g.Directed() != 4 {
		t.Errorf("people, directed = %d, %d; want 4, 4", g.People(), g.Directed())
	}
}

func TestReadGraphRefuses(t *testing.T) {
	crowd := strings.Builder{}
	for i := 1; i <= load.MaxFriends+1; i++ {
		crowd.WriteString("0 " + itoa(i) + "\n")
	}
	for name, tc := range map[string]struct{ in, want string }{
		"empty":            {"", "no edges"},
		"only comments":    {"# nothing\n", "no edges"},
		"one number":       {"0 1\n2\n", "line 2: 1 fields"},
		"three numbers":    {"0 1 2\n", "line 1: 3 fields"},
		"a word":           {"0 1\n\n1 two\n", `line 3: "two" is not a person's number`},
		"negative":         {"0 -1\n", `line 1: "-1" is not`},
		"too large":        {"0 10000000\n", "line 1: person 10000000; numbers must be below"},
		"far too large":    {"0 99999999999999999999999\n", "line 1:"},
		"loop":             {"0 1\n5 5\n", "line 2: person 5 is a friend of themselves"},
		"endless line":     {"0 1\n" + strings.Repeat("7", 10_000), "line 2: longer than"},
		"too many friends": {crowd.String(), "person 0 has 5001 friends"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load.ReadGraph(strings.NewReader(tc.in))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error = %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestGenerate(t *testing.T) {
	a, err := load.Generate(962, 1)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := load.Generate(962, 1)
	if !reflect.DeepEqual(a, again) {
		t.Error("the same seed gave another graph")
	}
	other, _ := load.Generate(962, 2)
	if reflect.DeepEqual(a, other) {
		t.Error("another seed gave the same graph")
	}
	checkMutual(t, a)
	mean, p50, p90, p99, largest := a.Shape()
	t.Logf("mean %.1f p50 %d p90 %d p99 %d max %d", mean, p50, p90, p99, largest)
	if mean < 37 || mean > 40 || p50 < 24 || p50 > 36 || p99 < 110 || largest < 150 {
		t.Errorf("not the wanted shape: mean %.1f p50 %d p90 %d p99 %d max %d", mean, p50, p90, p99, largest)
	}
}

func TestGenerateSmall(t *testing.T) {
	for _, people := range []int{2, 3, 10, 60} {
		g, err := load.Generate(people, 7)
		if err != nil {
			t.Fatal(err)
		}
		checkMutual(t, g)
		if g.People() != people || g.Directed() == 0 {
			t.Errorf("%d people: got %d with %d friendships", people, g.People(), g.Directed())
		}
	}
	if _, err := load.Generate(1, 7); err == nil {
		t.Error("a graph of one person was made")
	}
}

func FuzzReadGraph(f *testing.F) {
	f.Add([]byte("0 1\n1 2\n"))
	f.Add([]byte("# x\n\n10 3\n3 10\n"))
	f.Add([]byte("1 1"))
	f.Add([]byte("0 99999"))
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := load.ReadGraph(bytes.NewReader(data))
		if err != nil {
			return
		}
		checkMutual(t, g)
		var out bytes.Buffer
		if _, err := g.WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		back, err := load.ReadGraph(&out)
		if err != nil {
			t.Fatalf("reading back: %v", err)
		}
		if back.Directed() != g.Directed() || back.People() != g.People() {
			t.Fatalf("read back %d/%d, want %d/%d", back.People(), back.Directed(), g.People(), g.Directed())
		}
	})
}

func checkMutual(t *testing.T, g *load.Graph) {
	t.Helper()
	for a, friends := range g.Friends {
		if !slices.IsSorted(friends) || len(slices.Compact(slices.Clone(friends))) != len(friends) {
			t.Fatalf("friends of %d are not an ascending set: %v", a, friends)
		}
		for _, b := range friends {
			if int(b) == a {
				t.Fatalf("%d is a friend of themselves", a)
			}
			if _, ok := slices.BinarySearch(g.Friends[b], int32(a)); !ok {
				t.Fatalf("%d has friend %d, not the other way round", a, b)
			}
		}
	}
}
