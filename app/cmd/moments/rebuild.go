// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// rebuildFlags are the flags of rebuild.
type rebuildFlags struct {
	data, user, from string
	all, dry         bool
}

func newRebuildCmd() *cobra.Command {
	var f rebuildFlags
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Mend timelines, notices and what is stored of photos and videos",
		Long: `Rebuild has the services that run on the data directory mend what they store:

  - a timeline is made to hold the posts of the user's and the friends' albums that
    are for the user, newest first, up to 2,000; what is missing is put in, and what
    does not belong there and is older than an hour is taken out;
  - the place of the newest notice, and the mark up to which notices were read, are
    put where they belong; notices that cannot be read are removed;
  - with --all, stored objects that no photo, video or upload names for 24 hours are
    removed. Objects that are missing cannot be mended; moments audit names them;
  - with --all, what deleted accounts have left of timelines, notices, pictures and
    uploads is removed.

It mends who is at home in the region, those among them who have moved here.

It runs online, while people read and write. Doing it again changes nothing more, so
after an interruption it may simply be started again, or go on where it was with
--from. Albums, posts, comments and friendships are what the rest is made from, and
are left as they are.

Exit codes: 0 done (with --dry-run: also if there is something to mend), 1 it could
not be done for somebody, 2 the command line was not understood.`,
		Example: `  moments rebuild --all --dry-run      # tell what would be done
  moments rebuild --all
  moments rebuild --user 0123456789abcdefghjkmnpqrs
  moments rebuild --all --from CURSOR  # go on after an interruption, which tells CURSOR`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.all == (f.user != "") {
				return &usageError{errors.New("give either --user ID or --all; see moments rebuild --help")}
			}
			if _, err := id.ParseUser(f.user); err != nil && !f.all {
				return &usageError{fmt.Errorf("--user: %w", err)}
			}
			if f.from != "" && !f.all {
				return &usageError{errors.New("--from goes with --all")}
			}
			return runRebuild(cmd.Context(), cmd.OutOrStdout(), f)
		},
	}
	addDataFlag(cmd, &f.data)
	cmd.Flags().StringVar(&f.user, "user", "", "id of the one user to mend")
	cmd.Flags().BoolVar(&f.all, "all", false, "mend all users, and what is stored of photos and videos")
	cmd.Flags().BoolVar(&f.dry, "dry-run", false, "only tell what would be done")
	cmd.Flags().StringVar(&f.from, "from", "", "with --all: go on from here, as an interrupted run has told")
	return cmd
}

// rebuilding counts what was mended, or would be.
type rebuilding struct {
	rebuildFlags
	stored *storedOverRPC
	out    io.Writer

	people, failed  int
	added, removed  uint64 // timeline entries
	notices, orphan int    // faults; stored objects
	left            int    // kinds of leftovers of deleted accounts
	shown           time.Time
}

func runRebuild(ctx context.Context, out io.Writer, f rebuildFlags) error {
	s, err := dialStored(f.data)
	if err != nil {
		return err
	}
	defer s.close()
	r := &rebuilding{rebuildFlags: f, stored: s, out: out, shown: time.Now()}
	ctx = toolContext(ctx, "moments rebuild")
	if f.all {
		err = r.everybody(ctx)
	} else {
		if _, err = s.accounts.GetProfile(ctx, &momentsv1.GetProfileRequest{UserId: f.user}); err != nil {
			return fmt.Errorf("user %s: %w", f.user, err)
		}
		r.people, err = 1, r.person(ctx, f.user)
	}
	if err != nil {
		return err
	}
	would := ""
	if f.dry {
		would = " (dry run: nothing was changed)"
	}
	fmt.Fprintf(out, "people               %d%s\ntimeline entries     %d added, %d removed\nfaults of notices    %d\n",
		r.people, would, r.added, r.removed, r.notices)
	if f.all {
		fmt.Fprintf(out, "orphan objects       %d (removed once they are a day old)\nof deleted accounts  %d kinds of leftovers\n", r.orphan, r.left)
	}
	if r.failed > 0 {
		return fmt.Errorf("%d of %d people could not be mended; start it again", r.failed, r.people)
	}
	return nil
}

// everybody mends all people a page at a time, and then what is stored of media.
func (r *rebuilding) everybody(ctx context.Context) error {
	cursor := r.from
	interrupted := func(err error) error {
		if cursor == "" {
			return err
		}
		return fmt.Errorf("%w; to go on: moments rebuild --all --data %s --from %s", err, r.data, cursor)
	}
	at := newResidents(r.stored.region, r.stored.accounts)
	for {
		var users []string
		var next string
		err := retry(ctx, func() (err error) {
			users, next, err = at.page(ctx, cursor, at.has)
			return err
		})
		if err != nil {
			return interrupted(fmt.Errorf("list people: %w", err))
		}
		for _, user := range users {
			if err := r.person(ctx, user); err != nil {
				if ctx.Err() != nil {
					return interrupted(err)
				}
				r.failed++
				fmt.Fprintln(r.out, "  not mended:", err)
			}
			r.people++
			if time.Since(r.shown) >= 2*time.Second {
				r.shown = time.Now()
				fmt.Fprintf(r.out, "%d people done, %d entries added, %d removed\n", r.people, r.added, r.removed)
			}
		}
		if cursor = next; cursor == "" {
			if err := r.deleted(ctx); err != nil {
				return err
			}
			return r.blobs(ctx)
		}
	}
}

// person mends the timeline and the notices of one user.
func (r *rebuilding) person(ctx context.Context, user string) error {
	err := retry(ctx, func() error {
		res, err := r.stored.timelines.Rebuild(ctx, &momentsv1.RebuildRequest{ReaderId: user, DryRun: r.dry})
		r.added += uint64(res.GetAdded())
		r.removed += uint64(res.GetRemoved())
		return err
	})
	if err != nil {
		return fmt.Errorf("timeline of %s: %w", user, err)
	}
	err = retry(ctx, func() error {
		res, err := r.stored.notices.Check(ctx, &momentsv1.CheckNoticesRequest{UserId: user, Mend: !r.dry})
		r.notices += len(res.GetFaults())
		return err
	})
	if err != nil {
		return fmt.Errorf("notices of %s: %w", user, err)
	}
	return nil
}

// deleted removes what deleted accounts have left.
func (r *rebuilding) deleted(ctx context.Context) error {
	return r.stored.deleted(ctx, func(user string) error {
		return r.stored.leftovers(ctx, user, r.dry, func(uint32, string) { r.left++ })
	})
}

// blobs removes stored objects that nothing names.
func (r *rebuilding) blobs(ctx context.Context) error {
	conn, err := dialService(r.data, topology.Media)
	if err != nil {
		return err
	}
	defer conn.Close()
	media := momentsv1.NewMediaServiceClient(conn)
	req := &momentsv1.CheckBlobsRequest{Mend: !r.dry}
	for {
		err := retry(ctx, func() error {
			res, err := media.CheckBlobs(ctx, req)
			if err == nil {
				r.orphan += len(res.GetOrphans())
				req.Cursor = res.GetNextCursor()
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("photos and videos: %w", err)
		}
		if req.GetCursor() == "" {
			return nil
		}
	}
}

// retry does something again while the services have no time for it: people come first.
func retry(ctx context.Context, do func() error) error {
	const tries = 10
	for try := 1; ; try++ {
		err := do()
		switch rpc.CodeOf(err) {
		case rpc.Unavailable, rpc.ResourceExhausted, rpc.DeadlineExceeded:
			if try == tries {
				return err
			}
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(time.Duration(try) * 100 * time.Millisecond):
		}
	}
}
