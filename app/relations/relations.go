// SPDX-License-Identifier: Apache-2.0

// Package relations asks the account service how a viewer stands to others, and
// keeps the answers for as long as their version holds.
//
// Every use asks for the version, so that an unfriending acts at once; what is saved
// is the facts' way over the wire and the account service's reading them.
package relations

import (
	"context"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/privacy"
	"github.com/sluice-rpc/sluice/app/versions"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Account is the part of the account service's client that is used here.
type Account interface {
	Relations(context.Context, *momentsv1.RelationsRequest) (*momentsv1.RelationsResponse, error)
}

// maxAuthors is what one call of Relations may ask for, by its contract.
const maxAuthors = 1000

// tries is how often several pages are asked for that are to be of one version; each is
// lost to a change of the viewer's relations between two of them.
const tries = 5

var errTooFast = rpc.Errorf(rpc.Unavailable, "the viewer's relations change too fast; try again")

// Set holds the facts of one viewer. It is immutable.
type Set struct {
	viewer  id.User
	version uint64
	facts   table[privacy.Facts]
	friends people // of a Friends, which has no facts
}

// Version gives the version of the viewer's relations that a Cache found during the call
// and took the facts of; 0 if it needed none.
func (s Set) Version() uint64 { return s.version }

// Of gives the facts of somebody that the set was asked for; others are strangers.
func (s Set) Of(other id.User) privacy.Facts {
	if other == s.viewer {
		return privacy.Facts{Self: true}
	}
	if s.facts == nil {
		_, friends := s.friends.get(other)
		return privacy.Facts{Friends: friends}
	}
	facts, _ := s.facts.get(other)
	return facts
}

// Cache keeps the facts of the latest viewers. It may be used concurrently.
type Cache struct {
	account Account
	kept    *versions.Cache[id.User, table[privacy.Facts]]
}

// NewCache makes a Cache that keeps at most limit facts.
func NewCache(account Account, limit int) *Cache {
	return &Cache{account: account, kept: versions.New[id.User, table[privacy.Facts]](limit)}
}

// Get gives the viewer's facts of all others, which may repeat and may be zero.
func (c *Cache) Get(ctx context.Context, viewer id.User, others []id.User) (Set, error) {
	had := c.kept.Get(viewer)
	ask := missing(had.Value, viewer, others)
	if len(ask) == 0 {
		if had.Ver == 0 {
			return Set{viewer: viewer}, nil // nobody but the viewer
		}
		res, err := c.account.Relations(ctx, &momentsv1.RelationsRequest{ViewerId: viewer.String(), KnownVersion: had.Ver})
		if err != nil {
			return Set{}, err
		}
		if res.GetUnchanged() {
			return Set{viewer: viewer, version: had.Ver, facts: had.Value}, nil
		}
		ask, had = missing(nil, viewer, others), versions.Entry[table[privacy.Facts]]{}
	}
	facts, version, err := c.fetch(ctx, viewer, ask)
	if err != nil {
		return Set{}, err
	}
	size := len(ask) + 1
	if len(ask) < len(others) && version != had.Ver && len(had.Value) > 0 {
		// What was known is of another version: ask for all.
		if all := missing(nil, viewer, others); len(all) > len(ask) {
			if facts, version, err = c.fetch(ctx, viewer, all); err != nil {
				return Set{}, err
			}
			size = len(all) + 1
		}
	} else if version == had.Ver && len(had.Value) > 0 { // both of one version
		asked := facts
		size += had.Size
		facts = newTable[privacy.Facts](size)
		facts.add(asked)
		facts.add(had.Value)
	}
	c.kept.Put(viewer, versions.Entry[table[privacy.Facts]]{Value: facts, Ver: version, Size: size})
	return Set{viewer: viewer, version: version, facts: facts}, nil
}

// missing gives, once each, those of others that facts lacks.
func missing(facts table[privacy.Facts], viewer id.User, others []id.User) []id.User {
	var ask []id.User
	var asked map[id.User]struct{}
	for _, o := range others {
		if o == viewer || o.IsZero() {
			continue
		}
		if _, ok := facts.get(o); ok {
			continue
		}
		if asked == nil {
			asked = make(map[id.User]struct{}, 16)
		}
		if _, ok := asked[o]; !ok {
			asked[o] = struct{}{}
			ask = append(ask, o)
		}
	}
	return ask
}

// fetch asks for facts that are all of one version.
func (c *Cache) fetch(ctx context.Context, viewer id.User, ask []id.User) (facts table[privacy.Facts], version uint64, err error) {
	for range tries {
		facts, version = newTable[privacy.Facts](len(ask)), 0
		torn := false
		for at := 0; at < len(ask) && !torn; at += maxAuthors {
			part := ask[at:min(at+maxAuthors, len(ask))]
			req := &momentsv1.RelationsRequest{ViewerId: viewer.String(), AuthorIds: make([]string, len(part))}
			for i := range part {
				req.AuthorIds[i] = part[i].String()
			}
			res, err := c.account.Relations(ctx, req)
			if err != nil {
				return nil, 0, err
			}
			if res.GetUnchanged() { // version 0: the viewer has no relations at all
				return facts, version, nil
			}
			if len(res.GetRelations()) != len(part) {
				return nil, 0, rpc.Errorf(rpc.Internal, "account answered %d relations of %d", len(res.GetRelations()), len(part))
			}
			torn = at > 0 && res.GetVersion() != version
			version = res.GetVersion()
			for i, r := range res.GetRelations() {
				facts.put(part[i], factsOf(r))
			}
		}
		if !torn {
			return facts, version, nil
		}
	}
	return nil, 0, errTooFast
}

// Fresh gives the viewer's facts of all others as they are now, with what those who are
// no friends of his let strangers see; that changes without a new version, so none of
// it is kept. It is one call whatever is known and whoever they are, so its time tells
// nothing of them. There may be 1,000 of them at most.
func (c *Cache) Fresh(ctx context.Context, viewer id.User, others []id.User) (Set, error) {
	req := &momentsv1.RelationsRequest{ViewerId: viewer.String(), AuthorIds: make([]string, len(others)), Strangers: true}
	for i := range others {
		req.AuthorIds[i] = others[i].String()
	}
	res, err := c.account.Relations(ctx, req)
	if err != nil {
		return Set{}, err
	}
	set := Set{viewer: viewer, version: res.GetVersion(), facts: newTable[privacy.Facts](len(others))}
	if res.GetUnchanged() { // version 0: the viewer has no relations at all
		return set, nil
	}
	if len(res.GetRelations()) != len(others) {
		return Set{}, rpc.Errorf(rpc.Internal, "account answered %d relations of %d", len(res.GetRelations()), len(others))
	}
	for i, r := range res.GetRelations() {
		set.facts.put(others[i], factsOf(r))
	}
	return set, nil
}

// windows are the facts' words for those of the contract. One that is not known here
// reaches nothing.
var windows = map[momentsv1.AlbumWindow]privacy.Window{
	momentsv1.AlbumWindow_ALBUM_WINDOW_THREE_DAYS: privacy.ThreeDays,
	momentsv1.AlbumWindow_ALBUM_WINDOW_MONTH:      privacy.Month,
	momentsv1.AlbumWindow_ALBUM_WINDOW_HALF_YEAR:  privacy.HalfYear,
}

func factsOf(r *momentsv1.Relation) privacy.Facts {
	f := privacy.Facts{
		Friends: r.GetFriends(), AuthorHides: r.GetAuthorHides(), ViewerHides: r.GetViewerHides(),
		Off: r.GetOff(), Open: r.GetOpenToStrangers(),
	}
	if w := r.GetAlbumWindow(); w != momentsv1.AlbumWindow_ALBUM_WINDOW_ALL {
		var ok bool
		if f.Window, ok = windows[w]; !ok {
			f.Window = 1<<8 - 1
		}
	}
	return f
}
