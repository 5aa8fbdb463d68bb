// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/cluster/clustertest"
	"github.com/sluice-rpc/sluice/app/idcqueue/path"
	"github.com/sluice-rpc/sluice/app/pki"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework"
)

// joined gives the configurations of regions that are joined directly.
func joined(t *testing.T, names ...string) []cluster.Config {
	t.Helper()
	certs := pki.Dir(t.TempDir())
	if err := certs.Init(time.Now()); err != nil {
		t.Fatal(err)
	}
	all := make([]cluster.Config, len(names))
	peers := make([]topology.Peer, len(names))
	for i, name := range names {
		if err := certs.Issue(name, time.Hour, time.Now()); err != nil {
			t.Fatal(err)
		}
		data, err := cluster.OpenData(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		all[i] = testConfig(data, topology.Roles()...)
		all[i].Topology.Region = topology.Region{Number: uint32(i + 1), Name: name}
		all[i].Topology.Line.CA, all[i].Topology.Line.Cert, all[i].Topology.Line.Key = certs.Authority(), certs.Cert(name), certs.Key(name)
		all[i].Sockets = map[string]net.Listener{}
		peers[i] = topology.Peer{Number: uint32(i + 1), Name: name}
		for r, at := range map[topology.Role]*string{
			topology.Account: &peers[i].Account, topology.Post: &peers[i].Post, topology.Comment: &peers[i].Comment,
		} {
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			all[i].Sockets[string(r)+"-line"] = lis
			*at = lis.Addr().String()
		}
	}
	for i := range all {
		for j, p := range peers {
			if i != j {
				all[i].Topology.Regions = append(all[i].Topology.Regions, p)
			}
		}
	}
	return all
}

// page reads how a service is joined.
func page(t *testing.T, n *cluster.Node, r topology.Role) (status int, said cluster.RegionsPage) {
	t.Helper()
	at, _ := n.Running(r)
	res, err := http.Get("http://" + at.Admin + "/regions")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusOK {
		if err := json.NewDecoder(res.Body).Decode(&said); err != nil {
			t.Fatal(err)
		}
	}
	return res.StatusCode, said
}

// TestAppendRegions: what is written of regions is read as it was.
func TestAppendRegions(t *testing.T) {
	want := topology.Default()
	want.Line.CA, want.Line.Cert, want.Line.Key = "ca.pem", "sh.pem", "sh.key"
	want.Line.Account, want.Line.CatchUp, want.Line.Ahead = "127.0.0.1:7101", 4<<20, 90*time.Minute
	for i, name := range []string{"hk", "ca"} {
		want.Regions = append(want.Regions, topology.Peer{
			Number: uint32(i + 2), Name: name, Account: "10.0.0.1:1", Post: "10.0.0.1:2", Comment: "10.0.0.1:3", Gateway: "10.0.0.1:4",
		})
	}
	file := filepath.Join(t.TempDir(), "region.yaml")
	if err := os.WriteFile(file, cluster.AppendRegions(nil, want), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := topology.Load(file, nil)
	if err != nil || got.Line != want.Line || !slices.Equal(got.Regions, want.Regions) {
		t.Errorf("read %+v, %+v, %v; want %+v, %+v", got.Line, got.Regions, err, want.Line, want.Regions)
	}
	if ahead := topology.Default().Line.Ahead; ahead != 24*time.Hour {
		t.Errorf("by default %v may be ahead, want a day", ahead)
	}
}

func TestRegionsAreJoined(t *testing.T) {
	cfgs := joined(t, "sh", "hk")
	sh, _ := runNode(t, cfgs[0])
	hk, _ := runNode(t, cfgs[1])
	for _, n := range []*cluster.Node{sh, hk} {
		for _, r := range topology.Joined() {
			deadline := time.Now().Add(20 * time.Second)
			for {
				status, said := page(t, n, r)
				if status != http.StatusOK || len(said.Line.Peers) != 1 {
					t.Fatalf("%s: status %d, %+v", r, status, said)
				}
				p := said.Line.Peers[0]
				if p.State == path.Up && p.Dialled != nil && p.Accepted != nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%s is not joined: %+v", r, said)
				}
			}
		}
		if status, _ := page(t, n, topology.Notify); status != http.StatusNotFound {
			t.Errorf("the notify service is joined: status %d", status)
		}
	}
}

func TestRegionsRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*topology.Config)
		want   string
	}{
		{"no certificate", func(c *topology.Config) { c.Line.Cert = filepath.Join(os.TempDir(), "no-such.crt") }, "no-such.crt"},
		{"another region's certificate", func(c *topology.Config) {
			c.Line.Cert, c.Line.Key = filepath.Join(filepath.Dir(c.Line.Cert), "hk.crt"), filepath.Join(filepath.Dir(c.Line.Cert), "hk.key")
		}, `names region "hk"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfgs := joined(t, "sh", "hk")
			for _, lis := range cfgs[1].Sockets {
				_ = lis.Close()
			}
			tt.change(&cfgs[0].Topology)
			_, err := cluster.Start(t.Context(), cfgs[0])
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want something about %q", err, tt.want)
			}
		})
	}
}

// TestItemsOfLines: how a region is joined is in the items of its process, and all of them
// are right.
func TestItemsOfLines(t *testing.T) {
	sea := clustertest.StartRegions(t, "items-a", "items-b")
	if err := framework.Items().Err(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`moments_line_up{peer="items-b",region="items-a",service="comment"} 1`,
		`moments_queue_depth{peer="items-a",region="items-b",service="post"} 0`,
		`moments_queue_alarm{peer="items-b",region="items-a",service="account"} 0`,
		`moments_causal_held{region="items-a"} 0`,
		`moments_causal_late{region="items-b"} 0`,
		`moments_causal_orphans_total{region="items-a"} 0`,
		`moments_causal_forks_total{region="items-a"} 0`,
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		res, err := http.Get("http://" + sea.Regions[0].Admins[topology.Comment] + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		missing := ""
		for _, line := range want {
			if !strings.Contains(string(text), line+"\n") {
				missing = line
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s in\n%s", missing, text)
		}
	}
}
