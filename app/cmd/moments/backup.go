// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/app/cluster"
)

func newBackupCmd() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "backup DEST",
		Short: "Copy the data of a running Moments",
		Long: `Backup has the running processes copy their stores into the new directory DEST,
on the same machine, while they go on serving. Everything acknowledged before is in
the copy. On the same file system the copy shares its files with the original and
takes hardly any room at first.`,
		Example: `  moments backup ./moments-backup
  moments backup --data /var/lib/moments /backup/moments-2026-11-22`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cluster.Backup(cmd.Context(), data, args[0]); err != nil {
				return fmt.Errorf("backup: %w", err)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "Backed up to %s. To use it: moments restore %s --data NEW_DIR\n", args[0], args[0])
			return err
		},
	}
	addDataFlag(cmd, &data)
	return cmd
}

func newRestoreCmd() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "restore SRC",
		Short: "Make a data directory from a backup",
		Long: `Restore makes the new directory --data from the backup SRC and checks every item
of it. It refuses a directory that holds anything, and leaves nothing if it fails.`,
		Example: `  moments restore ./moments-backup --data ./moments-restored
  moments up --data ./moments-restored`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cluster.Restore(cmd.Context(), args[0], data); err != nil {
				return fmt.Errorf("restore: %w", err)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "Restored to %s. Start it with: moments up --data %s\n", data, data)
			return err
		},
	}
	addDataFlag(cmd, &data)
	return cmd
}
