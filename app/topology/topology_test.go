// SPDX-License-Identifier: Apache-2.0

package topology_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/qos"
)

func TestLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "region.yaml")
	const text = `region:
  number: 3
  name: hongkong
account:
  listen: 127.0.0.1:7001
  admin: 127.0.0.1:7101
  addrs: [127.0.0.1:7001]
gateway:
  listen: 127.0.0.1:8080
  limits: false
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := topology.Load(file, []string{"gateway.listen=127.0.0.1:8081", "post.addrs=127.0.0.1:7002,127.0.0.1:7012"})
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case got.Region.ID() != 3, got.Region.Name != "hongkong":
		t.Errorf("region %+v", got.Region)
	case got.Service(topology.Account).Addrs[0] != "127.0.0.1:7001":
		t.Errorf("account %+v", got.Account)
	case len(got.Post.Addrs) != 2, got.Post.Listen != "127.0.0.1:0":
		t.Errorf("post %+v", got.Post)
	case got.Gateway.Listen != "127.0.0.1:8081", got.Gateway.Limits:
		t.Errorf("gateway %+v", got.Gateway)
	case got.Service(topology.Gateway) != nil:
		t.Error("the gateway is no service")
	}
}

func TestRegions(t *testing.T) {
	const region = `region: {number: 1, name: sh, clock: -1h}
line: {ca: a, cert: b, key: c, comment: "127.0.0.1:7203"}
`
	const peer = `{number: %d, name: %s, account: "h:1", post: "h:2", comment: "h:3", gateway: "h:8081", edge: ""}`
	for _, tt := range []struct{ name, text, want string }{
		{"two peers", region + "regions:\n- " + fmt.Sprintf(peer, 2, "hk") + "\n- " + fmt.Sprintf(peer, 3, "ca"), ""},
		{"the own number", region + "regions:\n- " + fmt.Sprintf(peer, 1, "hk"), "of this one"},
		{"the own name", region + "regions:\n- " + fmt.Sprintf(peer, 2, "sh"), "of this one"},
		{"one number twice", region + "regions:\n- " + fmt.Sprintf(peer, 2, "hk") + "\n- " + fmt.Sprintf(peer, 2, "ca"), "of another one"},
		{"no certificates", "regions:\n- " + fmt.Sprintf(peer, 2, "hk"), "moments certs"},
		{"a name that cannot be", region + "regions:\n- " + fmt.Sprintf(peer, 2, "HK"), "lower-case"},
		{"no address", region + "regions:\n- {number: 2, name: hk}", "account"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "region.yaml")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := topology.Load(file, nil)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want one with %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Regions) != 2 || got.Regions[1].ID() != 3 || got.Regions[1].Addr(topology.Post) != "h:2" || got.Regions[0].Addr(topology.Notify) != "" {
				t.Errorf("regions: %+v", got.Regions)
			}
			if got.Line.Addr(topology.Comment) != "127.0.0.1:7203" || got.Line.Addr(topology.Post) != "127.0.0.1:0" {
				t.Errorf("line: %+v", got.Line)
			}
			if late := time.Since(got.Region.Now()()); late < time.Hour || late > time.Hour+time.Minute {
				t.Errorf("the clock is late by %v", late)
			}
		})
	}
}

// TestDeployedExample keeps the file that operators start from true.
func TestDeployedExample(t *testing.T) {
	got, err := topology.Load(filepath.Join("..", "deploy", "region.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range topology.Services() {
		if at := got.Service(r); len(at.Addrs) != 1 || at.Addrs[0] != at.Listen {
			t.Errorf("%s listens on %s and is called at %v", r, at.Listen, at.Addrs)
		}
	}
}

func TestKey(t *testing.T) {
	text := strings.Repeat("0a", qos.KeySize)
	got, err := topology.Load("", []string{"gateway.qos-key=" + text})
	if err != nil || got.Gateway.Key()[0] != 10 {
		t.Errorf("key of %s: %v", text, err)
	}
	if k := topology.Default().Gateway.Key(); k != (qos.Key{}) {
		t.Error("a key out of nothing")
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, c := range []struct{ name, setting, want string }{
		{"no equals sign", "gateway.listen", "name=value"},
		{"an unknown setting", "gateway.port=1", "gateway.port"},
		{"an address without a port", "account.listen=localhost", "account.listen"},
		{"port 0 to call", "account.addrs=127.0.0.1:0", "account.addrs"},
		{"region 0", "region.number=0", "region.number"},
		{"a region too large", "region.number=65536", "region.number"},
		{"a region's name with a space", "region.name=hong kong", "region.name"},
		{"admission that is neither", "gateway.admission=maybe", "want on or off"},
		{"a key too short", "gateway.qos-key=0a0b", "gateway.qos-key"},
		{"a certificate without its key", "gateway.tls-cert=cert.pem", "tls-key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := topology.Load("", []string{c.setting}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}
