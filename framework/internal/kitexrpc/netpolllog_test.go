// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestNetpollLog: however much netpoll says, the log has a line a second of it.
func TestNetpollLog(t *testing.T) {
	var text bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&text, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	synctest.Test(t, func(t *testing.T) {
		var l netpollLog
		for range 100 {
			if _, err := l.Write([]byte("a connection was closed\n")); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		_, _ = l.Write([]byte("again\n"))
	})
	if n := strings.Count(text.String(), "\n"); n != 2 || !strings.Contains(text.String(), "others_before=99") {
		t.Errorf("%d lines:\n%s", n, text.String())
	}
}
