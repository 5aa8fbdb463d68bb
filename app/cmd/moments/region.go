// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/ocean"
	"github.com/sluice-rpc/sluice/app/pki"
)

// regionTime is how long a region may take to join or to leave, if nobody says.
const regionTime = 2 * time.Minute

func newRegionCmd() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "region",
		Short: "Let a region join those that run, or leave them",
		Long: `Region shows the regions of moments up --regions, lets one more join them and lets one
leave, while the others go on. Regions that run elsewhere do the same by their
configurations, which their processes read again when they change:

To join: give the region a number that none has ever had and a certificate (moments certs),
list it under regions in the configuration of each of the others, then start it with all of
them listed in its own. "moments queue" of the others shows when it has got all.

To leave: move the homes of who lives there (moments rehome). Stop the region, and start it
with moments up --drain, or all of its roles but the gateway. When "moments queue" there
shows depth 0 for all others, tell one of these: moments queue left NAME. Take it out of
the configurations, and stop it. Its number is never given again.`,
		Example: `  moments region
  moments region join SG
  moments region leave SG`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := readSea(cmd.Context(), data)
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			_, _ = fmt.Fprintln(table, "REGION\tPAGE\tSTATE\tOTHERS\tWAITING FOR THEM")
			for _, r := range st.Regions {
				state, waiting := "up", uint64(0)
				if !r.Up {
					state = "down"
				}
				for _, q := range r.Queues {
					waiting += q.Depth
				}
				_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\n", strings.ToUpper(r.Name), r.URL, state, len(r.Queues), waiting)
			}
			return table.Flush()
		},
	}
	cmd.PersistentFlags().StringVar(&data, "data", defaultSea, "directory of the regions")
	cmd.AddCommand(newJoinCmd(&data), newLeaveCmd(&data))
	return cmd
}

func newJoinCmd(data *string) *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "join NAME",
		Short: "Bring up one more region",
		Long: `Join starts one more region beside those that run, with a number that none has had and a
line to each of them. They hear of it first, and do not stop. It returns when the newcomer
has all that there was. It is started again with the others by naming it: moments up
--regions SH,HK,CA,SG. If it does not come up, the others forget it, and it can be tried
again.`,
		Example: `  moments region join SG --data ./moments-regions`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := pki.CheckName(strings.ToLower(args[0])); err != nil {
				return err
			}
			began := time.Now()
			if err := changeRegion(cmd.Context(), *data, args[0], true, wait); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s has joined, and has all that the others have, after %.1f s.\n", strings.ToUpper(args[0]), time.Since(began).Seconds())
			return err
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", regionTime, "how long to wait for it to have everything; if it serves by then it goes on, else it has not joined")
	return cmd
}

func newLeaveCmd(data *string) *cobra.Command {
	var wait time.Duration
	var anyway bool
	cmd := &cobra.Command{
		Use:   "leave NAME",
		Short: "Let a region go, with all that it has told the others",
		Long: `Leave stops the gateways of a region, waits until all of the others have all that it has,
tells them that it has left, and ends it. They do not stop. If one of them cannot be reached
the region stays, and is started as it was. What it had is kept in its directory, under
another name; its number is never given again.

It is refused while somebody is at home there: move them with moments rehome, or see them
cut off from their timelines, settings and posting with --anyway.`,
		Example: `  moments region leave SG --data ./moments-regions`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := strings.ToLower(args[0])
			st, err := readSea(cmd.Context(), *data)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(st.Regions, func(r ocean.RegionState) bool { return r.Name == name }) {
				return fmt.Errorf("there is no region %s", name)
			}
			if !anyway && len(st.Regions) > 2 { // else it is refused for that
				ctx, cancel := context.WithTimeout(cmd.Context(), queueTime)
				defer cancel()
				n, err := atHome(ctx, filepath.Join(*data, name))
				if err != nil {
					return fmt.Errorf("find out who is at home in %s: %w", name, err)
				}
				if n > 0 {
					return fmt.Errorf("%d people are at home in %s: move them first (moments rehome USER --to REGION --data %s), or give --anyway", n, name, filepath.Join(*data, name))
				}
			}
			began := time.Now()
			if err := changeRegion(cmd.Context(), *data, name, false, wait); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s has left after %.1f s; the others have all that it had.\n", strings.ToUpper(name), time.Since(began).Seconds())
			return err
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", regionTime, "how long to wait for the others to have everything; after that it stays")
	cmd.Flags().BoolVar(&anyway, "anyway", false, "also while people are at home there")
	return cmd
}

// readSea asks the process that runs the regions for them and their lines.
func readSea(ctx context.Context, data string) (st ocean.State, err error) {
	at, err := readOcean(data)
	if err != nil {
		return st, err
	}
	ctx, cancel := context.WithTimeout(ctx, oceanTime)
	defer cancel()
	err = askOcean(ctx, http.MethodGet, at+"/api/state", nil, &st)
	return st, err
}

// changeRegion has the process that runs the regions let one join or leave.
func changeRegion(ctx context.Context, data, name string, join bool, wait time.Duration) error {
	at, err := readOcean(data)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err = askOcean(ctx, http.MethodPost, at+"/api/regions/"+url.PathEscape(strings.ToLower(name)), map[string]bool{"join": join}, nil)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("it is not over after %v; see moments region and moments queue: %w", wait, err)
	}
	return err
}

// atHome counts who is at home in the region that runs on a directory, or about to be.
func atHome(ctx context.Context, dir string) (n int, err error) {
	state, err := cluster.ReadState(dir)
	if err != nil {
		return 0, err
	}
	conn, accounts, err := dialAccounts(state)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }() // it was only asked
	ctx = toolContext(ctx, "moments region")
	r := newResidents(id.Region(state.Region), accounts)
	for cursor := ""; ; {
		users, next, err := r.page(ctx, cursor, func(h homes.Home) bool { return h.Keeps(r.region) })
		if err != nil {
			return 0, err
		}
		n += len(users)
		if cursor = next; cursor == "" {
			return n, nil
		}
	}
}
