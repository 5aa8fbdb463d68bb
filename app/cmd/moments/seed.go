// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/load"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

// townFile holds, in the data directory, who was seeded and how they log in.
const townFile = "seed.json"

// bulkAbove is how many people are no longer seeded through the public API: each costs two password hashes and some 78 calls there.
const bulkAbove = 10_000

type seedFlags struct {
	data, graph string
	gateways    []string
	users       int
	seed        uint64
	workers     int
	bulk        bool
}

func newSeedCmd() *cobra.Command {
	var f seedFlags
	cmd := &cobra.Command{
		Use:   "seed (--graph FILE | --users N)",
		Short: "Fill a running Moments with people and friendships",
		Long: `Fill a running Moments with people and friendships, through its public API.

A graph file has one mutual friendship a line: two people's numbers, from 0.
With --users a graph of that many people is made up: about 39 friends each, a few
with hundreds; the same --seed gives the same graph.

Repeat the command after a failure: it goes on where it stopped and makes nothing
twice. The people's names and what opens their accounts are kept in the file
` + townFile + ` of the data directory, for its owner alone; moments load uses it.

A server with user limits takes 30 writes a minute from each person: the one with
the most friends decides how long seeding takes. Start it with --limits=off to
seed a large graph in one go.`,
		Example: "  moments seed --users 200\n  moments seed --graph edges.txt --addr http://127.0.0.1:8080",
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	fs := cmd.Flags()
	addDataFlag(cmd, &f.data)
	fs.StringSliceVar(&f.gateways, "addr", nil, "gateways to call (default: those that run on the data directory)")
	fs.StringVar(&f.graph, "graph", "", "edge list, one mutual friendship \"a b\" a line")
	fs.IntVar(&f.users, "users", 0, "make up a graph of so many people")
	fs.Uint64Var(&f.seed, "seed", 1, "of the made-up graph")
	fs.IntVar(&f.workers, "workers", 32, "connections")
	fs.BoolVar(&f.bulk, "bulk", false, fmt.Sprintf("call the services' RPC instead of the public API; needed above %d people", bulkAbove))
	cmd.MarkFlagsOneRequired("graph", "users")
	cmd.MarkFlagsMutuallyExclusive("graph", "users")
	return cmd
}

func (f *seedFlags) run(ctx context.Context, out io.Writer) error {
	if f.workers < 1 || f.workers > 1000 {
		return &usageError{fmt.Errorf("--workers %d: give 1 to 1000", f.workers)}
	}
	graph, err := f.readGraph()
	if err != nil {
		return err
	}
	if graph.People() > bulkAbove && !f.bulk {
		return fmt.Errorf("%d people are too many for the public API: add --bulk to call the services' RPC", graph.People())
	}
	mean, p50, _, p99, most := graph.Shape()
	fmt.Fprintf(out, "%d people, %d directed friendships: %.1f friends each, half of them up to %d, one in a hundred over %d, at most %d\n",
		graph.People(), graph.Directed(), mean, p50, p99, most)
	data, err := cluster.OpenData(f.data) // stamps a new one, or it would later be taken for a foreign directory
	if err != nil {
		return err
	}
	path := filepath.Join(data.Dir(), townFile)
	town, found, err := load.OpenOrFound(path, graph)
	if err != nil {
		return err
	}
	if found {
		fmt.Fprintln(out, "this graph was seeded before: going on with the same people")
	} else if err := town.Save(path); err != nil { // before the first account: a repeated seeding must know the passwords
		return err
	}
	began := time.Now()
	err = f.populate(ctx, town, seedProgress(out, began))
	if err == nil {
		town.Finish(time.Now())
	}
	if err := errors.Join(err, town.Save(path)); err != nil {
		return err
	}
	fmt.Fprintf(out, "done in %v: log in as %s with password %s, or see moments load --help\n",
		time.Since(began).Round(100*time.Millisecond), town.Name(0), town.Password(0))
	return nil
}

func (f *seedFlags) readGraph() (*load.Graph, error) {
	if f.graph == "" {
		return load.Generate(f.users, f.seed)
	}
	file, err := os.Open(f.graph)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	g, err := load.ReadGraph(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.graph, err)
	}
	return g, nil
}

func (f *seedFlags) populate(ctx context.Context, town *load.Town, report func(load.Stage)) error {
	if !f.bulk {
		gateways, err := gatewaysOf(f.gateways, f.data)
		if err != nil {
			return err
		}
		return load.Populate(ctx, town.Graph, f.workers, town.Dial(gateways...), report)
	}
	conn, err := dialService(f.data, topology.Account)
	if err != nil {
		return err
	}
	defer conn.Close()
	accounts := momentsv1.NewAccountServiceClient(conn)
	dial := func() (*bulkFounder, error) { return &bulkFounder{town: town, accounts: accounts}, nil }
	return load.Populate(toolContext(ctx, "moments seed"), town.Graph, f.workers, dial, report)
}

// seedProgress prints how far a stage is, and says once why it is slow if a limit makes it so.
func seedProgress(out io.Writer, began time.Time) func(load.Stage) {
	told := false
	return func(s load.Stage) {
		fmt.Fprintf(out, "%6s  %-12s %d of %d", time.Since(began).Round(time.Second), s.Name, s.Done, s.Total)
		if s.PutOff > 0 {
			fmt.Fprintf(out, ", put off %d times", s.PutOff)
		}
		fmt.Fprintln(out)
		if s.PutOff > 0 && !told {
			told = true
			fmt.Fprintln(out, "        the server is busy or limits how often a user may write; with --limits=off it does not limit")
		}
	}
}

// bulkFounder registers people and makes friendships over the account service's RPC.
type bulkFounder struct {
	town     *load.Town
	accounts momentsv1.AccountServiceClient
}

func (b *bulkFounder) Close() error { return nil } // the connection is shared

func (b *bulkFounder) Again(err error) (time.Duration, bool) {
	var e *rpc.Error
	if !errors.As(err, &e) || e.Reason == rpc.ReasonNetwork {
		return 0, false
	}
	switch e.Code {
	case rpc.ResourceExhausted, rpc.Unavailable, rpc.DeadlineExceeded: // all calls carry keys
		return e.Retry, true
	default:
		return 0, false
	}
}

func (b *bulkFounder) Register(ctx context.Context, person int) error {
	if b.town.ID(person) != "" {
		return nil
	}
	name := b.town.Name(person)
	res, err := b.accounts.Register(ctx, &momentsv1.RegisterRequest{
		Name: name, Password: b.town.Password(person), DisplayName: "Person " + strconv.Itoa(person), IdempotencyKey: "seed-" + name,
	})
	if rpc.CodeOf(err) == rpc.AlreadyExists { // by an earlier seeding, whose key has been forgotten
		found, err := b.accounts.FindUser(ctx, &momentsv1.FindUserRequest{Name: name})
		if err != nil {
			return err
		}
		b.town.Enrol(person, found.GetProfile().GetUserId())
		return nil
	}
	if err != nil {
		return err
	}
	b.town.Enrol(person, res.GetProfile().GetUserId())
	return nil
}

// Follow makes one half of a friendship; Import makes many.
func (b *bulkFounder) Follow(ctx context.Context, who, whom int) error {
	return b.Import(ctx, who, []int32{int32(whom)}) // people are far fewer
}

var _ load.Importer = (*bulkFounder)(nil)

// Import implements load.Importer.
func (b *bulkFounder) Import(ctx context.Context, person int, others []int32) error {
	const most = 500 // of a call, by its contract
	for part := range slices.Chunk(others, most) {
		req := &momentsv1.ImportFriendsRequest{UserId: b.town.ID(person)}
		for _, other := range part {
			req.OtherIds = append(req.OtherIds, b.town.ID(int(other)))
		}
		if _, err := b.accounts.ImportFriends(ctx, req); err != nil {
			return err
		}
	}
	return nil
}

// gatewaysOf gives the gateways named, or else those that run on the data directory.
func gatewaysOf(named []string, data string) ([]string, error) {
	if len(named) > 0 {
		return named, nil
	}
	state, err := cluster.ReadState(data)
	if err != nil {
		return nil, fmt.Errorf("%w; or name a running gateway with --addr", err)
	}
	urls := make([]string, 0, len(state.Gateways))
	for _, g := range state.Gateways {
		urls = append(urls, g.URL)
	}
	if len(urls) == 0 {
		return nil, fmt.Errorf("no gateway runs on %s: name one with --addr", data)
	}
	return urls, nil
}

// dialService connects to a service that runs on the data directory.
func dialService(data string, role topology.Role) (*framework.Conn, error) {
	state, err := cluster.ReadState(data)
	if err != nil {
		return nil, err
	}
	service, ok := state.Services[role]
	if !ok || service.Addr == "" {
		return nil, fmt.Errorf("the service %s does not run on %s", role, data)
	}
	return framework.Dial(framework.ClientConfig{Service: string(role), Addrs: []string{service.Addr}})
}

// toolContext makes a tool's calls an entry of their own, which gives way to people.
func toolContext(ctx context.Context, tool string) context.Context {
	return rpc.WithCall(ctx, &rpc.Call{Header: rpc.Header{
		Entry: tracing.EntryOf(tool), Class: qos.Background, Trace: tracing.NewTraceID(),
	}})
}
