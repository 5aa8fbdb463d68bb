// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/topology"
)

// statusTime bounds the asking of one process.
const statusTime = 2 * time.Second

func newStatusCmd() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what runs on a data directory, and how it is",
		Long: `Status asks each process of a running Moments whether it is ready, and how it is joined
to other regions. It fails if one is not ready.`,
		Example: `  moments status
  moments status --data /var/lib/moments`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			state, err := cluster.ReadState(data)
			if err != nil {
				return err
			}
			return status(cmd.Context(), state, cmd.OutOrStdout())
		},
	}
	addDataFlag(cmd, &data)
	return cmd
}

func status(ctx context.Context, state *cluster.State, w io.Writer) error {
	// Only whether it answers is asked, and by the one who runs it: whose name is on
	// its certificate does not matter.
	client := &http.Client{Timeout: statusTime, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		DisableKeepAlives: true,
	}}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "ROLE\tPROCESS\tADDRESS\tADMIN\tSTATE")
	down := 0
	row := func(role string, pid int, addr, admin, url string) {
		said := askReady(ctx, client, url)
		if said != "ok" {
			down++
		}
		_, _ = fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\n", role, pid, addr, admin, said)
	}
	for _, r := range topology.Placed() {
		s := state.Services[r]
		row(string(r), s.PID, s.Addr, s.Admin, "http://"+s.Admin+"/readyz")
	}
	for _, g := range state.Gateways {
		row(string(topology.Gateway), g.PID, g.URL, g.Admin, g.URL+"/readyz")
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if err := joinedStatus(ctx, client, state, w); err != nil {
		return err
	}
	if down > 0 {
		return fmt.Errorf("%d of %d do not answer that they are ready", down, len(topology.Placed())+len(state.Gateways))
	}
	return nil
}

// joinedStatus prints how each service is joined to its peers in other regions, if there
// are any.
func joinedStatus(ctx context.Context, client *http.Client, state *cluster.State, w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	var alarms []string
	rows := 0
	for _, r := range topology.Joined() {
		said, err := askJoined(ctx, client, state.Services[r].Admin)
		if err != nil {
			continue // it is down, as said above, or joined to nobody
		}
		for _, line := range said.Line.Peers {
			for _, q := range said.Queue.Peers {
				if q.Region != line.Region {
					continue
				}
				if rows++; rows == 1 {
					_, _ = fmt.Fprintln(table, "\nSERVICE\tPEER\tLINE\tRTT\tLOSS\tSENDS\tWAITING\tOLDEST\tTAKES\tTWICE\tGAPS\tQUARANTINE")
				}
				rtt, loss := "-", "-"
				if line.Dialled != nil {
					rtt, loss = fmt.Sprintf("%.1f ms", line.Dialled.RTTMs), fmt.Sprintf("%.1f %%", 100*line.Dialled.Loss)
				}
				_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%v\t%s\t%d\t%d\t%d\n", r, line.Name, line.State, rtt, loss,
					q.Send.State, q.Send.Depth, time.Duration(q.Send.LagMS)*time.Millisecond, q.Receive.State, q.Receive.Duplicates, q.Receive.Gaps, q.Receive.InQuarantine)
				for _, alarm := range []string{q.Send.Alarm, q.Receive.Alarm} {
					if alarm != "" {
						alarms = append(alarms, fmt.Sprintf("alarm: %s, peer %s: %s", r, line.Name, alarm))
					}
				}
			}
		}
	}
	err := table.Flush()
	for _, alarm := range alarms {
		_, _ = fmt.Fprintln(w, alarm)
	}
	return err
}

func askJoined(ctx context.Context, client *http.Client, admin string) (said cluster.RegionsPage, _ error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/regions", nil)
	if err != nil {
		return said, err
	}
	res, err := client.Do(req)
	if err != nil {
		return said, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return said, fmt.Errorf("%s answers %s", admin, res.Status)
	}
	return said, json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&said)
}

// askReady gives "ok" or why not.
func askReady(ctx context.Context, client *http.Client, url string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err.Error()
	}
	res, err := client.Do(req)
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner // without method and URL, which the table shows
		}
		return "down: " + err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusOK {
		return "ok"
	}
	said, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10)) // what came is enough
	return strings.TrimSpace(string(said))
}
