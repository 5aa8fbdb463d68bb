// SPDX-License-Identifier: Apache-2.0

package clustertest

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/ocean/emulator"
	"github.com/sluice-rpc/sluice/app/pki"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/config"
)

// linkKey is behind the links of all regions: an answer that comes from home by way of
// another region has links that must hold there.
const linkKey config.Secret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// Sea is several regions inside one test, and the lines between them.
type Sea struct {
	Regions []Region
	Lines   []cluster.WorldLine // between each two, the one that was named first first
}

// Region is a region of a Sea.
type Region struct {
	Name   string
	URL    string                   // of its page and API
	Admins map[topology.Role]string // host:port of the admin pages of its services
}

// StartRegions runs regions in this process, on directories of the test and until it
// ends. All that goes from one to another goes over a line.
func StartRegions(t testing.TB, names ...string) *Sea {
	t.Helper()
	certs := pki.Dir(t.TempDir())
	if err := certs.Init(time.Now()); err != nil {
		t.Fatal(err)
	}
	cfgs, doors := make([]cluster.Config, len(names)), make([]topology.Peer, len(names))
	for i, name := range names {
		if err := certs.Issue(name, time.Hour, time.Now()); err != nil {
			t.Fatal(err)
		}
		data, err := cluster.OpenData(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		top := topology.Default()
		top.Region = topology.Region{Number: uint32(i + 1), Name: name}
		top.Line.CA, top.Line.Cert, top.Line.Key = certs.Authority(), certs.Cert(name), certs.Key(name)
		top.Gateway.Listen, top.Gateway.Limits, top.Gateway.Admission = "127.0.0.1:0", false, framework.Off
		top.Files.LinkKey = linkKey
		cfgs[i] = cluster.Config{
			Topology: top, Roles: topology.Roles(), Data: data, Log: slog.New(slog.DiscardHandler), CheapPasswords: true,
			Sockets: map[string]net.Listener{},
		}
		doors[i] = topology.Peer{Number: uint32(i + 1), Name: name}
		for _, r := range topology.Facing() {
			lis := listen(t)
			cfgs[i].Sockets[string(r)+"-line"] = lis
			*doors[i].At(r) = lis.Addr().String()
		}
	}
	s := &Sea{}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running errgroup.Group
	t.Cleanup(func() {
		cancel()
		if err := running.Wait(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	for i := range names {
		for j := range names[:i] {
			line := cluster.WorldLine{A: names[j], B: names[i], Line: emulator.NewLine(emulator.Setting{})}
			s.Lines = append(s.Lines, line)
			for _, reverse := range []bool{false, true} {
				from, to := j, i
				if reverse {
					from, to = i, j
				}
				peer := doors[to]
				for _, r := range topology.Facing() {
					lis, at := listen(t), *peer.At(r)
					*peer.At(r) = lis.Addr().String()
					running.Go(func() error { return line.Carry(ctx, lis, emulator.Fixed(at), reverse) })
				}
				cfgs[from].Topology.Regions = append(cfgs[from].Topology.Regions, peer)
			}
		}
	}
	for i, cfg := range cfgs {
		node, err := cluster.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		r := Region{Name: names[i], URL: node.URL(), Admins: map[topology.Role]string{}}
		for _, role := range topology.Services() {
			at, _ := node.Running(role)
			r.Admins[role] = at.Admin
		}
		s.Regions = append(s.Regions, r)
		running.Go(func() error { return node.Run(ctx) })
	}
	return s
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return lis
}
