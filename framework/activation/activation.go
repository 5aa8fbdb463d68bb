// SPDX-License-Identifier: Apache-2.0

// Package activation hands listening sockets from one process to those that it
// starts, in the form of systemd's socket activation (sd_listen_fds(3)). The parent
// binds an address once and keeps it: no other program can take it before its child
// serves on it, and a child that is started again finds the connections that came
// meanwhile waiting.
package activation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What sd_listen_fds(3) fixes.
const (
	envPID   = "LISTEN_PID"     // process that the sockets are for
	envCount = "LISTEN_FDS"     // how many there are
	envNames = "LISTEN_FDNAMES" // their names, with colons between
	firstFD  = 3
)

// Socket is a bound address that children can be given, again and again. Its methods
// may not be called at once from several goroutines.
type Socket struct {
	name string
	addr net.Addr
	file *os.File
}

// Listen binds a TCP address. The name is what a child knows the socket by: at most
// 255 bytes of printable ASCII without a colon.
func Listen(ctx context.Context, name, addr string) (*Socket, error) {
	if !validName(name) {
		return nil, fmt.Errorf("activation: name %q: use 1 to 255 bytes of printable ASCII without a colon", name)
	}
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &Socket{name: name, addr: lis.Addr()}
	s.file, err = share(lis.(*net.TCPListener), name) // what "tcp" gives
	if err = errors.Join(err, lis.Close()); err != nil {
		return nil, fmt.Errorf("activation: share %s: %w", s.addr, err)
	}
	return s, nil
}

func validName(name string) bool {
	return name != "" && len(name) <= 255 && !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' || r == ':' })
}

// share gives a file of the listener's socket. TCPListener.File would not do: this
// process would be woken by each connection that comes, and would turn the socket,
// of which all processes share the mode, into a blocking one under a child's feet.
func share(lis *net.TCPListener, name string) (*os.File, error) {
	raw, err := lis.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var failed error
	err = raw.Control(func(own uintptr) {
		if fd, failed = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0); failed == nil {
			failed = unix.SetNonblock(fd, false) // so that os.NewFile does not poll it
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Addr is the address that is bound, with its port.
func (s *Socket) Addr() string { return s.addr.String() }

// Close gives up this process's part of the socket. The address is free, and who
// connects is refused, once no child serves on it either. Closing twice is harmless.
func (s *Socket) Close() error {
	if err := s.file.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// Pass lets a command that is not started yet find the sockets with Inherited. It
// sets cmd.ExtraFiles, which must be empty, and adds to cmd.Env.
//
// It leaves LISTEN_PID out: the number of a process is not known before it runs.
// A program whose library insists on it cannot be started this way.
func Pass(cmd *exec.Cmd, sockets ...*Socket) error {
	if len(cmd.ExtraFiles) > 0 {
		return errors.New("activation: the command has extra files already: pass sockets first, other files take the numbers after them")
	}
	names := make([]string, len(sockets))
	for i, s := range sockets {
		names[i] = s.name
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.file)
	}
	// Not those of this process, which nobody may have asked for.
	env := slices.DeleteFunc(cmd.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == envPID || name == envCount || name == envNames
	})
	cmd.Env = append(env, envCount+"="+strconv.Itoa(len(sockets)), envNames+"="+strings.Join(names, ":"))
	return nil
}

// Inherited gives the sockets that this process was started with, by name: those of
// Pass, or of a systemd socket unit with FileDescriptorName=. The caller closes them.
// Without any it gives none. It takes them out of the environment, so that children
// do not take them for theirs: call it once, early.
func Inherited() (map[string]net.Listener, error) {
	pid, count, names := os.Getenv(envPID), os.Getenv(envCount), os.Getenv(envNames)
	for _, v := range []string{envPID, envCount, envNames} {
		if err := os.Unsetenv(v); err != nil {
			return nil, fmt.Errorf("activation: %w", err)
		}
	}
	if count == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return nil, nil // meant for a process before this one
	}
	n, err := strconv.Atoi(count)
	named := strings.Split(names, ":")
	if err != nil || n < 0 || n > 0 && len(named) != n {
		return nil, fmt.Errorf("activation: %s=%q with %s=%q: want a number and as many names; with systemd set FileDescriptorName= of each socket", envCount, count, envNames, names)
	}
	sockets := make(map[string]net.Listener, n)
	for i := range n {
		err := inherit(sockets, firstFD+i, named[i])
		if err != nil {
			for _, lis := range sockets {
				err = errors.Join(err, lis.Close())
			}
			return nil, err
		}
	}
	return sockets, nil
}

func inherit(sockets map[string]net.Listener, fd int, name string) error {
	if sockets[name] != nil {
		return fmt.Errorf("activation: two sockets are called %q: give each a name of its own", name)
	}
	// Before the file is touched: with a wrong count it may be one of the Go runtime's.
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err == nil && listens == 0 {
		err = unix.EINVAL // as accept(2) would say
	}
	if err != nil {
		return fmt.Errorf("activation: file %d, %q, is no listening socket: %w", fd, name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	lis, err := net.FileListener(f) // of a copy, which no child inherits by accident
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("activation: socket %q: %w", name, err)
	}
	sockets[name] = lis
	return nil
}
