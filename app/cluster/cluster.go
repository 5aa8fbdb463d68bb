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

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/account"
	"github.com/sluice-rpc/sluice/app/comment"
	"github.com/sluice-rpc/sluice/app/gateway"
	"github.com/sluice-rpc/sluice/app/kv/pebblekv"
	"github.com/sluice-rpc/sluice/app/post"
	"github.com/sluice-rpc/sluice/app/timeline"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/edge"
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
	// CheapPasswords lets new passwords cost nothing, which protects nothing. It is for
	// benches that make many accounts.
	CheapPasswords bool
}

// Node is the roles that run in one process.
type Node struct {
	cfg     Config
	log     *slog.Logger
	servers map[topology.Role]*framework.Server
	conns   map[topology.Role]*framework.Conn
	stores  map[topology.Role]*pebblekv.Store
	jobs    []part // background work of the services
	gateway *gateway.Gateway
	door    net.Listener // of the gateway
	admin   net.Listener // of the gateway's admin pages
}

// Start opens the stores, makes the services and binds all addresses. Nothing is
// served before Run. If it fails it leaves nothing open.
func Start(ctx context.Context, cfg Config) (_ *Node, err error) {
	n := &Node{
		cfg: cfg, log: cfg.Log,
		servers: map[topology.Role]*framework.Server{},
		conns:   map[topology.Role]*framework.Conn{},
		stores:  map[topology.Role]*pebblekv.Store{},
	}
	if n.log == nil {
		n.log = slog.Default()
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
	if n.runs(topology.Gateway) {
		if err := n.openDoor(ctx); err != nil {
			return nil, err
		}
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
	known := make([]string, 0, 2*len(n.cfg.Roles))
	for _, r := range n.cfg.Roles {
		known = append(known, string(r), adminSocket(r))
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
	topology.Account:  {topology.Timeline},
	topology.Post:     {topology.Account, topology.Timeline},
	topology.Comment:  {topology.Account, topology.Post},
	topology.Timeline: {topology.Account, topology.Post, topology.Comment},
	topology.Gateway:  {topology.Account, topology.Post, topology.Comment, topology.Timeline},
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

// caches is the memory of each service's store. Single rows are kept of what a page
// reads again and again: posts, heads of comment threads, most of them absent, and
// versions of friendships. A timeline is read by scans of its newest page.
var caches = map[topology.Role]pebblekv.Options{
	topology.Post:     {RowCacheBytes: 64 << 20},
	topology.Comment:  {RowCacheBytes: 32 << 20},
	topology.Account:  {RowCacheBytes: 32 << 20},
	topology.Timeline: {CacheBytes: 64 << 20, ScanCacheBytes: 64 << 20},
}

// openStores opens the stores of the services side by side: after a kill each has a log
// to read again.
func (n *Node) openStores() error {
	var opening errgroup.Group
	var mu sync.Mutex // of n.stores
	for _, r := range topology.Services() {
		if !n.runs(r) {
			continue
		}
		if n.cfg.Data == nil {
			return fmt.Errorf("cluster: role %s needs a data directory", r)
		}
		opening.Go(func() error {
			opts := caches[r]
			opts.Logger = n.log.With("store", string(r))
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
		framework.WithoutSignals(), // the node stops its servers in an order
		framework.WithListeners(n.cfg.Sockets[string(r)], n.cfg.Sockets[adminSocket(r)]),
		framework.WithAdminHandler("POST /backup", backupDoor(n.cfg.Data, r, store)),
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
	log := n.log.With("service", string(r))
	var svc any
	var err error
	switch r {
	case topology.Account:
		cost := account.DefaultCost
		if n.cfg.CheapPasswords {
			cost = account.CheapestCost
		}
		var s *account.Service
		s, err = account.New(ctx, account.Config{Store: store, Region: region, Timeline: n.timelines(), PasswordCost: cost, Logger: log})
		momentsv1.RegisterAccountServiceServer(srv, s)
		svc = s
	case topology.Post:
		var s *post.Service
		s, err = post.New(ctx, post.Config{Store: store, Region: region, Account: n.accounts(), Timeline: n.timelines(), Log: log})
		momentsv1.RegisterPostServiceServer(srv, s)
		svc = s
	case topology.Timeline:
		var s *timeline.Service
		s, err = timeline.New(timeline.Config{Store: store, Account: n.accounts(), Post: n.posts(), Comment: n.comments()})
		momentsv1.RegisterTimelineServiceServer(srv, s)
		svc = s
	case topology.Comment:
		var s *comment.Service
		s, err = comment.New(ctx, comment.Config{Store: store, Region: region, Account: n.accounts(), Post: n.posts(), Log: log})
		momentsv1.RegisterCommentServiceServer(srv, s)
		svc = s
	case topology.Gateway:
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", r, err)
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

func (n *Node) openDoor(ctx context.Context) error {
	door := n.cfg.Topology.Gateway
	var err error
	if n.door, err = n.bind(ctx, string(topology.Gateway), door.Listen); err != nil {
		return err
	}
	if n.admin, err = n.bind(ctx, adminSocket(topology.Gateway), door.Admin); err != nil {
		return err
	}
	n.gateway, err = gateway.New(gateway.Config{
		Accounts: n.accounts(), Posts: n.posts(), Timelines: n.timelines(), Comments: n.comments(),
		Limits:       door.Limits,
		AdmissionOff: door.Admission == framework.AdmissionOff, Key: door.Key(), Classes: door.QoSTable,
		Admin: n.admin,
		HTTP:  edge.ServerConfig{CertFile: door.TLSCert, KeyFile: door.TLSKey},
		Log:   n.log.With("service", "gateway"),
	})
	if err != nil {
		return fmt.Errorf("start gateway: %w", err)
	}
	return nil
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

// Running gives where a service of this process is reached.
func (n *Node) Running(r topology.Role) (Running, bool) {
	srv, ok := n.servers[r]
	if !ok {
		return Running{}, false
	}
	return Running{Addr: srv.Addr(), Admin: srv.AdminAddr(), PID: os.Getpid()}, true
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
	steps = append(steps, n.jobs)
	for _, r := range slices.Backward(topology.Services()) {
		if srv, ok := n.servers[r]; ok {
			steps = append(steps, []part{{name: string(r), run: srv.Run}})
		}
	}
	err := runParts(ctx, steps)
	n.door, n.admin = nil, nil // closed by the gateway
	return errors.Join(err, n.close())
}

// close gives back what Start has opened.
func (n *Node) close() error {
	var errs []error
	for _, conn := range n.conns {
		errs = append(errs, conn.Close())
	}
	for r, store := range n.stores {
		if err := store.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close the store of %s: %w", r, err))
		}
	}
	for _, lis := range []net.Listener{n.door, n.admin} {
		if lis != nil {
			errs = append(errs, lis.Close())
		}
	}
	return errors.Join(errs...)
}

// A part runs until its context ends.
type part struct {
	name string
	run  func(context.Context) error
}

// runParts runs all parts at once and stops them step by step.
func runParts(ctx context.Context, steps [][]part) error {
	type running struct {
		part
		stop  context.CancelFunc
		ended chan error
	}
	over := make(chan struct{}, 1) // a part has ended
	all := make([][]*running, len(steps))
	for i, step := range steps {
		for _, p := range step {
			own, stop := context.WithCancel(context.WithoutCancel(ctx))
			r := &running{part: p, stop: stop, ended: make(chan error, 1)}
			all[i] = append(all[i], r)
			go func() { // ended is waited for below
				r.ended <- p.run(own)
				select {
				case over <- struct{}{}:
				default:
				}
			}()
		}
	}
	var errs []error
	select {
	case <-ctx.Done():
	case <-over:
	}
	early := ctx.Err() == nil
	for _, step := range all {
		for _, r := range step {
			if early {
				select {
				case err := <-r.ended:
					errs = append(errs, fmt.Errorf("%s ended by itself: %w", r.name, orNothing(err)))
					r.ended <- nil
				default:
				}
			}
			r.stop()
		}
		for _, r := range step {
			if err := <-r.ended; err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", r.name, err))
			}
		}
	}
	return errors.Join(errs...)
}

var errNothing = errors.New("without an error")

func orNothing(err error) error {
	if err == nil {
		return errNothing
	}
	return err
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
