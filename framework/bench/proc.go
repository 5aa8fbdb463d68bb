// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/sluice-rpc/sluice/framework/bench/child"
)

// answerWithin bounds how long a child may take for one command.
const answerWithin = 2 * time.Minute

// proc is a child process as the run sees it.
type proc struct {
	name   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *json.Decoder
	stderr *bytes.Buffer
	first  child.Sample
}

// start runs this very program, or the one that has the framework, as a child and waits
// until it is ready.
func start(ctx context.Context, cfg config, args ...string) (*proc, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if other := cfg.programs[args[1]]; other != "" {
		exe = other
	}
	p := &proc{
		name:   args[0] + " of " + args[1],
		cmd:    exec.CommandContext(ctx, exe, append([]string{child.Arg}, args...)...),
		stderr: new(bytes.Buffer),
	}
	// A child that does not end when its input does is killed.
	p.cmd.WaitDelay = 10 * time.Second
	p.cmd.Stderr = p.stderr
	if cfg.verbose {
		p.cmd.Stderr = os.Stderr
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = json.NewDecoder(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the %s: %w", p.name, err)
	}
	if p.first, err = p.answer(ctx); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// do sends a command and gives the child's sample after it. A failed call of the
// child is an error.
func (p *proc) do(ctx context.Context, op string, n int) (child.Sample, error) {
	if err := json.NewEncoder(p.in).Encode(child.Command{Op: op, N: n}); err != nil {
		return child.Sample{}, fmt.Errorf("%s: %s: %w", p.name, op, err)
	}
	s, err := p.answer(ctx)
	switch {
	case err != nil:
		return s, fmt.Errorf("%s: %w", op, err)
	case s.Failed+s.Mismatched > 0:
		return s, fmt.Errorf("%s: %d calls failed and %d were answered wrong, the first: %s", p.name, s.Failed, s.Mismatched, s.Error)
	}
	return s, nil
}

func (p *proc) answer(ctx context.Context) (child.Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = p.cmd.Process.Kill() })()
	var s child.Sample
	if err := p.out.Decode(&s); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return s, fmt.Errorf("the %s gave no answer: %w", p.name, err)
	}
	return s, nil
}

// stop ends the child by closing its input and waits for it.
func (p *proc) stop() error {
	_ = p.in.Close()
	kill := time.AfterFunc(p.cmd.WaitDelay, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("the %s ended with %w; it wrote:\n%s", p.name, err, tail(p.stderr.Bytes(), 2000))
	}
	return nil
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// pair is a server and its client.
type pair struct{ server, client *proc }

func startPair(ctx context.Context, cfg config, name string) (*pair, error) {
	server, err := start(ctx, cfg, "server", name)
	if err != nil {
		return nil, err
	}
	client, err := start(ctx, cfg, "client", name, server.first.Addr)
	if err != nil {
		return nil, errors.Join(err, server.stop())
	}
	return &pair{server, client}, nil
}

func (p *pair) stop() error { return errors.Join(p.client.stop(), p.server.stop()) }
