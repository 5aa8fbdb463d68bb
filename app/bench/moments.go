// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/sluice-rpc/sluice/app/load"
)

// buildMoments builds the moments command, unless one is named, and returns its path.
func buildMoments(ctx context.Context, named, root, dir string, out io.Writer) (string, error) {
	if named != "" {
		return named, nil
	}
	path := filepath.Join(dir, "moments.bin")
	began := time.Now()
	build := exec.CommandContext(ctx, "go", "build", "-C", root, "-o", path, "./app/cmd/moments")
	if msg, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the moments command: %w\n%s", err, msg)
	}
	fmt.Fprintf(out, "moments built in %v\n", time.Since(began).Round(time.Second))
	return path, nil
}

// startMoments brings Moments up on a new data directory in dir, by the command at path.
func startMoments(ctx context.Context, path string, split bool, dir string, graph *load.Graph) (*system, error) {
	data := filepath.Join(dir, "moments")
	args := []string{"up", "--data", data, "--addr", "127.0.0.1:0", "--limits", "off", "--password-cost", "min", "--console", "off"}
	about := "moments up: flushed before the answer, authenticated, filtered; user limits off, passwords hashed at the least cost"
	if split {
		args = append(args, "--split")
		about = "moments up --split: each service a process, two gateways;" + about[len("moments up:"):]
	}
	proc, err := start("moments up", path, args...)
	if err != nil {
		return nil, err
	}
	s := &system{
		name: "moments", about: about, pids: []int{proc.cmd.Process.Pid}, indexCap: load.IndexCap, talks: true,
		alive: proc.exited,
	}
	s.stop = func() {
		if s.hangUp != nil {
			_ = s.hangUp() // nothing is under way
		}
		proc.stop()
	}
	if err := s.connect(ctx, filepath.Join(data, "run.json"), proc, graph); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// connect waits until the gateways are there and makes the people who will use them.
func (s *system) connect(ctx context.Context, state string, proc *process, graph *load.Graph) error {
	text, err := awaitFile(ctx, state, proc)
	if err != nil {
		return err
	}
	var running struct {
		Gateways []struct {
			URL   string `json:"url"`
			Admin string `json:"admin"`
		} `json:"gateways"`
		Services map[string]struct {
			Addr string `json:"addr"`
		} `json:"services"`
	}
	if err := json.Unmarshal([]byte(text), &running); err != nil {
		return fmt.Errorf("%s: %w", state, err)
	}
	var urls []string
	for _, g := range running.Gateways {
		urls = append(urls, g.URL)
	}
	if len(urls) == 0 {
		return fmt.Errorf("%s names no gateway:\n%s", state, text)
	}
	town, err := load.NewTown(graph)
	if err != nil {
		return err
	}
	s.admin = running.Gateways[0].Admin
	s.urls, s.dial = urls, town.Dial(urls...)
	if s.rpc, s.hangUp, err = dialRPC(running.Services["timeline"].Addr, town, s.dial); err != nil {
		return fmt.Errorf("the timeline service named by %s: %w", state, err)
	}
	s.found = func(g *load.Graph) (func() (load.Target, error), error) {
		other, err := load.NewTown(g)
		if err != nil {
			return nil, err
		}
		return other.Dial(urls...), nil
	}
	return nil
}
