// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/app/cluster"
)

func newRehomeCmd() *cobra.Command {
	var data, to string
	var undo bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "rehome USER [--to REGION | --undo]",
		Short: "Move a user's home to another region",
		Long: `Rehome moves where a user is at home: the region that takes his posts, settings and
friendships, and keeps his timeline. --data is of his home of before the move.

From the order on his old home refuses those writes with 503 "moving" and tells when to try
again; what he reads, and his comments and likes, go on. All that he has goes to the new
home, which opens once it has everything. Then the other regions send him there. Notices of
before the move and uploads that are in no post stay behind.

If anything of it is stopped or killed it goes on where it was as soon as both regions run
and reach each other. The same order, given again, waits for that. --undo asks for him back:
he stays where he was, unless the new home has opened already. Without either it tells
where he is at home.`,
		Example: `  moments rehome wang --to hk --data ./moments-regions/sh
  moments rehome wang --data ./moments-regions/sh            # how far is it?
  moments rehome wang --undo --data ./moments-regions/sh`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			order := cluster.RehomeOrder{Do: cluster.RehomeShow, User: args[0], To: to}
			switch {
			case to != "" && undo:
				return &usageError{errors.New("give either --to or --undo")}
			case to != "":
				order.Do = cluster.RehomeMove
			case undo:
				order.Do = cluster.RehomeUndo
			}
			return rehome(cmd.Context(), cmd.OutOrStdout(), data, order, wait)
		},
	}
	cmd.Flags().StringVar(&data, "data", defaultData, "directory of the data of the user's home")
	cmd.Flags().StringVar(&to, "to", "", "name or number of the region that is to be his home")
	cmd.Flags().BoolVar(&undo, "undo", false, "have him back who is being moved")
	cmd.Flags().DurationVar(&wait, "wait", time.Minute, "how long to wait for the end of it; 0s for not at all")
	return cmd
}

func rehome(ctx context.Context, w io.Writer, data string, order cluster.RehomeOrder, wait time.Duration) error {
	asked, cancel := context.WithTimeout(ctx, queueTime)
	defer cancel()
	state, err := cluster.OrderRehome(asked, data, order)
	if err != nil {
		return err
	}
	if order.Do != cluster.RehomeShow && state.Next != "" && wait > 0 {
		waiting, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		if state, err = cluster.AwaitHome(waiting, data, order.User); err != nil {
			return fmt.Errorf("%s is being moved: %w; see moments queue if it takes long", order.User, err)
		}
	}
	switch {
	case state.Next == "":
		_, err = fmt.Fprintf(w, "%s is at home in %s.\n", order.User, state.Region)
	case state.Back:
		_, err = fmt.Fprintf(w, "%s was to be moved from %s to %s and is called back, which %s decides.\n", order.User, state.Region, state.Next, state.Next)
	default:
		_, err = fmt.Fprintf(w, "%s is being moved from %s to %s.\n", order.User, state.Region, state.Next)
	}
	return err
}
