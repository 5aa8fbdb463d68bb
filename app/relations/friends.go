// SPDX-License-Identifier: Apache-2.0

package relations

import (
	"context"
	"errors"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/versions"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Lister is an Account that also lists friends.
type Lister interface {
	Account
	ListFriends(context.Context, *momentsv1.ListFriendsRequest) (*momentsv1.ListFriendsResponse, error)
}

// Lists keeps what its user makes of the friends of the latest people, for as long as
// the version of their relations holds, which every use asks for. It may be used
// concurrently.
type Lists[T any] struct {
	account Lister
	arrange func(friends []id.User) T
	kept    *versions.Cache[id.User, T]
}

// NewLists makes a Lists that keeps at most limit friendships, as arrange gives them.
func NewLists[T any](account Lister, limit int, arrange func(friends []id.User) T) *Lists[T] {
	return &Lists[T]{account: account, arrange: arrange, kept: versions.New[id.User, T](limit)}
}

// Of gives a person's friends, arranged; many may have received the same memory. Whose
// account is gone has none. A steady list is as it was at one moment of the call; in
// another are all who have been friends during the whole call, and some of the rest.
func (l *Lists[T]) Of(ctx context.Context, person id.User) (list T, steady bool, err error) {
	return l.at(ctx, person, 0)
}

// at is Of for who has found the version of the person's relations during the call; zero
// for who has not.
func (l *Lists[T]) at(ctx context.Context, person id.User, version uint64) (list T, steady bool, err error) {
	had := l.kept.Get(person)
	if had.Ver != 0 && had.Ver == version {
		return had.Value, true, nil
	}
	text := person.String()
	if had.Ver != 0 {
		res, err := l.account.Relations(ctx, &momentsv1.RelationsRequest{ViewerId: text, KnownVersion: had.Ver})
		if err != nil && rpc.CodeOf(err) != rpc.NotFound {
			return list, false, err
		}
		if res.GetUnchanged() {
			return had.Value, true, nil
		}
	}
	friends, version, steady, err := l.read(ctx, text)
	switch {
	case rpc.CodeOf(err) == rpc.NotFound:
		return l.arrange(nil), true, nil
	case err != nil:
		return list, false, err
	}
	list = l.arrange(friends)
	if steady {
		// A list costs its friends and about as much as one more for itself.
		l.kept.Put(person, versions.Entry[T]{Value: list, Ver: version, Size: len(friends) + 1})
	}
	return list, steady, nil
}

// read pages through a friend list. Steady says that it did not change meanwhile.
func (l *Lists[T]) read(ctx context.Context, person string) (friends []id.User, version uint64, steady bool, err error) {
	const page = 500
	req := &momentsv1.ListFriendsRequest{UserId: person, Limit: page}
	steady = true
	for {
		res, err := l.account.ListFriends(ctx, req)
		if err != nil {
			return nil, 0, false, err
		}
		if req.GetCursor() == "" {
			version, friends = res.GetVersion(), make([]id.User, 0, len(res.GetUserIds()))
		}
		steady = steady && res.GetVersion() == version
		for _, v := range res.GetUserIds() {
			u, err := id.ParseUser(v)
			if err != nil {
				return nil, 0, false, err
			}
			friends = append(friends, u)
		}
		switch next := res.GetNextCursor(); next {
		case "":
			return friends, version, steady, nil
		case req.GetCursor():
			return nil, 0, false, errors.New("relations: account lists friends in a circle")
		default:
			req = &momentsv1.ListFriendsRequest{UserId: person, Limit: page, Cursor: next}
		}
	}
}

// Friends keeps who the friends of the latest people are. It is for who asks of others
// nothing but whether they are friends. It may be used concurrently.
type Friends struct {
	lists *Lists[people]
}

// NewFriends makes a Friends that keeps at most limit friendships.
func NewFriends(account Lister, limit int) *Friends {
	return &Friends{NewLists(account, limit, newPeople)}
}

// Of gives who a person's friends are. The set knows of friends that they are friends
// and nothing else, and takes all others for strangers. Whose account is gone has none.
func (f *Friends) Of(ctx context.Context, person id.User) (Set, error) {
	return f.At(ctx, person, 0)
}

// At is Of for who has found the version of the person's relations during the call that
// he answers with this, so that it need not be asked for again; zero for who has not.
func (f *Friends) At(ctx context.Context, person id.User, version uint64) (Set, error) {
	for range tries {
		friends, steady, err := f.lists.at(ctx, person, version)
		if err != nil || steady {
			return Set{viewer: person, friends: friends}, err
		}
	}
	return Set{}, errTooFast
}

// Friends gives those whom a set of a Friends knows, in no order.
func (s Set) Friends() []id.User {
	all := make([]id.User, 0, len(s.friends)/2)
	for i := range s.friends {
		if u := s.friends[i].user; !u.IsZero() {
			all = append(all, u)
		}
	}
	return all
}
