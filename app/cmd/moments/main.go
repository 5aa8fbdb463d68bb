// SPDX-License-Identifier: Apache-2.0

// Command moments runs Moments and looks after it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/framework"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main without the process: it gives the exit code, 0 for success, 1 for a
// failure, 2 for a command line that was not understood.
func run(args []string, stdout, stderr io.Writer) int {
	// The first signal asks for a stop in order, a second one ends the process.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)()

	root := newRootCmd()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		_, _ = fmt.Fprintf(stderr, "moments: %v\n", err)
		return 2
	}
	_, _ = fmt.Fprintf(stderr, "moments: %v\n", err)
	return 1
}

// usageError is a command line that was not understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func newRootCmd() *cobra.Command {
	var verbose bool
	root := &cobra.Command{
		Use:   "moments",
		Short: "Run Moments, a place where friends share what they see",
		Long: `Moments is the reference application of Sluice: people, their friends, what they
post, and what their friends say to it.`,
		Example: `  moments up                      # everything in one process, page on http://127.0.0.1:8080
  moments up --split              # each service a process of its own, two gateways
  moments up --regions SH,HK,CA   # three regions, and the ocean between them
  moments status                  # what runs, and how it is`,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			level := slog.LevelWarn
			if verbose {
				level = slog.LevelInfo
			}
			slog.SetDefault(slog.New(framework.LogHandler(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))))
		},
	}
	root.PersistentFlags().BoolVarP(&verbose, "verbose", "v", false, "log what goes on, not only what goes wrong")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
	})
	root.AddCommand(newUpCmd(), newRunCmd(), newStatusCmd(), newBackupCmd(), newRestoreCmd(),
		newSeedCmd(), newLoadCmd(), newAuditCmd(), newRebuildCmd(), newCheckCmd(), newCertsCmd(), newLineCmd(), newQueueCmd(), newRehomeCmd(), newRegionCmd())
	for _, cmd := range root.Commands() {
		checkArgs(cmd)
	}
	return root
}

// checkArgs lets a command and those below it take no more words than they know, and has
// a wrong number of them told as a fault of the command line.
func checkArgs(cmd *cobra.Command) {
	args := cmd.Args
	cmd.Args = func(cmd *cobra.Command, given []string) error {
		if args == nil {
			args = cobra.NoArgs
		}
		if err := args(cmd, given); err != nil {
			return &usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
		}
		return nil
	}
	for _, below := range cmd.Commands() {
		checkArgs(below)
	}
}

// defaultData is where data is kept if nobody says.
const defaultData = "./moments-data"

func addDataFlag(cmd *cobra.Command, into *string) {
	cmd.Flags().StringVar(into, "data", defaultData, "directory of the data")
}
