// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/topology"
)

// upFlags are the flags of up.
type upFlags struct {
	addr, data      string
	split           bool
	limits, cost    string
	tlsCert, tlsKey string
	table           string
	console         string
	trace           traceFlags
}

func newUpCmd() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring Moments up, with its page",
		Long: `Up runs everything that Moments needs until Ctrl-C, which lets running requests
finish. Nothing acknowledged is lost by ending it in any other way.`,
		Example: `  moments up
  moments up --addr 127.0.0.1:9000 --data /var/lib/moments
  moments up --split              # gateways on 8080 and 8081
  moments up --tls-cert cert.pem --tls-key key.pem`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			tuneGC()
			return up(cmd.Context(), f, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	addDataFlag(cmd, &f.data)
	flags.StringVar(&f.addr, "addr", "127.0.0.1:8080", "host:port of the page; without a host this machine alone, port 0 takes a free one")
	flags.BoolVar(&f.split, "split", false, "each service as a process of its own, and a second gateway on the next port")
	flags.StringVar(&f.limits, "limits", "on", "limit each user's writes: on or off")
	flags.StringVar(&f.cost, "password-cost", "default", "cost of new passwords: default, or min which protects nothing and is for benches")
	flags.StringVar(&f.tlsCert, "tls-cert", "", "PEM file of a certificate: serve HTTPS only")
	flags.StringVar(&f.tlsKey, "tls-key", "", "PEM file of the certificate's key")
	flags.StringVar(&f.table, "qos-table", "", "YAML file with other classes of routes than their contracts say, read again when it changes")
	flags.StringVar(&f.console, "console", "", "host:port of the console, or off (default "+cluster.DefaultConsole+", or a free port if that is taken)")
	f.trace.add(cmd)
	return cmd
}

// config turns the flags into what a cluster takes.
func (f *upFlags) config(stderr io.Writer) (_ topology.Config, cheap bool, _ error) {
	t := topology.Default()
	t.Gateway.Listen, t.Gateway.TLSCert, t.Gateway.TLSKey, t.Gateway.QoSTable = f.addr, f.tlsCert, f.tlsKey, f.table
	var err error
	if t.Gateway.Limits, err = parseLimits(f.limits); err != nil {
		return t, false, err
	}
	if cheap, err = parseCost(f.cost, stderr); err != nil {
		return t, false, err
	}
	if err := t.Gateway.Validate(); err != nil {
		return t, false, &usageError{err}
	}
	return t, cheap, nil
}

func parseLimits(s string) (bool, error) {
	switch s {
	case "on":
		return true, nil
	case "off":
		return false, nil
	}
	return false, &usageError{fmt.Errorf("--limits is %q, want on or off", s)}
}

func parseCost(s string, stderr io.Writer) (cheap bool, _ error) {
	switch s {
	case "default":
		return false, nil
	case "min":
		_, _ = fmt.Fprintln(stderr, "warning: --password-cost min: passwords set now are not protected; for benches only")
		return true, nil
	}
	return false, &usageError{fmt.Errorf("--password-cost is %q, want default or min", s)}
}

func up(ctx context.Context, f upFlags, stdout, stderr io.Writer) (err error) {
	t, cheap, err := f.config(stderr)
	if err != nil {
		return err
	}
	data, err := cluster.OpenData(f.data)
	if err != nil {
		return err
	}
	if err := data.Lock(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.RemoveState(), data.Unlock()) }()
	view := shown{addr: f.console}
	say := func(ctx context.Context, s *cluster.State, d demo) error {
		if err := view.open(ctx, s); err != nil {
			return err
		}
		printUp(stdout, f, data, s, d, view.url)
		return nil
	}
	if f.split {
		err = upSplit(ctx, f, t, data, say, stderr)
	} else {
		err = upOne(ctx, f.trace, t, cheap, data, say)
	}
	return errors.Join(err, view.wait())
}

// shown is the console beside what is up.
type shown struct {
	addr  string // "off" for none
	url   string
	ended chan error // nil while it does not run
}

// open serves the console until ctx ends. What goes wrong with it later is told, and
// harms nothing else.
func (v *shown) open(ctx context.Context, s *cluster.State) error {
	if v.addr == "off" {
		return nil
	}
	c, err := cluster.OpenConsole(ctx, v.addr, s, slog.Default())
	if err != nil {
		return err
	}
	v.url, v.ended = c.URL(), make(chan error, 1)
	go func() { // waited for in wait
		err := c.Run(ctx)
		if err != nil {
			slog.ErrorContext(ctx, "the console has ended", "err", err)
		}
		v.ended <- err
	}()
	return nil
}

func (v *shown) wait() error {
	if v.ended == nil {
		return nil
	}
	return <-v.ended
}

// upOne runs everything in this process.
func upOne(ctx context.Context, trace traceFlags, t topology.Config, cheap bool, data *cluster.Data, say func(context.Context, *cluster.State, demo) error) error {
	flush, err := trace.begin(ctx, "moments")
	if err != nil {
		return err
	}
	defer flush()
	node, err := cluster.Start(ctx, cluster.Config{Topology: t, Roles: topology.Roles(), Data: data, CheapPasswords: cheap})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }() // waited for on every way out
	state := cluster.State{
		PID: os.Getpid(), Started: time.Now().UTC(), Region: t.Region.Number,
		Gateways: []cluster.GatewayState{{URL: node.URL(), Admin: node.GatewayAdmin(), PID: os.Getpid()}},
		Services: map[topology.Role]cluster.Running{},
	}
	for _, r := range topology.Services() {
		state.Services[r], _ = node.Running(r)
	}
	d, err := ensureDemo(ctx, node.Accounts(), data)
	if err == nil {
		err = data.WriteState(state)
	}
	if err == nil {
		err = say(ctx, &state, d)
	}
	if err != nil {
		stop()
		return errors.Join(err, <-ended)
	}
	return <-ended
}

// upSplit runs each role in a process of its own.
func upSplit(ctx context.Context, f upFlags, t topology.Config, data *cluster.Data, say func(context.Context, *cluster.State, demo) error, stderr io.Writer) error {
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program to start it again for each service: %w", err)
	}
	split, err := cluster.NewSplit(ctx, cluster.SplitConfig{
		Topology: t, Data: data, Binary: binary, Stderr: stderr,
		Flags: append([]string{"--password-cost", f.cost}, f.trace.args()...),
	})
	if err != nil {
		return err
	}
	return split.Run(ctx, func(ctx context.Context, state *cluster.State) error {
		conn, accounts, err := dialAccounts(state)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		d, err := ensureDemo(ctx, accounts, data)
		if err != nil {
			return err
		}
		return say(ctx, state, d)
	})
}

func printUp(w io.Writer, f upFlags, data *cluster.Data, s *cluster.State, d demo, console string) {
	how := "one process"
	if s.Split {
		how = fmt.Sprintf("%d processes", 1+len(s.Services)+len(s.Gateways))
	}
	_, _ = fmt.Fprintf(w, "Moments is up (%s, data in %s).\n\n", how, data.Dir())
	for i, g := range s.Gateways {
		name := "page and API"
		if i > 0 {
			name = "also at"
		}
		_, _ = fmt.Fprintf(w, "  %-13s %s\n", name, g.URL)
	}
	_, _ = fmt.Fprintf(w, "  %-13s %s/openapi.yaml\n", "API document", s.Gateways[0].URL)
	if console != "" {
		_, _ = fmt.Fprintf(w, "  %-13s %s\n", "console", console)
	}
	for _, r := range topology.Services() {
		_, _ = fmt.Fprintf(w, "  %-13s %s, admin http://%s\n", string(r), s.Services[r].Addr, s.Services[r].Admin)
	}
	for _, g := range s.Gateways {
		_, _ = fmt.Fprintf(w, "  %-13s %s, admin http://%s\n", "gateway", strings.TrimPrefix(strings.TrimPrefix(g.URL, "http://"), "https://"), g.Admin)
	}
	if f.limits == "off" {
		_, _ = fmt.Fprintf(w, "  %-13s off\n", "user limits")
	}
	if d.name != "" {
		_, _ = fmt.Fprintf(w, "\n  demo login    %s / %s   (kept in %s)\n", d.name, d.password, d.file)
	}
	_, _ = fmt.Fprintf(w, `
Try: open the page, log in, register a friend in a private window, become friends, post.
     moments status --data %[1]s
     moments backup --data %[1]s ./moments-backup
Stop with Ctrl-C.
`, data.Dir())
}
