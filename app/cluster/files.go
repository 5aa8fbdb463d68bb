// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	mediaedge "github.com/sluice-rpc/sluice/app/edge"
	"github.com/sluice-rpc/sluice/app/link"
	"github.com/sluice-rpc/sluice/app/media"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework/edge"
)

const (
	blobsDir = "blobs"      // in a data directory: photos and videos
	cacheDir = "edge-cache" // in a data directory: what an edge keeps
)

// openFiles opens the bucket of the media service, and finds the key of links for a gateway
// and an edge.
func (n *Node) openFiles(ctx context.Context) (err error) {
	if n.runs(topology.Edge) || n.runs(topology.Gateway) {
		key, err := n.linkKey()
		if err != nil {
			return err
		}
		n.links = link.NewSigner(key)
	}
	if !n.runs(topology.Media) {
		return nil
	}
	at := n.cfg.Topology.Files.Blobs
	if at == "" {
		at = (&url.URL{Scheme: "file", Path: filepath.ToSlash(filepath.Join(n.cfg.Data.Dir(), blobsDir))}).String()
	}
	n.blobs, err = media.OpenBlobs(ctx, at)
	return err
}

// linkKey gives the configured key, else the one of the data directory.
func (n *Node) linkKey() (link.Key, error) {
	if s := n.cfg.Topology.Files.LinkKey; s != "" {
		return link.ParseKey(string(s))
	}
	if n.cfg.Data != nil {
		return n.cfg.Data.linkKey()
	}
	n.log.Warn("this gateway makes links to photos and videos under a key of its own: edges and other gateways do not know them, so each is read from the media service; give all of them one files.link-key")
	var key link.Key
	rand.Read(key[:]) // never fails
	return key, nil
}

// blobDir gives the directory that belongs into the backup of a service's store, "" if
// there is none.
func (n *Node) blobDir(r topology.Role) string {
	if r != topology.Media {
		return ""
	}
	return n.blobs.Dir()
}

// edgeNode is the edge of a process.
type edgeNode struct {
	door, admin net.Listener
	peers       net.Listener // of edges of other regions; nil for none
	entry       *edge.Entry
	server      *edge.Server
	peerServer  *edge.Server // nil without peers
}

// openEdge makes the edge.
func (n *Node) openEdge(ctx context.Context) (err error) {
	place := n.cfg.Topology.Edge
	dir := n.cfg.Topology.Files.CacheDir
	if dir == "" {
		if n.cfg.Data == nil {
			return errors.New("cluster: role edge needs files.cache-dir or a data directory")
		}
		dir = filepath.Join(n.cfg.Data.Dir(), cacheDir)
	}
	log := n.log.With("service", string(topology.Edge))
	cache, err := mediaedge.New(mediaedge.Config{
		Origin: n.origin(), Region: n.cfg.Topology.Region.ID(), Links: n.links, Dir: dir, MaxBytes: int64(n.cfg.Topology.Files.CacheSize),
	})
	if err != nil {
		return fmt.Errorf("start edge: %w", err)
	}
	e := &edgeNode{entry: edge.New(edge.Config{Log: log, Service: string(topology.Edge)})}
	mux := http.NewServeMux()
	mux.Handle(mediaedge.Pattern, e.entry.Handle(mediaedge.Pattern, nil, cache.Serve))
	mux.Handle("/", e.entry.NotFound(mux))
	if e.server, err = edge.NewServer(edge.ServerConfig{Service: string(topology.Edge), Log: log}, mux); err != nil {
		return fmt.Errorf("start edge: %w", err)
	}
	if e.door, err = n.bind(ctx, string(topology.Edge), place.Listen); err != nil {
		return err
	}
	if e.admin, err = n.bind(ctx, adminSocket(topology.Edge), place.Admin); err != nil {
		return errors.Join(err, e.door.Close())
	}
	n.edge = e
	return n.openPeerEdge(ctx, cache, log)
}

// openPeerEdge makes the door of the edge for those of other regions.
func (n *Node) openPeerEdge(ctx context.Context, cache *mediaedge.Edge, log *slog.Logger) (err error) {
	e := n.edge
	if e.peers, err = n.bindAbroad(ctx, topology.Edge); err != nil || e.peers == nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(mediaedge.PeerPattern, e.entry.Handle(mediaedge.PeerPattern, nil, cache.ServePeer))
	mux.Handle("/", e.entry.NotFound(mux))
	e.peerServer, err = edge.NewServer(edge.ServerConfig{Service: "edge-peers", TLS: n.abroad.tls(), Log: log}, mux)
	return err
}

// origin has photos and videos, those of other regions, too.
func (n *Node) origin() mediaedge.Origin {
	if n.abroad == nil {
		return n.media()
	}
	return mediaedge.Regions{Own: n.cfg.Topology.Region.ID(), Origin: n.media(), Peers: n.abroad.to(topology.Edge)}
}

// run serves until ctx ends; then requests accepted by then are finished.
func (e *edgeNode) run(ctx context.Context) error {
	entry, stop := context.WithCancel(context.WithoutCancel(ctx)) // the admin pages end last
	defer stop()
	var all errgroup.Group
	all.Go(func() error { return e.entry.Run(entry) })
	all.Go(func() error { return e.entry.ServeAdmin(entry, e.admin, nil) })
	all.Go(func() error {
		defer stop()
		doors, ctx := errgroup.WithContext(ctx) // one that fails ends the other
		doors.Go(func() error { return e.server.Serve(ctx, e.door) })
		if e.peers != nil {
			doors.Go(func() error { return e.peerServer.Serve(ctx, e.peers) })
		}
		return doors.Wait()
	})
	return all.Wait()
}

func (e *edgeNode) close() error {
	err := errors.Join(e.door.Close(), e.admin.Close())
	if e.peers != nil {
		err = errors.Join(err, e.peers.Close())
	}
	return err
}

// edges gives the addresses of the edges that this process's gateway leads readers to.
func (n *Node) edges() []string {
	if n.edge != nil {
		return []string{n.edge.door.Addr().String()}
	}
	return n.cfg.Topology.Edge.Addrs
}

// copyBlobs makes a second directory of a bucket's files. They never change, so a second
// name is as good as a copy where the file system can give one. What is removed
// meanwhile is of deleted posts.
func copyBlobs(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		dest := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(dest, 0o700)
		}
		if err = os.Link(path, dest); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return copyFile(path, dest)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // it was only read
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(in)
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}
