// SPDX-License-Identifier: Apache-2.0

// Package gateway is the public door of Moments: the HTTP API of openapi.yaml and
// the web page.
//
// It keeps no data. A route checks the session, reads the request strictly, makes
// the one RPC it stands for (few make two) and writes the answer; every rule of
// what may be done or seen is the services'.
package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	mediaedge "github.com/sluice-rpc/sluice/app/edge"
	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/link"
	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
	"github.com/sluice-rpc/sluice/qos"
)

// Config says what a gateway needs. The five clients must be given.
type Config struct {
	Accounts  momentsv1.AccountServiceClient
	Posts     momentsv1.PostServiceClient
	Timelines momentsv1.TimelineServiceClient
	Comments  momentsv1.CommentServiceClient
	Notices   momentsv1.NotifyServiceClient

	// Media and Links serve photos and videos, Edges are the addresses, host:port, of
	// those who keep them near. Without Media there are none.
	Media momentsv1.MediaServiceClient
	Links *link.Signer
	Edges []string

	// Region is the own region, and Homes gives the way to the gateways of another one, nil
	// if there is none. Without Homes everybody is at home here.
	Region id.Region
	Homes  func(id.Region) http.RoundTripper
	// Moved knows who has moved his home from the region of his id; nil means that nobody
	// has.
	Moved *homes.Table
	// Peers is where Run lets gateways of other regions in, nil for none, and PeerTLS how
	// they prove who they are. Run closes it.
	Peers   net.Listener
	PeerTLS *tls.Config

	// Origin has photos and videos of all regions; nil means Media.
	Origin mediaedge.Origin

	// Limits switches the limits of each user on: WritesPerMinute on average, 30 if
	// zero, and WriteBurst at once, 20 if zero; of requests of any kind
	// RequestsPerSecond on average, 50 if zero, and RequestBurst at once, 200 if zero.
	Limits            bool
	WritesPerMinute   int
	WriteBurst        int
	RequestsPerSecond int
	RequestBurst      int

	// AdmissionOff lets every request in, however much there is to do.
	AdmissionOff bool
	// Key is the secret behind user levels, shared by all gateways; zero means one that
	// this gateway makes for itself.
	Key qos.Key
	// Classes is a file of classes by route, see edge.Entry.ReadClasses; empty for none.
	Classes string

	// Admin is where Run serves the admin pages; nil for none. Run closes it.
	Admin net.Listener
	// Settings is the configuration as the admin pages show it.
	Settings []config.InEffect
	// Access gets a line for each request, see edge.Config; nil for none.
	Access *slog.Logger
	// HTTP is how Run listens: certificate, time limits, readiness.
	HTTP edge.ServerConfig
	// Log receives what goes wrong inside. Nil means slog.Default().
	Log *slog.Logger
}

// Gateway answers HTTP requests. It is safe for concurrent use.
type Gateway struct {
	accounts  momentsv1.AccountServiceClient
	posts     momentsv1.PostServiceClient
	timelines momentsv1.TimelineServiceClient
	comments  momentsv1.CommentServiceClient
	notices   momentsv1.NotifyServiceClient
	hub       *hub
	media     momentsv1.MediaServiceClient // nil for none
	links     *link.Signer                 // nil without media
	relay     *mediaedge.Relay             // nil without media
	parts     parts

	region id.Region
	homes  func(id.Region) http.RoundTripper // nil: there are no other regions
	moved  *homes.Table
	peers  net.Listener // nil for none
	door   *edge.Server // of peers; nil without them

	sessions *sessions
	writes   *limits // nil without limits
	requests *limits // nil without limits
	// passwords are tried from one place so often; nil without limits.
	passwords *limits
	bulkhead  *edge.Bulkhead // where requests that hash a password wait
	entry     *edge.Entry
	admin     net.Listener // nil for none
	mux       *http.ServeMux
	server    *edge.Server
}

// New makes a gateway.
func New(cfg Config) (*Gateway, error) {
	if cfg.Accounts == nil || cfg.Posts == nil || cfg.Timelines == nil || cfg.Comments == nil || cfg.Notices == nil {
		return nil, errors.New("gateway: a client is missing: give Accounts, Posts, Timelines, Comments and Notices")
	}
	if min(cfg.WritesPerMinute, cfg.WriteBurst, cfg.RequestsPerSecond, cfg.RequestBurst) < 0 {
		return nil, errors.New("gateway: WritesPerMinute, WriteBurst, RequestsPerSecond and RequestBurst must not be negative")
	}
	g := &Gateway{
		accounts: cfg.Accounts, posts: cfg.Posts, timelines: cfg.Timelines, comments: cfg.Comments, notices: cfg.Notices,
		hub:      newHub(cfg.Notices, cfg.Timelines, cfg.Log),
		sessions: newSessions(cfg.Accounts, time.Now),
		region:   cfg.Region,
		homes:    cfg.Homes,
		moved:    cfg.Moved,
		bulkhead: newBulkhead(),
		admin:    cfg.Admin,
		mux:      http.NewServeMux(),
	}
	if cfg.Limits {
		g.writes = newWriteLimits(cfg.WritesPerMinute, cfg.WriteBurst)
		g.requests = newRequestLimits(cfg.RequestsPerSecond, cfg.RequestBurst)
		g.passwords = newPasswordLimits()
	}
	g.entry = edge.New(edge.Config{
		Log: cfg.Log, Explain: explain, Service: "gateway",
		AdmissionOff: cfg.AdmissionOff, User: g.sessions.whose, Key: cfg.Key,
		Settings: cfg.Settings, Access: cfg.Access,
	})
	if err := g.addMedia(cfg); err != nil {
		return nil, err
	}
	for _, r := range g.routes() {
		rules := edge.Rules{Limit: g.limit(r)}
		switch {
		case r.pattern == partPattern:
			rules.MaxBody = maxPart
		case hashes(r.method):
			rules.Bulkhead = g.bulkhead
		}
		g.mux.Handle(r.pattern, g.entry.HandleRoute(r.pattern, r.method, rules, g.serve(r)))
	}
	if err := addPage(g.mux, g.entry); err != nil {
		return nil, err
	}
	g.mux.Handle("/", g.entry.NotFound(g.mux))
	if cfg.Classes != "" {
		if err := g.entry.ReadClasses(cfg.Classes); err != nil {
			return nil, fmt.Errorf("gateway: classes of routes: %w", err)
		}
	}
	cfg.HTTP.Service = "gateway"
	if cfg.HTTP.Log == nil {
		cfg.HTTP.Log = cfg.Log
	}
	server, err := edge.NewServer(cfg.HTTP, g.mux)
	if err != nil {
		return nil, err
	}
	g.server = server
	return g, g.addPeers(cfg)
}

// ServeHTTP answers one request.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.mux.ServeHTTP(w, r) }

// Run answers the requests of ln, with /livez and /readyz, until ctx ends; requests
// accepted by then are finished. It closes ln.
func (g *Gateway) Run(ctx context.Context, ln net.Listener) error {
	entry, stop := context.WithCancel(context.WithoutCancel(ctx)) // admission ends after the last request
	defer stop()
	var all errgroup.Group
	all.Go(func() error { return g.entry.Run(entry) })
	if g.admin != nil {
		all.Go(func() error { return g.entry.ServeAdmin(entry, g.admin, nil) })
	}
	all.Go(func() error {
		g.hub.run(ctx) // it ends first: streams would keep the server from draining
		return nil
	})
	all.Go(func() error {
		g.sessions.follow(ctx)
		return nil
	})
	all.Go(func() error {
		defer stop()
		doors, ctx := errgroup.WithContext(ctx) // one that fails ends the other
		doors.Go(func() error { return g.server.Serve(ctx, ln) })
		if g.door != nil {
			doors.Go(func() error { return g.door.Serve(ctx, g.peers) })
		}
		return doors.Wait()
	})
	return all.Wait()
}

// access is who may use a route.
type access uint8

const (
	open   access = iota // anybody
	member               // who has a session
	writer               // who has a session, within the write limit
)

// route is one line of the API.
type route struct {
	pattern string      // as in http.ServeMux; also the entry's name
	method  *rpc.Method // what the route stands for: its class and time
	access  access
	handle  func(*call) error
}

// routes is the API.
func (g *Gateway) routes() []route {
	return slices.Concat(g.mainRoutes(), g.commentRoutes(), g.noticeRoutes(), g.settingsRoutes(), g.mediaRoutes())
}

func (g *Gateway) mainRoutes() []route {
	return []route{
		{"POST /accounts", momentsv1.AccountServiceRegisterMethod, open, g.register},
		{"POST /sessions", momentsv1.AccountServiceLogInMethod, open, g.logIn},
		{"GET /sessions", momentsv1.AccountServiceListSessionsMethod, member, g.listSessions},
		{"DELETE /sessions", momentsv1.AccountServiceEndSessionsMethod, member, g.endSessions},
		{"DELETE /sessions/current", momentsv1.AccountServiceLogOutMethod, open, g.logOut},
		{"DELETE /sessions/{session}", momentsv1.AccountServiceEndSessionsMethod, member, g.endSession},
		{"GET /me", momentsv1.AccountServiceGetProfileMethod, member, g.me},
		{"PATCH /me", momentsv1.AccountServiceUpdateProfileMethod, writer, g.updateMe},
		{"PUT /me/password", momentsv1.AccountServiceChangePasswordMethod, writer, g.changePassword},
		{"POST /me/deletion", momentsv1.AccountServiceDeleteAccountMethod, writer, g.deleteMe},
		{"GET /users", momentsv1.AccountServiceFindUserMethod, member, g.findUsers},
		{"GET /users/{user}", momentsv1.AccountServiceGetProfileMethod, member, g.getUser},
		{"GET /users/{user}/album", momentsv1.PostServiceAlbumMethod, member, g.album},

		{"GET /friends", momentsv1.AccountServiceListFriendsMethod, member, g.listFriends},
		{"DELETE /friends/{user}", momentsv1.AccountServiceUnfriendMethod, writer, g.unfriend},
		{"GET /friend-requests", momentsv1.AccountServiceListFriendRequestsMethod, member, g.listFriendRequests},
		{"POST /friend-requests", momentsv1.AccountServiceRequestFriendMethod, writer, g.requestFriend},
		{"POST /friend-requests/{user}/accept", momentsv1.AccountServiceAcceptFriendMethod, writer, g.acceptFriend},
		{"POST /friend-requests/{user}/decline", momentsv1.AccountServiceDeclineFriendMethod, writer, g.declineFriend},

		{"POST /posts", momentsv1.PostServicePublishMethod, writer, g.publish},
		{"GET /posts/{post}", momentsv1.PostServiceGetManyMethod, member, g.getPost},
		{"DELETE /posts/{post}", momentsv1.PostServiceDeleteMethod, writer, g.deletePost},

		{"GET /timeline", momentsv1.TimelineServiceHomeMethod, member, g.timeline},
		{"GET /timeline/newer", momentsv1.TimelineServiceNewerMethod, member, g.newer},
		{"GET /timeline/head", momentsv1.TimelineServiceHeadMethod, member, g.head},
		{"PUT /timeline/seen", momentsv1.TimelineServiceMarkSeenMethod, member, g.markSeen},
	}
}

// serve makes the handler of a route: who is it, may he do it so often, then the
// route's own work.
func (g *Gateway) serve(rt route) edge.HandlerFunc {
	limit := g.limit(rt)
	return func(w http.ResponseWriter, r *http.Request) error {
		c := &call{w: w, r: r}
		h := w.Header()
		h["X-Content-Type-Options"] = nosniff
		h["Cache-Control"] = noStore
		if err := c.passSession(); err != nil {
			return err
		}
		if rt.access != open {
			token, err := bearer(r)
			if err != nil {
				return err
			}
			found, err := g.sessions.find(r.Context(), token)
			if err != nil {
				return err
			}
			c.user, c.sess = found.user, found.id
		}
		if limit != nil && rt.access != open && edge.User(r.Context()) == "" { // else it has been asked already
			if err := limit(r, c.user); err != nil {
				return err
			}
		}
		if region, away := g.away(c.user); away && !doorsHere[rt.pattern] {
			return g.forward(r.Context(), c, region, nil)
		}
		return rt.handle(c)
	}
}

// Header values are shared slices: setting them costs no allocation.
var (
	nosniff  = []string{"nosniff"}
	noStore  = []string{"no-store"}
	jsonType = []string{"application/json"}
)
