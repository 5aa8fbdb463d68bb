// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/sluice-rpc/sluice/app/gateway"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/edge"
)

// openDoor binds the gateway's addresses and makes it.
func (n *Node) openDoor(ctx context.Context) error {
	door := n.cfg.Topology.Gateway
	var err error
	if n.door, err = n.bind(ctx, string(topology.Gateway), door.Listen); err != nil {
		return err
	}
	if n.admin, err = n.bind(ctx, adminSocket(topology.Gateway), door.Admin); err != nil {
		return err
	}
	var access *slog.Logger
	if door.AccessLog != "" {
		if access, err = n.openAccessLog(door.AccessLog); err != nil {
			return err
		}
	}
	if n.foreign, err = n.bindAbroad(ctx, topology.Gateway); err != nil {
		return err
	}
	n.gateway, err = gateway.New(gateway.Config{
		Region: n.cfg.Topology.Region.ID(), Homes: n.abroad.to(topology.Gateway), Moved: n.moved, Peers: n.foreign, PeerTLS: n.abroad.tls(),
		Media: n.media(), Links: n.links, Edges: n.edges(), Origin: n.origin(),
		Accounts: n.accounts(), Posts: n.posts(), Timelines: n.timelines(), Comments: n.comments(),
		Notices:      n.notices(),
		Limits:       door.Limits,
		AdmissionOff: door.Admission == framework.Off, Key: door.Key(), Classes: door.QoSTable,
		Admin: n.admin, Settings: n.cfg.Settings, Access: access,
		HTTP: edge.ServerConfig{CertFile: door.TLSCert, KeyFile: door.TLSKey},
		Log:  n.log.With("service", "gateway"),
	})
	if err != nil {
		return fmt.Errorf("start gateway: %w", err)
	}
	return nil
}

// openAccessLog gives the log of the gateway's requests. Several gateways may append to
// one file: each line is one write.
func (n *Node) openAccessLog(file string) (*slog.Logger, error) {
	if file == "-" {
		return slog.New(slog.NewJSONHandler(os.Stderr, nil)), nil
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of requests: %w", err)
	}
	n.access = f
	return slog.New(slog.NewJSONHandler(f, nil)), nil
}
