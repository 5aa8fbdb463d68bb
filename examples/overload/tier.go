// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	overloadv1 "github.com/sluice-rpc/sluice/examples/overload/overload/v1"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/activation"
)

// What a tier is told by the process that starts it.
const (
	envTier      = "SLUICE_OVERLOAD_TIER"
	envLeafAddr  = "SLUICE_OVERLOAD_LEAF"
	envAdmission = "SLUICE_OVERLOAD_ADMISSION"
)

// The tiers below the front, and the sockets that each is handed.
const (
	tierMiddle = "middle"
	tierLeaf   = "leaf"

	socketCalls = "calls"
	socketAdmin = "admin"
)

// Links of the chain of hashes that a call computes: some tenths of a microsecond
// each, so that a task is some milliseconds of a core, most of them the leaf's.
const (
	middleLinks = 6_000
	leafLinks   = 24_000
)

// runTier serves one tier until its input ends, which is when its parent does,
// however that comes about.
func runTier(ctx context.Context, tier string, input io.Reader) error {
	sockets, err := activation.Inherited()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // ends with the process: a read cannot be interrupted
		defer stop()
		_, _ = io.Copy(io.Discard, input)
	}()
	t := &tierServer{}
	srv := framework.NewServer(framework.ServerConfig{
		Service: tier, Admission: os.Getenv(envAdmission), DrainTimeout: time.Second,
	}, framework.WithoutSignals(), // its parent stops it: a Ctrl-C must not take a tier from under those who call it
		framework.WithListeners(sockets[socketCalls], sockets[socketAdmin]),
		framework.WithAdminHandler("GET /done", t),
		framework.WithLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))))
	switch tier {
	case tierLeaf:
		overloadv1.RegisterLeafServer(srv, leaf{tierServer: t})
	case tierMiddle:
		conn, err := framework.Dial(framework.ClientConfig{Service: tierLeaf, Addrs: []string{os.Getenv(envLeafAddr)}})
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		overloadv1.RegisterMiddleServer(srv, middle{tierServer: t, leaf: overloadv1.NewLeafClient(conn)})
	default:
		return fmt.Errorf("%s=%q: want %s or %s", envTier, tier, tierMiddle, tierLeaf)
	}
	return srv.Run(ctx)
}

// tierServer counts the calls whose work has been done, whether or not anybody still
// waited for it. It is the page that tells them.
type tierServer struct{ done atomic.Int64 }

func (t *tierServer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	_, _ = fmt.Fprintln(w, t.done.Load())
}

// work keeps a core busy.
func (t *tierServer) work(links int, number int64) []byte {
	digest := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(number)))
	for range links {
		digest = sha256.Sum256(digest[:])
	}
	t.done.Add(1)
	return digest[:]
}

type leaf struct {
	overloadv1.UnimplementedLeafServer
	*tierServer
}

// Work implements overloadv1.LeafServer.
func (l leaf) Work(_ context.Context, req *overloadv1.TaskRequest) (*overloadv1.TaskResponse, error) {
	return &overloadv1.TaskResponse{Digest: l.work(leafLinks, req.GetNumber())}, nil
}

type middle struct {
	overloadv1.UnimplementedMiddleServer
	*tierServer
	leaf overloadv1.LeafClient
}

// Pay implements overloadv1.MiddleServer, and so do the following.
func (m middle) Pay(ctx context.Context, req *overloadv1.TaskRequest) (*overloadv1.TaskResponse, error) {
	return m.task(ctx, req)
}

// Browse is a task that matters less.
func (m middle) Browse(ctx context.Context, req *overloadv1.TaskRequest) (*overloadv1.TaskResponse, error) {
	return m.task(ctx, req)
}

// Publish is a task that matters less still.
func (m middle) Publish(ctx context.Context, req *overloadv1.TaskRequest) (*overloadv1.TaskResponse, error) {
	return m.task(ctx, req)
}

// Suggest is the task that matters least.
func (m middle) Suggest(ctx context.Context, req *overloadv1.TaskRequest) (*overloadv1.TaskResponse, error) {
	return m.task(ctx, req)
}

// task fetches what it needs from the leaf and makes a page of it. What went wrong
// goes back as it is: nothing here knows of overload, classes or users.
func (m middle) task(ctx context.Context, req *overloadv1.TaskRequest) (*overloadv1.TaskResponse, error) {
	res, err := m.leaf.Work(ctx, req)
	if err != nil {
		return nil, err
	}
	m.work(middleLinks, req.GetNumber())
	return res, nil
}
