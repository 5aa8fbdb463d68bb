// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
)

const (
	echoBytes   = 1000
	holdBytes   = 64
	echoName    = "benchmark"
	connections = 4
)

// A peer is one framework under measurement.
type peer struct {
	name string
	// about is shown with the figures: version and what differs from the others.
	about string
	// deadline says that the caller's context carries a deadline.
	deadline bool
	// serve listens on a free loopback port and serves in the background.
	serve func(*service) (addr string, err error)
	// dial connects to a server; its clients live until the process ends.
	dial func(addr string) (client, error)
	// local gives a client of a server in the same process; nil if the framework
	// is not measured so.
	local func(*service) (client, error)
}

// peers are the frameworks measured, ours first.
var peers = []peer{sluicePeer, kitexPeer, grpcPeer}

func peerNames() []string {
	names := make([]string, len(peers))
	for i, p := range peers {
		names[i] = p.name
	}
	return names
}

func peerNamed(name string) (peer, error) {
	for _, p := range slices.Concat(peers, observePeers) {
		if p.name == name {
			return p, nil
		}
	}
	return peer{}, fmt.Errorf("there is no such framework; there are %v", peerNames())
}

// A client makes callers. A caller belongs to one goroutine and uses its request
// again and again, so that what is allocated is the framework's.
type client interface {
	echo(data []byte) caller
	hold(data []byte) caller
}

// A caller makes one call and checks the answer.
type caller func(ctx context.Context, id int64) error

var errMismatch = errors.New("wrong answer")

// check compares an answer with what was asked.
func check(id, gotID int64, size, gotSize int) error {
	if id != gotID || size != gotSize {
		return fmt.Errorf("%w: id %d and %d bytes, want id %d and %d bytes", errMismatch, gotID, gotSize, id, size)
	}
	return nil
}

// service is what every framework's handlers do.
type service struct {
	served   atomic.Int64 // echo calls answered
	held     atomic.Int64 // calls that are blocked, or were
	released chan struct{}
}

func newService() *service { return &service{released: make(chan struct{})} }

func (s *service) echo() { s.served.Add(1) }

// hold blocks its call until the whole service is released.
func (s *service) hold() {
	s.held.Add(1)
	<-s.released
}
