// SPDX-License-Identifier: Apache-2.0

package console

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// Target is the admin port of a process.
type Target struct {
	Name string // as pages show it; Addr if empty
	Addr string // "host:port"; "https://host:port" for one behind TLS
}

// Targets gives the processes that there are. It is asked before each round of pulls,
// so what it gives may change; an error leaves what it gave last.
type Targets func(context.Context) ([]Target, error)

const (
	// MaxTargets is how many targets a console pulls. Further ones are left out, and
	// reported.
	MaxTargets     = 1000
	maxTargetsFile = 1 << 20
	maxTargetName  = 200
)

// Static gives the same targets forever.
func Static(targets ...Target) Targets {
	return func(context.Context) ([]Target, error) { return targets, nil }
}

// File reads the targets from a file whenever it is asked: one a line, as ParseTarget
// reads them; empty lines and those that begin with # say nothing.
func File(path string) Targets {
	return func(context.Context) ([]Target, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("console: targets: %w", err)
		}
		defer func() { _ = f.Close() }()
		b, err := io.ReadAll(io.LimitReader(f, maxTargetsFile+1))
		if err != nil {
			return nil, fmt.Errorf("console: targets: %w", err)
		}
		if len(b) > maxTargetsFile {
			return nil, fmt.Errorf("console: targets: %s has more than %d bytes", path, maxTargetsFile)
		}
		var out []Target
		lines := bufio.NewScanner(bytes.NewReader(b))
		for n := 1; lines.Scan(); n++ {
			line := strings.TrimSpace(lines.Text())
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			t, err := ParseTarget(line)
			if err != nil {
				return nil, fmt.Errorf("console: targets: %s, line %d: %w", path, n, err)
			}
			out = append(out, t)
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("console: targets: %s: %w", path, err)
		}
		return out, nil
	}
}

// Join gives the targets of several sources. Those of a source that fails are missing,
// the others are given with the error.
func Join(sources ...Targets) Targets {
	return func(ctx context.Context) ([]Target, error) {
		var all []Target
		var errs []error
		for _, s := range sources {
			t, err := s(ctx)
			all = append(all, t...)
			errs = append(errs, err)
		}
		return all, errors.Join(errs...)
	}
}

// ParseTarget reads "host:port", "http://host:port", "https://host:port", or one of
// them with a name before it: "post=127.0.0.1:7001".
func ParseTarget(s string) (Target, error) {
	var t Target
	addr := strings.TrimSpace(s)
	if name, rest, ok := strings.Cut(addr, "="); ok && !strings.Contains(name, "/") {
		t.Name, addr = strings.TrimSpace(name), strings.TrimSpace(rest)
	}
	scheme, host := "http", addr
	if u, err := url.Parse(addr); err == nil && (u.Scheme == "http" || u.Scheme == "https") {
		if u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return Target{}, fmt.Errorf("target %q: want an address alone, without a path: the console knows the pages", s)
		}
		scheme, host = u.Scheme, u.Host
	}
	wrong := fmt.Errorf("target %q: want [NAME=]HOST:PORT of an admin port, for example post=127.0.0.1:7001", s)
	h, port, err := net.SplitHostPort(host)
	if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n == 0 || strings.ContainsAny(h, "/?#@ ") {
		return Target{}, wrong
	}
	if h == "" { // as everywhere: no host is this machine
		host = net.JoinHostPort("127.0.0.1", port)
	}
	t.Addr = host
	if scheme == "https" {
		t.Addr = "https://" + host
	}
	if u, err := url.Parse(t.url("/")); err != nil || u.Host != host { // [0]:1, for example
		return Target{}, wrong
	}
	if len(t.Name) > maxTargetName {
		return Target{}, fmt.Errorf("target %q: the name is longer than %d bytes", s[:maxTargetName], maxTargetName)
	}
	return t, nil
}

// url gives the address of a page of the target.
func (t Target) url(page string) string {
	if strings.HasPrefix(t.Addr, "https://") {
		return t.Addr + page
	}
	return "http://" + t.Addr + page
}

// name is what pages call it.
func (t Target) name() string {
	if t.Name != "" {
		return t.Name
	}
	return strings.TrimPrefix(t.Addr, "https://")
}
