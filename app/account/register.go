// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"crypto/sha256"
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Register implements the contract.
//
// An account and its name lie in two slots. The account is written first, where
// nobody can find it, then the name, which makes it exist. A crash between the two
// leaves a row that nothing points to, which Run clears away, and never a name
// that nobody can have.
func (s *Service) Register(ctx context.Context, req *momentsv1.RegisterRequest) (*momentsv1.RegisterResponse, error) {
	name, err := cleanName(req.GetName())
	if err != nil {
		return nil, err
	}
	password, err := cleanPassword(req.GetPassword())
	if err != nil {
		return nil, err
	}
	display := name
	if req.GetDisplayName() != "" {
		if display, err = cleanDisplayName(req.GetDisplayName()); err != nil {
			return nil, err
		}
	}
	if err := checkKey(req.GetIdempotencyKey()); err != nil {
		return nil, err
	}
	var done [sha256.Size]byte
	if key := req.GetIdempotencyKey(); key != "" {
		done = once.Sum("register", key)
	}
	want := registration{name: name, display: display, password: password, done: done}

	folded := foldName(name)
	held, ok, err := s.claimOf(ctx, folded)
	if err != nil {
		return nil, problem.Store("register", err)
	}
	if ok { // told before a password is worked for nothing
		return s.registeredBefore(ctx, held, want)
	}
	switch other, err := s.away(ctx, folded); {
	case err != nil:
		return nil, problem.Store("register", err)
	case !other.IsZero():
		return nil, problem.New(rpc.AlreadyExists, "name-taken", "name", "the name %q is taken; choose another", name)
	}
	hash, err := s.hasher.hash(ctx, password)
	if err != nil {
		return nil, problem.Store("register", err)
	}
	uid, err := id.New[id.User](s.ids)
	if err != nil {
		return nil, err
	}
	profile := &momentsv1.Profile{
		UserId:      uid.String(),
		Name:        name,
		DisplayName: display,
		CreatedMs:   s.now().UnixMilli(),
		HomeRegion:  uint32(s.ids.Region()),
	}
	row, err := user{profile: profile, hash: hash}.encode()
	if err != nil {
		return nil, err
	}
	made := new(kv.Batch).Put(userKey(prefixUser, uid), row).Put(userKey(prefixPending, uid), []byte(folded))
	if err := s.apply(ctx, slotOfUser(uid), made); err != nil {
		return nil, problem.Store("register", err)
	}
	holder, err := s.takeName(ctx, folded, claim{user: uid, done: done})
	if err != nil {
		return nil, problem.Store("register", err)
	}
	if holder.user != uid {
		return s.registeredBefore(ctx, holder, want)
	}
	return &momentsv1.RegisterResponse{Profile: profile}, nil
}

// takeName claims a free name and gives whose it is then.
func (s *Service) takeName(ctx context.Context, folded string, c claim) (claim, error) {
	key := nameKey(folded)
	for {
		_, err := s.store.Apply(ctx, slotOfName(folded), new(kv.Batch).IfAbsent(key).Put(key, c.encode()))
		switch {
		case err == nil:
			return c, nil
		case errors.Is(err, kv.ErrConflict):
			held, ok, err := s.claimOf(ctx, folded)
			if err != nil || ok {
				return held, err
			}
		case !errors.Is(err, kv.ErrUnknown) || ctx.Err() != nil:
			return claim{}, err
		}
		// The outcome was lost: claiming again tells, since the user is the same.
	}
}

// registration is what a registration asked for.
type registration struct {
	name, display, password string
	done                    [sha256.Size]byte
}

// registeredBefore answers a registration whose name is taken: with the account,
// if it is a repeat of the one that made it.
func (s *Service) registeredBefore(ctx context.Context, held claim, want registration) (*momentsv1.RegisterResponse, error) {
	if want.done == ([sha256.Size]byte{}) || held.done != want.done {
		return nil, problem.New(rpc.AlreadyExists, "name-taken", "name", "the name %q is taken; choose another", want.name)
	}
	u, _, err := s.user(ctx, held.user)
	if err != nil {
		return nil, problem.Store("register", err)
	}
	// A password is never put into a fingerprint, where a fast hash of it would lie
	// beside the slow one; the slow one is asked.
	right, err := s.hasher.verify(ctx, u.hash, want.password)
	if err != nil {
		return nil, problem.Store("register", err)
	}
	if !right || u.profile.GetName() != want.name {
		return nil, once.ErrReused
	}
	return &momentsv1.RegisterResponse{Profile: u.profile}, nil
}

// claimOf gives whose a folded name is, and whether it is anybody's.
func (s *Service) claimOf(ctx context.Context, folded string) (claim, bool, error) {
	item, err := s.store.Get(ctx, slotOfName(folded), nameKey(folded), kv.Linearizable)
	if err != nil || item.Ver == 0 {
		return claim{}, false, err
	}
	c, err := decodeClaim(item.Value)
	return c, err == nil, err
}

// user gives the row of a user and its version, zero if there is none.
func (s *Service) user(ctx context.Context, u id.User) (user, uint64, error) {
	item, err := s.store.Get(ctx, slotOfUser(u), userKey(prefixUser, u), kv.Linearizable)
	if err != nil || item.Ver == 0 {
		return user{}, 0, err
	}
	row, err := decodeUser(item.Value)
	return row, item.Ver, err
}

// userByName gives the row of the user who has a name and its version, zero if there
// is none. A name that breaks the rules is nobody's.
func (s *Service) userByName(ctx context.Context, name string) (user, uint64, error) {
	name, err := cleanName(name)
	if err != nil {
		return user{}, 0, nil //nolint:nilerr // not an error: nobody has such a name
	}
	// Who holds no name is looked up as well, so that both ways take as long.
	held, ok, err := s.claimOf(ctx, foldName(name))
	if err == nil && !ok {
		held.user, err = s.away(ctx, foldName(name))
	}
	if err != nil {
		return user{}, 0, err
	}
	return s.user(ctx, held.user)
}

// GetProfile implements the contract.
func (s *Service) GetProfile(ctx context.Context, req *momentsv1.GetProfileRequest) (*momentsv1.GetProfileResponse, error) {
	uid, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	u, ver, err := s.user(ctx, uid)
	if err != nil {
		return nil, problem.Store("read profile", err)
	}
	if ver == 0 {
		return nil, problem.NotFound("user")
	}
	return &momentsv1.GetProfileResponse{Profile: u.profile}, nil
}

// maxProfiles is the most profiles of one call.
const maxProfiles = 500

// GetProfiles implements the contract.
func (s *Service) GetProfiles(ctx context.Context, req *momentsv1.GetProfilesRequest) (*momentsv1.GetProfilesResponse, error) {
	if n := len(req.GetUserIds()); n > maxProfiles {
		return nil, problem.Invalid("user_ids", "has %d ids, want at most %d", n, maxProfiles)
	}
	res := &momentsv1.GetProfilesResponse{Profiles: make([]*momentsv1.Profile, 0, len(req.GetUserIds()))}
	for _, text := range req.GetUserIds() {
		uid, err := problem.User("user_ids", text)
		if err != nil {
			return nil, err
		}
		u, ver, err := s.user(ctx, uid)
		if err != nil {
			return nil, problem.Store("read profiles", err)
		}
		if ver != 0 {
			res.Profiles = append(res.Profiles, u.profile)
		}
	}
	return res, nil
}

// FindUser implements the contract.
func (s *Service) FindUser(ctx context.Context, req *momentsv1.FindUserRequest) (*momentsv1.FindUserResponse, error) {
	u, ver, err := s.userByName(ctx, req.GetName())
	if err != nil {
		return nil, problem.Store("find user", err)
	}
	if ver == 0 {
		return nil, problem.NotFound("user")
	}
	return &momentsv1.FindUserResponse{Profile: u.profile}, nil
}

// UpdateProfile implements the contract.
func (s *Service) UpdateProfile(ctx context.Context, req *momentsv1.UpdateProfileRequest) (*momentsv1.UpdateProfileResponse, error) {
	uid, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	if err := checkKey(req.GetIdempotencyKey()); err != nil {
		return nil, err
	}
	parts := []string{"update-profile"}
	add := func(field string, value *string) {
		if value != nil {
			parts = append(parts, field, *value)
		}
	}
	add("display_name", req.DisplayName)
	add("avatar_media_id", req.AvatarMediaId)
	add("cover_media_id", req.CoverMediaId)
	use := once.New(s.now(), uid[:], req.GetIdempotencyKey(), once.Sum(parts...))

	change := func(p *momentsv1.Profile) error {
		if req.DisplayName != nil {
			display, err := cleanDisplayName(req.GetDisplayName())
			if err != nil {
				return err
			}
			p.DisplayName = display
		}
		for _, picture := range []struct {
			field string
			value *string
			into  *string
		}{
			{"avatar_media_id", req.AvatarMediaId, &p.AvatarMediaId},
			{"cover_media_id", req.CoverMediaId, &p.CoverMediaId},
		} {
			if picture.value == nil {
				continue
			}
			if *picture.value != "" {
				if _, err := id.ParseMedia(*picture.value); err != nil {
					return problem.Invalid(picture.field, "not the id of a medium")
				}
			}
			*picture.into = *picture.value
		}
		return nil
	}
	for {
		profile, err := s.updateProfile(ctx, uid, use, change)
		if retry(ctx, err) {
			continue
		}
		if err != nil {
			return nil, problem.Store("update profile", err)
		}
		return &momentsv1.UpdateProfileResponse{Profile: profile}, nil
	}
}

// retry reports whether a write is to be decided anew from what the store has now.
// It is safe after a lost outcome where the decision finds its own work done.
func retry(ctx context.Context, err error) bool {
	return ctx.Err() == nil && (errors.Is(err, kv.ErrConflict) || errors.Is(err, kv.ErrUnknown))
}

func (s *Service) updateProfile(ctx context.Context, uid id.User, use once.Use, change func(*momentsv1.Profile) error) (*momentsv1.Profile, error) {
	slot := slotOfUser(uid)
	answer, found, err := use.Answer(ctx, s.store, slot)
	if err != nil {
		return nil, err
	}
	if found {
		profile := &momentsv1.Profile{}
		return profile, proto.Unmarshal(answer, profile)
	}
	u, ver, err := s.user(ctx, uid)
	if err != nil {
		return nil, err
	}
	if ver == 0 {
		return nil, problem.NotFound("user")
	}
	if err := change(u.profile); err != nil {
		return nil, err
	}
	row, err := u.encode()
	if err != nil {
		return nil, err
	}
	if answer, err = proto.Marshal(u.profile); err != nil {
		return nil, err
	}
	key := userKey(prefixUser, uid)
	b := new(kv.Batch).IfVer(key, ver).Put(key, row)
	use.IfNew(b)
	use.Record(b, answer)
	return u.profile, s.apply(ctx, slot, b)
}
