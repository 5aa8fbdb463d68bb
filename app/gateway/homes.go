// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// A user of another region is served here as far as this region can: posts, comments,
// likes, and who people are. All his other doors are at home, where his requests go
// unchanged, his token included; the answers come back as they are.

// doorsHere are the routes that serve users of other regions here. Their services have
// copies of what is needed, and write where the user is.
var doorsHere = map[string]bool{
	"GET /posts/{post}":                       true,
	"GET /posts/{post}/comments":              true,
	"POST /posts/{post}/comments":             true,
	"DELETE /posts/{post}/comments/{comment}": true,
	"GET /posts/{post}/likes":                 true,
	"PUT /posts/{post}/like":                  true,
	"DELETE /posts/{post}/like":               true,
	"GET /users":                              true,
	"GET /users/{user}":                       true,
	"GET /users/{user}/album":                 true,
}

// forwardedHeader marks a request that another region's gateway has sent home, so that
// two regions that disagree on a user's home do not send it back and forth.
const forwardedHeader = "Moments-Forwarded"

// placeHeader says where the user is who asks: the gateway that passes his request on is
// not he. It is believed of authenticated peers alone.
const placeHeader = "Moments-Place"

// freshSession is for how long a session is believed that was opened at home by way of
// this gateway: as long as the line may need to tell this region of it.
const freshSession = 5 * time.Second

// homeRetry is what a client is to wait for its home.
const homeRetry = 5 * time.Second

// errHomeUnreachable is what users see while their home region cannot be reached.
func errHomeUnreachable() error {
	err := rpc.WithDetails(
		rpc.Errorf(rpc.Unavailable, "your home region cannot be reached from here; posts, comments and likes go on"),
		&momentsv1.Problem{Type: "home-unreachable"})
	if e, ok := errors.AsType[*rpc.Error](err); ok {
		e.Retry, e.Reason = homeRetry, rpc.ReasonHandler
	}
	return err
}

// away gives a user's home region, if that is another one.
func (g *Gateway) away(user string) (id.Region, bool) {
	if g.homes == nil {
		return 0, false
	}
	u, err := id.ParseUser(user)
	if err != nil {
		return 0, false
	}
	home := g.moved.Of(u).Region
	return home, home != g.region
}

// forward sends a request to another region and gives its answer on. What is answered is
// also written to seen, unless that is nil.
func (g *Gateway) forward(ctx context.Context, c *call, region id.Region, seen io.Writer) error {
	line := g.homes(region)
	if line == nil || c.r.Header.Get(forwardedHeader) != "" {
		return errHomeUnreachable()
	}
	out := c.r.Clone(ctx)
	out.URL.Scheme, out.URL.Host, out.RequestURI = "http", "home", ""
	dropHops(out.Header)
	out.Header.Set(forwardedHeader, "1")
	out.Header.Del(placeHeader)
	if at, err := netip.ParseAddrPort(c.r.RemoteAddr); err == nil {
		out.Header.Set(placeHeader, at.Addr().Unmap().WithZone("").String())
	}
	res, err := line.RoundTrip(out)
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err()
		}
		return errHomeUnreachable()
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	dropHops(res.Header)
	h := c.w.Header()
	for name, values := range res.Header {
		h[name] = values
	}
	c.w.WriteHeader(res.StatusCode)
	body := io.Reader(res.Body)
	if seen != nil {
		body = io.TeeReader(body, seen)
	}
	_, err = io.Copy(flushed{c.w, http.NewResponseController(c.w)}, body)
	return err
}

// addPeers makes the door for gateways of other regions.
func (g *Gateway) addPeers(cfg Config) (err error) {
	if cfg.Peers == nil {
		return nil
	}
	if cfg.PeerTLS == nil {
		return errors.New("gateway: Peers needs PeerTLS: what other regions send must not go in the clear")
	}
	h := cfg.HTTP
	h.Service, h.CertFile, h.KeyFile, h.TLS, h.Ready = "gateway-peers", "", "", cfg.PeerTLS, nil
	g.peers = cfg.Peers
	g.door, err = edge.NewServer(h, http.HandlerFunc(g.ServePeer))
	return err
}

// ServePeer answers a request that an authenticated gateway of another region passes on.
// What counts where requests come from counts the place of the user, as that gateway says.
func (g *Gateway) ServePeer(w http.ResponseWriter, r *http.Request) {
	if at, err := netip.ParseAddr(r.Header.Get(placeHeader)); err == nil {
		r.RemoteAddr = netip.AddrPortFrom(at.Unmap().WithZone(""), 0).String()
	}
	r.Header.Set(forwardedHeader, "1") // it goes no further
	g.mux.ServeHTTP(w, r)
}

// hops are the headers that are between two neighbours (RFC 9110, section 7.6.1).
var hops = []string{"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

func dropHops(h http.Header) {
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hops {
		h.Del(name)
	}
}

// flushed is an answer of which nothing is kept back: events are to come as they happen.
type flushed struct {
	w    io.Writer
	ctrl *http.ResponseController
}

func (f flushed) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if err == nil {
		err = f.ctrl.Flush()
	}
	return n, err
}

// logInAway opens a session at the home of somebody of another region. It reports whether
// the name is such a one's.
func (g *Gateway) logInAway(c *call, name string, body any) (bool, error) {
	if g.homes == nil {
		return false, nil
	}
	res, err := g.accounts.FindUser(c.ctx(), &momentsv1.FindUserRequest{Name: name})
	if err != nil && rpc.CodeOf(err) != rpc.NotFound {
		return false, err
	}
	region, away := g.away(res.GetProfile().GetUserId())
	if !away {
		return false, nil
	}
	raw, err := json.Marshal(body) // what was read of the request is gone
	if err != nil {
		return true, err
	}
	c.r.Body, c.r.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
	var seen bytes.Buffer
	if err := g.forward(c.ctx(), c, region, &seen); err != nil {
		return true, err
	}
	var out struct {
		Token string `json:"token"`
	}
	if json.Unmarshal(seen.Bytes(), &out) == nil && out.Token != "" {
		now := g.sessions.now()
		g.sessions.keep(out.Token, session{user: res.GetProfile().GetUserId(), until: now.Add(freshSession)}, now)
	}
	return true, nil
}

// logOutAway ends a session at its home, if that is another region. It reports whether
// it is.
func (g *Gateway) logOutAway(c *call, token string) (bool, error) {
	if g.homes == nil {
		return false, nil
	}
	found, err := g.sessions.find(c.ctx(), token)
	if err != nil {
		return false, nil //nolint:nilerr // nobody's: whoever ends what has ended is told so here
	}
	region, away := g.away(found.user)
	if !away {
		return false, nil
	}
	err = g.forward(c.ctx(), c, region, nil)
	g.sessions.forget(token)
	return true, err
}
