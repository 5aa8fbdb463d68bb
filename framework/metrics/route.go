// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"net/http"
	"time"
)

// RouteResult is how a request at an HTTP entry ended.
type RouteResult uint8

// The results of a route.
const (
	RouteOK          RouteResult = iota // 1xx, 2xx, 3xx
	RouteClientError                    // 4xx but 429
	RouteServerError                    // 5xx but those below
	RouteTimeout                        // 504
	RouteCanceled                       // the client went away
	RouteRateLimited                    // 429: this user asks too much
	RouteOverload                       // 503: the system is overloaded, or shutting down
	RouteResults
)

var routeResultNames = [RouteResults]string{"ok", "client_error", "server_error", "timeout", "canceled", "rate_limited", "overload"}

// String gives the result as items show it.
func (r RouteResult) String() string { return routeResultNames[min(r, RouteResults-1)] }

func (r RouteResult) refused() bool { return r >= RouteRateLimited }

// RouteResultOf tells how a request ended from the status it was answered with; gone
// says that the client did not wait for it.
func RouteResultOf(status int, gone bool) RouteResult {
	switch {
	case gone:
		return RouteCanceled
	case status == http.StatusTooManyRequests:
		return RouteRateLimited
	case status == http.StatusServiceUnavailable:
		return RouteOverload
	case status == http.StatusGatewayTimeout:
		return RouteTimeout
	case status >= 500:
		return RouteServerError
	case status >= 400:
		return RouteClientError
	}
	return RouteOK
}

// Route holds the items of one HTTP route: an entry of the system. It is safe for
// concurrent use; a nil Route records nothing.
type Route struct{ calls }

// Route gives the items of an HTTP method and route pattern, such as GET and
// "/posts/{id}"; never of a path as it came. It gives the same ones each time it is
// asked through a view of the same labels.
func (r *Registry) Route(method, pattern string) *Route {
	return methodSet(r, routeSide, callItems+int(RouteResults), []Label{{"http.request.method", method}, {"http.route", pattern}}, newRoute)
}

func newRoute(r *Registry, labels []Label) *Route {
	m := &Route{}
	m.init(int(RouteResults), 0)
	m.register(&set{r: r, slots: m.slots, labels: labels}, callDescs{
		started:  Desc{"sluice.entry.requests", "HTTP requests that have come.", "{request}"},
		result:   Desc{"sluice.entry.results", "HTTP requests that have ended, by how: rate_limited is 429, overload 503, timeout 504; canceled, the client went away.", "{request}"},
		took:     Desc{"http.server.request.duration", "Time from request to answer. Refused requests (rate_limited, overload) are apart, since they are quick.", Seconds},
		inFlight: Desc{"sluice.entry.in_flight", "HTTP requests that have come and are not answered.", "{request}"},
		request:  Desc{"sluice.entry.request", "Bytes of request bodies.", Bytes},
		response: Desc{"sluice.entry.response", "Bytes of response bodies.", Bytes},
	}, func(i int) string { return RouteResult(i).String() })
	return m
}

// Started counts a request that has come. Ended must follow.
func (m *Route) Started() {
	if m != nil {
		m.started()
	}
}

// Ended counts the end of a request: how it ended, the time since it came, and the
// bytes of the bodies.
func (m *Route) Ended(result RouteResult, took time.Duration, request, response int) {
	if m == nil {
		return
	}
	if result >= RouteResults {
		result = RouteServerError
	}
	m.ended(int(result), result.refused(), took, request, response)
}
