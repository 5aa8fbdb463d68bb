// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/account"
	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue/queuetest"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// movers is what the other services of both regions do.
type movers struct {
	behind  bool // not all posts are there
	rebuilt []string
	forgot  []string
}

type movedPosts struct {
	momentsv1.PostServiceClient
	*movers
}

func (m movedPosts) Rehome(context.Context, *momentsv1.RehomeRequest) (*momentsv1.RehomeResponse, error) {
	return &momentsv1.RehomeResponse{Complete: !m.behind}, nil
}

type movedTimelines struct {
	momentsv1.TimelineServiceClient
	*movers
}

func (m movedTimelines) Rebuild(_ context.Context, req *momentsv1.RebuildRequest) (*momentsv1.RebuildResponse, error) {
	m.rebuilt = append(m.rebuilt, req.GetReaderId())
	return &momentsv1.RebuildResponse{}, nil
}

func (m movedTimelines) Forget(_ context.Context, req *momentsv1.ForgetRequest) (*momentsv1.ForgetResponse, error) {
	m.forgot = append(m.forgot, req.GetUserId())
	return &momentsv1.ForgetResponse{}, nil
}

// newMove gives two regions whose people move.
func newMove(t *testing.T) (*strait, *movers) {
	m := new(movers)
	return newStrait(t, func(c *account.Config) { c.Posts, c.Timeline = movedPosts{movers: m}, movedTimelines{movers: m} }), m
}

// move lets both regions do what is to be done, and hear of it, until nothing more is.
func (s *strait) move() {
	s.t.Helper()
	for range 3 {
		for _, p := range []*place{s.a, s.b} {
			if err := p.service.Move(s.t.Context()); err != nil {
				s.t.Fatal(err)
			}
		}
		s.carry()
	}
}

func user(t *testing.T, u string) id.User {
	t.Helper()
	uid, err := id.ParseUser(u)
	if err != nil {
		t.Fatal(err)
	}
	return uid
}

// restart starts the service of a region again.
func (p *place) restart() {
	p.t.Helper()
	svc, err := account.New(p.t.Context(), p.cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	p.world, p.service = serve(p.t, p.store, svc), svc
}

func isMoving(err error) bool {
	p := new(momentsv1.Problem)
	return rpc.Detail(err, p) && p.GetType() == "moving"
}

// settings changes somebody's settings in a region.
func (p *place) settings(u string) error {
	have, err := p.GetSettings(p.t.Context(), &momentsv1.GetSettingsRequest{UserId: u})
	if err != nil {
		return err
	}
	_, err = p.UpdateSettings(p.t.Context(), &momentsv1.UpdateSettingsRequest{UserId: u, OpenToStrangers: proto.Bool(!have.GetSettings().GetOpenToStrangers())})
	return err
}

// privateTables are those of which only a home has rows: what somebody has chosen about
// others, tags, requests.
const privateTables = "htv"

// hasPassword reports whether there is the hash of a password in an account's row.
func hasPassword(row string) bool { return strings.Contains(row, "argon2") }

// onlyAtHome checks what regions get of somebody who is being moved from a region: next all,
// other nothing that is private.
func onlyAtHome(t *testing.T, from *place, u string, next, other id.Region) {
	t.Helper()
	uid := user(t, u)
	for to, gets := range map[id.Region]bool{next: true, other: false} {
		rows, _, err := from.service.Side().Rows(t.Context(), to, kv.SlotOf(uid[:]), nil)
		if err != nil {
			t.Fatal(err)
		}
		has := map[string]bool{}
		for _, row := range rows {
			switch kind := row.Key[:1]; {
			case strings.Contains(privateTables, string(kind)):
				has["a private row"] = true
			case row.Key[0] == homes.TableWhole:
				has["the end of his rows"] = true
			case row.Key[0] == 'u' && hasPassword(string(row.Value)):
				has["his password"] = true
			}
		}
		for _, what := range []string{"a private row", "the end of his rows", "his password"} {
			if has[what] != gets {
				t.Errorf("region %d gets %s: %v, want %v", to, what, has[what], gets)
			}
		}
	}
}

// knowsNothingPrivate checks that a region where nobody is at home has what all have.
func (p *place) knowsNothingPrivate(when string) {
	p.t.Helper()
	for key := range queuetest.Rows(p.t, p.store, privateTables) {
		if u := id.User([]byte(key[1:])); !p.service.HomeOf(u).Keeps(p.number) {
			p.t.Errorf("%s: region %d keeps row %x", when, p.number, key)
		}
	}
	for key, row := range queuetest.Rows(p.t, p.store, "u") {
		if u := id.User([]byte(key[1:])); hasPassword(row) && !p.service.HomeOf(u).Keeps(p.number) {
			p.t.Errorf("%s: region %d keeps the password of %v", when, p.number, u)
		}
	}
}

// TestRehome: somebody moves with all that he has; at each step one region takes his
// writes, or none.
func TestRehome(t *testing.T) {
	s, m := newMove(t)
	slot := kv.SlotOf([]byte{'K'}) // has the keys of session tokens
	s.there.Snapshot(t, slot)
	s.back.Snapshot(t, slot)
	mary, kate, wang := s.a.register("Mary"), s.b.register("Kate"), s.a.register("Wang")
	s.carry()
	s.befriend(mary, kate)
	s.carry()
	if _, err := s.a.CreateTag(t.Context(), &momentsv1.CreateTagRequest{UserId: mary, Name: "family", UserIds: []string{kate}}); err != nil {
		t.Fatal(err)
	}
	token := s.a.logIn("Mary")

	m.behind = true
	if _, err := s.a.service.Rehome(t.Context(), user(t, mary), 2); err != nil {
		t.Fatal(err)
	}
	s.move()
	for _, p := range []*place{s.a, s.b} {
		if h := p.service.HomeOf(user(t, mary)); h != (homes.Home{User: user(t, mary), Epoch: 1, Region: 1, Next: 2}) {
			t.Errorf("while her posts are on their way region %d has her at %+v", p.number, h)
		}
		if err := p.settings(mary); !isMoving(err) {
			t.Errorf("while she is moved region %d answers %v", p.number, err)
		}
	}
	_, err := s.a.CreateTag(t.Context(), &momentsv1.CreateTagRequest{UserId: mary, Name: "work"})
	if !isMoving(err) {
		t.Errorf("a tag that would not go along: %v", err)
	}
	// Who says something to her meanwhile is heard later.
	if _, err := s.a.RequestFriend(t.Context(), &momentsv1.RequestFriendRequest{UserId: wang, OtherId: mary}); err != nil {
		t.Fatal(err)
	}

	onlyAtHome(t, s.a, mary, 2, 3)

	m.behind = false
	s.move()
	s.a.knowsNothingPrivate("moved away")
	want := homes.Home{User: user(t, mary), Epoch: 3, Region: 2}
	for _, p := range []*place{s.a, s.b} {
		if h := p.service.HomeOf(user(t, mary)); h != want {
			t.Errorf("region %d has her at %+v, want %+v", p.number, h, want)
		}
		res, err := p.ListHomes(t.Context(), &momentsv1.ListHomesRequest{})
		if err != nil || len(res.GetHomes()) != 1 || res.GetHomes()[0].GetRegion() != 2 {
			t.Errorf("region %d lists %v, %v", p.number, res, err)
		}
		if found, err := p.GetProfile(t.Context(), &momentsv1.GetProfileRequest{UserId: mary}); err != nil || found.GetProfile().GetHomeRegion() != 2 {
			t.Errorf("region %d shows %v, %v", p.number, found, err)
		}
	}
	if err := s.a.settings(mary); !isMoving(err) {
		t.Errorf("her old home answers %v", err)
	}
	if err := s.b.settings(mary); err != nil {
		t.Error(err)
	}
	if tags, err := s.b.ListTags(t.Context(), &momentsv1.ListTagsRequest{UserId: mary}); err != nil || len(tags.GetTags()) != 1 {
		t.Errorf("her tags are %v, %v", tags, err)
	}
	if asked, err := s.b.ListFriendRequests(t.Context(), &momentsv1.ListFriendRequestsRequest{UserId: mary}); err != nil || len(asked.GetRequests()) != 1 {
		t.Errorf("who asks her: %v, %v", asked, err)
	}
	if !slices.Equal(m.rebuilt, []string{mary}) {
		t.Errorf("timelines of %v were built", m.rebuilt)
	}
	// She is who she was: by password, and by the session that she has.
	s.b.logIn("Mary")
	s.carry()
	for _, p := range []*place{s.a, s.b} {
		if who, err := p.Authenticate(t.Context(), &momentsv1.AuthenticateRequest{Token: token}); err != nil || who.GetUserId() != mary {
			t.Errorf("region %d knows her as %v, %v", p.number, who, err)
		}
		if !p.friends(mary, kate) || !p.friends(kate, mary) {
			t.Errorf("region %d has lost a friendship", p.number)
		}
	}
	if _, err := s.b.AcceptFriend(t.Context(), &momentsv1.AcceptFriendRequest{UserId: mary, OtherId: wang}); err != nil {
		t.Fatal(err)
	}
	s.carry()
	if !s.a.friends(wang, mary) || !s.b.friends(mary, wang) {
		t.Error("a friendship that was asked for while she moved is not made")
	}
	// And back again.
	if _, err := s.b.service.Rehome(t.Context(), user(t, mary), 1); err != nil {
		t.Fatal(err)
	}
	s.move()
	if err := s.a.settings(mary); err != nil {
		t.Errorf("back home: %v", err)
	}
	s.b.knowsNothingPrivate("moved back")
	s.a.logIn("Mary")
	if tags, err := s.a.ListTags(t.Context(), &momentsv1.ListTagsRequest{UserId: mary}); err != nil || len(tags.GetTags()) != 1 {
		t.Errorf("back home her tags are %v, %v", tags, err)
	}
}

// TestCallBack: who is called back before the new home has taken him is given back; a
// start in the middle changes nothing.
func TestCallBack(t *testing.T) {
	s, m := newMove(t)
	mary := s.a.register("Mary")
	s.carry()
	if _, err := s.a.CreateTag(t.Context(), &momentsv1.CreateTagRequest{UserId: mary, Name: "family"}); err != nil {
		t.Fatal(err)
	}
	m.behind = true
	if _, err := s.a.service.Rehome(t.Context(), user(t, mary), 2); err != nil {
		t.Fatal(err)
	}
	s.move()
	s.a.restart()
	s.there.From, s.back.To = s.a.end(), s.a.end()
	if err := s.a.settings(mary); !isMoving(err) {
		t.Errorf("after a start the fence is forgotten: %v", err)
	}
	if _, err := s.a.service.CallBack(t.Context(), user(t, mary)); err != nil {
		t.Fatal(err)
	}
	if err := s.a.settings(mary); !isMoving(err) {
		t.Errorf("before the other region has given her back: %v", err)
	}
	s.move()
	if err := s.a.settings(mary); err != nil {
		t.Errorf("given back: %v", err)
	}
	if h := s.b.service.HomeOf(user(t, mary)); h != (homes.Home{User: user(t, mary), Epoch: 3, Region: 1}) {
		t.Errorf("the other region has her at %+v", h)
	}
	s.b.knowsNothingPrivate("given back")
	s.a.logIn("Mary")
	if tags, err := s.a.ListTags(t.Context(), &momentsv1.ListTagsRequest{UserId: mary}); err != nil || len(tags.GetTags()) != 1 {
		t.Errorf("given back her tags are %v, %v", tags, err)
	}
}

// TestDeletedElsewhere: of somebody who has moved away and deletes his account nothing is
// left where he was, though his old home is started again in the middle.
func TestDeletedElsewhere(t *testing.T) {
	s, m := newMove(t)
	mary, john := s.a.register("Mary"), s.a.register("John")
	s.carry()
	if _, err := s.a.service.Rehome(t.Context(), user(t, mary), 2); err != nil {
		t.Fatal(err)
	}
	s.move()
	for p, u := range map[*place]string{s.b: mary, s.a: john} {
		if _, err := p.DeleteAccount(t.Context(), &momentsv1.DeleteAccountRequest{UserId: u, Password: password}); err != nil {
			t.Fatal(err)
		}
	}
	s.back.Carry(t)
	s.a.restart()
	for range 2 {
		if err := s.a.service.Move(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(m.forgot, []string{mary}) {
		t.Errorf("the services of the old home have forgotten %v, want %v once", m.forgot, mary)
	}
}

// TestNoRehome: orders that make no sense.
func TestNoRehome(t *testing.T) {
	s, _ := newMove(t)
	kate := s.b.register("Kate")
	s.carry()
	if _, err := s.a.service.Rehome(t.Context(), user(t, kate), 1); err == nil {
		if h := s.a.service.HomeOf(user(t, kate)); h.Region != 2 {
			t.Errorf("a region has taken somebody of another: %+v", h)
		}
	}
	if _, err := s.a.service.CallBack(t.Context(), user(t, kate)); err != nil {
		t.Errorf("to call back somebody who is not moved: %v", err)
	}
	if _, err := s.a.service.Rehome(t.Context(), id.User{0: 1, 7: 1}, 2); rpc.CodeOf(err) != rpc.NotFound {
		t.Errorf("nobody is moved: %v", err)
	}
	store := memkv.New()
	t.Cleanup(func() { _ = store.Close() })
	alone, err := account.New(t.Context(), config(store))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alone.Rehome(t.Context(), user(t, kate), 2); !errors.Is(err, homes.ErrMove) {
		t.Errorf("a region that is alone moves somebody: %v", err)
	}
}
