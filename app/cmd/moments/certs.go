// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/app/pki"
)

const defaultCerts = "./moments-certs"

func newCertsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "certs",
		Short: "Make the certificates by which regions know each other",
		Long: `Regions talk under TLS with certificates of a private authority that is used for
nothing else. A region's certificate names it, idc://NAME, and ends after 30 days at
most; a running process reads a new one without a restart. A certificate alone opens no
door: the name must be among the peers in the configuration too.

Keep authority.key away from the regions: it is needed only to issue.`,
		Example: `  moments certs init --dir ./moments-certs
  moments certs issue shanghai hong-kong canada --dir ./moments-certs
  moments certs show --dir ./moments-certs`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var dir string
	cmd.PersistentFlags().StringVar(&dir, "dir", defaultCerts, "directory of the certificates and keys")
	cmd.AddCommand(newCertsInitCmd(&dir), newCertsIssueCmd(&dir), newCertsShowCmd(&dir))
	return cmd
}

func newCertsInitCmd(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:     "init",
		Short:   "Make the authority, once",
		Long:    `Init makes authority.crt and authority.key (ECDSA P-256). It overwrites nothing.`,
		Example: `  moments certs init --dir ./moments-certs`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := pki.Dir(*dir).Init(time.Now()); err != nil {
				return err
			}
			_, _ = fmt.Fprintf(cmd.OutOrStdout(), "The authority is in %s. Next: moments certs issue NAME --dir %s\n", *dir, *dir)
			return nil
		},
	}
}

func newCertsIssueCmd(dir *string) *cobra.Command {
	var days int
	cmd := &cobra.Command{
		Use:   "issue NAME...",
		Short: "Make the certificates of regions",
		Long: `Issue makes NAME.crt and NAME.key for each region, readable by their owner alone. It
overwrites nothing: to renew one, move the old files away first. Processes use those
that they have read until the new ones are there.`,
		Example: `  moments certs issue shanghai hong-kong canada
  moments certs issue canada --days 7 --dir /etc/moments/certs`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			for _, name := range names { // all or none, as far as names go
				if err := pki.CheckName(name); err != nil {
					return &usageError{err}
				}
			}
			d, now := pki.Dir(*dir), time.Now()
			for _, name := range names {
				if err := d.Issue(name, time.Duration(days)*24*time.Hour, now); err != nil {
					return err
				}
				_, _ = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s and %s, good for %d days\n", name, d.Cert(name), d.Key(name), days)
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&days, "days", int(pki.MaxLeafLife.Hours()/24), "how long they are good, at most 30")
	return cmd
}

func newCertsShowCmd(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Short:   "Show the certificates, and when they end",
		Long:    `Show lists the certificates of a directory. It fails if one has ended.`,
		Example: `  moments certs show --dir ./moments-certs`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			shown, err := pki.Dir(*dir).Show()
			if err != nil {
				return err
			}
			now, ended := time.Now(), 0
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			_, _ = fmt.Fprintln(table, "REGION\tFROM\tUNTIL\tDAYS LEFT\tFILE")
			for _, s := range shown {
				name, left := s.Name, fmt.Sprintf("%.1f", s.Until.Sub(now).Hours()/24)
				switch {
				case s.Authority:
					name = "(authority)"
				case name == "":
					name = "(none)"
				}
				if s.Until.Before(now) {
					left = "ended"
					ended++
				}
				_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", name, s.From.Format(time.DateOnly), s.Until.Format(time.DateOnly), left, s.File)
			}
			if err := table.Flush(); err != nil {
				return err
			}
			if ended > 0 {
				return fmt.Errorf("%d of %d have ended: move them away and issue new ones", ended, len(shown))
			}
			return nil
		},
	}
}
