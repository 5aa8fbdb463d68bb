// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/topology"
)

// queueTime bounds what a queue is asked.
const queueTime = 30 * time.Second

func newQueueCmd() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Show the queues to other regions, and look after what they have stopped for",
		Long: `Queue shows how each service of a running Moments is joined to its peers in other
regions: how far they are behind it, how far it is with theirs, and what somebody has to
see to. Its commands are about one region, that of --data. It fails if there is an alarm.

A record that a service has refused is in quarantine: the line goes on, and what depends
on it waits. Where the fault was mended (a clock was set, a program renewed), release it;
else drop it. What is dropped of comments is asked for again if others depend on it.`,
		Example: `  moments queue
  moments queue --data ./moments-regions/hk
  moments queue held
  moments queue release comment sh 1017 42
  moments queue accept ca
  moments queue lost ca`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), queueTime)
			defer cancel()
			pages, err := cluster.Queues(ctx, data)
			if err != nil {
				return err
			}
			return showQueues(pages, cmd.OutOrStdout())
		},
	}
	cmd.PersistentFlags().StringVar(&data, "data", defaultData, "directory of the data")
	cmd.AddCommand(newHeldCmd(&data),
		newLetGoCmd(&data, cluster.QueueRelease, "Give what is in quarantine to its service again",
			"Release has a service look again at what it has refused. It stays in quarantine if it is\nrefused again. Where its time was too far ahead, that is let pass."),
		newLetGoCmd(&data, cluster.QueueDrop, "Give up what is in quarantine",
			"Drop removes what a service has refused. Of a post or an account it is lost here until it\nis written again; of a comment it is asked for again when others depend on it."),
		newAcceptCmd(&data),
		newEndCmd(&data, cluster.QueueLost, "Give up a region that does not come back",
			`Lost says once, for all posts and for all regions that can be reached, that a region is
gone with what it alone had. Comments that wait for what it had are shown without it, as
answers to something that is not available. What any of the others has of it, all get. It
cannot be taken back: if the region comes back after all, its comments go on under another
number, and nothing that it has is lost.`),
		newEndCmd(&data, cluster.QueueLeft, "Let a region go that has told the others all it had",
			`Left says that a region has ended in order: it takes no writes, and "moments queue" of that
region showed depth 0 to all of the others. Take it out of the configurations then.`))
	return cmd
}

// showQueues prints how services are joined, and fails if there is an alarm.
func showQueues(pages map[topology.Role]cluster.RegionsPage, w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "SERVICE\tPEER\tSENDING\tDEPTH\tLAG\tSNAPSHOTS DUE\tRECEIVING\tAPPLIED\tHELD BACK")
	var alarms []string
	for _, r := range topology.Joined() {
		page := pages[r]
		names := map[uint32]string{}
		for _, p := range page.Line.Peers {
			names[uint32(p.Region)] = p.Name
		}
		for _, p := range page.Queue.Peers {
			name := names[uint32(p.Region)]
			_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%v\t%d\t%s\t%d\t%d\n", r, name,
				p.Send.State, p.Send.Depth, time.Duration(p.Send.LagMS)*time.Millisecond, p.Send.NeedsSnapshot,
				p.Receive.State, p.Receive.Applied, p.Receive.InQuarantine)
			for way, alarm := range map[string]string{"to": p.Send.Alarm, "from": p.Receive.Alarm} {
				if alarm != "" {
					alarms = append(alarms, fmt.Sprintf("%s %s %s: %s", r, way, name, alarm))
				}
			}
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if c := pages[topology.Comment].Causality; c != nil {
		_, _ = fmt.Fprintf(w, "\nComments are made under number %d; %d wait for their causes, posts that lack something: %d.\n", c.Number, c.Held, c.Late)
		for _, m := range c.Members {
			if m.State != "active" {
				_, _ = fmt.Fprintf(w, "Number %d is %s.\n", m.Number, m.State)
			}
		}
		if c.Orphans > 0 {
			_, _ = fmt.Fprintf(w, "%d are shown without a cause, which was lost with its region.\n", c.Orphans)
		}
		if c.Forks > 0 {
			alarms = append(alarms, fmt.Sprintf("comment: %d operations claim a place that another one has: a store was set back without moments restore; both are kept", c.Forks))
		}
	}
	if len(alarms) == 0 {
		return nil
	}
	slices.Sort(alarms)
	return fmt.Errorf("somebody has to look:\n  %s", strings.Join(alarms, "\n  "))
}

func newHeldCmd(data *string) *cobra.Command {
	return &cobra.Command{
		Use:     "held",
		Short:   "List what is in quarantine",
		Long:    `Held lists what services have refused of other regions, at most 1,000 of each, and why.`,
		Example: `  moments queue held --data ./moments-regions/hk`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), queueTime)
			defer cancel()
			all, err := cluster.Quarantine(ctx, *data)
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			_, _ = fmt.Fprintln(table, "SERVICE\tFROM\tSLOT\tNUMBER\tSINCE\tWHY")
			for _, q := range all {
				_, _ = fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%s\t%s\n", q.Service, q.Name, q.Slot, q.Seq, q.At.UTC().Format(time.RFC3339), q.Reason)
			}
			return table.Flush()
		},
	}
}

func newLetGoCmd(data *string, do cluster.QueueDo, short, long string) *cobra.Command {
	return &cobra.Command{
		Use:     string(do) + " SERVICE REGION SLOT NUMBER",
		Short:   short,
		Long:    long,
		Example: fmt.Sprintf("  moments queue held\n  moments queue %s comment sh 1017 42", do),
		Args:    cobra.ExactArgs(4),
		RunE: func(cmd *cobra.Command, args []string) error {
			slot, err := strconv.ParseUint(args[2], 10, 16)
			if err != nil || slot >= kv.Slots {
				return &usageError{fmt.Errorf("%q is no slot: want 0 to %d", args[2], kv.Slots-1)}
			}
			seq, err := strconv.ParseUint(args[3], 10, 64)
			if err != nil {
				return &usageError{fmt.Errorf("%q is no number of a record: see moments queue held", args[3])}
			}
			r, err := topology.ParseRole(args[0])
			if err != nil {
				return &usageError{err}
			}
			return orderQueues(cmd, *data, []topology.Role{r}, cluster.QueueOrder{Do: do, Region: args[1], Slot: kv.Slot(slot), Seq: seq})
		},
	}
}

func newAcceptCmd(data *string) *cobra.Command {
	var service string
	cmd := &cobra.Command{
		Use:   "accept REGION",
		Short: "Go on with a region whose stores were restored from a backup",
		Long: `Accept takes what a region now has as its log, in place of the one that is known here.
A service stops when the log of a peer is another one than before, since it may have less
than was told of it. After that all of it is sent again. Without --service it is for all
services that have stopped for that.`,
		Example: `  moments queue accept ca
  moments queue accept ca --service comment`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			roles := topology.Joined()
			if service != "" {
				r, err := topology.ParseRole(service)
				if err != nil {
					return &usageError{err}
				}
				roles = []topology.Role{r}
			}
			return orderQueues(cmd, *data, roles, cluster.QueueOrder{Do: cluster.QueueAccept, Region: args[0]})
		},
	}
	cmd.Flags().StringVar(&service, "service", "", "only this service")
	return cmd
}

func newEndCmd(data *string, do cluster.QueueDo, short, long string) *cobra.Command {
	return &cobra.Command{
		Use:     string(do) + " REGION",
		Short:   short,
		Long:    long,
		Example: fmt.Sprintf("  moments queue %s ca\n  moments queue %s 3      # one that is in no configuration any more", do, do),
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return orderQueues(cmd, *data, []topology.Role{topology.Comment}, cluster.QueueOrder{Do: do, Region: args[0]})
		},
	}
}

// orderQueues has services do something. It fails if none of them could.
func orderQueues(cmd *cobra.Command, data string, roles []topology.Role, order cluster.QueueOrder) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), queueTime)
	defer cancel()
	var errs []error
	for _, r := range roles {
		if err := cluster.OrderQueue(ctx, data, r, order, nil); err != nil {
			errs = append(errs, err)
			continue
		}
		_, _ = fmt.Fprintf(cmd.OutOrStdout(), "%s: done\n", r)
	}
	if len(errs) < len(roles) {
		for _, err := range errs {
			_, _ = fmt.Fprintln(cmd.ErrOrStderr(), err)
		}
		return nil
	}
	return errors.Join(errs...)
}
