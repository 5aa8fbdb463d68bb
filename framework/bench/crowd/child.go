// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
)

// childArg as the first argument makes the program a server ("serve LIMIT") or what holds
// connections ("hold ADDR SOURCE MANY"). It says one line when it is ready, and one for each
// line that it reads; it ends with its standard input.
const childArg = "child"

// memory is what a process has.
type memory struct{ RSS, Heap uint64 }

func childMain(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "serve":
		limit, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return serve(limit)
	case len(args) == 4 && args[0] == "hold":
		many, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		return hold(args[1], args[2], many)
	}
	return errors.New("want serve LIMIT, or hold ADDR SOURCE MANY")
}

// serve tells its address, and what memory it has when it is asked.
func serve(limit int) error {
	srv := framework.NewServer(framework.ServerConfig{Service: "crowd", MaxConnections: limit, IdleTimeout: 24 * time.Hour, DrainTimeout: time.Second},
		framework.WithLogger(slog.New(slog.DiscardHandler)))
	testpb.NewServer().Register(srv)
	if err := srv.Listen(); err != nil {
		return err
	}
	fmt.Println(srv.Addr())
	ctx, stop := context.WithCancel(context.Background())
	go func() { // ends with the process that started this one
		defer stop()
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			runtime.GC() // or what was made on the way counts, too
			var mem runtime.MemStats
			runtime.ReadMemStats(&mem)
			_ = json.NewEncoder(os.Stdout).Encode(memory{RSS: resident(), Heap: mem.HeapAlloc})
		}
	}()
	return srv.Run(ctx)
}

func resident() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b)
	pages, _ := strconv.ParseUint(string(fields[1]), 10, 64)
	return pages * uint64(os.Getpagesize())
}

// hold opens connections, and closes one for each line that it reads.
func hold(addr, source string, many int) error {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: patience, Control: portLater}
	open := make([]net.Conn, many)
	for i := range open {
		nc, err := dialer.DialContext(context.Background(), "tcp", addr)
		if err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
		open[i] = nc
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan() && len(open) > 0; open = open[1:] {
		if err := open[0].Close(); err != nil {
			return err
		}
		fmt.Println("gone")
	}
	return nil // the rest go with the process
}

// portLater lets the system choose the port when it connects: before, it looks through all
// that are taken.
func portLater(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) }); e != nil {
		return e
	}
	return err
}

// proc is a child as the run sees it.
type proc struct {
	said string // when it was ready
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
}

func start(ctx context.Context, args ...string) (*proc, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &proc{cmd: exec.CommandContext(ctx, exe, append([]string{childArg}, args...)...)}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if p.said, err = p.line(); err != nil {
		p.stop()
		return nil, fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return p, nil
}

// line gives what it says next.
func (p *proc) line() (string, error) {
	if !p.out.Scan() {
		return "", errors.Join(errors.New("the process says nothing more"), p.out.Err())
	}
	return p.out.Text(), nil
}

func (p *proc) ask() (string, error) {
	if _, err := fmt.Fprintln(p.in); err != nil {
		return "", err
	}
	return p.line()
}

func (p *proc) memory() (m memory, err error) {
	text, err := p.ask()
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal([]byte(text), &m)
}

func (p *proc) letOneGo() error {
	_, err := p.ask()
	return err
}

func (p *proc) stop() {
	_ = p.in.Close()
	kill := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	_ = p.cmd.Wait()
}
