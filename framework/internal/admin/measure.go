// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/http"
	"time"

	"github.com/sluice-rpc/sluice/framework/metrics"
)

// measured counts the requests to an admin port like those of an entry: whether probes
// and scrapes come, how they end and how long they take is asked when they fail. Pages
// for people are counted together.
func measured(items *metrics.Registry, next http.Handler) http.Handler {
	routes := map[string]*metrics.Route{}
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/admin/"} {
		routes[path] = items.Route(http.MethodGet, path)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route := routes[r.URL.Path]
		if route == nil {
			route = routes["/admin/"]
		}
		out := &answer{ResponseWriter: w, status: http.StatusOK}
		route.Started()
		began := time.Now()
		defer func() {
			result := metrics.RouteResultOf(out.status, r.Context().Err() != nil)
			route.Ended(result, time.Since(began), int(max(0, r.ContentLength)), out.bytes)
		}()
		next.ServeHTTP(out, r)
	})
}

// answer remembers what was answered.
type answer struct {
	http.ResponseWriter
	status, bytes int
}

func (c *answer) WriteHeader(status int) {
	if status >= http.StatusOK {
		c.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *answer) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (c *answer) Unwrap() http.ResponseWriter { return c.ResponseWriter }
