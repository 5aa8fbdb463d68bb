// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/load"
)

func newAuditCmd() *cobra.Command {
	var data string
	var workers int
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Prove that what is stored and shown is what the rules say",
		Long: `Prove that what is stored and shown is what the rules say, over the RPC of the
services that run on the data directory. For every user:

  - friendships are mutual, and the album holds the user's posts once, in order;
  - the timeline holds the user's own posts and those of friends, once, in order;
  - the timeline, and each album that the user opens (of friends, of blocked people,
    of anybody with a setting), show what friendship, settings, album window and the
    posts' audience allow, and nothing else;
  - under each post the comments and likes shown are those of the user and of
    friends, and the counts are theirs;
  - each notice tells of a live post, comment or like that the user may see, of a
    friend or of one who asks to be one, the unread ones are as many as counted, and what is stored of them fits;
  - each photo and video has its stored objects, and nothing else is stored;
  - deleted accounts have left no posts, timeline, notices, pictures or uploads.

It runs online. Who seems to differ is looked at three times, three seconds apart,
each time with everything read anew, and only what stays in all of them is a
difference; so people who write meanwhile do not show as differences. An account
that is being deleted may, for a minute, while its friendships go.

How long two people have been friends is known only of the people of moments seed.
Of others the newest 50 posts are demanded, and all that are newer than the oldest
one delivered; who parted and became friends again may lack posts of the time
between, which shows as a difference and which moments rebuild fills in. Of a
timeline of more than 2,000 posts the newest 2,000 are looked at.

Exit codes: 0 all is well, 1 there are differences (the first 20 are printed) or the
audit could not be done, 2 the command line was not understood.`,
		Example: `  moments audit
  moments audit --data /var/lib/moments --workers 2
  moments audit || moments rebuild --all   # mend what is not as it should be`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runAudit(cmd.Context(), cmd.OutOrStdout(), data, workers)
		},
	}
	addDataFlag(cmd, &data)
	cmd.Flags().IntVar(&workers, "workers", 8, "people looked at side by side")
	return cmd
}

func runAudit(ctx context.Context, out io.Writer, data string, workers int) error {
	if workers < 1 || workers > 1000 {
		return &usageError{fmt.Errorf("--workers %d: give 1 to 1000", workers)}
	}
	town, err := load.OpenTown(filepath.Join(data, townFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	people := peopleOf(town)
	s, err := dialStored(data)
	if err != nil {
		return err
	}
	defer s.close()
	s.people = people
	began, shown := time.Now(), time.Now()
	a, err := load.AuditConfig{Workers: workers, Since: friendsSince(town, people), Progress: func(done int) {
		if done > 0 && time.Since(shown) >= time.Second {
			shown = time.Now()
			fmt.Fprintf(out, "%d people looked at\n", done)
		}
	}, Again: func(people int) {
		fmt.Fprintf(out, "%d people seem to differ: looking at them again\n", people)
	}}.Run(toolContext(ctx, "moments audit"), s)
	if err != nil {
		return err
	}
	seeded := ""
	if town != nil {
		seeded = fmt.Sprintf(" (%d of them by moments seed)", s.seeded)
	}
	fmt.Fprintf(out, "people               %d%s\ndirected friendships %d\nposts                %d\ntimeline entries     %d\n",
		a.People, seeded, a.Friendships, a.Posts, a.Entries)
	if a.Stale > 0 {
		fmt.Fprintf(out, "of them stale        %d (the post is gone or not for its reader; reading leaves it out)\n", a.Stale)
	}
	fmt.Fprintf(out, "comments, likes      %d, %d\nnotices              %d\n", a.Comments, a.Likes, a.Notices)
	if a.Passing > 0 {
		fmt.Fprintf(out, "looked at again      %d people, who differed in passing: somebody wrote meanwhile\n", a.Passing)
	}
	for _, d := range a.First {
		fmt.Fprintln(out, "  difference:", d)
	}
	// The rest is looked at in any case: who mends wants to know all.
	err = errors.Join(a.Err(), auditDeleted(toolContext(ctx, "moments audit"), out, s), auditBlobs(ctx, out, data))
	if err != nil {
		return fmt.Errorf("%w; moments rebuild --all mends timelines, notices, what is stored of media and what deleted accounts left", err)
	}
	fmt.Fprintf(out, "clean, in %v\n", time.Since(began).Round(10*time.Millisecond))
	return nil
}

// peopleOf gives the numbers of a town's people by their user ids; nil without a town.
func peopleOf(town *load.Town) map[string]int32 {
	if town == nil {
		return nil
	}
	people := make(map[string]int32, town.Graph.People())
	for person := range town.Graph.People() {
		if user := town.ID(person); user != "" {
			people[user] = int32(person)
		}
	}
	return people
}

// friendsSince tells, for the people of a finished seeding, an id below which they may not have been friends yet. Without a town
// nothing is known.
func friendsSince(town *load.Town, people map[string]int32) func(a, b string) string {
	if town == nil || town.Ready().IsZero() {
		return nil
	}
	var first id.Post // of the moment: ids begin with their time in milliseconds
	var ms [8]byte
	// A second later, for the clocks of the seeding machine and of the servers.
	binary.BigEndian.PutUint64(ms[:], uint64(town.Ready().Add(time.Second).UnixMilli()))
	copy(first[:6], ms[2:])
	return func(a, b string) string {
		x, ok := people[a]
		y, ok2 := people[b]
		if !ok || !ok2 {
			return ""
		}
		if _, friends := slices.BinarySearch(town.Graph.Friends[x], y); !friends {
			return ""
		}
		return first.String()
	}
}
