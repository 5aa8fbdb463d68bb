// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/tls"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/discovery"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
)

// A ClientConfig is what a client of one service needs, whatever carries its calls.
type ClientConfig struct {
	Service        string // as pages show it
	Campus         string // where this process stands; empty if nowhere
	Connections    int    // to each address
	MaxFrameBytes  int
	ConnectTimeout time.Duration
	ReadTimeout    time.Duration // longest a server may take to send the rest of a frame
	// TLS gives the configuration of one connection's handshake; nil calls in the clear.
	TLS func() *tls.Config
	// Plaintext lets calls go to other machines without TLS.
	Plaintext bool
	Items     *metrics.ClientTransport // of the connections; nil counts nothing
	// Behind is told the backlog of the service in ms, as calls that people wait for
	// find it. It must not block.
	Behind func(ms uint8)
	// Breaks says whether a method has a circuit breaker at each instance; nil: none has.
	Breaks func(m *rpc.Method) bool
}

// A Client makes calls to the instances of one service.
type Client interface {
	// Call makes one attempt of a call and waits for its answer.
	Call(ctx context.Context, call *interceptor.ClientCall) error
	// Follow takes the instances that there are now, and returns at once. It is called
	// before Close, or by what Watch runs.
	Follow(instances []discovery.Instance)
	// Watch has something call Follow until Close, which ends its context and waits for it.
	Watch(watch func(context.Context))
	// Refuses says whether a fresh task would be refused there, as far as is known.
	Refuses(p qos.Priority) bool
	// Change takes another configuration, of the same service and number of connections,
	// and with TLS if there was TLS.
	Change(cfg ClientConfig)
	// Close closes all connections. Calls in flight fail with Unavailable.
	Close()
}

// A Streamer is a Client that carries streams.
type Streamer interface {
	// OpenStream begins a call of a method that streams, which is counted in items. It
	// goes through list, at whose end is Carry.
	OpenStream(ctx context.Context, m *rpc.Method, req proto.Message, items *metrics.Stream, list interceptor.Transport) (rpc.ClientStream, error)
	// Carry opens the stream of a call that OpenStream has begun, and stays until it has
	// ended.
	Carry(ctx context.Context, call *interceptor.ClientCall) error
}

// A Dialer makes clients that speak another protocol than the framework's own.
type Dialer interface {
	// Dial gives a client that waits to be told its instances by Follow. What is wrong
	// with its own part of the configuration is the error.
	Dial(cfg ClientConfig) (Client, error)
	// Protocol is what connections say that they speak (ALPN).
	Protocol() string
}
