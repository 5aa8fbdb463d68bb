// SPDX-License-Identifier: Apache-2.0

package homes_test

import (
	"context"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// person gives somebody whose id names a region.
func person(region id.Region) (u id.User) {
	u[0], u[7] = 1, byte(region)
	u[6] = byte(region >> 8)
	if u.Region() != region {
		panic("the layout of ids has changed")
	}
	return u
}

// TestOneHome: whatever is ordered where, and however late regions hear of it, no two of
// them ever take somebody's writes, and in the end one does.
func TestOneHome(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u, all := person(1), []id.Region{1, 2, 3}
		tables := map[id.Region]*homes.Table{}
		for _, r := range all {
			tables[r] = new(homes.Table)
		}
		var said []homes.Home // in the order of their making
		heard := map[id.Region]int{}
		say := func(r id.Region, h homes.Home, err error) {
			if err == nil && tables[r].Learn(h) {
				said = append(said, h)
			}
		}
		look := func() {
			var takes []id.Region
			for _, r := range all {
				if tables[r].Of(u).Takes(r) {
					takes = append(takes, r)
				}
			}
			if len(takes) > 1 {
				t.Fatalf("regions %v all take writes", takes)
			}
		}
		act := func(r id.Region, what int) {
			h := tables[r].Of(u)
			switch {
			case what == 0 && heard[r] < len(said): // it comes in order, or something is lost on the way and comes again later
				tables[r].Learn(said[heard[r]])
				heard[r]++
			case what == 1 && h.Next == r:
				say(r, h.Decide(), nil)
			case what == 2:
				next, err := h.CallBack(r)
				say(r, next, err)
			case what >= 3:
				next, err := h.Fence(r, all[what-3])
				say(r, next, err)
			}
			look()
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			act(rapid.SampledFrom(all).Draw(t, "region"), rapid.IntRange(0, 5).Draw(t, "what"))
		}
		for range 3 { // all hear all, and what is under way is decided
			for _, r := range all {
				for heard[r] < len(said) {
					act(r, 0)
				}
				act(r, 1)
			}
		}
		for _, r := range all {
			for heard[r] < len(said) {
				act(r, 0)
			}
			if h := tables[r].Of(u); h != tables[1].Of(u) || h.Next != 0 {
				t.Fatalf("region %d knows %+v, region 1 %+v", r, h, tables[1].Of(u))
			}
		}
	})
}

// TestOrders: what makes no sense is refused, and what is done already changes nothing.
func TestOrders(t *testing.T) {
	u := person(1)
	fenced, err := homes.Of(u).Fence(1, 2)
	if err != nil || fenced != (homes.Home{User: u, Epoch: 1, Region: 1, Next: 2}) {
		t.Fatalf("fenced: %+v, %v", fenced, err)
	}
	back, err := fenced.CallBack(1)
	if err != nil || back.Epoch != 2 || !back.Back {
		t.Fatalf("called back: %+v, %v", back, err)
	}
	for _, tt := range []struct {
		name string
		do   func() (homes.Home, error)
		want homes.Home
		err  error
	}{
		{"again", func() (homes.Home, error) { return fenced.Fence(1, 2) }, fenced, nil},
		{"elsewhere meanwhile", func() (homes.Home, error) { return fenced.Fence(1, 3) }, fenced, homes.ErrMove},
		{"by a region that is not home", func() (homes.Home, error) { return homes.Of(u).Fence(2, 3) }, homes.Of(u), homes.ErrMove},
		{"to where he is", func() (homes.Home, error) { return homes.Of(u).Fence(1, 1) }, homes.Of(u), nil},
		{"back by another region", func() (homes.Home, error) { return fenced.CallBack(3) }, fenced, homes.ErrMove},
		{"back twice", func() (homes.Home, error) { return back.CallBack(1) }, back, nil},
		{"taken", func() (homes.Home, error) { return fenced.Decide(), nil }, homes.Home{User: u, Epoch: 3, Region: 2}, nil},
		{"given back", func() (homes.Home, error) { return back.Decide(), nil }, homes.Home{User: u, Epoch: 3, Region: 1}, nil},
		{"moved on", func() (homes.Home, error) { return fenced.Decide().Fence(2, 3) }, homes.Home{User: u, Epoch: 4, Region: 2, Next: 3}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := tt.do(); got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %+v, %v, want %+v, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

// TestBook: what is kept is found by the next start, and what was only announced is not
// taken for something.
func TestBook(t *testing.T) {
	store := memkv.New()
	t.Cleanup(func() { _ = store.Close() })
	b, err := homes.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	moved, announced := homes.Home{User: person(1), Epoch: 1, Region: 1, Next: 2}, person(3)
	for _, u := range []id.User{moved.User, announced} {
		if err := b.Prepare(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	rows := new(kv.Batch).Put(homes.Key(moved.User), moved.Encode()).Put(homes.WholeKey(moved.User), homes.WholeValue(1))
	if _, err := store.Apply(t.Context(), kv.SlotOf(moved.User[:]), rows); err != nil {
		t.Fatal(err)
	}
	if b, err = homes.Open(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	if b.Len() != 1 || b.Of(moved.User) != moved || b.Of(announced) != homes.Of(announced) || !b.Whole(moved) || len(b.Moving()) != 1 {
		t.Errorf("after a start: %v, all of him is here: %v", b.All(), b.Whole(moved))
	}
	if again := (homes.Home{User: moved.User, Epoch: 4, Region: 1, Next: 2}); b.Whole(again) {
		t.Error("all of him is here though he has been away since")
	}
}

type source struct{ homes []*momentsv1.UserHome }

func (s *source) ListHomes(context.Context, *momentsv1.ListHomesRequest) (*momentsv1.ListHomesResponse, error) {
	return &momentsv1.ListHomesResponse{Homes: s.homes}, nil
}

// TestRefresh: other processes learn what the account service knows, and nothing older.
func TestRefresh(t *testing.T) {
	h := homes.Home{User: person(1), Epoch: 3, Region: 2}
	said := new(source)
	table := homes.NewTable(said)
	for _, known := range []homes.Home{h, {User: h.User, Epoch: 1, Region: 1, Next: 2}} {
		said.homes = []*momentsv1.UserHome{known.Show()}
		if err := table.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := table.Of(h.User); got != h {
			t.Errorf("knows %+v, want %+v", got, h)
		}
	}
	said.homes = []*momentsv1.UserHome{{UserId: h.User.String()}}
	if err := table.Refresh(t.Context()); err == nil {
		t.Error("nonsense is believed")
	}
	if e, ok := errors.AsType[*rpc.Error](homes.ErrMoving()); !ok || e.Retry != homes.Retry || rpc.CodeOf(e) != rpc.Unavailable {
		t.Errorf("who is being moved is told %+v", e)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(homes.Home{User: person(1), Epoch: 1, Region: 1, Next: 2}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := homes.Parse(b)
		if err == nil && string(h.Encode()) != string(b) {
			t.Errorf("%x is read as %+v", b, h)
		}
	})
}
