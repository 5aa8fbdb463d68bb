// SPDX-License-Identifier: Apache-2.0

// Package relationstest is an account service in memory that knows who is whose
// friend, for tests of the services that ask it.
package relationstest

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Account implements the parts of momentsv1.AccountServiceServer that other services
// use. The zero Account has nobody. It may be used concurrently.
type Account struct {
	momentsv1.UnimplementedAccountServiceServer

	// Calls counts all calls.
	Calls atomic.Int64

	mu       sync.Mutex
	people   map[id.User]*person // guarded by mu
	failures error               // guarded by mu
}

type person struct {
	version uint64
	friends map[id.User]bool
	hides   map[id.User]bool // whose posts the person does not want in the timeline
	denies  map[id.User]bool // who does not see the person's posts
	off     map[id.User]bool // chat-only
	window  momentsv1.AlbumWindow
	open    bool
	tags    map[string][]id.User
}

func (a *Account) of(u id.User) *person {
	if a.people == nil {
		a.people = make(map[id.User]*person)
	}
	p := a.people[u]
	if p == nil {
		p = &person{
			friends: map[id.User]bool{}, hides: map[id.User]bool{}, denies: map[id.User]bool{}, off: map[id.User]bool{},
			tags: map[string][]id.User{},
		}
		a.people[u] = p
	}
	return p
}

// Befriend makes two people friends.
func (a *Account) Befriend(x, y id.User) { a.set(x, y, true) }

// BefriendHalf makes y a friend of x on x's side only, as it stands for a moment
// while a friendship is being made.
func (a *Account) BefriendHalf(x, y id.User) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.of(x)
	p.version++
	p.friends[y] = true
}

// Part ends a friendship.
func (a *Account) Part(x, y id.User) { a.set(x, y, false) }

func (a *Account) set(x, y id.User, on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range [][2]id.User{{x, y}, {y, x}} {
		p := a.of(e[0])
		p.version++
		if on {
			p.friends[e[1]] = true
		} else {
			delete(p.friends, e[1])
		}
	}
}

// Hide keeps an author's posts out of a viewer's timeline, or no longer.
func (a *Account) Hide(viewer, author id.User, on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.of(viewer)
	p.version++
	p.hides[author] = on
}

// Deny keeps a viewer from seeing an author's posts, or no longer.
func (a *Account) Deny(author, viewer id.User, on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.of(author).denies[viewer] = on
	a.of(viewer).version++
}

// ChatOnly makes two people see nothing of each other's posts, or no longer.
func (a *Account) ChatOnly(x, y id.User, on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range [][2]id.User{{x, y}, {y, x}} {
		a.of(e[0]).off[e[1]] = on
		a.of(e[0]).version++
	}
}

// Settings sets how far back an author's posts reach and whether he shows some to
// strangers.
func (a *Account) Settings(author id.User, window momentsv1.AlbumWindow, open bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.of(author)
	p.window, p.open = window, open
	for friend := range p.friends {
		a.of(friend).version++
	}
}

// Tag sets who bears a tag of somebody's.
func (a *Account) Tag(owner id.User, tag id.Tag, bearers ...id.User) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.of(owner).tags[tag.String()] = bearers
}

// ResolveTags gives who bears some tags.
func (a *Account) ResolveTags(_ context.Context, req *momentsv1.ResolveTagsRequest) (*momentsv1.ResolveTagsResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, err := a.enter(req.GetUserId())
	if err != nil {
		return nil, err
	}
	res := &momentsv1.ResolveTagsResponse{}
	for _, tag := range req.GetTagIds() {
		bearers, ok := p.tags[tag]
		if !ok {
			return nil, rpc.Errorf(rpc.NotFound, "no such tag")
		}
		for _, u := range bearers {
			res.UserIds = append(res.UserIds, u.String())
		}
	}
	return res, nil
}

// Fail makes all calls fail with err until it is nil again.
func (a *Account) Fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failures = err
}

// Friends reports whether two people are friends.
func (a *Account) Friends(x, y id.User) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.of(x).friends[y]
}

func (a *Account) enter(user string) (*person, error) {
	a.Calls.Add(1)
	if a.failures != nil {
		return nil, a.failures
	}
	u, err := id.ParseUser(user)
	if err != nil {
		return nil, rpc.Errorf(rpc.InvalidArgument, "%v", err)
	}
	return a.of(u), nil
}

// ListFriends gives pages by position, of friends by ascending id.
func (a *Account) ListFriends(_ context.Context, req *momentsv1.ListFriendsRequest) (*momentsv1.ListFriendsResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, err := a.enter(req.GetUserId())
	if err != nil {
		return nil, err
	}
	list := slices.SortedFunc(maps.Keys(p.friends), id.User.Compare)
	at := 0
	if req.GetCursor() != "" {
		if at, err = strconv.Atoi(req.GetCursor()); err != nil {
			return nil, rpc.Errorf(rpc.InvalidArgument, "%v", err)
		}
	}
	end := min(at+int(req.GetLimit()), len(list))
	res := &momentsv1.ListFriendsResponse{Version: p.version}
	for _, f := range list[at:end] {
		res.UserIds = append(res.UserIds, f.String())
	}
	if end < len(list) {
		res.NextCursor = strconv.Itoa(end)
	}
	return res, nil
}

// Relations gives how a viewer stands to authors.
func (a *Account) Relations(_ context.Context, req *momentsv1.RelationsRequest) (*momentsv1.RelationsResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, err := a.enter(req.GetViewerId())
	if err != nil {
		return nil, err
	}
	u, err := id.ParseUser(req.GetViewerId())
	if err != nil {
		return nil, rpc.Errorf(rpc.InvalidArgument, "%v", err)
	}
	if p.version == req.GetKnownVersion() && !req.GetStrangers() {
		return &momentsv1.RelationsResponse{Version: p.version, Unchanged: true}, nil
	}
	res := &momentsv1.RelationsResponse{Version: p.version, HomeVersion: p.version}
	for _, v := range req.GetAuthorIds() {
		author, err := id.ParseUser(v)
		if err != nil {
			return nil, rpc.Errorf(rpc.InvalidArgument, "%v", err)
		}
		r := &momentsv1.Relation{AuthorId: v, Friends: p.friends[author]}
		if o := a.of(author); r.GetFriends() || req.GetStrangers() {
			r.ViewerHides, r.AuthorHides, r.Off = p.hides[author], o.denies[u], p.off[author]
			r.AlbumWindow, r.OpenToStrangers = o.window, o.open && !r.GetFriends()
		}
		res.Relations = append(res.Relations, r)
	}
	return res, nil
}
