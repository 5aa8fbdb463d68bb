// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// A circle is a user's friends at one version of his relations. It is never
// changed once it is made.
type circle struct {
	version uint64
	friends map[id.User]struct{}
}

// maxAuthors is the most authors of one call.
const maxAuthors = 1000

// Relations implements the contract.
func (s *Service) Relations(ctx context.Context, req *momentsv1.RelationsRequest) (*momentsv1.RelationsResponse, error) {
	viewer, err := parseUser("viewer_id", req.GetViewerId())
	if err != nil {
		return nil, err
	}
	if n := len(req.GetAuthorIds()); n > maxAuthors {
		return nil, problem.Invalid("author_ids", "has %d ids, want at most %d", n, maxAuthors)
	}
	count, err := s.tally(ctx, viewer)
	if err != nil {
		return nil, problem.Store("read relations", err)
	}
	if count.version == req.GetKnownVersion() {
		return &momentsv1.RelationsResponse{Version: count.version, Unchanged: true}, nil
	}
	c, err := s.circle(ctx, viewer, count.version)
	if err != nil {
		return nil, problem.Store("read relations", err)
	}
	rows := make([]momentsv1.Relation, len(req.GetAuthorIds())) // one allocation for all
	res := &momentsv1.RelationsResponse{Version: c.version, Relations: make([]*momentsv1.Relation, len(rows))}
	for i, text := range req.GetAuthorIds() {
		author, err := parseUser("author_ids", text)
		if err != nil {
			return nil, err
		}
		_, friends := c.friends[author]
		rows[i].AuthorId = text
		rows[i].Friends = friends
		res.Relations[i] = &rows[i]
	}
	return res, nil
}

// circle gives the viewer's friends at version or later. The version is read from
// the store for each call, so a cached circle is used only while it is true,
// whoever wrote last.
func (s *Service) circle(ctx context.Context, viewer id.User, version uint64) (circle, error) {
	if c, ok := s.relations.get(viewer); ok && c.version == version {
		return c, nil
	}
	for {
		c, err := s.readCircle(ctx, viewer, version)
		if err != nil {
			return circle{}, err
		}
		// A listing of several pages is one version's only if nothing changed meanwhile.
		count, err := s.tally(ctx, viewer)
		if err != nil {
			return circle{}, err
		}
		if count.version == version {
			s.relations.put(viewer, c, 1+len(c.friends))
			return c, nil
		}
		version = count.version
	}
}

func (s *Service) readCircle(ctx context.Context, viewer id.User, version uint64) (circle, error) {
	c := circle{version: version, friends: make(map[id.User]struct{})}
	r := kv.Prefix(userKey(prefixFriend, viewer), kv.MaxScan)
	for {
		items, more, err := s.store.Scan(ctx, slotOfUser(viewer), r, kv.Linearizable)
		if err != nil {
			return circle{}, err
		}
		for _, item := range items {
			other, err := secondOf[id.User](item.Key)
			if err != nil {
				return circle{}, err
			}
			c.friends[other] = struct{}{}
		}
		if !more || len(items) == 0 {
			return c, nil
		}
		r.From = kv.Next(items[len(items)-1].Key)
	}
}
