// SPDX-License-Identifier: Apache-2.0

// Package cluster starts the roles of Moments: all in one process, some of them, or
// each as a process of its own.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/account"
	"github.com/sluice-rpc/sluice/app/comment"
	"github.com/sluice-rpc/sluice/app/gateway"
	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/idcqueue/path"
	"github.com/sluice-rpc/sluice/app/kv/pebblekv"
	"github.com/sluice-rpc/sluice/app/link"
	"github.com/sluice-rpc/sluice/app/media"
	"github.com/sluice-rpc/sluice/app/notify"
	"github.com/sluice-rpc/sluice/app/post"
	"github.com/sluice-rpc/sluice/app/timeline"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/config"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Config is what a Node needs.
type Config struct {
	Topology topology.Config
	Roles    []topology.Role // to run in this process; the others are called at their Addrs
	Data     *Data           // of the services; may be nil for gateways alone
	Log      *slog.Logger    // nil means slog.Default()
	// Sockets are bound already and take the place of addresses in Topology: ROLE for
	// what a role serves, ROLE-admin for its admin pages. Start takes them over.
	Sockets map[string]net.Listener
	// Source is where Topology was read. If it has a file, regions that come and go there
	// do so here while the node runs; all else of it needs a start.
	Source config.Source
	// Settings is the configuration as pages show it; nil means Topology, without where
	// each value was found.
	Settings []config.InEffect
	// CheapPasswords lets new passwords cost nothing, which protects nothing. It is for
	// benches that make many accounts.
	CheapPasswords bool
}

// Node is the roles that run in one process.
type Node struct {
	cfg     Config
	log     *slog.Logger
	room    room
	servers map[topology.Role]*framework.Server
	conns   map[topology.Role]*framework.Conn
	stores  map[topology.Role]*pebblekv.Store
	lines   map[topology.Role]*path.Line      // to peers in other regions
	queues  map[topology.Role]*idcqueue.Queue // over these
	met     map[topology.Role]meets           // services that meet regions before they join
	others  others
	jobs    []part // background work of the services

	people    *account.Service // whose homes are moved; nil if it does not run here
	moved     *homes.Table     // who has moved; nil without other regions
	causality *comment.Service // how the regions of comments stand; nil if it does not run here
	gateway   *gateway.Gateway
	access    *os.File     // log of the gateway's requests; nil for none
	blobs     *media.Blobs // of the media service; nil if it does not run here
	links     *link.Signer
	edge      *edgeNode    // nil for none
	door      net.Listener // of the gateway
	admin     net.Listener // of the gateway's admin pages
	abroad    *abroad      // nil without other regions
	foreign   net.Listener // of gateways of other regions; nil for none
}

// Start opens the stores, makes the services and binds all addresses. Nothing is
// served before Run. If it fails it leaves nothing open.
func Start(ctx context.Context, cfg Config) (_ *Node, err error) {
	n := &Node{
		cfg: cfg, log: cfg.Log, room: roomIn(Memory(), cfg.Roles),
		servers: map[topology.Role]*framework.Server{},
		conns:   map[topology.Role]*framework.Conn{},
		stores:  map[topology.Role]*pebblekv.Store{},
		lines:   map[topology.Role]*path.Line{},
		queues:  map[topology.Role]*idcqueue.Queue{},
		met:     map[topology.Role]meets{},
	}
	n.others.now.Store(&cfg.Topology.Regions)
	if n.log == nil {
		n.log = slog.Default()
	}
	if n.cfg.Settings == nil {
		if n.cfg.Settings, err = settingsOf(cfg.Topology); err != nil {
			return nil, err
		}
	}
	if len(cfg.Roles) == 0 {
		return nil, errors.New("cluster: no role to run")
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
			for _, lis := range cfg.Sockets {
				_ = lis.Close() // some have been closed
			}
		}
	}()
	if err := n.checkSockets(); err != nil {
		return nil, err
	}
	if err := n.openStores(); err != nil {
		return nil, err
	}
	if err := n.openFiles(ctx); err != nil {
		return nil, err
	}
	if err := n.openAbroad(); err != nil {
		return nil, err
	}
	for _, r := range topology.Services() {
		if n.runs(r) {
			n.prepare(r)
		}
	}
	for _, r := range n.called() {
		if err := n.connect(r); err != nil {
			return nil, err
		}
	}
	n.followHomes()
	for _, r := range topology.Services() {
		if n.runs(r) {
			if err := n.build(ctx, r); err != nil {
				return nil, err
			}
		}
	}
	for r, srv := range n.servers {
		if err := srv.Listen(); err != nil {
			return nil, listenError(string(r), err)
		}
	}
	if n.runs(topology.Edge) {
		if err := n.openEdge(ctx); err != nil {
			return nil, err
		}
	}
	if n.runs(topology.Gateway) {
		if err := n.openDoor(ctx); err != nil {
			return nil, err
		}
	}
	if cfg.Source.File != "" {
		n.jobs = append(n.jobs, part{name: "the list of regions", run: n.followPeers})
	}
	return n, nil
}

// runs reports whether a role runs in this process.
func (n *Node) runs(r topology.Role) bool { return slices.Contains(n.cfg.Roles, r) }

// adminSocket is what the socket of a service's admin pages is called.
func adminSocket(r topology.Role) string { return string(r) + "-admin" }

// checkSockets refuses sockets that nothing here would serve on: who connects to them
// would wait forever.
func (n *Node) checkSockets() error {
	known := make([]string, 0, 3*len(n.cfg.Roles))
	for _, r := range n.cfg.Roles {
		known = append(known, string(r), adminSocket(r))
		if slices.Contains(topology.Facing(), r) && n.cfg.Topology.Abroad() {
			known = append(known, lineSocket(r))
		}
	}
	for name := range n.cfg.Sockets {
		if !slices.Contains(known, name) {
			return fmt.Errorf("this process was given a socket %q, which nothing here serves on: name it %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}

// calls is which services a role calls.
var calls = map[topology.Role][]topology.Role{
	topology.Account:  {topology.Timeline, topology.Post, topology.Comment, topology.Notify, topology.Media},
	topology.Media:    {topology.Account, topology.Post},
	topology.Edge:     {topology.Media},
	topology.Post:     {topology.Account, topology.Timeline, topology.Media, topology.Notify},
	topology.Comment:  {topology.Account, topology.Post, topology.Notify},
	topology.Notify:   {topology.Account, topology.Post, topology.Comment},
	topology.Timeline: {topology.Account, topology.Post, topology.Comment},
	topology.Gateway:  {topology.Account, topology.Post, topology.Comment, topology.Timeline, topology.Notify, topology.Media},
}

// called gives the services that the roles of this process call.
func (n *Node) called() []topology.Role {
	var all []topology.Role
	for _, r := range n.cfg.Roles {
		all = append(all, calls[r]...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// openStores opens the stores of the services side by side: after a kill each has a log
// to read again.
func (n *Node) openStores() error {
	var opening errgroup.Group
	var mu sync.Mutex // of n.stores
	blocks := pebblekv.NewCache(n.room.blocks)
	defer blocks.Release() // each store has its own hold of it
	for _, r := range topology.Services() {
		if !n.runs(r) {
			continue
		}
		if n.cfg.Data == nil {
			return fmt.Errorf("cluster: role %s needs a data directory", r)
		}
		opening.Go(func() error {
			opts := n.room.store(r)
			opts.Cache, opts.Logger = blocks, n.log.With("store", string(r))
			store, err := pebblekv.Open(n.cfg.Data.store(r), opts)
			if err != nil {
				return fmt.Errorf("open the store of %s: %w", r, err)
			}
			mu.Lock()
			defer mu.Unlock()
			n.stores[r] = store
			return nil
		})
	}
	return opening.Wait()
}

// prepare makes a service's server, without handlers yet: services call each other in
// circles, so all servers are there before any service.
func (n *Node) prepare(r topology.Role) {
	store := n.stores[r]
	place := n.cfg.Topology.Service(r)
	n.servers[r] = framework.NewServer(
		framework.ServerConfig{Service: string(r), Addr: place.Listen, Admin: place.Admin},
		framework.WithLogger(n.log),
		framework.WithSettings(n.cfg.Settings),
		framework.WithoutSignals(), // the node stops its servers in an order
		framework.WithListeners(n.cfg.Sockets[string(r)], n.cfg.Sockets[adminSocket(r)]),
		framework.WithAdminHandler("POST /backup", backupDoor(n.cfg.Data, r, store, n.blobDir(r))),
		framework.WithAdminHandler("GET /regions", n.regionsPage(r)),
		framework.WithAdminHandler("POST /queue", n.queueDoor(r)),
		framework.WithAdminHandler("POST /rehome", n.rehomeDoor(r)),
	)
}

// connect makes the way to a service: within the process if it runs here.
func (n *Node) connect(r topology.Role) error {
	if srv, here := n.servers[r]; here {
		n.conns[r] = framework.DialLocal(srv)
		return nil
	}
	addrs := n.cfg.Topology.Service(r).Addrs
	if len(addrs) == 0 {
		return fmt.Errorf("role %s is called but does not run here: give its addresses, for example --set %s.addrs=127.0.0.1:7001", r, r)
	}
	conn, err := framework.Dial(framework.ClientConfig{Service: string(r), Addrs: addrs})
	if err != nil {
		return fmt.Errorf("dial %s: %w", r, err)
	}
	n.conns[r] = conn
	return nil
}

// build makes a service and registers it with its server.
func (n *Node) build(ctx context.Context, r topology.Role) error {
	region, store, srv := n.cfg.Topology.Region.ID(), n.stores[r], n.servers[r]
	log, now, peers := n.log.With("service", string(r)), n.cfg.Topology.Region.Now(), n.peers()
	var svc any
	var err error
	switch r {
	case topology.Account:
		cost := account.DefaultCost
		if n.cfg.CheapPasswords {
			cost = account.CheapestCost
		}
		var s *account.Service
		s, err = account.New(ctx, account.Config{
			Store: store, Region: region, Peers: peers, Timeline: n.timelines(), Posts: n.posts(), Comments: n.comments(), Notify: n.notices(), Media: n.media(),
			PasswordCost: cost, CachedFriends: n.room.friends, Logger: log, Now: now,
		})
		momentsv1.RegisterAccountServiceServer(srv, s)
		svc, n.people = s, s
	case topology.Post:
		var s *post.Service
		s, err = post.New(ctx, post.Config{
			Store: store, Region: region, Peers: peers, Account: n.accounts(), Timeline: n.timelines(), Media: n.media(), Notify: n.notices(), Log: log, Now: now,
			CachedFacts: n.room.facts, CachedBytes: n.room.posts, Ahead: n.cfg.Topology.Line.Ahead,
		})
		momentsv1.RegisterPostServiceServer(srv, s)
		svc = s
	case topology.Timeline:
		var s *timeline.Service
		near := n.servers[topology.Post] != nil && n.servers[topology.Comment] != nil
		var home id.Region // everybody's
		if n.cfg.Topology.Abroad() {
			home = region
		}
		s, err = timeline.New(timeline.Config{
			Store: store, Home: home, Homes: n.moved, Account: n.accounts(), Post: n.posts(), Comment: n.comments(), Near: near, Now: now,
			CachedFriends: n.room.friends,
		})
		momentsv1.RegisterTimelineServiceServer(srv, s)
		svc = s
	case topology.Comment:
		var s *comment.Service
		s, err = comment.New(ctx, comment.Config{
			Store: store, Region: region, Peers: peers, Homes: n.moved, Account: n.accounts(), Post: n.posts(), Notify: n.notices(), Log: log, Now: now,
			CachedFacts: n.room.facts, Ahead: n.cfg.Topology.Line.Ahead,
			Caught: func(from id.Region, ms int64) bool {
				queue := n.queues[topology.Comment]
				return queue != nil && queue.Caught(from, ms)
			},
			Clock: func(of id.Region) time.Time {
				if queue := n.queues[topology.Comment]; queue != nil {
					return queue.Clock(of)
				}
				return time.Now().Add(n.cfg.Topology.Region.Clock) // it runs without those that it was joined to
			},
		})
		momentsv1.RegisterCommentServiceServer(srv, s)
		svc, n.causality = s, s
	case topology.Notify:
		var s *notify.Service
		s, err = notify.New(notify.Config{Store: store, Account: n.accounts(), Comment: n.comments(), Post: n.posts(), Log: log})
		momentsv1.RegisterNotifyServiceServer(srv, s)
		svc = s
	case topology.Media:
		var s *media.Service
		s, err = media.New(ctx, media.Config{
			Store: store, Blobs: n.blobs, Region: region, Posts: n.posts(), Profiles: n.accounts(), Log: log, Now: now,
		})
		momentsv1.RegisterMediaServiceServer(srv, s)
		svc = s
	case topology.Edge, topology.Gateway:
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", r, err)
	}
	if far, ok := svc.(joined); ok && n.cfg.Topology.Abroad() {
		if err := n.join(ctx, r, far); err != nil {
			return err
		}
	}
	if works, ok := svc.(interface{ Run(context.Context) error }); ok {
		n.jobs = append(n.jobs, part{name: string(r) + "'s background work", run: works.Run})
	}
	return nil
}

func (n *Node) accounts() momentsv1.AccountServiceClient {
	return momentsv1.NewAccountServiceClient(n.conns[topology.Account])
}

func (n *Node) posts() momentsv1.PostServiceClient {
	return momentsv1.NewPostServiceClient(n.conns[topology.Post])
}

func (n *Node) timelines() momentsv1.TimelineServiceClient {
	return momentsv1.NewTimelineServiceClient(n.conns[topology.Timeline])
}

func (n *Node) comments() momentsv1.CommentServiceClient {
	return momentsv1.NewCommentServiceClient(n.conns[topology.Comment])
}

func (n *Node) notices() momentsv1.NotifyServiceClient {
	return momentsv1.NewNotifyServiceClient(n.conns[topology.Notify])
}

func (n *Node) media() momentsv1.MediaServiceClient {
	return momentsv1.NewMediaServiceClient(n.conns[topology.Media])
}

// settingsOf gives the configuration as pages show it when nobody knows where it was
// found.
func settingsOf(t topology.Config) ([]config.InEffect, error) {
	standard, err := config.Describe(topology.Default(), "")
	if err != nil {
		return nil, err
	}
	given, err := config.Describe(t, "")
	if err != nil {
		return nil, err
	}
	all := make([]config.InEffect, len(given))
	for i, s := range given {
		all[i] = config.InEffect{Setting: standard[i], Value: s.Default, Where: "given"}
		if s.Default == standard[i].Default {
			all[i].Where = "default"
		}
	}
	return all, nil
}

// bind gives the socket of that name, or one at an address.
func (n *Node) bind(ctx context.Context, name, addr string) (net.Listener, error) {
	if lis := n.cfg.Sockets[name]; lis != nil {
		return lis, nil
	}
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", loopback(addr))
	if err != nil {
		return nil, listenError(name, err)
	}
	return lis, nil
}

// loopback makes an address without a host one of this machine alone: 0.0.0.0 must
// be written.
func loopback(addr string) string {
	if strings.HasPrefix(addr, ":") {
		return "127.0.0.1" + addr
	}
	return addr
}

func listenError(who string, err error) error {
	return fmt.Errorf("%s cannot listen: %w; if another program has the port, choose another one (moments up --addr HOST:PORT)", who, err)
}

// Running gives where a service of this process, or its edge, is reached.
func (n *Node) Running(r topology.Role) (Running, bool) {
	if r == topology.Edge && n.edge != nil {
		at := Running{Addr: n.edge.door.Addr().String(), Admin: n.edge.admin.Addr().String(), PID: os.Getpid()}
		if n.edge.peers != nil {
			at.Line = n.edge.peers.Addr().String()
		}
		return at, true
	}
	srv, ok := n.servers[r]
	if !ok {
		return Running{}, false
	}
	at := Running{Addr: srv.Addr(), Admin: srv.AdminAddr(), PID: os.Getpid()}
	if line := n.lines[r]; line != nil {
		at.Line = line.Addr()
	}
	return at, true
}

// URL gives where the gateway of this process is reached, empty without one.
func (n *Node) URL() string {
	if n.door == nil {
		return ""
	}
	scheme := "http://"
	if n.cfg.Topology.Gateway.TLSCert != "" {
		scheme = "https://"
	}
	return scheme + n.door.Addr().String()
}

// GatewayLine gives where the gateway of this process accepts those of other regions,
// empty if it does not.
func (n *Node) GatewayLine() string {
	if n.foreign == nil {
		return ""
	}
	return n.foreign.Addr().String()
}

// GatewayAdmin gives where the admin pages of this process's gateway are, empty without one.
func (n *Node) GatewayAdmin() string {
	if n.admin == nil {
		return ""
	}
	return n.admin.Addr().String()
}

// Accounts gives a client of the account service that this process uses.
func (n *Node) Accounts() momentsv1.AccountServiceClient { return n.accounts() }

// Run serves until ctx ends and then stops from the outside in, so that nothing is
// called that has stopped already: the gateway finishes its requests, background
// work pauses, the services finish their calls, the stores are closed. It returns
// nil after that, and an error if a part ends by itself; then it stops the others.
func (n *Node) Run(ctx context.Context) error {
	var steps [][]part // each step's parts stop together
	if n.gateway != nil {
		steps = append(steps, []part{{name: "gateway", run: func(ctx context.Context) error { return n.gateway.Run(ctx, n.door) }}})
	}
	if n.edge != nil {
		steps = append(steps, []part{{name: "edge", run: n.edge.run}})
	}
	steps = append(steps, n.jobs)
	for _, r := range slices.Backward(topology.Services()) {
		if srv, ok := n.servers[r]; ok {
			steps = append(steps, []part{{name: string(r), run: srv.Run}})
		}
	}
	// Doors and lines are closed by those who served on them. Nothing is taken out of the
	// Node: whoever asks it may still be reading.
	err := runParts(ctx, steps)
	return errors.Join(err, n.closeStores())
}

// close gives back what Start has opened, for a Node that is not run.
func (n *Node) close() error {
	var errs []error
	if n.edge != nil {
		errs = append(errs, n.edge.close())
	}
	for _, line := range n.lines {
		errs = append(errs, line.Close())
	}
	for _, lis := range []net.Listener{n.door, n.admin, n.foreign} {
		if lis != nil {
			errs = append(errs, lis.Close())
		}
	}
	return errors.Join(append(errs, n.closeStores())...)
}

// closeStores closes what Run has used and nobody else closes.
func (n *Node) closeStores() error {
	var errs []error
	for _, conn := range n.conns {
		errs = append(errs, conn.Close())
	}
	if n.blobs != nil {
		errs = append(errs, n.blobs.Close())
	}
	for r, store := range n.stores {
		if err := store.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close the store of %s: %w", r, err))
		}
	}
	for r, line := range n.lines {
		hideSeams(n.cfg.Topology.Region.Name, r, n.regions(), line)
	}
	if n.causality != nil {
		hideTally(n.cfg.Topology.Region.Name, n.causality)
	}
	n.abroad.close()
	if n.access != nil {
		errs = append(errs, n.access.Close())
	}
	return errors.Join(errs...)
}

// RolesOf parses the names of roles.
func RolesOf(names []string) ([]topology.Role, error) {
	roles := make([]topology.Role, 0, len(names))
	for _, name := range names {
		r, err := topology.ParseRole(name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(roles, r) {
			roles = append(roles, r)
		}
	}
	return roles, nil
}

// dirOf gives the directory of a backup's or a data directory's store.
func dirOf(dir string, r topology.Role) string { return filepath.Join(dir, string(r)) }
