// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-rpc/sluice/framework/bench/figure"
)

// helloPart builds the smallest example and weighs it.
func helloPart(ctx context.Context, cfg config, rep *report) error {
	if !cfg.wants("hello") {
		return nil
	}
	return withProgram(ctx, "./examples/hello", func(binary string) error {
		info, err := os.Stat(binary)
		if err != nil {
			return err
		}
		rep.title("go build -trimpath ./examples/hello")
		rep.metric("hello.binary_mb", "MB", []float64{float64(info.Size()) / 1e6}, figure.AtMost(30))
		return nil
	})
}

// withProgram builds a program of the module, and removes it when use has ended.
func withProgram(ctx context.Context, pkg string, use func(binary string) error) error {
	const module = "github.com/sluice-rpc/sluice"
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return fmt.Errorf("find module %s (run this from framework/bench): %w", module, err)
	}
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, filepath.Base(pkg))
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, pkg)
	build.Dir = strings.TrimSpace(string(out))
	if msg, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s in %s: %w\n%s", pkg, build.Dir, err, msg)
	}
	return use(binary)
}

// itemsPart counts the monitoring items of processes that have served nothing yet: the
// lines of a scrape, one for each series.
func itemsPart(ctx context.Context, cfg config, rep *report) error {
	if !cfg.wants("items") {
		return nil
	}
	rep.title("monitoring items of fresh processes: series in a scrape of /metrics, equal to the catalogue of /admin/items")
	err := withProgram(ctx, "./examples/hello", func(binary string) error {
		return running(ctx, exec.CommandContext(ctx, binary), helloAdmin, func(admin map[string]string) error {
			return rep.items(ctx, "hello", admin["hello"], figure.AtLeast(500))
		})
	})
	if err != nil {
		return err
	}
	return withProgram(ctx, "./app/cmd/moments", func(binary string) error {
		data := filepath.Join(filepath.Dir(binary), "data")
		up := exec.CommandContext(ctx, binary, "up", "--split", "--addr", "127.0.0.1:0", "--data", data)
		return running(ctx, up, momentsAdmin, func(admin map[string]string) error {
			return errors.Join(
				rep.items(ctx, "post", admin["post"], figure.AtLeast(800)),
				rep.items(ctx, "gateway", admin["gateway"], figure.AtLeast(1000)),
				rep.items(ctx, "account", admin["account"], nil),
				rep.items(ctx, "timeline", admin["timeline"], nil),
				rep.items(ctx, "comment", admin["comment"], nil),
			)
		})
	})
}

// What the programs say when they serve: a name, and the address of its admin pages.
var (
	helloAdmin   = adminLines{line: regexp.MustCompile(`serving service=(\S+) .*admin=(\S+)`), last: regexp.MustCompile(`serving`)}
	momentsAdmin = adminLines{line: regexp.MustCompile(`^ +(\S+) +\S+, admin http://(\S+)`), last: regexp.MustCompile(`Ctrl-C`)}
)

type adminLines struct{ line, last *regexp.Regexp }

// running starts a program, waits until it serves, and ends it after use.
func running(ctx context.Context, cmd *exec.Cmd, says adminLines, use func(admin map[string]string) error) (err error) {
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	admin, said := map[string]string{}, ""
	served := make(chan bool, 1)
	go func() { // ends with the program
		up := false
		for lines := bufio.NewScanner(r); lines.Scan(); {
			if up {
				continue
			}
			said += lines.Text() + "\n"
			if m := says.line.FindStringSubmatch(lines.Text()); m != nil {
				admin[m[1]] = m[2]
			}
			if up = says.last.MatchString(lines.Text()); up {
				served <- true
			}
		}
		if !up {
			served <- false
		}
	}()
	ended := make(chan error, 1)
	go func() { // is waited for below
		err := cmd.Wait()
		_ = w.Close()
		ended <- err
	}()
	if !<-served {
		return fmt.Errorf("%s ended: %w; it said:\n%s", cmd, <-ended, said)
	}
	err = use(admin)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	return errors.Join(err, <-ended)
}

// items counts the series of a scrape.
func (r *report) items(ctx context.Context, name, admin string, goal *figure.Goal) error {
	get := func(path string) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+path, nil)
		if err != nil {
			return nil, err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer res.Body.Close()
		return io.ReadAll(res.Body)
	}
	text, err := get("/metrics")
	if err != nil {
		return err
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if line[0] != '#' && line[0] != '\n' {
			n++
		}
	}
	catalogue, err := get("/admin/items?format=json")
	if err != nil {
		return err
	}
	var said struct{ Items int }
	if err := json.Unmarshal(catalogue, &said); err != nil {
		return fmt.Errorf("%s: /admin/items: %w", name, err)
	}
	if said.Items != n {
		return fmt.Errorf("%s: the catalogue has %d items, a scrape %d series", name, said.Items, n)
	}
	r.metric("items."+name, "items", []float64{float64(n)}, goal)
	return nil
}
