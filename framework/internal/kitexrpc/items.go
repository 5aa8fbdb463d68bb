// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"errors"
	"net"
	"sync/atomic"

	"github.com/cloudwego/netpoll"

	"github.com/sluice-rpc/sluice/framework/metrics"
)

// ending is why a connection ends. The first who knows says it; who says nothing leaves
// it to the peer.
type ending struct{ said atomic.Uint32 }

const endCounted = 1 << 31

// because says why, unless somebody has.
func (e *ending) because(c metrics.CloseCause) { e.said.CompareAndSwap(0, uint32(c)+1) }

// count counts the end of a connection, once.
func (e *ending) count(t *metrics.Traffic) {
	e.because(metrics.ClosedByPeer)
	if said := e.said.Or(endCounted); said&endCounted == 0 {
		t.Closed[said-1].Inc()
	}
}

// causeOf tells why a connection ends on which reading has failed.
func causeOf(err error) metrics.CloseCause {
	switch {
	case errors.Is(err, netpoll.ErrReadTimeout):
		return metrics.ClosedSlow
	case errors.Is(err, netpoll.ErrEOF), errors.Is(err, netpoll.ErrConnClosed), errors.Is(err, net.ErrClosed):
		return metrics.ClosedByPeer
	}
	return metrics.ClosedOnError
}

// faultOf tells what is wrong with a frame whose length is refused.
func faultOf(err error) metrics.FrameFault {
	if errors.Is(err, errTooLarge) {
		return metrics.FrameTooLarge
	}
	return metrics.FrameMalformed
}
