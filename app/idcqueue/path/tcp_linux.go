// SPDX-License-Identifier: Apache-2.0

package path

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// congestion is the one that keeps a long line full although packets are lost: at
	// 300 ms and 1 % it carried 11 MB/s of 12, where cubic carried 0.1 (docs/benchmarks.md).
	congestion = "bbr"
	// userTimeoutMs is when the kernel gives up data that nobody acknowledges. The probes
	// are faster; this is for the one of the two connections that has none.
	userTimeoutMs = 5000
	// wantBuffer is what a line of 100 Mbit/s and 300 ms needs with room for losses: with
	// the usual 4 MB it carried a quarter.
	wantBuffer = 64 << 20
)

// tune prepares a connection for a long line.
func tune(conn net.Conn) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	_ = tcp.SetKeepAlive(false) // the probes know better; an error means that it is closed
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var errs error
	err = raw.Control(func(fd uintptr) {
		errs = errors.Join(
			os.NewSyscallError("TCP_CONGESTION", unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion)),
			os.NewSyscallError("TCP_USER_TIMEOUT", unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, userTimeoutMs)),
		)
	})
	return errors.Join(err, errs)
}

// kernelView is what the kernel knows of a connection.
type kernelView struct{ sent, again, rate uint64 }

func measureTCP(conn net.Conn) kernelView {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return kernelView{}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return kernelView{}
	}
	var view kernelView
	_ = raw.Control(func(fd uintptr) { // a closed one tells nothing
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			view = kernelView{sent: uint64(info.Segs_out), again: uint64(info.Total_retrans), rate: info.Delivery_rate}
		}
	})
	return view
}

// adviseOnBuffers tells operators what slows their lines down.
func adviseOnBuffers(ctx context.Context, log *slog.Logger) {
	for _, name := range []string{"tcp_wmem", "tcp_rmem"} {
		b, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
		if err != nil {
			continue // another kind of system; it is only advice
		}
		f := strings.Fields(string(b))
		if len(f) != 3 {
			continue
		}
		if most, err := strconv.ParseInt(f[2], 10, 64); err == nil && most < wantBuffer {
			log.WarnContext(ctx, "buffers are too small for a long line: raise the third figure", "setting", "net.ipv4."+name, "is", most, "want", wantBuffer)
		}
	}
	if b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control"); err == nil && !strings.Contains(string(b), congestion) {
		log.WarnContext(ctx, "the kernel has no bbr: a long line that loses packets will be slow", "has", strings.TrimSpace(string(b)))
	}
}
