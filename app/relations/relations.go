// SPDX-License-Identifier: Apache-2.0

// Package relations asks the account service how a viewer stands to others, and
// keeps the answers for as long as their version holds.
//
// Every use asks for the version, so that an unfriending acts at once; what is saved
// is the facts' way over the wire and the account service's reading them.
package relations

import (
	"context"
	"maps"
	"sync"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/privacy"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Account is the part of the account service's client that is used here.
type Account interface {
	Relations(context.Context, *momentsv1.RelationsRequest) (*momentsv1.RelationsResponse, error)
}

// maxAuthors is what one call of Relations may ask for, by its contract.
const maxAuthors = 1000

// Set holds the facts of one viewer. It is immutable.
type Set struct {
	viewer id.User
	facts  map[id.User]privacy.Facts
}

// Of gives the facts of somebody that the set was asked for; others are strangers.
func (s Set) Of(other id.User) privacy.Facts {
	if other == s.viewer {
		return privacy.Facts{Self: true}
	}
	return s.facts[other]
}

// Cache keeps the facts of the latest viewers. It may be used concurrently.
type Cache struct {
	account Account
	limit   int

	mu      sync.Mutex
	viewers map[id.User]entry // guarded by mu
	kept    int               // guarded by mu; facts of all viewers
}

// entry holds facts of one viewer and version. Its map is never changed.
type entry struct {
	version uint64
	facts   map[id.User]privacy.Facts
}

// NewCache makes a Cache that keeps at most limit facts.
func NewCache(account Account, limit int) *Cache {
	return &Cache{account: account, limit: limit, viewers: make(map[id.User]entry)}
}

// Get gives the viewer's facts of all others, which may repeat and may be zero.
func (c *Cache) Get(ctx context.Context, viewer id.User, others []id.User) (Set, error) {
	c.mu.Lock()
	had := c.viewers[viewer]
	c.mu.Unlock()
	ask := missing(had.facts, viewer, others)
	if len(ask) == 0 {
		if had.version == 0 {
			return Set{viewer: viewer}, nil // nobody but the viewer
		}
		res, err := c.account.Relations(ctx, &momentsv1.RelationsRequest{ViewerId: viewer.String(), KnownVersion: had.version})
		if err != nil {
			return Set{}, err
		}
		if res.GetUnchanged() {
			return Set{viewer: viewer, facts: had.facts}, nil
		}
		ask, had = missing(nil, viewer, others), entry{}
	}
	got, err := c.fetch(ctx, viewer, ask)
	if err != nil {
		return Set{}, err
	}
	if len(ask) < len(others) && got.version != had.version && len(had.facts) > 0 {
		// What was known is of another version: ask for all.
		if all := missing(nil, viewer, others); len(all) > len(ask) {
			if got, err = c.fetch(ctx, viewer, all); err != nil {
				return Set{}, err
			}
		}
	} else if got.version == had.version {
		maps.Copy(got.facts, had.facts) // both of one version, and ours alone so far
	}
	c.keep(viewer, got)
	return Set{viewer: viewer, facts: got.facts}, nil
}

// missing gives, once each, those of others that facts lacks.
func missing(facts map[id.User]privacy.Facts, viewer id.User, others []id.User) []id.User {
	var ask []id.User
	var asked map[id.User]struct{}
	for _, o := range others {
		if o == viewer || o.IsZero() {
			continue
		}
		if _, ok := facts[o]; ok {
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
func (c *Cache) fetch(ctx context.Context, viewer id.User, ask []id.User) (entry, error) {
	const tries = 5 // each lost to a change of the viewer's relations between two pages
	for range tries {
		e := entry{facts: make(map[id.User]privacy.Facts, len(ask))}
		torn := false
		for at := 0; at < len(ask) && !torn; at += maxAuthors {
			part := ask[at:min(at+maxAuthors, len(ask))]
			req := &momentsv1.RelationsRequest{ViewerId: viewer.String(), AuthorIds: make([]string, len(part))}
			for i := range part {
				req.AuthorIds[i] = part[i].String()
			}
			res, err := c.account.Relations(ctx, req)
			if err != nil {
				return entry{}, err
			}
			if res.GetUnchanged() { // version 0: the viewer has no relations at all
				return e, nil
			}
			if len(res.GetRelations()) != len(part) {
				return entry{}, rpc.Errorf(rpc.Internal, "account answered %d relations of %d", len(res.GetRelations()), len(part))
			}
			torn = at > 0 && res.GetVersion() != e.version
			e.version = res.GetVersion()
			for i, r := range res.GetRelations() {
				e.facts[part[i]] = privacy.Facts{Friends: r.GetFriends(), AuthorHides: r.GetAuthorHides(), ViewerHides: r.GetViewerHides()}
			}
		}
		if !torn {
			return e, nil
		}
	}
	return entry{}, rpc.Errorf(rpc.Unavailable, "the viewer's relations change too fast; try again")
}

func (c *Cache) keep(viewer id.User, e entry) {
	if e.version == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.viewers[viewer]
	if old.version > e.version || old.version == e.version && len(old.facts) > len(e.facts) {
		return // another call was faster, or learnt more
	}
	c.viewers[viewer] = e
	c.kept += len(e.facts) - len(old.facts)
	for other, o := range c.viewers { // whom the map names first, which is chance
		if c.kept <= c.limit {
			break
		}
		if other != viewer {
			c.kept -= len(o.facts)
			delete(c.viewers, other)
		}
	}
}
