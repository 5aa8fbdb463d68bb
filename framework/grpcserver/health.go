// SPDX-License-Identifier: Apache-2.0

package grpcserver

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// healthOf answers the gRPC health protocol, for the server and each of its services, as
// /readyz does: by the server's own check, looked at once a second.
type healthOf struct {
	*health.Server
	server *Server
	names  []string
	cancel context.CancelFunc
	done   sync.WaitGroup
}

const lookEvery = time.Second

func newHealth(s *Server) *healthOf {
	h := &healthOf{Server: health.NewServer(), server: s, names: []string{""}}
	for _, svc := range s.host.Services {
		h.names = append(h.names, svc.Contract.Name)
	}
	healthpb.RegisterHealthServer(s.grpc, h.Server)
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // ended by stop
	h.cancel = cancel
	h.look(ctx)
	h.done.Go(func() { h.watch(ctx) })
	return h
}

// watch looks until the server drains, and then says no for good.
func (h *healthOf) watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.server.draining:
			h.Shutdown()
			return
		case <-tick.C:
			h.look(ctx)
		}
	}
}

func (h *healthOf) look(ctx context.Context) {
	status := healthpb.HealthCheckResponse_SERVING
	if ready := h.server.host.Ready; ready != nil {
		ctx, cancel := context.WithTimeout(ctx, lookEvery)
		defer cancel()
		if ready(ctx) != nil {
			status = healthpb.HealthCheckResponse_NOT_SERVING
		}
	}
	for _, name := range h.names {
		h.SetServingStatus(name, status)
	}
}

func (h *healthOf) stop() {
	h.cancel()
	h.done.Wait()
}
