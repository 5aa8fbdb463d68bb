// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"context"
	"log/slog"
	"net"
	"net/http"

	"github.com/sluice-rpc/sluice/framework/config"
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
// who brings the token. Anywhere else it sees to that itself.
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
}

// WithClientInterceptors adds interceptors around every call, the first outermost.
// They run before the framework's own.
func WithClientInterceptors(ics ...rpc.ClientInterceptor) ClientOption {
	return func(o *clientOptions) { o.interceptors = append(o.interceptors, ics...) }
}
