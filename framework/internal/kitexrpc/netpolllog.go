// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"bytes"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cloudwego/netpoll"
)

// netpoll writes a line of its own for each connection that is closed while it comes, as
// those beyond MaxConnections are: strangers decide how often. Set before anything runs.
func init() {
	if err := netpoll.Configure(netpoll.Config{LoggerOutput: new(netpollLog)}); err != nil {
		slog.Error("netpoll keeps its own log", slog.Any("err", err))
	}
}

// netpollLog passes one line a second on to the program's log.
type netpollLog struct {
	next   atomic.Int64 // nothing is written before, in ns of Unix
	others atomic.Int64 // lines since the last that was
}

// Write implements io.Writer.
func (l *netpollLog) Write(line []byte) (int, error) {
	now := time.Now().UnixNano()
	if next := l.next.Load(); now < next || !l.next.CompareAndSwap(next, now+int64(time.Second)) {
		l.others.Add(1)
		return len(line), nil
	}
	slog.Default().Warn("netpoll", slog.String("says", string(bytes.TrimSpace(line))), slog.Int64("others_before", l.others.Swap(0)))
	return len(line), nil
}
