// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/app/check"
)

func newCheckCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Prove from a history of calls that comments and likes kept their promises",
		Long: `Prove from a history of calls that comments and likes kept their promises: causes
before effects, one order for all, nothing lost, nothing twice, deleted stays deleted,
likes as they were last given, sessions that see what they have seen.

A history is a file with a JSON object a line, one for each call as its client saw it,
in any order; - is standard input. The drills write one. For what is broken the calls
that prove it are printed, as few as there can be.

Exit codes: 0 nothing is broken, 1 something is, or the file could not be read, 2 the
command line was not understood.`,
		Example: `  moments check build/drill-regions.history.jsonl`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runCheck(cmd.Context(), cmd.OutOrStdout(), cmd.InOrStdin(), args[0])
		},
	}
}

func runCheck(ctx context.Context, out io.Writer, stdin io.Reader, file string) error {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	history, err := check.ReadHistory(in)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	v := check.History(history)
	if err := v.Print(out); err != nil {
		return err
	}
	return v.Err()
}
