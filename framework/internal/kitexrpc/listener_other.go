// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package kitexrpc

import (
	"net"

	"github.com/cloudwego/netpoll"
)

func listenerOf(lis net.Listener, _ bool) (netpoll.Listener, error) {
	return netpoll.ConvertListener(lis)
}
