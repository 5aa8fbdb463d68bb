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
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
	"github.com/sluice-rpc/sluice/qos"
)

// Config says what a gateway needs. The four clients must be given.
type Config struct {
	Accounts  momentsv1.AccountServiceClient
	Posts     momentsv1.PostServiceClient
	Timelines momentsv1.TimelineServiceClient
	Comments  momentsv1.CommentServiceClient

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

	sessions *sessions
	writes   *limits // nil without limits
	requests *limits // nil without limits
	entry    *edge.Entry
	admin    net.Listener // nil for none
	mux      *http.ServeMux
	server   *edge.Server
}

// New makes a gateway.
func New(cfg Config) (*Gateway, error) {
	if cfg.Accounts == nil || cfg.Posts == nil || cfg.Timelines == nil || cfg.Comments == nil {
		return nil, errors.New("gateway: a client is missing: give Accounts, Posts, Timelines and Comments")
	}
	if min(cfg.WritesPerMinute, cfg.WriteBurst, cfg.RequestsPerSecond, cfg.RequestBurst) < 0 {
		return nil, errors.New("gateway: WritesPerMinute, WriteBurst, RequestsPerSecond and RequestBurst must not be negative")
	}
	g := &Gateway{
		accounts: cfg.Accounts, posts: cfg.Posts, timelines: cfg.Timelines, comments: cfg.Comments,
		sessions: newSessions(cfg.Accounts, time.Now),
		admin:    cfg.Admin,
		mux:      http.NewServeMux(),
	}
	if cfg.Limits {
		g.writes = newWriteLimits(cfg.WritesPerMinute, cfg.WriteBurst)
		g.requests = newRequestLimits(cfg.RequestsPerSecond, cfg.RequestBurst)
	}
	g.entry = edge.New(edge.Config{
		Log: cfg.Log, Explain: explain, Service: "gateway",
		AdmissionOff: cfg.AdmissionOff, User: g.sessions.whose, Key: cfg.Key,
	})
	for _, r := range g.routes() {
		g.mux.Handle(r.pattern, g.entry.HandleLimited(r.pattern, r.method, g.limit(r.access), g.serve(r)))
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
	if cfg.HTTP.Log == nil {
		cfg.HTTP.Log = cfg.Log
	}
	server, err := edge.NewServer(cfg.HTTP, g.mux)
	if err != nil {
		return nil, err
	}
	g.server = server
	return g, nil
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
		defer stop()
		return g.server.Serve(ctx, ln)
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

// routes is the API in the order of openapi.yaml.
func (g *Gateway) routes() []route {
	return []route{
		{"POST /accounts", momentsv1.AccountServiceRegisterMethod, open, g.register},
		{"POST /sessions", momentsv1.AccountServiceLogInMethod, open, g.logIn},
		{"DELETE /sessions/current", momentsv1.AccountServiceLogOutMethod, open, g.logOut},
		{"GET /me", momentsv1.AccountServiceGetProfileMethod, member, g.me},
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
		{"POST /posts/{post}/comments", momentsv1.CommentServiceAddMethod, writer, g.addComment},
		{"DELETE /posts/{post}/comments/{comment}", momentsv1.CommentServiceDeleteMethod, writer, g.deleteComment},
		{"PUT /posts/{post}/like", momentsv1.CommentServiceLikeMethod, writer, g.like},
		{"DELETE /posts/{post}/like", momentsv1.CommentServiceUnlikeMethod, writer, g.unlike},

		{"GET /timeline", momentsv1.TimelineServiceHomeMethod, member, g.timeline},
		{"GET /timeline/newer", momentsv1.TimelineServiceNewerMethod, member, g.newer},
		{"GET /timeline/head", momentsv1.TimelineServiceHeadMethod, member, g.head},
		{"PUT /timeline/seen", momentsv1.TimelineServiceMarkSeenMethod, member, g.markSeen},
	}
}

// serve makes the handler of a route: who is it, may he do it so often, then the
// route's own work.
func (g *Gateway) serve(rt route) edge.HandlerFunc {
	limit := g.limit(rt.access)
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
			if c.user, err = g.sessions.user(r.Context(), token); err != nil {
				return err
			}
		}
		if limit != nil && edge.User(r.Context()) == "" { // else it has been asked already
			if err := limit(c.user); err != nil {
				return err
			}
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
