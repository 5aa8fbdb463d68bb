// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/ocean"
	"github.com/sluice-rpc/sluice/app/ocean/emulator"
	"github.com/sluice-rpc/sluice/app/topology"
)

const (
	// oceanFile is where a process of regions says, in their directory, where its page is.
	oceanFile = "ocean.json"

	defaultOcean = "127.0.0.1:8090"
	defaultDelay = 40 * time.Millisecond
	defaultSea   = "./moments-regions"

	oceanTime = 5 * time.Second // for the page to do what it is asked
	// A visitor's browser reads; nobody needs longer to ask.
	headerTime = 5 * time.Second
)

// regionFlags are those of up that are about several regions.
type regionFlags struct {
	names  string
	clocks []string
	ocean  string
	delay  time.Duration
}

func (f *regionFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.names, "regions", "", "names of regions to bring up on this machine, for example SH,HK,CA; each keeps its number for ever")
	flags.StringArrayVar(&f.clocks, "clock", nil, "with --regions: set a region's clock wrong, for example CA=+1h; may be given again")
	flags.StringVar(&f.ocean, "ocean", defaultOcean, "with --regions: host:port of the page that shows and cuts the lines, on this machine only")
	flags.DurationVar(&f.delay, "delay", defaultDelay, "with --regions: how long each line takes one way; moments line changes it later")
}

// parse gives the regions' names, in lower case, and their clocks.
func (f *regionFlags) parse() (names []string, clocks map[string]time.Duration, _ error) {
	for name := range strings.SplitSeq(f.names, ",") {
		name = strings.ToLower(strings.TrimSpace(name))
		if slices.Contains(names, name) {
			return nil, nil, fmt.Errorf("--regions names %q twice", name)
		}
		names = append(names, name)
	}
	clocks = map[string]time.Duration{}
	for _, c := range f.clocks {
		name, by, ok := strings.Cut(c, "=")
		wrong, err := time.ParseDuration(by)
		if !ok || err != nil {
			return nil, nil, fmt.Errorf("--clock %q: want REGION=DURATION, for example CA=+1h", c)
		}
		clocks[strings.ToLower(name)] = wrong
	}
	if err := (emulator.Setting{Delay: f.delay}).Validate(); err != nil {
		return nil, nil, fmt.Errorf("--delay: %w", err)
	}
	host, _, err := net.SplitHostPort(f.ocean)
	if err != nil {
		return nil, nil, fmt.Errorf("--ocean: %w", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, nil, fmt.Errorf("--ocean %s: who reaches that page cuts lines, so it must be on 127.0.0.1", f.ocean)
	}
	return names, clocks, nil
}

// upRegions runs several regions, the lines between them and the page of both.
func upRegions(ctx context.Context, f upFlags, stdout, stderr io.Writer) (err error) {
	names, clocks, err := f.regions.parse()
	if err != nil {
		return &usageError{err}
	}
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program to start it again for each region: %w", err)
	}
	world, err := cluster.NewWorld(ctx, cluster.WorldConfig{
		Dir: f.data, Regions: names, Addr: f.addr, Clocks: clocks, Line: emulator.Setting{Delay: f.regions.delay}, Split: f.split,
		Binary: binary, Flags: append([]string{"--password-cost", f.cost, "--limits", f.limits}, f.trace.args()...), Stderr: stderr,
	})
	if err != nil {
		return err
	}
	cfg := ocean.Config{Dir: f.data}
	cfg.Regions, cfg.Lines = shownSea(world)
	var page *ocean.Server
	cfg.Change = func(ctx context.Context, region string, join bool) (err error) {
		if join {
			if _, err = world.Join(ctx, region); err == nil {
				page.SetSea(shownSea(world))
				err = world.Complete(ctx, region)
			}
		} else {
			err = world.Leave(ctx, region)
		}
		page.SetSea(shownSea(world))
		return err
	}
	page = ocean.New(cfg)
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", f.regions.ocean)
	if err != nil {
		return errors.Join(fmt.Errorf("the ocean page cannot listen: %w; choose another address with --ocean", err), world.Close())
	}
	url := "http://" + lis.Addr().String()
	file := filepath.Join(f.data, oceanFile)
	if err := os.WriteFile(file, fmt.Appendf(nil, "{\"url\":%q,\"pid\":%d}\n", url, os.Getpid()), 0o600); err != nil {
		return errors.Join(fmt.Errorf("say where the ocean page is: %w", err), lis.Close(), world.Close())
	}
	defer func() {
		if gone := os.Remove(file); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}()
	view := shown{addr: f.console}
	err = world.Run(ctx, func(ctx context.Context) error {
		if err := view.run(ctx, func() (*cluster.Console, error) {
			return cluster.OpenWorldConsole(ctx, f.console, world, slog.Default())
		}); err != nil {
			return err
		}
		printRegions(stdout, world, f, url, view.url)
		return serveOcean(ctx, page, lis)
	})
	return errors.Join(err, view.wait())
}

// shownSea gives the regions and lines of a world as its page shows them.
func shownSea(world *cluster.World) (regions []ocean.Region, lines []ocean.Line) {
	for _, r := range world.Regions() {
		regions = append(regions, ocean.Region{Name: r.Name, URL: r.URL, Clock: r.Clock, Admins: func() (map[string]string, error) {
			s, err := world.State(r.Name)
			if err != nil {
				return nil, err
			}
			admins := map[string]string{}
			for _, role := range topology.Joined() {
				admins[string(role)] = s.Services[role].Admin
			}
			return admins, nil
		}})
	}
	for _, l := range world.Lines() {
		lines = append(lines, ocean.Line{A: l.A, B: l.B, Line: l.Line})
	}
	return regions, lines
}

// serveOcean serves the page until ctx ends.
func serveOcean(ctx context.Context, page *ocean.Server, lis net.Listener) error {
	server := &http.Server{Handler: page.Handler(), ReadHeaderTimeout: headerTime, ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelInfo)}
	ended := make(chan error, 2)
	go func() { ended <- page.Run(ctx) }() // both are waited for below
	go func() { ended <- server.Serve(lis) }()
	<-ctx.Done()
	err := server.Close() // what is shown is asked for again
	for range 2 {
		if failed := <-ended; failed != nil && !errors.Is(failed, http.ErrServerClosed) {
			err = errors.Join(err, failed)
		}
	}
	return err
}

func printRegions(w io.Writer, world *cluster.World, f upFlags, url, console string) {
	_, _ = fmt.Fprintf(w, "%d regions are up (data in %s).\n\n", len(world.Regions()), f.data)
	for _, r := range world.Regions() {
		note := ""
		if r.Clock != 0 {
			note = fmt.Sprintf("   clock wrong by %v", r.Clock)
		}
		_, _ = fmt.Fprintf(w, "  %-8s %s   region %d, data in %s%s\n", strings.ToUpper(r.Name), r.URL, r.Number, r.Dir, note)
	}
	_, _ = fmt.Fprintf(w, "  %-8s %s   the lines between them, to cut and to heal\n", "ocean", url)
	if console != "" {
		_, _ = fmt.Fprintf(w, "  %-8s %s   call graphs and items of all processes\n", "console", console)
	}
	line := world.Lines()[len(world.Lines())-1]
	_, _ = fmt.Fprintf(w, `
Try: open the ocean page, cut a line, comment on both sides, heal it.
     %[4]s line %[1]s cut --data %[2]s
     %[4]s line %[1]s heal --data %[2]s
     %[4]s status --data %[3]s
Stop with Ctrl-C.
`, strings.ToUpper(line.A+"-"+line.B), f.data, world.Regions()[0].Dir, called())
}

func newLineCmd() *cobra.Command {
	var data, from string
	cmd := &cobra.Command{
		Use:   "line [A-B] [cut|heal|delay D|rate R|status]",
		Short: "Cut, heal or change the line between two regions of moments up --regions",
		Long: `Line changes the emulated line between two regions while they run. A cut holds bytes
back and closes nothing, as a broken cable does. Without words it shows all lines.`,
		Example: `  moments line
  moments line SH-CA cut
  moments line SH-CA cut --from SH      # what SH sends is held back, what CA sends comes
  moments line SH-CA heal
  moments line SH-CA delay 150ms        # one way
  moments line SH-CA rate 100mbit       # 0 for no limit`,
		Args: cobra.RangeArgs(0, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			url, err := readOcean(data)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), oceanTime)
			defer cancel()
			if len(args) == 0 || len(args) == 1 && args[0] == "status" {
				return showLines(ctx, url, "", "", cmd.OutOrStdout())
			}
			a, b, ok := strings.Cut(strings.ToLower(args[0]), "-")
			if !ok {
				return &usageError{fmt.Errorf("%q is no line: name both regions, for example SH-CA", args[0])}
			}
			if len(args) == 1 || len(args) == 2 && args[1] == "status" {
				return showLines(ctx, url, a, b, cmd.OutOrStdout())
			}
			change, err := parseChange(args[1:])
			if err != nil {
				return &usageError{err}
			}
			change.From = strings.ToLower(from)
			return changeLine(ctx, url, a, b, change)
		},
	}
	cmd.Flags().StringVar(&data, "data", defaultSea, "directory of the regions")
	cmd.Flags().StringVar(&from, "from", "", "change only what this region sends")
	return cmd
}

// parseChange reads cut, heal, delay D or rate R.
func parseChange(args []string) (ocean.Change, error) {
	word, value := args[0], ""
	if len(args) > 1 {
		value = args[1]
	}
	if takes := word == "delay" || word == "rate"; takes != (value != "") {
		return ocean.Change{}, fmt.Errorf("%q: want cut, heal, delay D, rate R or status", strings.Join(args, " "))
	}
	yes, no := true, false
	switch word {
	case "cut":
		return ocean.Change{Cut: &yes}, nil
	case "heal":
		return ocean.Change{Cut: &no}, nil
	case "delay":
		d, err := time.ParseDuration(value)
		if err != nil {
			return ocean.Change{}, fmt.Errorf("delay %q: want a time such as 150ms", value)
		}
		ms := d.Milliseconds()
		return ocean.Change{DelayMS: &ms}, nil
	case "rate":
		rate, err := parseRate(value)
		return ocean.Change{Rate: &rate}, err
	}
	return ocean.Change{}, fmt.Errorf("%q: want cut, heal, delay D, rate R or status", word)
}

// parseRate reads 100mbit, 64kbit, 1gbit or 0, and gives bytes a second.
func parseRate(s string) (int64, error) {
	if s == "0" {
		return 0, nil
	}
	for _, unit := range []struct {
		name string
		bits int64
	}{{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}} {
		number, ok := strings.CutSuffix(s, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		if err == nil && n > 0 && n <= 1e6 {
			return int64(n * float64(unit.bits) / 8), nil
		}
	}
	return 0, fmt.Errorf("rate %q: want for example 100mbit, 64kbit, or 0 for no limit", s)
}

// readOcean finds the page of the regions that run on a directory.
func readOcean(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, oceanFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("no regions run on %s; start them with: moments up --regions SH,HK,CA --data %s", dir, dir)
	}
	if err != nil {
		return "", err
	}
	var said struct {
		URL string `json:"url"`
	}
	if err := json.Unmarshal(b, &said); err != nil {
		return "", fmt.Errorf("%s: %w", filepath.Join(dir, oceanFile), err)
	}
	return said.URL, nil
}

func askOcean(ctx context.Context, method, url string, body, into any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("the regions do not answer: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode >= http.StatusMultipleChoices {
		said, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10)) // what came is enough
		return errors.New(strings.TrimSpace(string(said)))
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(into)
}

func changeLine(ctx context.Context, url, a, b string, c ocean.Change) error {
	return askOcean(ctx, http.MethodPost, url+"/api/lines/"+a+"/"+b, c, nil)
}

// showLines prints one line, or all.
func showLines(ctx context.Context, url, a, b string, w io.Writer) error {
	var st ocean.State
	if err := askOcean(ctx, http.MethodGet, url+"/api/state", nil, &st); err != nil {
		return err
	}
	shown := 0
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "FROM\tTO\tLINE\tDELAY\tRATE\tCARRIED\tSESSION\tRTT\tWAITING\tOLDEST")
	for _, l := range st.Lines {
		if a != "" && (l.A != a || l.B != b) && (l.A != b || l.B != a) {
			continue
		}
		shown++
		for _, way := range []struct {
			from, to string
			ocean.Direction
		}{{l.A, l.B, l.There}, {l.B, l.A, l.Back}} {
			state, rate := "whole", "-"
			if way.Cut {
				state = "cut"
			}
			if way.Rate > 0 {
				rate = fmt.Sprintf("%.4g Mbit/s", float64(way.Rate)*8/1e6)
			}
			q := queueOf(st, way.from, way.to)
			_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%d ms\t%s\t%d\t%s\t%.1f ms\t%d\t%d ms\n", strings.ToUpper(way.from), strings.ToUpper(way.to),
				state, way.DelayMS, rate, way.Bytes, q.State, q.RTTMs, q.Depth, q.LagMS)
		}
	}
	if shown == 0 {
		return fmt.Errorf("there is no line between %q and %q", a, b)
	}
	return table.Flush()
}

func queueOf(st ocean.State, from, to string) ocean.QueueInfo {
	for _, r := range st.Regions {
		if r.Name != from {
			continue
		}
		for _, q := range r.Queues {
			if q.To == to {
				return q
			}
		}
	}
	return ocean.QueueInfo{State: "unknown"}
}
