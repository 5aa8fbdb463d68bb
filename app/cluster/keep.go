// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"syscall"
	"time"
)

const (
	// How long to wait before a child that died is started again: doubled each time
	// up to the greatest, and from the start again once it has lived a while.
	firstBackOff    = 100 * time.Millisecond
	greatestBackOff = 5 * time.Second
	livedAWhile     = 10 * time.Second

	stopTime = 30 * time.Second // for a child to drain, then it is killed
)

// keepRunning runs once until ctx ends, and again when it dies. Before everything was
// up once, a death is an error: starting again would not mend what is wrong.
func keepRunning(ctx context.Context, log *slog.Logger, name string, wasUp func() bool, once func(context.Context) error) error {
	backOff := firstBackOff
	for {
		began := time.Now()
		err := once(ctx)
		if ctx.Err() != nil {
			return err
		}
		lived := time.Since(began)
		if !wasUp() {
			return fmt.Errorf("%s ended before everything was up: %w", name, orNothing(err))
		}
		if lived > livedAWhile {
			backOff = firstBackOff
		}
		log.ErrorContext(ctx, "a process died and is started again", "name", name, "err", err, "lived", lived, "after", backOff)
		if !sleep(ctx, backOff) {
			return nil
		}
		backOff = min(2*backOff, greatestBackOff)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// runProcess runs a process until it ends; when ctx ends it is asked to, after leave.
// The process reads its standard input, which ends with this one however that ends, so
// no child is left behind. Started gets its number.
func runProcess(ctx context.Context, name string, cmd *exec.Cmd, started func(pid int), leave func() error) error {
	// A Ctrl-C of the terminal reaches the whole group: the children must not stop by
	// it, before those who call them.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	input, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	started(cmd.Process.Pid)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }() // waited for below
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	err = leave()
	_ = input.Close() // the wish to stop; an error means it has ended
	t := time.NewTimer(stopTime)
	defer t.Stop()
	select {
	case failed := <-done:
		return errors.Join(err, failed)
	case <-t.C:
		_ = cmd.Process.Kill()
		return errors.Join(err, fmt.Errorf("%s did not stop within %v and was killed", name, stopTime), <-done)
	}
}
