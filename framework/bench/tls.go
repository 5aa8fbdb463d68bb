// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/identity/devca"

	"github.com/sluice-rpc/sluice/framework/bench/child"
)

// tlsPeer is this framework under mutual TLS.
var tlsPeer = child.Peer{
	Name:     "sluice-tls",
	About:    "this tree under mutual TLS 1.3, ECDSA P-256, AES-128-GCM",
	Deadline: true,
	Serve:    func(s *child.Service) (string, error) { return sluiceRun(sluiceHandler{s: s}, benchTLS()) },
	Dial:     func(addr string) (child.Client, error) { return dialSluice(addr, benchTLS()) },
}

// certsEnv tells the processes of a run where the certificates are.
const certsEnv = "SLUICE_BENCH_CERTS"

func benchTLS() framework.TLS {
	dir := os.Getenv(certsEnv)
	return framework.TLS{CA: filepath.Join(dir, "ca.crt"), Cert: filepath.Join(dir, "bench.crt"), Key: filepath.Join(dir, "bench.key")}
}

// makeCerts makes certificates for a run, in a directory of its own.
func makeCerts() (remove func(), err error) {
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	ca, err := devca.New()
	if err == nil {
		_, err = ca.Issue(dir, "bench", "spiffe://bench/bench", time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour))
	}
	if err == nil {
		err = os.Setenv(certsEnv, dir)
	}
	if err != nil {
		remove()
		return nil, err
	}
	return remove, nil
}

// tlsPart measures what mutual TLS costs, each round with and without.
func tlsPart(ctx context.Context, cfg config, rep *report) error {
	if !cfg.wants("tls") {
		return nil
	}
	remove, err := makeCerts()
	if err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	defer remove()
	rep.title("TLS: echo of %d bytes, %d connections, closed loop, %d rounds; each cell: calls/s, server + client µs of CPU a call",
		child.EchoBytes, child.Connections, cfg.rounds)
	names := []string{sluicePeer.Name, tlsPeer.Name}
	only := cfg
	only.only = []string{"c100", "c1000"}
	got := map[string]map[string][]window{"c100": {}, "c1000": {}}
	for round := range cfg.rounds {
		lines := map[string][]string{}
		for i := range names {
			name := names[(i+round)%len(names)]
			if err := throughputOf(ctx, only, name, func(part string, w window) {
				rep.calls += w.calls
				got[part][name] = append(got[part][name], w)
				lines[part] = append(lines[part], fmt.Sprintf("%s %6.0f %5.1f + %-5.1f", name, w.perSecond, w.server.micros, w.client.micros))
			}); err != nil {
				return fmt.Errorf("round %d: %w", round+1, err)
			}
		}
		for _, part := range only.only {
			slices.Sort(lines[part])
			rep.line("%3d/%d %-5s  %s", round+1, cfg.rounds, part, strings.Join(lines[part], "   "))
		}
	}
	both := func(w window) float64 { return w.server.micros + w.client.micros }
	for _, part := range only.only {
		plain, secured := got[part][names[0]], got[part][names[1]]
		prefix := "rpc.tls." + part + "."
		rep.metric(prefix+"cpu_ratio_vs_plain", "ratio", ratios(secured, plain, both), nil)
		rep.metric(prefix+"server_cpu_ratio_vs_plain", "ratio", ratios(secured, plain, serverCPU), nil)
		rep.metric(prefix+"client_cpu_ratio_vs_plain", "ratio", ratios(secured, plain, clientCPU), nil)
		rep.metric(prefix+"qps_ratio_vs_plain", "ratio", ratios(secured, plain, perSecond), nil)
		more := each(secured, both)
		for i, w := range plain {
			more[i] -= both(w)
		}
		rep.metric(prefix+"cpu_us_more", "µs/call", more, nil)
	}
	return nil
}
