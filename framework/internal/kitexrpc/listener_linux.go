// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/cloudwego/netpoll"
	"golang.org/x/sys/unix"
)

// socket is a listening socket for netpoll's event loop that other processes may listen
// on, too, before and after this one.
//
// Netpoll's own cannot be shared. It turns the socket into a blocking one for a moment,
// of which all processes share the mode. The loop goes on hearing of a socket that it has
// closed while another process has it open. The connections that it accepts are inherited
// by every program that is started, which keeps them open. And it closes the number of
// its file twice, which by then may be that of a connection.
//
// So the loop is given an epoll instance with nothing but the socket in it, and the socket
// is taken out before it is closed.
type socket struct {
	addr net.Addr

	turns bool // others accept at the same time: after each connection it is their turn

	mu   sync.Mutex
	lis  net.Listener // of which fd is a copy; nil once closed; guarded by mu
	fd   int          // guarded by mu
	loop int          // the epoll instance, -1 once it is of no more use; guarded by mu
}

var _ netpoll.Listener = (*socket)(nil)

// turn is how long a worker leaves the socket to others after each connection. All of them
// are woken by one that comes, and who is awake takes all that follow: the first would
// have most of the connections, and with them of the calls, for as long as they last.
const turn = time.Millisecond

func listenerOf(lis net.Listener, turns bool) (netpoll.Listener, error) {
	sc, ok := lis.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("kitexrpc: a %T cannot be listened on", lis)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{addr: lis.Addr(), lis: lis, turns: turns}
	var failed error
	err = raw.Control(func(own uintptr) { s.fd, failed = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	if s.loop, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, errors.Join(err, unix.Close(s.fd))
	}
	err = unix.EpollCtl(s.loop, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.fd)})
	if err != nil {
		return nil, errors.Join(err, unix.Close(s.loop), unix.Close(s.fd))
	}
	return s, nil
}

// Fd implements netpoll.Listener.
func (s *socket) Fd() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loop
}

// Addr implements net.Listener.
func (s *socket) Addr() net.Addr { return s.addr }

// Close implements net.Listener. The first call closes the socket; the second, which
// comes when the event loop has let go, ends what the loop was given.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.lis != nil:
		err := unix.EpollCtl(s.loop, unix.EPOLL_CTL_DEL, s.fd, nil)
		err = errors.Join(err, unix.Close(s.fd), s.lis.Close())
		s.lis = nil
		return err
	case s.loop >= 0:
		err := unix.Close(s.loop)
		s.loop = -1
		return err
	}
	return nil
}

// Accept implements net.Listener for the event loop: without a connection it gives none,
// and no error.
func (s *socket) Accept() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lis == nil {
		return nil, nil
	}
	fd, from, err := unix.Accept4(s.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
		return nil, nil // another process was quicker, or the peer has gone
	case err != nil:
		return nil, err
	}
	if s.turns {
		s.listen(0)
		time.AfterFunc(turn, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.lis != nil {
				s.listen(unix.EPOLLIN)
			}
		})
	}
	if _, tcp := s.addr.(*net.TCPAddr); tcp {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // slower without, no worse
	}
	return &accepted{fd: fd, local: s.addr, remote: addrOf(from, s.addr)}, nil
}

// listen says what the loop is to hear of. It is called with mu held.
func (s *socket) listen(events uint32) {
	_ = unix.EpollCtl(s.loop, unix.EPOLL_CTL_MOD, s.fd, &unix.EpollEvent{Events: events, Fd: int32(s.fd)}) // it is there
}

// accepted is a connection of which netpoll asks no more than this.
type accepted struct {
	net.Conn
	fd            int
	local, remote net.Addr
}

func (a *accepted) Fd() int              { return a.fd }
func (a *accepted) LocalAddr() net.Addr  { return a.local }
func (a *accepted) RemoteAddr() net.Addr { return a.remote }

// addrOf gives the address of a peer.
func addrOf(from unix.Sockaddr, local net.Addr) net.Addr {
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)))
	case *unix.SockaddrInet6:
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)))
	case *unix.SockaddrUnix:
		return &net.UnixAddr{Name: a.Name, Net: local.Network()}
	}
	return local
}
