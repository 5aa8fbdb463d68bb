// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	overloadv1 "github.com/sluice-rpc/sluice/examples/overload/overload/v1"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/activation"
)

// stopTime is how long a tier may take to end, then it is killed.
const stopTime = 5 * time.Second

// tiers are the processes of middle and leaf, and the front's way to them.
type tiers struct {
	middle, leaf *process
	conn         *framework.Conn
	client       overloadv1.MiddleClient
}

// startTiers starts this program again as middle and as leaf. The caller stops them.
func startTiers(ctx context.Context, admission bool) (_ *tiers, err error) {
	t := &tiers{}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.stop())
		}
	}()
	mode := framework.On
	if !admission {
		mode = framework.Off
	}
	if t.leaf, err = startTier(ctx, tierLeaf, envAdmission+"="+mode); err != nil {
		return nil, err
	}
	if t.middle, err = startTier(ctx, tierMiddle, envAdmission+"="+mode, envLeafAddr+"="+t.leaf.addr); err != nil {
		return nil, err
	}
	t.conn, err = framework.Dial(framework.ClientConfig{Service: tierMiddle, Addrs: []string{t.middle.addr}})
	if err != nil {
		return nil, err
	}
	t.client = overloadv1.NewMiddleClient(t.conn)
	return t, nil
}

// stop ends the tiers and waits for them: callers first, so that nobody calls one
// that is gone.
func (t *tiers) stop() error {
	if t == nil {
		return nil
	}
	var err error
	if t.conn != nil {
		err = t.conn.Close()
	}
	return errors.Join(err, t.middle.stop(), t.leaf.stop())
}

// process is a tier that runs.
type process struct {
	name   string
	cmd    *exec.Cmd
	addr   string // of its calls
	admin  string // URL of its admin pages
	input  io.Closer
	stderr tail
	ended  chan error // tells once, when it has ended
}

// startTier hands the tier sockets that are bound already: their addresses are known
// before it runs, and calls that come too early wait in them.
func startTier(ctx context.Context, tier string, env ...string) (*process, error) {
	p := &process{name: tier, ended: make(chan error, 1)}
	calls, err := activation.Listen(ctx, socketCalls, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer func() { _ = calls.Close() }() // the child has its own
	admin, err := activation.Listen(ctx, socketAdmin, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer func() { _ = admin.Close() }()
	p.addr, p.admin = calls.Addr(), "http://"+admin.Addr()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(self) //nolint:noctx // it is asked to end through its input, so that it drains
	p.cmd.Env = append(os.Environ(), append(env, envTier+"="+tier)...)
	p.cmd.Stderr = &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // out of reach of the terminal's Ctrl-C
	if err := activation.Pass(p.cmd, calls, admin); err != nil {
		return nil, err
	}
	if p.input, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the %s: %w", tier, err)
	}
	go func() { p.ended <- p.cmd.Wait() }() // stop waits for it
	return p, nil
}

// stop ends the process by ending its input, and waits for it.
func (p *process) stop() error {
	if p == nil {
		return nil
	}
	_ = p.input.Close() // it may have ended already
	limit := time.NewTimer(stopTime)
	defer limit.Stop()
	var err error
	select {
	case err = <-p.ended:
	case <-limit.C:
		_ = p.cmd.Process.Kill()
		err = errors.Join(fmt.Errorf("it did not end within %v and was killed", stopTime), <-p.ended)
	}
	if err != nil {
		return fmt.Errorf("the %s: %w: %s", p.name, err, p.stderr.String())
	}
	return nil
}

// died tells an end that nobody asked for; stop gives the same error then.
func (p *process) died() bool {
	select {
	case err := <-p.ended:
		p.ended <- errors.Join(err, errors.New("it ended by itself"))
		return true
	default:
		return false
	}
}

// tail keeps the end of what is written to it. It is safe for concurrent use.
type tail struct {
	mu  sync.Mutex
	buf []byte // guarded by mu
}

const maxTail = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - maxTail; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

// String gives what is kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}
