// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"

	"github.com/sluice-rpc/sluice/framework/bench/child"
)

// peers are the frameworks measured, ours first.
var peers = []child.Peer{sluicePeer, kitexPeer, grpcPeer}

func peerNames() []string {
	names := make([]string, len(peers))
	for i, p := range peers {
		names[i] = p.Name
	}
	return names
}

func peerNamed(name string) (child.Peer, error) {
	for _, p := range slices.Concat(peers, observePeers, []child.Peer{tlsPeer, fullPeer, grpcFullPeer}) {
		if p.Name == name {
			return p, nil
		}
	}
	return child.Peer{}, fmt.Errorf("there is no such framework; there are %v", peerNames())
}
