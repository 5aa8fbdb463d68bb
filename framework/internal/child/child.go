// SPDX-License-Identifier: Apache-2.0

// Package child starts the program of this process once more, on the sockets that it
// listens on: as the program that takes over from it, or as one that works under it.
//
// A child finds the sockets in its environment, by name and by the address that was asked
// for, and says on a pipe that it is healthy. Both share one queue of connections that
// nobody has accepted yet, so that none is lost when either ends.
package child

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-rpc/sluice/framework/internal/runner"
)

// What a child finds in its environment.
const (
	envSockets = "SLUICE_RESTART_SOCKETS" // in the order of their file numbers, as JSON
	envReady   = "SLUICE_RESTART_READY"   // number of the pipe on which it says that it is healthy
	envWorker  = "SLUICE_WORKER"          // its number among the workers, which begin at 1; a worker's alone
	envNotify  = "NOTIFY_SOCKET"          // systemd's, which watches over the parent
	firstFD    = 3
)

// Program is this process as a parent, and as a child. It is safe for concurrent use.
type Program struct {
	path, dir string // of the program when it began, and where
	lost      error  // why it cannot be started again: these are not known
	err       error  // of what was handed to it
	number    int    // as a worker; 0 if it is none

	mu      sync.Mutex
	sockets []*socket // that are handed on; guarded by mu
	parent  *os.File  // whom to tell that we are healthy; nil if nobody; guarded by mu
	control *os.File  // of a worker; nil once taken; guarded by mu
}

// socket is what is known of a listening socket.
type socket struct {
	Name  string `json:"name"`
	Asked string `json:"asked"` // the address as it was asked for

	lis   net.Listener // as it was inherited or bound
	taken bool         // somebody serves on it
}

var process = sync.OnceValue(func() *Program {
	p := &Program{}
	p.path, p.dir, p.lost = whereAmI()
	p.err = p.inherit()
	return p
})

// Process gives this process.
func Process() *Program { return process() }

// whereAmI tells where the program is started from again: the name that it was called
// by, so that a link that points to another version by then is followed.
func whereAmI() (path, dir string, err error) {
	if dir, err = os.Getwd(); err != nil {
		return "", "", err
	}
	if path, err = exec.LookPath(os.Args[0]); err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", "", fmt.Errorf("find the file of this program: %w", err)
	}
	return path, dir, nil
}

// inherit takes over what the parent has handed on, and takes it out of the environment,
// so that other children do not take it for theirs.
func (p *Program) inherit() error {
	list, ready, number := os.Getenv(envSockets), os.Getenv(envReady), os.Getenv(envWorker)
	if list == "" || ready == "" {
		return nil
	}
	if err := errors.Join(os.Unsetenv(envSockets), os.Unsetenv(envReady), os.Unsetenv(envWorker)); err != nil {
		return err
	}
	fd, err := strconv.Atoi(ready)
	if err != nil || fd < firstFD {
		return fmt.Errorf("%s=%q is no number of a file", envReady, ready)
	}
	p.parent = inherited(fd, "ready")
	if number != "" {
		if p.number, err = strconv.Atoi(number); err != nil || p.number < 1 {
			return fmt.Errorf("%s=%q is no number of a worker", envWorker, number)
		}
		p.control = inherited(fd+1, "control")
	}
	if err := json.Unmarshal([]byte(list), &p.sockets); err != nil {
		return fmt.Errorf("%s=%q: %w", envSockets, list, err)
	}
	for i, s := range p.sockets {
		f := os.NewFile(uintptr(firstFD+i), s.Name)
		s.lis, err = net.FileListener(f) // of a copy, which no child inherits by accident
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("socket %q, file %d: %w", s.Name, firstFD+i, err)
		}
	}
	return nil
}

func inherited(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

// Path is the file that a successor is started from.
func (p *Program) Path() string { return p.path }

// Listen gives the socket of a name that the parent has handed on, if it had asked for the
// same address, or else binds the address. The caller closes the listener; until then it
// is handed on to children.
func (p *Program) Listen(name, addr string) (net.Listener, error) {
	if lis, err := p.inherited(name, addr); lis != nil || err != nil {
		return lis, err
	}
	if p.number > 0 {
		return nil, fmt.Errorf("worker %d was not handed the socket %q of %s: let main choose addresses in the same way each time it runs", p.number, name, addr)
	}
	lis, err := runner.Listen(addr)
	if err != nil {
		return nil, err
	}
	p.Keep(name, addr, lis)
	return lis, nil
}

// inherited gives a socket that the parent has handed on, nil if there is none.
func (p *Program) inherited(name, addr string) (net.Listener, error) {
	if p.err != nil {
		return nil, p.err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.sockets, func(s *socket) bool { return s.Name == name && !s.taken })
	if i < 0 {
		return nil, nil
	}
	s := p.sockets[i]
	if s.Asked != addr {
		p.sockets = slices.Delete(p.sockets, i, i+1)
		return nil, s.lis.Close()
	}
	s.taken = true
	return s.lis, nil
}

// Keep hands on a listener that was bound elsewhere. A child gets it by Listen, with the
// same name and address.
func (p *Program) Keep(name, addr string, lis net.Listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sockets = slices.DeleteFunc(p.sockets, func(s *socket) bool { return s.Name == name && s.taken })
	p.sockets = append(p.sockets, &socket{Name: name, Asked: addr, lis: lis, taken: true})
}

// Forget is for who has closed a listener.
func (p *Program) Forget(lis net.Listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sockets = slices.DeleteFunc(p.sockets, func(s *socket) bool { return s.lis == lis })
}

// HasParent says whether a parent waits for this process to be Healthy.
func (p *Program) HasParent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.parent != nil
}

// Worker gives the number of this process among the workers of its parent, from 1; 0 if it
// is none.
func (p *Program) Worker() int { return p.number }

// Control gives a worker the connection with its parent, once.
func (p *Program) Control() (net.Conn, error) {
	p.mu.Lock()
	f := p.control
	p.control = nil
	p.mu.Unlock()
	if f == nil {
		return nil, errors.New("the connection with the parent is taken already, or there is none")
	}
	conn, err := net.FileConn(f)
	return conn, errors.Join(err, f.Close())
}

// Healthy tells the parent that all is served, and closes what nobody wants any more of
// what it has handed on. Without a parent that waits it does nothing.
func (p *Program) Healthy() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parent == nil {
		return
	}
	for _, s := range p.sockets {
		if !s.taken {
			_ = s.lis.Close()
		}
	}
	p.sockets = slices.DeleteFunc(p.sockets, func(s *socket) bool { return !s.taken })
	_, _ = io.WriteString(p.parent, healthy) // who waits no more has gone on without us, and ends us
	_ = p.parent.Close()
	p.parent = nil
}

// healthy is what a child says on the pipe.
const healthy = "healthy\n"

// A Child is a process that was started. Its methods are for one goroutine.
type Child struct {
	cmd   *exec.Cmd
	ready *os.File
}

// Succeed starts what is to take over from this process: its file as it is now.
func (p *Program) Succeed() (*Child, error) {
	if p.lost != nil {
		return nil, p.lost
	}
	cmd := exec.Command(p.path, os.Args[1:]...) //nolint:gosec,noctx // this very program; it outlives us
	return p.start(cmd)
}

// Work starts a worker: the program that runs here, even if its file is another by now. It
// gets SIGTERM when the thread ends that calls this. The connection is with its Control.
func (p *Program) Work(number int) (*Child, net.Conn, error) {
	if p.lost != nil {
		return nil, nil, p.lost
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("connect a worker: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	conn, err := net.FileConn(ours)
	_ = ours.Close() // conn has a copy
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("connect a worker: %w", err), theirs.Close())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:noctx // it is ended by signals
	cmd.Args[0] = os.Args[0]
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, envNotify+"=") })
	cmd.Env = append(cmd.Env, envWorker+"="+strconv.Itoa(number))
	c, err := p.start(cmd, theirs)
	_ = theirs.Close() // the child's
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return c, conn, nil
}

// start starts a command with our sockets, the pipe, and then more files.
func (p *Program) start(cmd *exec.Cmd, more ...*os.File) (*Child, error) {
	p.mu.Lock()
	list, files, err := p.share()
	p.mu.Unlock()
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = p.dir, os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(cmd.Environ(), envSockets+"="+list, envReady+"="+strconv.Itoa(firstFD+len(files)))
	cmd.ExtraFiles = append(append(slices.Clone(files), w), more...)
	if err = closeOnExec(); err == nil {
		err = cmd.Start()
	}
	_ = w.Close() // the child's
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &Child{cmd, r}, nil
}

// Wait waits until the child says that it is healthy. An error says why it is not, or is
// the cause of ctx; the child has then been ended, as by End, and is gone.
func (c *Child) Wait(ctx context.Context, grace time.Duration) error {
	stop := context.AfterFunc(ctx, func() { _ = c.ready.Close() })
	said, _ := io.ReadAll(c.ready) // until it is healthy, ends, or has no more time
	stop()
	_ = c.ready.Close()
	if string(said) == healthy {
		return nil
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	err := c.End(over, grace)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil:
		return errors.New("it has ended")
	}
	return err
}

// End waits for the end of the child, and tells how it was. When ctx ends the child is
// asked to end by SIGTERM, and killed if it has not after a grace.
func (c *Child) End(ctx context.Context, grace time.Duration) error {
	ended := make(chan error, 1)
	go func() { ended <- c.cmd.Wait() }() // is received below
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case err := <-ended:
		return err
	case <-t.C:
	}
	_ = c.cmd.Process.Kill()
	return <-ended
}

// PID is the number of the child's process.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Release leaves the child to itself.
func (c *Child) Release() error { return c.cmd.Process.Release() }

// share gives the sockets that are being served on, as a child finds them. It is called
// with mu held. The caller closes the files.
func (p *Program) share() (list string, files []*os.File, err error) {
	var shared []*socket
	for _, s := range p.sockets {
		f, err := duplicate(s)
		switch {
		case errors.Is(err, net.ErrClosed):
			continue // not served any more
		case err != nil:
			return "", files, fmt.Errorf("socket %q: %w", s.Name, err)
		}
		files, shared = append(files, f), append(shared, s)
	}
	b, err := json.Marshal(shared)
	return string(b), files, err
}

// duplicate gives a file of a socket. TCPListener.File would not do: its Fd turns the
// socket, of which all processes share the mode, into a blocking one under the feet of
// who accepts.
func duplicate(s *socket) (*os.File, error) {
	sc, ok := s.lis.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a %T has no file that can be handed on", s.lis)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var failed error
	err = raw.Control(func(own uintptr) { fd, failed = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), s.Name), nil
}

// closeOnExec keeps files from a child that are not meant for it: event loops, and
// connections, which would stay open as long as it has them.
func closeOnExec() error {
	err := unix.CloseRange(firstFD, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	files, err := os.ReadDir("/proc/self/fd") // before Linux 5.11
	if err != nil {
		return err
	}
	for _, f := range files {
		if fd, err := strconv.Atoi(f.Name()); err == nil && fd >= firstFD {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
