// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"slices"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// A circle is a user's friends at one version of his relations. It is never
// changed once it is made.
type circle struct {
	version uint64
	friends []friend // in ascending order
}

// friend is one of a circle. It is as small as can be: there are many.
type friend struct {
	user id.User
	row  byte // see decodeFriend; 0 for an empty one
}

// of gives how a user sees another, who is a stranger if he is not in the circle.
func (c circle) of(other id.User) (v view, friends bool) {
	i, found := slices.BinarySearchFunc(c.friends, other, func(f friend, u id.User) int { return f.user.Compare(u) })
	if !found {
		return view{}, false
	}
	return decodeFriend([]byte{c.friends[i].row}), true
}

// maxAuthors is the most authors of one call.
const maxAuthors = 1000

// Relations implements the contract.
func (s *Service) Relations(ctx context.Context, req *momentsv1.RelationsRequest) (*momentsv1.RelationsResponse, error) {
	viewer, err := problem.User("viewer_id", req.GetViewerId())
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
	home, err := s.homeVersion(ctx, viewer, count)
	if err != nil {
		return nil, problem.Store("read relations", err)
	}
	rows := make([]momentsv1.Relation, len(req.GetAuthorIds())) // one allocation for all
	res := &momentsv1.RelationsResponse{Version: c.version, HomeVersion: home, Relations: make([]*momentsv1.Relation, len(rows))}
	for i, text := range req.GetAuthorIds() {
		author, err := problem.User("author_ids", text)
		if err != nil {
			return nil, err
		}
		rows[i].AuthorId = text
		if err := s.relate(ctx, c, viewer, author, req.GetStrangers(), &rows[i]); err != nil {
			return nil, problem.Store("read relations", err)
		}
		res.Relations[i] = &rows[i]
	}
	return res, nil
}

// relate tells how the viewer stands to one author. Whatever changes what it tells of a
// friend moves the viewer's version on.
func (s *Service) relate(ctx context.Context, c circle, viewer, author id.User, strangers bool, r *momentsv1.Relation) error {
	v, friends := c.of(author)
	switch {
	case author == viewer || !friends && !strangers:
		return nil
	case !friends:
		e, err := s.edge(ctx, viewer, author)
		if err != nil {
			return err
		}
		v = e.view()
		v.friends = false // the friends are those of the version
	}
	st, _, err := s.settingsOf(ctx, author)
	if err != nil {
		return err
	}
	r.Friends, r.AuthorHides, r.ViewerHides, r.Off = v.friends, v.authorHides, v.viewerHides, v.off
	r.AlbumWindow, r.OpenToStrangers = st.window, !v.friends && st.open
	return nil
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
	c := circle{version: version}
	r := kv.Prefix(userKey(prefixFriend, viewer), kv.MaxScan)
	for {
		items, more, err := s.store.Scan(ctx, slotOfUser(viewer), r, kv.Linearizable)
		if err != nil {
			return circle{}, err
		}
		c.friends = slices.Grow(c.friends, len(items))
		for _, item := range items {
			f := friend{}
			if f.user, err = secondOf[id.User](item.Key); err != nil {
				return circle{}, err
			}
			if len(item.Value) > 0 {
				f.row = item.Value[0]
			}
			c.friends = append(c.friends, f)
		}
		if !more || len(items) == 0 {
			return c, nil
		}
		r.From = kv.Next(items[len(items)-1].Key)
	}
}
