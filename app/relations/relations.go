// SPDX-License-Identifier: Apache-2.0

// Package relations asks the account service how a viewer stands to others, and
// keeps the answers for as long as their version holds.
//
// Every use asks for the version, so that an unfriending acts at once; what is saved
// is the facts' way over the wire and the account service's reading them.
package relations

import (
	"context"
	"sync"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Account is the part of the account service's client that is used here.
type Account interface {
	Relations(context.Context, *momentsv1.RelationsRequest) (*momentsv1.RelationsResponse, error)
}

// Facts are how a viewer stands to one author. The zero Facts are those of
// strangers.
type Facts struct {
	Self            bool // viewer and author are one person
	Friends         bool
	AuthorHides     bool
	ViewerHides     bool
	OpenToStrangers bool
	AlbumWindow     momentsv1.AlbumWindow
}

// maxAuthors is what one call of Relations may ask for, by its contract.
const maxAuthors = 1000

// Cache keeps the facts of the latest viewers. It may be used concurrently.
type Cache struct {
	account Account
	limit   int

	mu      sync.Mutex
	viewers map[id.User]*entry // guarded by mu
	facts   int                // guarded by mu; total over viewers
}

// entry holds facts of one viewer and version. It is never changed once another
// goroutine may see it, but for growing by facts of the same version.
type entry struct {
	version uint64
	facts   map[id.User]Facts
}

// NewCache makes a Cache that keeps at most limit facts.
func NewCache(account Account, limit int) *Cache {
	return &Cache{account: account, limit: limit, viewers: make(map[id.User]*entry)}
}

// Of gives the viewer's facts of each author, in order. Authors may repeat. A zero
// author is a stranger.
func (c *Cache) Of(ctx context.Context, viewer id.User, authors []id.User) ([]Facts, error) {
	out := make([]Facts, len(authors))
	ask := make([]id.User, 0, min(len(authors), 32))
	for i, a := range authors {
		switch {
		case a == viewer:
			out[i] = Facts{Self: true}
		case !a.IsZero() && !contains(ask, a):
			ask = append(ask, a)
		}
	}
	if len(ask) == 0 {
		return out, nil
	}
	got := make(map[id.User]Facts, len(ask))
	for len(ask) > 0 {
		n := min(len(ask), maxAuthors)
		if err := c.fetch(ctx, viewer, ask[:n], got); err != nil {
			return nil, err
		}
		ask = ask[n:]
	}
	for i, a := range authors {
		if a != viewer {
			out[i] = got[a]
		}
	}
	return out, nil
}

// contains is a plain search while the list is short: pages hold ten posts.
func contains(list []id.User, u id.User) bool {
	if len(list) > 64 {
		return false // asked twice, which is allowed
	}
	for i := range list {
		if list[i] == u {
			return true
		}
	}
	return false
}

func (c *Cache) fetch(ctx context.Context, viewer id.User, ask []id.User, into map[id.User]Facts) error {
	known := c.lookup(viewer, ask, into)
	req := &momentsv1.RelationsRequest{ViewerId: viewer.String(), KnownVersion: known, AuthorIds: make([]string, len(ask))}
	for i := range ask {
		req.AuthorIds[i] = ask[i].String()
	}
	res, err := c.account.Relations(ctx, req)
	if err != nil {
		return err
	}
	if res.GetUnchanged() {
		return nil
	}
	if len(res.GetRelations()) != len(ask) {
		return rpc.Errorf(rpc.Internal, "account answered %d relations of %d", len(res.GetRelations()), len(ask))
	}
	for i, r := range res.GetRelations() {
		into[ask[i]] = Facts{
			Friends:         r.GetFriends(),
			AuthorHides:     r.GetAuthorHides(),
			ViewerHides:     r.GetViewerHides(),
			OpenToStrangers: r.GetOpenToStrangers(),
			AlbumWindow:     r.GetAlbumWindow(),
		}
	}
	c.store(viewer, res.GetVersion(), ask, into)
	return nil
}

// lookup fills in what is known and gives its version, 0 unless all of ask is known.
func (c *Cache) lookup(viewer id.User, ask []id.User, into map[id.User]Facts) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.viewers[viewer]
	if e == nil {
		return 0
	}
	for _, a := range ask {
		f, ok := e.facts[a]
		if !ok {
			return 0
		}
		into[a] = f
	}
	return e.version
}

func (c *Cache) store(viewer id.User, version uint64, ask []id.User, from map[id.User]Facts) {
	if version == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.viewers[viewer]
	if e == nil || e.version < version {
		if e != nil {
			c.facts -= len(e.facts)
		}
		e = &entry{version: version, facts: make(map[id.User]Facts, len(ask))}
		c.viewers[viewer] = e
	}
	if e.version > version {
		return // a slower answer than another's
	}
	before := len(e.facts)
	for _, a := range ask {
		e.facts[a] = from[a]
	}
	c.facts += len(e.facts) - before
	for other, old := range c.viewers { // whom the map names first, which is chance
		if c.facts <= c.limit {
			break
		}
		if other != viewer {
			c.facts -= len(old.facts)
			delete(c.viewers, other)
		}
	}
}
