// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"

	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// deleted calls do for everybody whose account is deleted and cleared away.
func (s *storedOverRPC) deleted(ctx context.Context, do func(user string) error) error {
	for cursor := ""; ; {
		var res *momentsv1.ListUsersResponse
		err := retry(ctx, func() (err error) {
			res, err = s.accounts.ListUsers(ctx, &momentsv1.ListUsersRequest{Cursor: cursor, Deleted: true})
			return err
		})
		if err != nil {
			return fmt.Errorf("list deleted accounts: %w", err)
		}
		for _, p := range res.GetProfiles() {
			if err := do(p.GetUserId()); err != nil {
				return err
			}
		}
		if cursor = res.GetNextCursor(); cursor == "" {
			return nil
		}
	}
}

// leftovers asks those who forget people what they still have of somebody whose account
// is deleted, or has them remove it. It calls found for whatever there is.
func (s *storedOverRPC) leftovers(ctx context.Context, user string, dry bool, found func(n uint32, what string)) error {
	for _, owner := range []struct {
		what   string
		forget func(context.Context, *momentsv1.ForgetRequest) (*momentsv1.ForgetResponse, error)
	}{
		{"entries of a timeline", s.timelines.Forget}, {"notices", s.notices.Forget}, {"pictures and uploads", s.media.Forget},
	} {
		err := retry(ctx, func() error {
			res, err := owner.forget(ctx, &momentsv1.ForgetRequest{UserId: user, DryRun: dry})
			if n := res.GetFound(); n > 0 {
				found(n, owner.what)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("%s of the deleted account %s: %w", owner.what, user, err)
		}
	}
	posts, err := s.Album(ctx, user)
	if len(posts) > 0 {
		found(uint32(len(posts)), "posts")
	}
	return err
}

// auditDeleted looks for what deleted accounts have left, and prints the first of it.
func auditDeleted(ctx context.Context, out io.Writer, s *storedOverRPC) error {
	const most = 10
	accounts, wrong := 0, 0
	err := s.deleted(ctx, func(user string) error {
		accounts++
		return s.leftovers(ctx, user, true, func(n uint32, what string) {
			if wrong++; wrong <= most {
				fmt.Fprintf(out, "  difference: %d %s are left of the deleted account %s\n", n, what, user)
			}
		})
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "deleted accounts     %d\n", accounts)
	if wrong > 0 {
		return fmt.Errorf("%d kinds of leftovers of deleted accounts", wrong)
	}
	return nil
}
