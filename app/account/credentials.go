// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"errors"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// ChangePassword implements the contract.
func (s *Service) ChangePassword(ctx context.Context, req *momentsv1.ChangePasswordRequest) (*momentsv1.ChangePasswordResponse, error) {
	uid, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	sess, err := parseSession("session_id", req.GetSessionId())
	if err != nil {
		return nil, err
	}
	fresh, err := cleanPassword(req.GetNewPassword())
	if err != nil {
		return nil, asField(err, "new_password")
	}
	if err := checkKey(req.GetIdempotencyKey()); err != nil {
		return nil, err
	}
	for {
		err := s.changePassword(ctx, uid, sess, req, fresh)
		if retry(ctx, err) {
			continue // decided anew: the profile may have changed, or the password
		}
		if err != nil {
			return nil, problem.Store("change password", err)
		}
		return &momentsv1.ChangePasswordResponse{}, nil
	}
}

func (s *Service) changePassword(ctx context.Context, uid id.User, sess id.Session, req *momentsv1.ChangePasswordRequest, fresh string) error {
	slot := slotOfUser(uid)
	// The passwords are no part of the sum: a fast hash of them would lie beside the
	// slow one. A repetition is known by what the password is now.
	use := once.New(s.now(), uid[:], req.GetIdempotencyKey(), once.Sum("change-password"))
	_, done, err := use.Answer(ctx, s.store, slot)
	if err != nil {
		return err
	}
	if done {
		_, _, err := s.prove(ctx, uid, fresh, "new_password")
		if rpc.CodeOf(err) == rpc.PermissionDenied {
			return once.ErrReused
		}
		return err
	}
	u, ver, err := s.prove(ctx, uid, req.GetOldPassword(), "old_password")
	if err != nil {
		return err
	}
	if u.hash, err = s.hasher.hash(ctx, fresh); err != nil {
		return err
	}
	row, err := u.encode()
	if err != nil {
		return err
	}
	key := userKey(prefixUser, uid)
	b := new(kv.Batch).IfVer(key, ver).Put(key, row)
	endAll(b, uid, sess)
	use.IfNew(b)
	use.Record(b, nil)
	return s.apply(ctx, slot, b)
}

// prove gives a user's row and its version if password is his. Field is where the
// request has the password.
func (s *Service) prove(ctx context.Context, uid id.User, password, field string) (user, uint64, error) {
	u, ver, err := s.user(ctx, uid)
	if err != nil {
		return user{}, 0, err
	}
	if ver == 0 {
		return user{}, 0, problem.NotFound("user")
	}
	// Who has got hold of a session must not find out the password by it. These tries
	// count apart from those at the log-in, so that nobody outside can use them up.
	over, err := s.brakes.take("session of "+uid.String(), "", s.now())
	if err != nil {
		return user{}, 0, err
	}
	wrong := false
	defer func() { over(wrong) }()
	hash := u.hash
	clean, err := cleanPassword(password)
	if err != nil {
		clean, hash = "", "" // what can be no password is a wrong one
	}
	right, err := s.hasher.verify(ctx, hash, clean)
	if err != nil {
		return user{}, 0, err
	}
	if !right {
		wrong = true
		return user{}, 0, problem.New(rpc.PermissionDenied, "wrong-password", field, "this is not your password")
	}
	return u, ver, nil
}

// asField gives an error about one field as one about another.
func asField(err error, field string) error {
	e, ok := errors.AsType[*rpc.Error](err)
	var p momentsv1.Problem
	if !ok || !rpc.Detail(err, &p) {
		return err
	}
	return problem.New(e.Code, p.GetType(), field, "%s", e.Message)
}
