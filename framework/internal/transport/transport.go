// SPDX-License-Identifier: Apache-2.0

// Package transport is how a listener of another protocol joins a server: it serves the
// same methods, with the same list of interceptors, and drains with it.
package transport

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
)

// A Listener serves the methods of one server over one protocol.
type Listener interface {
	// Listen binds the address, and says what is wrong with the configuration. A server
	// without TLS gives none.
	Listen(tls *Security) error
	// Serve serves until Drain or Close. It is called once, after Listen.
	Serve(h *Host) error
	// Drain takes no more calls, tells those that last long, and waits for all, at most
	// for the time that the host gives. Then it closes.
	Drain() error
	// Close closes at once.
	Close() error
}

// A Configured listener has settings, which /admin/config shows.
type Configured interface {
	// Settings gives those in effect, and those of one that was given none. Whose is the
	// word before them.
	Settings() (whose string, now, standard []config.Setting)
}

// A Host is the server that a listener belongs to.
type Host struct {
	Service  string
	Services []Service
	Log      *slog.Logger
	// Ready says why the server cannot serve now; nil, and a nil error, mean that it can.
	Ready        func(context.Context) error
	Level        func() qos.Priority // what the server lets in
	Backlog      func() uint8        // how long the work takes that waits there, in ms
	DrainTimeout time.Duration
	// Note tells the log and /admin/config what became of another configuration.
	Note func(whose string, changes []config.Change, err error)
}

// A Security is how a server proves who it is, and whom it believes.
type Security struct {
	// Config gives the configuration of one connection's handshake, which is to speak a
	// protocol (ALPN). Who the other side is has been verified when the handshake is over.
	Config func(protocol string) *tls.Config
	// Domain gives the trust domain of everybody who may call.
	Domain func() string
}

// A Service is one that is served.
type Service struct {
	Contract *rpc.Service
	Methods  []*interceptor.Method // in the order of the contract
}
