// SPDX-License-Identifier: Apache-2.0

package path

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"
)

// dialDoor bounds how long it may take to connect to a peer's door: users wait.
const dialDoor = 3 * time.Second

// Doors are the certificates of a region for HTTP between its gateways and edges and those
// of other regions. Its rules are those of lines: TLS 1.3 with certificates of the private
// authority on both sides, and who connects must be in the list. It is safe for concurrent
// use.
type Doors struct {
	files *credentials
	peers atomic.Pointer[[]string]
	limit time.Duration
}

// NewDoors reads the certificates of the region self. They are read again when they
// change. A nil log is slog.Default().
func NewDoors(files Files, self string, peers []string, log *slog.Logger) (*Doors, error) {
	if log == nil {
		log = slog.Default()
	}
	c, err := openCredentials(files, self, alpnHTTP, log, time.Now)
	if err != nil {
		return nil, err
	}
	d := &Doors{files: c, limit: dialDoor}
	d.SetPeers(peers)
	return d, nil
}

// SetPeers lets these peers in, and no others, from now on. Connections stay that are there.
func (d *Doors) SetPeers(peers []string) {
	peers = slices.Clone(peers)
	d.peers.Store(&peers)
}

// TLS is how a server lets peers in. Requests have the name of theirs in TLS.PeerCertificates,
// see pki.NameOf.
func (d *Doors) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return d.files.server(func(name string) bool { return slices.Contains(*d.peers.Load(), name) }), nil
		},
	}
}

// Dial connects to the door of a peer at an address, host:port.
func (d *Doors) Dial(ctx context.Context, peer, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.limit)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, d.files.client(peer))
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the first error says enough
		return nil, err
	}
	return conn, nil
}
