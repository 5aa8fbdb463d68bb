// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"
	"time"
)

// Whose gives the user whose requests carry a token.
func (g *Gateway) Whose(token string) string {
	return g.sessions.whose(&http.Request{Header: http.Header{"Authorization": {"Bearer " + token}}})
}

// Patterns gives the patterns of all routes, for the test that compares them with
// openapi.yaml.
func Patterns() []string {
	var out []string
	for _, r := range (&Gateway{}).routes() {
		out = append(out, r.pattern)
	}
	return out
}

// OpenAPI gives the document as it is served.
func OpenAPI() ([]byte, error) { return files.ReadFile("openapi.yaml") }

// AppendString is appendString.
func AppendString(b []byte, s string) []byte { return appendString(b, s) }

// AppendTime is appendTime.
func AppendTime(b []byte, ms int64) []byte { return appendTime(b, ms) }

// Generations is a map of generations.
type Generations struct{ g *generations[int, int] }

// NewGenerations makes one.
func NewGenerations(size int, life time.Duration) Generations {
	return Generations{newGenerations[int, int](size, life)}
}

// Get, Put and Len act on the map.
func (g Generations) Get(k int, now time.Time) (int, bool) { return g.g.get(k, now) }
func (g Generations) Put(k, v int, now time.Time)          { g.g.put(k, v, now) }
func (g Generations) Len() int                             { return len(g.g.young) + len(g.g.old) }

// NewLimits gives the check of fresh limits.
func NewLimits(perMinute, burst int) func(user string, now time.Time) error {
	return newWriteLimits(perMinute, burst).take
}

// DeviceOf is what a User-Agent is shortened to.
func DeviceOf(agent string) string { return deviceOf(agent) }
