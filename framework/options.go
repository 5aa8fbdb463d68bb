// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"context"
	"log/slog"
	"net"
	"net/http"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/discovery"
	"github.com/sluice-rpc/sluice/framework/internal/transport"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// ServerOption is what only code can give a server.
type ServerOption func(*serverOptions)

type serverOptions struct {
	log          *slog.Logger
	interceptors []rpc.ServerInterceptor
	ready        func(context.Context) error
	admin        map[string]http.Handler
	settings     []config.InEffect
	noSignals    bool
	lis          net.Listener
	adminLis     net.Listener
	transports   []transport.Listener
	cloneLocal   bool
}

// WithLogger sets the log of a server. Default slog.Default().
func WithLogger(log *slog.Logger) ServerOption {
	return func(o *serverOptions) { o.log = log }
}

// WithServerInterceptors adds interceptors around every handler, the first
// outermost. They run after the framework's own.
func WithServerInterceptors(ics ...rpc.ServerInterceptor) ServerOption {
	return func(o *serverOptions) { o.interceptors = append(o.interceptors, ics...) }
}

// WithReadiness adds a check to /readyz: an error means not ready and is shown
// there. It may be called at any time from several goroutines.
func WithReadiness(check func(context.Context) error) ServerOption {
	return func(o *serverOptions) { o.ready = check }
}

// WithSettings shows the configuration of the program on the page /admin/config, beside
// that of the server, as config.Explain gives it.
func WithSettings(all []config.InEffect) ServerOption {
	return func(o *serverOptions) { o.settings = append(o.settings, all...) }
}

// WithAdminHandler adds a page to the admin port under a pattern of http.ServeMux. Under
// /admin/ it is shown to whom the framework's own pages are: to this machine, and to
// who brings the token, which whatever is not GET or HEAD must bring if there is one.
// Anywhere else it sees to that itself.
func WithAdminHandler(pattern string, h http.Handler) ServerOption {
	return func(o *serverOptions) {
		if o.admin == nil {
			o.admin = map[string]http.Handler{}
		}
		o.admin[pattern] = h
	}
}

// WithoutSignals leaves SIGTERM and SIGINT to the caller, who ends the context of
// Run instead: for a process of several servers that stop in an order.
func WithoutSignals() ServerOption {
	return func(o *serverOptions) { o.noSignals = true }
}

// WithListeners serves calls and the admin pages on sockets that are bound already,
// such as those of package activation, instead of binding Addr and Admin. Nil binds
// what the configuration says. That of the calls must be a *net.TCPListener or
// *net.UnixListener. Run closes both.
func WithListeners(calls, admin net.Listener) ServerOption {
	return func(o *serverOptions) { o.lis, o.adminLis = calls, admin }
}

// WithTransport serves the methods over another protocol, too, on a listener of its own
// that starts and drains with the server: see package grpcserver.
func WithTransport(l transport.Listener) ServerOption {
	return func(o *serverOptions) { o.transports = append(o.transports, l) }
}

// WithClonedLocalCalls hands clones of requests and responses to local callers and
// handlers and fails a call whose request was changed. Builds with -race and
// rpctest always do.
func WithClonedLocalCalls() ServerOption {
	return func(o *serverOptions) { o.cloneLocal = true }
}

// ClientOption is what only code can give a client.
type ClientOption func(*clientOptions)

type clientOptions struct {
	interceptors []rpc.ClientInterceptor
	source       discovery.Source
	key          func(*rpc.Method, proto.Message) string
	fallback     Fallback
	dialer       transport.Dialer
	log          *slog.Logger
}

// WithDiscovery follows the instances of the service as a source knows them, instead of
// ClientConfig.Addrs. A list that cannot be right is refused in the log, and the one
// before goes on.
func WithDiscovery(source discovery.Source) ClientOption {
	return func(o *clientOptions) { o.source = source }
}

// WithKey sends calls of the same key to the same instance while it is well, and moves
// only its own keys when one comes or goes: for instances that keep something of whom
// they serve. An empty key is none. It is called for every call and must be quick.
func WithKey(key func(m *rpc.Method, req proto.Message) string) ClientOption {
	return func(o *clientOptions) { o.key = key }
}

// A Fallback gives an answer in place of a call that has failed, or an error: what was
// true a moment ago, or something plainer. Err is an *rpc.Error.
type Fallback func(ctx context.Context, m *rpc.Method, req proto.Message, err error) (proto.Message, error)

// WithFallback is asked when a call has failed for want of an instance, of time or of
// room, after all attempts. What a handler has said is never replaced. Items and graphs
// show the call as failed, which it was.
func WithFallback(f Fallback) ClientOption {
	return func(o *clientOptions) { o.fallback = f }
}

// WithClientTransport makes calls over another protocol than the framework's own, and
// streams, if it carries them: see package grpcclient.
func WithClientTransport(d transport.Dialer) ClientOption {
	return func(o *clientOptions) { o.dialer = d }
}

// WithClientLogger sets the log of a client. Default slog.Default().
func WithClientLogger(log *slog.Logger) ClientOption {
	return func(o *clientOptions) { o.log = log }
}

// WithClientInterceptors adds interceptors around every call, the first outermost.
// They run before the framework's own.
func WithClientInterceptors(ics ...rpc.ClientInterceptor) ClientOption {
	return func(o *clientOptions) { o.interceptors = append(o.interceptors, ics...) }
}
