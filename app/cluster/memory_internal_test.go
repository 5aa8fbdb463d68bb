// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"testing"

	"github.com/sluice-rpc/sluice/app/topology"
)

// TestRoom: what is kept grows with the memory, is a bounded part of it, and does not
// fall below what a small Moments needs, where there is room for that.
func TestRoom(t *testing.T) {
	heap := func(m room) (sum int64) {
		for _, n := range m.rows {
			sum += n
		}
		for _, n := range m.scans {
			sum += n
		}
		return sum + int64(m.posts)
	}
	least := roomIn(ample, topology.Placed())
	if least.blocks < 64*mib || least.friends < 1_000_000 || least.facts < 500_000 || heap(least) < 128*mib {
		t.Errorf("just ample: %+v", least)
	}
	for _, memory := range []int64{256 * mib, 512 * mib, 1024 * mib} {
		m := roomIn(memory, topology.Placed())
		tables := int64(m.table) * int64(len(topology.Services())) * 4
		if sum := heap(m) + m.blocks + tables; sum > memory*3/4 || m.blocks < memory/10 || m.friends < 100_000 || m.facts < 50_000 {
			t.Errorf("%d MiB: %+v", memory/mib, m)
		}
	}
	if none := roomIn(0, topology.Placed()); none.blocks < 16*mib || none.table < 4*mib {
		t.Errorf("without memory: %+v", none)
	}
	for _, gib := range []int64{16, 64, 1024} {
		memory := gib << 30
		m := roomIn(memory, topology.Placed())
		if m.blocks > memory/7 || m.blocks < memory/10 {
			t.Errorf("%d GiB: %d MiB of blocks, want about an eighth", gib, m.blocks/mib)
		}
		if sum := heap(m); sum > memory/20 || sum < memory/50 {
			t.Errorf("%d GiB: %d MiB in rows, scans and posts", gib, sum/mib)
		}
		if m.friends <= least.friends || m.facts <= least.facts {
			t.Errorf("%d GiB: room for %d friends and %d facts, as without", gib, m.friends, m.facts)
		}
	}
	if one := roomIn(64<<30, []topology.Role{topology.Post}); one.blocks != 2<<30 {
		t.Errorf("a process of one role has %d MiB of blocks, want 2 GiB", one.blocks/mib)
	}
	if n := Memory(); n < 64*mib {
		t.Errorf("this machine has %d bytes", n)
	}
}
