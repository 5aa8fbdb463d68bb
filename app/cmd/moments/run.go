// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/activation"
)

// tuneGC lets the heap grow to five times what lives before it is collected, up to half
// of the memory. What lives is small beside that, since Pebble keeps its caches outside of
// the heap, and each collection of a small heap is a larger part of the work. GOGC and
// GOMEMLIMIT override it.
func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(cluster.Memory() / 2)
	}
}

func newRunCmd() *cobra.Command {
	var (
		data, config, cost string
		settings           []string
		untilStdinEnds     bool
		trace              traceFlags
	)
	cmd := &cobra.Command{
		Use:   "run ROLE...",
		Short: "Run single roles as one process",
		Long: `Run runs the roles account, post, timeline, comment, notify and gateway, any of them. Roles
of the same process call each other within it; all others are called at the
addresses in the configuration. A role's store is in its own directory under --data.

Under systemd, run serves on the sockets it is started with, named ROLE and
ROLE-admin (FileDescriptorName=), instead of the addresses in the configuration.`,
		Example: `  moments run account --set account.listen=127.0.0.1:7001 --set timeline.addrs=127.0.0.1:7003 \
    --set post.addrs=127.0.0.1:7002 --set comment.addrs=127.0.0.1:7004
  moments run post comment timeline --config region.yaml
  moments run gateway --config region.yaml --set gateway.listen=127.0.0.1:8081`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			tuneGC()
			sockets, err := activation.Inherited()
			if err != nil {
				return err
			}
			roles, err := cluster.RolesOf(args)
			if err != nil {
				return &usageError{err}
			}
			t, found, err := topology.Explain(config, settings)
			if err != nil {
				return err
			}
			cheap, err := parseCost(cost, io.Discard)
			if err != nil {
				return err
			}
			source, err := topology.Source(config, settings)
			if err != nil {
				return err
			}
			c := cluster.Config{Topology: t, Roles: roles, Source: source, Settings: found, CheapPasswords: cheap, Sockets: sockets}
			if !slices.Equal(roles, []topology.Role{topology.Gateway}) {
				if c.Data, err = cluster.OpenData(data); err != nil {
					return err
				}
			}
			ctx := cmd.Context()
			if untilStdinEnds {
				var stop context.CancelFunc
				ctx, stop = whileInput(ctx, cmd.InOrStdin())
				defer stop()
			}
			flush, err := trace.begin(ctx, strings.Join(args, "-"))
			if err != nil {
				return err
			}
			defer flush()
			for _, caller := range []string{"job moments.demo", "moments seed", "moments audit", "moments rebuild", "moments region"} { // that call from processes that nobody pulls
				framework.NameEntry(caller)
			}
			node, err := cluster.Start(ctx, c)
			if err != nil {
				return err
			}
			for _, r := range roles {
				if at, ok := node.Running(r); ok {
					_, _ = fmt.Fprintf(cmd.OutOrStdout(), "%s on %s, admin http://%s\n", r, at.Addr, at.Admin)
				} else {
					_, _ = fmt.Fprintf(cmd.OutOrStdout(), "%s on %s, admin http://%s\n", r, node.URL(), node.GatewayAdmin())
				}
			}
			return node.Run(ctx)
		},
	}
	flags := cmd.Flags()
	addDataFlag(cmd, &data)
	flags.StringVar(&config, "config", "", "YAML file with the region and its addresses")
	flags.StringArrayVar(&settings, "set", nil, "one setting over the file, as name=value; may be given again")
	flags.StringVar(&cost, "password-cost", "default", "cost of new passwords: default, or min which protects nothing and is for benches")
	trace.add(cmd)
	addUntilStdinEnds(cmd, &untilStdinEnds)
	return cmd
}

// addUntilStdinEnds adds the flag by which a parent takes its children along.
func addUntilStdinEnds(cmd *cobra.Command, into *bool) {
	cmd.Flags().BoolVar(into, "until-stdin-ends", false, "stop when standard input ends: how a parent takes its children along")
	_ = cmd.Flags().MarkHidden("until-stdin-ends") // fails only for a flag that is not there
}

// whileInput gives a context that ends when the input does.
func whileInput(ctx context.Context, input io.Reader) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(ctx)
	// The one goroutine that is not waited for: a read of standard input cannot be ended,
	// and the process ends with the command.
	go func() {
		_, _ = io.Copy(io.Discard, input)
		stop()
	}()
	return ctx, stop
}
