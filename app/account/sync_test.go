// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/account"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/idcqueue/queuetest"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// place is one region.
type place struct {
	*world
	number  id.Region
	cfg     account.Config
	service *account.Service
}

func found(t *testing.T, number, peer id.Region, change ...func(*account.Config)) *place {
	t.Helper()
	store := memkv.New()
	t.Cleanup(func() { _ = store.Close() })
	cfg := config(store)
	cfg.Region, cfg.Peers = number, []id.Region{peer}
	for _, c := range change {
		c(&cfg)
	}
	svc, err := account.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &place{world: serve(t, store, svc), number: number, cfg: cfg, service: svc}
}

func (p *place) end() queuetest.End {
	return queuetest.End{Region: p.number, Store: p.store, Box: p.service.Outbox(), Side: p.service.Side()}
}

// strait is two regions and the lines between them.
type strait struct {
	t           *testing.T
	a, b        *place
	there, back *queuetest.Line
}

func newStrait(t *testing.T, change ...func(*account.Config)) *strait {
	t.Helper()
	s := &strait{t: t, a: found(t, 1, 2, change...), b: found(t, 2, 1, change...)}
	s.there = &queuetest.Line{From: s.a.end(), To: s.b.end()}
	s.back = &queuetest.Line{From: s.b.end(), To: s.a.end()}
	return s
}

// carry carries everything, and what follows from it, until nothing more does.
func (s *strait) carry() {
	s.t.Helper()
	for n := 1; n > 0; {
		n = s.there.Carry(s.t) + s.back.Carry(s.t)
		s.hear()
	}
}

func (s *strait) hear() {
	s.t.Helper()
	for _, p := range []*place{s.a, s.b} {
		if err := p.service.Hear(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
	}
}

// copies compares what the second of two regions has of the first one's users.
func copies(t *testing.T, when string, of, in *place) {
	t.Helper()
	rows := func(p *place) map[string]string {
		all := queuetest.Rows(t, p.store, "aefsu")
		maps.DeleteFunc(all, func(key, _ string) bool { return key[8] != byte(of.number) })
		for key := range all {
			if key[0] == 'u' { // the home has the password, too
				all[key] = ""
			}
		}
		return all
	}
	home, there := rows(of), rows(in)
	for key, value := range home {
		if got, ok := there[key]; !ok || got != value {
			t.Errorf("%s: row %x is %x at home, %x in region %d (there: %v)", when, key, value, got, in.number, ok)
		}
	}
	for key := range there {
		if _, ok := home[key]; !ok {
			t.Errorf("%s: row %x is in region %d and not at home", when, key, in.number)
		}
	}
	for key := range queuetest.Rows(t, of.store, "u") {
		if key[8] != byte(of.number) {
			continue
		}
		u := id.User([]byte(key[1:])).String()
		if x, y := of.version(u), in.version(u); x != y {
			t.Errorf("%s: %s is at version %d at home, %d in region %d", when, u, x, y, in.number)
		}
	}
}

func (p *place) version(u string) uint64 {
	p.t.Helper()
	res, err := p.Relations(p.t.Context(), &momentsv1.RelationsRequest{ViewerId: u})
	if err != nil {
		p.t.Fatal(err)
	}
	return res.GetHomeVersion()
}

// friends reports how two people stand, as a region tells it of the first one's side.
func (p *place) friends(u, other string) bool {
	p.t.Helper()
	res, err := p.Relations(p.t.Context(), &momentsv1.RelationsRequest{ViewerId: u, AuthorIds: []string{other}})
	if err != nil {
		p.t.Fatal(err)
	}
	return res.GetRelations()[0].GetFriends()
}

func (s *strait) befriend(mary, kate string) {
	s.t.Helper()
	if _, err := s.a.RequestFriend(s.t.Context(), &momentsv1.RequestFriendRequest{UserId: mary, OtherId: kate}); err != nil {
		s.t.Fatal(err)
	}
	s.carry()
	if _, err := s.b.AcceptFriend(s.t.Context(), &momentsv1.AcceptFriendRequest{UserId: kate, OtherId: mary}); err != nil {
		s.t.Fatal(err)
	}
}

// TestFriendsAcrossRegions: a friendship is made, ended and made again by two people who
// are at home in two regions, and both regions know both sides.
func TestFriendsAcrossRegions(t *testing.T) {
	s := newStrait(t)
	s.there.Twice, s.back.Twice = true, true
	mary, kate := s.a.register("Mary"), s.b.register("Kate")
	s.carry()
	know := func(when string, want bool) {
		t.Helper()
		for _, p := range []*place{s.a, s.b} {
			for _, pair := range [][2]string{{mary, kate}, {kate, mary}} {
				if got := p.friends(pair[0], pair[1]); got != want {
					t.Errorf("%s: region %d says of one side friends %v, want %v", when, p.number, got, want)
				}
			}
		}
		copies(t, when, s.a, s.b)
		copies(t, when, s.b, s.a)
	}
	know("strangers", false)
	if _, err := s.a.RequestFriend(t.Context(), &momentsv1.RequestFriendRequest{UserId: mary, OtherId: kate}); err != nil {
		t.Fatal(err)
	}
	waiting, err := s.b.ListFriendRequests(t.Context(), &momentsv1.ListFriendRequestsRequest{UserId: kate})
	if err != nil || len(waiting.GetRequests()) != 0 {
		t.Errorf("before the line has brought it: %v, %v", waiting, err)
	}
	s.carry()
	waiting, err = s.b.ListFriendRequests(t.Context(), &momentsv1.ListFriendRequestsRequest{UserId: kate})
	if err != nil || len(waiting.GetRequests()) != 1 || waiting.GetRequests()[0].GetUserId() != mary {
		t.Errorf("Kate's requests: %v, %v", waiting, err)
	}
	know("asked", false)
	if _, err := s.b.AcceptFriend(t.Context(), &momentsv1.AcceptFriendRequest{UserId: kate, OtherId: mary}); err != nil {
		t.Fatal(err)
	}
	if !s.b.friends(kate, mary) || s.a.friends(mary, kate) {
		t.Error("who has accepted is a friend at once, the other when she hears of it")
	}
	s.carry()
	know("friends", true)
	for _, p := range []*place{s.a, s.b} {
		list, err := p.ListFriends(t.Context(), &momentsv1.ListFriendsRequest{UserId: mary})
		if err != nil || !slices.Equal(list.GetUserIds(), []string{kate}) {
			t.Errorf("region %d lists Mary's friends as %v, %v", p.number, list, err)
		}
	}
	if _, err := s.a.Unfriend(t.Context(), &momentsv1.UnfriendRequest{UserId: mary, OtherId: kate}); err != nil {
		t.Fatal(err)
	}
	if s.a.friends(mary, kate) || !s.b.friends(kate, mary) {
		t.Error("an unfriending acts at once at home, and elsewhere when it has come")
	}
	s.carry()
	know("parted", false)
	s.befriend(mary, kate)
	s.carry()
	know("friends again", true)
	s.there.Replay(t)
	s.back.Replay(t)
	s.carry()
	know("after all has come again", true)
	if _, err := s.b.Block(t.Context(), &momentsv1.BlockRequest{UserId: kate, OtherId: mary}); err != nil {
		t.Fatal(err)
	}
	s.carry()
	know("blocked", false)
	if r := append(s.there.Refused, s.back.Refused...); len(r) != 0 {
		t.Errorf("refused: %v", r)
	}
}

// TestCrossingRequests: two people ask each other at the same time, in two regions that
// do not hear each other, and are friends afterwards.
func TestCrossingRequests(t *testing.T) {
	s := newStrait(t)
	mary, kate := s.a.register("Mary"), s.b.register("Kate")
	s.carry()
	for _, ask := range []struct {
		p        *place
		from, to string
	}{{s.a, mary, kate}, {s.b, kate, mary}} {
		if _, err := ask.p.RequestFriend(t.Context(), &momentsv1.RequestFriendRequest{UserId: ask.from, OtherId: ask.to}); err != nil {
			t.Fatal(err)
		}
	}
	s.carry()
	for _, p := range []*place{s.a, s.b} {
		if !p.friends(mary, kate) || !p.friends(kate, mary) {
			t.Errorf("in region %d they are no friends", p.number)
		}
	}
}

// TestSettingsElsewhere: what somebody has settled moves the versions of his friends in
// every region.
func TestSettingsElsewhere(t *testing.T) {
	s := newStrait(t)
	mary, kate := s.a.register("Mary"), s.b.register("Kate")
	s.carry()
	s.befriend(mary, kate)
	s.carry()
	before, err := s.b.Relations(t.Context(), &momentsv1.RelationsRequest{ViewerId: kate, AuthorIds: []string{mary}})
	if err != nil {
		t.Fatal(err)
	}
	was := s.a.version(mary)
	window := momentsv1.AlbumWindow_ALBUM_WINDOW_MONTH
	if _, err := s.a.UpdateSettings(t.Context(), &momentsv1.UpdateSettingsRequest{UserId: mary, AlbumWindow: &window}); err != nil {
		t.Fatal(err)
	}
	now := s.a.version(mary)
	if now <= was {
		t.Errorf("Mary's own version is %d after the change, and was %d", now, was)
	}
	s.there.Carry(t)
	if got := s.b.version(mary); got >= now {
		t.Errorf("region 2 says that it is at Mary's version %d before her friends there have noticed", got)
	}
	s.carry()
	if got := s.b.version(mary); got != now {
		t.Errorf("region 2 is at Mary's version %d, want %d", got, now)
	}
	hide := true
	if _, err := s.a.UpdateFriendSettings(t.Context(), &momentsv1.UpdateFriendSettingsRequest{UserId: mary, OtherId: kate, HideMine: &hide}); err != nil {
		t.Fatal(err)
	}
	if s.a.version(mary) == now {
		t.Error("what Mary hides does not move her version")
	}
	s.there.Carry(t)
	if got := s.b.version(mary); got >= s.a.version(mary) {
		t.Errorf("region 2 says that it is at Mary's version %d before Kate's side has heard", got)
	}
	s.carry()
	hidden, err := s.b.Relations(t.Context(), &momentsv1.RelationsRequest{ViewerId: kate, AuthorIds: []string{mary}})
	if err != nil || !hidden.GetRelations()[0].GetAuthorHides() {
		t.Errorf("Kate's side says %v, %v", hidden, err)
	}
	after, err := s.b.Relations(t.Context(), &momentsv1.RelationsRequest{ViewerId: kate, AuthorIds: []string{mary}, KnownVersion: before.GetVersion()})
	if err != nil || after.GetUnchanged() || after.GetRelations()[0].GetAlbumWindow() != window {
		t.Errorf("Kate's region says %v, %v", after, err)
	}
	copies(t, "in the end", s.a, s.b)
}

// TestTokensElsewhere: a session holds in every region, and ends in every region. No
// password leaves its own.
func TestTokensElsewhere(t *testing.T) {
	s := newStrait(t)
	mary := s.a.register("Mary")
	token := s.a.logIn("Mary")
	if _, err := s.b.Authenticate(t.Context(), &momentsv1.AuthenticateRequest{Token: token}); rpc.CodeOf(err) != rpc.Unauthenticated {
		t.Errorf("before region 2 has heard of anything: %v", err)
	}
	s.there.Snapshot(t)
	s.hear()
	res, err := s.b.Authenticate(t.Context(), &momentsv1.AuthenticateRequest{Token: token})
	if err != nil || res.GetUserId() != mary {
		t.Errorf("in region 2: %v, %v", res, err)
	}
	if _, err := s.b.LogIn(t.Context(), &momentsv1.LogInRequest{Name: "Mary", Password: password}); err == nil {
		t.Error("region 2 knows the password")
	}
	for key, value := range queuetest.Rows(t, s.b.store, "u") {
		if strings.Contains(value, "argon2") {
			t.Errorf("region 2 has a password's hash under %x", key)
		}
	}
	other := s.a.logIn("Mary")
	if _, err := s.a.LogOut(t.Context(), &momentsv1.LogOutRequest{Token: other}); err != nil {
		t.Fatal(err)
	}
	s.carry()
	if _, err := s.b.Authenticate(t.Context(), &momentsv1.AuthenticateRequest{Token: other}); rpc.CodeOf(err) != rpc.Unauthenticated {
		t.Errorf("a session that has ended: %v", err)
	}
	for _, body := range s.there.Bodies() {
		if strings.Contains(string(body), "argon2") {
			t.Error("a password's hash is on the line")
		}
	}
}

// TestNamesElsewhere: people of other regions are found by name, and their names are
// taken.
func TestNamesElsewhere(t *testing.T) {
	s := newStrait(t)
	mary := s.a.register("Mary")
	s.carry()
	found, err := s.b.FindUser(t.Context(), &momentsv1.FindUserRequest{Name: "mary"})
	if err != nil || found.GetProfile().GetUserId() != mary || found.GetProfile().GetHomeRegion() != 1 {
		t.Errorf("found %v, %v", found, err)
	}
	_, err = s.b.Register(t.Context(), &momentsv1.RegisterRequest{Name: "MARY", Password: password})
	wantProblem(t, err, rpc.AlreadyExists, "name-taken")
}

// TestSnapshotOfPeople: copies become what is at home, what is gone there included.
func TestSnapshotOfPeople(t *testing.T) {
	s := newStrait(t)
	mary, kate := s.a.register("Mary"), s.b.register("Kate")
	s.a.logIn("Mary")
	gone := s.a.logIn("Mary")
	s.carry()
	s.befriend(mary, kate)
	s.carry()
	if _, err := s.a.LogOut(t.Context(), &momentsv1.LogOutRequest{Token: gone}); err != nil {
		t.Fatal(err)
	}
	for n := range 30 {
		s.a.register("Somebody" + strconv.Itoa(n))
	}
	if _, err := s.a.Unfriend(t.Context(), &momentsv1.UnfriendRequest{UserId: mary, OtherId: kate}); err != nil {
		t.Fatal(err)
	}
	s.there.Drop(t) // the line was away for too long
	for range 2 {
		s.there.Snapshot(t)
		s.hear()
		copies(t, "after a snapshot", s.a, s.b)
	}
	s.carry()
	if s.b.friends(kate, mary) {
		t.Error("Kate's side has not heard that it is over")
	}
	s.there.Replay(t)
	s.carry()
	if s.b.friends(kate, mary) {
		t.Error("an old record has made them friends again")
	}
}

// TestBadRowOfSnapshot: a row that is refused keeps no other from being taken.
func TestBadRowOfSnapshot(t *testing.T) {
	s := newStrait(t)
	s.a.register("Mary")
	token := s.a.logIn("Mary")
	rows := s.there.From.Side.Rows
	s.there.From.Side.Rows = func(ctx context.Context, to id.Region, slot kv.Slot, from []byte) ([]idcqueue.Row, []byte, error) {
		out, next, err := rows(ctx, to, slot, from)
		for i := range out {
			if out[i].Key[0] == 'u' { // of her rows it would be the last
				out[i].Value = []byte{1}
				out[0], out[i] = out[i], out[0]
			}
		}
		return out, next, err
	}
	s.there.Snapshot(t)
	if len(s.there.Refused) != 1 || !strings.Contains(s.there.Refused[0].Error(), "damaged") {
		t.Errorf("refused %v, want the damaged row", s.there.Refused)
	}
	if _, err := s.b.Authenticate(t.Context(), &momentsv1.AuthenticateRequest{Token: token}); err != nil {
		t.Errorf("her session is not there: %v", err)
	}
}

// TestForeignPeopleAreRefused: a region has a say of its own users only.
func TestForeignPeopleAreRefused(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(m *momentsv1.AccountSync)
		says   string
	}{
		{"somebody of a third region", func(m *momentsv1.AccountSync) { m.UserId[7] = 3 }, "is not region 1's"},
		{"half a user", func(m *momentsv1.AccountSync) { m.UserId = m.UserId[:8] }, "has 8 bytes"},
		{"another one's row", func(m *momentsv1.AccountSync) { m.Rows[0].Key[16]++ }, "is none that region 1 has to say"},
		{"a row that nobody copies", func(m *momentsv1.AccountSync) { m.Rows[0].Key[0] = 'n' }, "is none that region 1 has to say"},
		{"rows of everybody", func(m *momentsv1.AccountSync) { m.Rows[0].To = []byte{0xff} }, "are not all of"},
		{"a damaged profile", func(m *momentsv1.AccountSync) { m.Rows[0].Value = []byte{1} }, "damaged"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newStrait(t)
			mary := s.a.register("Mary")
			s.there.Drop(t)
			u, err := id.ParseUser(mary)
			if err != nil {
				t.Fatal(err)
			}
			m := new(momentsv1.AccountSync)
			if err := proto.Unmarshal(s.there.Bodies()[0], m); err != nil {
				t.Fatal(err)
			}
			test.change(m)
			body, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			s.there.Deliver(t, kv.SlotOf(u[:]), body)
			if len(s.there.Refused) != 1 || !strings.Contains(s.there.Refused[0].Error(), test.says) {
				t.Errorf("refused %v, want one that says %q", s.there.Refused, test.says)
			}
			s.there.Replay(t)
			s.hear()
			copies(t, "afterwards", s.a, s.b)
		})
	}
}
