// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package path

import (
	"context"
	"log/slog"
	"net"
)

func tune(net.Conn) error { return nil }

type kernelView struct{ sent, again, rate uint64 }

func measureTCP(net.Conn) kernelView { return kernelView{} }

func adviseOnBuffers(ctx context.Context, log *slog.Logger) {
	log.WarnContext(ctx, "on this system the line's congestion control and buffers are as they are")
}
