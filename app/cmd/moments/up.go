// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework/config"
)

// upFlags are the flags of up.
type upFlags struct {
	addr, data      string
	split           bool
	limits, cost    string
	tlsCert, tlsKey string
	table           string
	access          string
	console         string
	file            string // configuration that the flags are over
	untilStdinEnds  bool
	drain           bool
	regions         regionFlags
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
  moments up --regions SH,HK,CA   # three regions on this machine, pages on 8080 to 8082
  moments up --regions SH,HK,CA --clock CA=+1h --delay 150ms
  moments up --config sg.yaml --drain   # before SG leaves: see moments region
  moments up --tls-cert cert.pem --tls-key key.pem`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			tuneGC()
			if f.regions.names != "" {
				if !cmd.Flags().Changed("data") {
					f.data = defaultSea
				}
				return upRegions(cmd.Context(), f, cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			ctx := cmd.Context()
			if f.untilStdinEnds {
				var stop context.CancelFunc
				ctx, stop = whileInput(ctx, cmd.InOrStdin())
				defer stop()
			}
			return up(ctx, f, cmd.OutOrStdout(), cmd.ErrOrStderr())
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
	flags.StringVar(&f.access, "access-log", "", "file that gets a JSON line for each request that has ended; - for standard error")
	flags.StringVar(&f.console, "console", "", "host:port of the console, or off (default "+cluster.DefaultConsole+", or a free port if that is taken)")
	flags.StringVar(&f.file, "config", "", "YAML file with the region and its peers in other regions")
	flags.BoolVar(&f.drain, "drain", false, "run the services without a gateway, in one process: a region that leaves takes no writes, and tells the others what they have not")
	f.regions.add(cmd)
	f.trace.add(cmd)
	addUntilStdinEnds(cmd, &f.untilStdinEnds)
	return cmd
}

// config turns the flags into what a cluster takes.
func (f *upFlags) config(stderr io.Writer) (_ topology.Config, cheap bool, _ error) {
	t, err := topology.Load(f.file, nil)
	if err != nil {
		return t, false, err
	}
	t.Gateway.Listen, t.Gateway.TLSCert, t.Gateway.TLSKey, t.Gateway.QoSTable = f.addr, f.tlsCert, f.tlsKey, f.table
	t.Gateway.AccessLog = f.access
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
	if f.drain {
		view.addr = "off"
	}
	if f.split && !f.drain {
		err = upSplit(ctx, f, t, data, say, stderr)
	} else {
		err = upOne(ctx, f, t, cheap, data, say)
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
	return v.run(ctx, func() (*cluster.Console, error) { return cluster.OpenConsole(ctx, v.addr, s, slog.Default()) })
}

func (v *shown) run(ctx context.Context, open func() (*cluster.Console, error)) error {
	if v.addr == "off" {
		return nil
	}
	c, err := open()
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
func upOne(ctx context.Context, f upFlags, t topology.Config, cheap bool, data *cluster.Data, say func(context.Context, *cluster.State, demo) error) error {
	flush, err := f.trace.begin(ctx, "moments")
	if err != nil {
		return err
	}
	defer flush()
	roles := topology.Roles()
	if f.drain {
		roles = topology.Services()
	}
	node, err := cluster.Start(ctx, cluster.Config{Topology: t, Source: config.Source{File: f.file}, Roles: roles, Data: data, CheapPasswords: cheap})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }() // waited for on every way out
	state := cluster.State{
		PID: os.Getpid(), Started: time.Now().UTC(), Region: t.Region.Number,
		Services: map[topology.Role]cluster.Running{},
	}
	if !f.drain {
		state.Gateways = []cluster.GatewayState{{URL: node.URL(), Admin: node.GatewayAdmin(), Line: node.GatewayLine(), PID: os.Getpid()}}
	}
	for _, r := range topology.Placed() {
		state.Services[r], _ = node.Running(r)
	}
	var d demo
	if !t.Abroad() && !f.drain { // the name would be that of one region's, by chance
		d, err = ensureDemo(ctx, node.Accounts(), data)
	}
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
		Topology: t, Source: config.Source{File: f.file}, Data: data, Binary: binary, Stderr: stderr,
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
		var d demo
		if !t.Abroad() {
			if d, err = ensureDemo(ctx, accounts, data); err != nil {
				return err
			}
		}
		return say(ctx, state, d)
	})
}

func printUp(w io.Writer, f upFlags, data *cluster.Data, s *cluster.State, d demo, console string) {
	if f.drain {
		_, _ = fmt.Fprintf(w, "The services are up without a gateway (data in %s).\n\nSee how far the others are: %[2]s queue --data %[1]s\nStop with Ctrl-C.\n", data.Dir(), called())
		return
	}
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
	for _, r := range topology.Placed() {
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
     %[2]s status --data %[1]s
     %[2]s backup --data %[1]s ./moments-backup
Stop with Ctrl-C.
`, data.Dir(), called())
}

// called is how the person at the terminal has called this program, to be called again.
func called() string {
	if filepath.Base(os.Args[0]) == "moments" {
		return os.Args[0]
	}
	return "moments"
}
