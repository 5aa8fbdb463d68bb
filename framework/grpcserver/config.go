// SPDX-License-Identifier: Apache-2.0

package grpcserver

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/sluice-rpc/sluice/qos"
)

// Config says how the listener behaves. The zero value of a field means its default.
type Config struct {
	// Addr is the host:port to listen on. Without a host it means loopback: 0.0.0.0 must
	// be written. Default "127.0.0.1:0", a free port.
	Addr string `config:"addr" doc:"host:port to serve gRPC on; without a host it means loopback"`
	// TLS is what the listener speaks, in place of the server's own certificates, which it
	// takes if the server has some: for callers from outside, who know nothing of SPIFFE.
	// With ClientAuth it can ask for certificates: the SPIFFE id of a client's certificate
	// is then the identity that allow-lists see, if the server's own certificates, where it
	// has some, would let it connect: authority, trust domain and peers.
	TLS *tls.Config
	// Plaintext lets the listener do without TLS, although the server has it or other
	// machines reach the listener.
	Plaintext bool `config:"plaintext" doc:"no TLS, although the server has it or other machines reach the listener"`
	// NoReflection keeps callers from asking for the contracts. Under an allow-list nobody
	// can.
	NoReflection bool `config:"no_reflection" doc:"callers cannot ask for the contracts; nobody can under an allow-list"`
	// Key is the secret behind user levels; all entries of a system should share one. The
	// zero key means one that the listener makes for itself.
	Key qos.Key
	// MaxMessageBytes is the longest message either way. Default 4 MiB, as everywhere with
	// gRPC.
	MaxMessageBytes int `config:"max_message_bytes" unit:"bytes" doc:"longest message either way"`
	// MaxHeaderBytes bounds what the head of a call takes when it is unpacked. Default 16 KiB.
	MaxHeaderBytes int `config:"max_header_bytes" unit:"bytes" doc:"what the head of a call may take when it is unpacked"`
	// MaxConnections is how many connections may be open at once. Default 10,000.
	MaxConnections int `config:"max_connections" unit:"connections" doc:"how many may be open at once"`
	// MaxStreams is how many calls one connection may carry at once. Default 256.
	MaxStreams int `config:"max_streams" unit:"calls" doc:"how many one connection may carry at once"`
	// MaxInFlight is how many calls may be served at once, waiting ones included; what comes
	// beyond is refused. Default 100,000.
	MaxInFlight int `config:"max_in_flight" unit:"calls" doc:"how many may be served at once, waiting ones included"`
	// HandshakeTimeout is the longest a peer may take for TLS and the preface of HTTP/2.
	// Default 5 s.
	HandshakeTimeout time.Duration `config:"handshake_timeout" doc:"longest a peer may take for TLS and the preface of HTTP/2"`
	// IdleTimeout is how long a connection may stay without a call. Default 5 min.
	IdleTimeout time.Duration `config:"idle_timeout" doc:"how long a connection may stay without a call"`
	// MaxAge is how long a connection takes new calls: then its client is told to make
	// another, under certificates as they are by then. Default 1 h.
	MaxAge time.Duration `config:"max_age" doc:"how long a connection takes new calls"`
	// Keepalive is after how long without a sign of life a peer is asked for one; it has a
	// third of that to answer. Default 30 s.
	Keepalive time.Duration `config:"keepalive" doc:"after how long without a sign of life a peer is asked for one"`
	// MinPing is how often a client may ask for a sign of life. One that does so more often
	// is sent away. Default 10 s.
	MinPing time.Duration `config:"min_ping" doc:"how often a client may ask for a sign of life"`
}

// DefaultConfig gives the settings of a listener that was given none.
func DefaultConfig() Config {
	c, _ := Config{}.withDefaults() // is right
	return c
}

// withDefaults gives the configuration with every field set, or an error that names every
// field that is wrong.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	host, port, err := net.SplitHostPort(c.Addr)
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("Addr %q is not host:port: %w", c.Addr, err))
	case host == "":
		c.Addr = net.JoinHostPort("127.0.0.1", port)
	}
	if c.TLS != nil && c.Plaintext {
		errs = append(errs, errors.New("TLS and Plaintext are both given: leave one out"))
	}
	number(&errs, "MaxMessageBytes", &c.MaxMessageBytes, 4<<20, 1<<10, 1<<30)
	number(&errs, "MaxHeaderBytes", &c.MaxHeaderBytes, 16<<10, 1<<10, 1<<20)
	number(&errs, "MaxConnections", &c.MaxConnections, 10_000, 1, 1<<24)
	number(&errs, "MaxStreams", &c.MaxStreams, 256, 1, 1<<20)
	number(&errs, "MaxInFlight", &c.MaxInFlight, 100_000, 1, 1<<24)
	number(&errs, "HandshakeTimeout", &c.HandshakeTimeout, 5*time.Second, time.Millisecond, time.Minute)
	number(&errs, "IdleTimeout", &c.IdleTimeout, 5*time.Minute, time.Second, 24*time.Hour)
	number(&errs, "MaxAge", &c.MaxAge, time.Hour, time.Second, 24*time.Hour)
	number(&errs, "Keepalive", &c.Keepalive, 30*time.Second, time.Second, time.Hour) // grpc-go takes no less
	number(&errs, "MinPing", &c.MinPing, 10*time.Second, time.Millisecond, time.Hour)
	if len(errs) > 0 {
		return c, fmt.Errorf("grpcserver.Config: %w", errors.Join(errs...))
	}
	return c, nil
}

func number[T int | time.Duration](errs *[]error, field string, value *T, def, lo, hi T) {
	if *value == 0 {
		*value = def
	}
	if *value < lo || *value > hi {
		*errs = append(*errs, fmt.Errorf("%s is %v: it must be %v to %v", field, *value, lo, hi))
	}
}
