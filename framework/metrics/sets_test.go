// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

var greet = &rpc.Method{Service: "hello.v1.Greeter", Name: "Greet"}

func methodLabel(m *rpc.Method) metrics.Label {
	return metrics.Label{Name: "rpc.method", Value: m.FullName()}
}

func TestServerMethod(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{})
	m := r.ServerMethod(greet)
	method := methodLabel(greet)
	for i := range metrics.ServerResults {
		for range i + 1 {
			m.Started()
			m.Ended(i, time.Duration(i)*time.Millisecond, 100, 10)
		}
	}
	m.Started()
	m.Waited(2 * time.Second)
	snap := r.Snapshot()
	ended := 0
	for i := range metrics.ServerResults {
		ended += int(i) + 1
		if s := snap.Find("sluice_server_results_total", method, metrics.Label{Name: "result", Value: i.String()}); s == nil || s.Value != float64(i+1) {
			t.Errorf("%v: got %+v, want %d", i, s, i+1)
		}
	}
	counted := uint64(0)
	for _, outcome := range []string{"served", "refused"} {
		counted += snap.Find("rpc.server.call.duration", method, metrics.Label{Name: "outcome", Value: outcome}).Count()
	}
	if counted != uint64(ended) {
		t.Errorf("the histograms count %d calls, the results %d", counted, ended)
	}
	for name, want := range map[string]float64{
		"sluice_server_calls_total": float64(ended + 1), "sluice_server_in_flight": 1,
		"sluice_server_request_bytes_total": 100 * float64(ended), "sluice_server_response_bytes_total": 10 * float64(ended),
		"sluice_server_request_largest_bytes": 100, "sluice_server_response_largest_bytes": 10,
		"sluice_server_queue_wait_seconds_total": 2, "sluice_server_queue_wait_longest_seconds": 2,
	} {
		if s := snap.Find(name, method); s == nil || s.Value != want {
			t.Errorf("%s: got %+v, want %v", name, s, want)
		}
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
}

func TestClientMethod(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{})
	m := r.ClientMethod("hello", greet)
	labels := []metrics.Label{methodLabel(greet), {Name: "callee", Value: "hello"}}
	m.Started()
	m.Attempted(metrics.FirstAttempt)
	m.Attempted(metrics.RetryAttempt)
	m.Waited(time.Second)
	m.Saved()
	m.Ended(metrics.ClientOK, time.Second, 3, 5)
	m.Started()
	m.Ended(metrics.ClientLocalRejected, 0, 0, 0)
	snap := r.Snapshot()
	for name, want := range map[string]float64{
		"sluice_client_calls_total": 2, "sluice_client_in_flight": 0, "sluice_client_saved_total": 1,
		"sluice_client_request_bytes_total": 3, "sluice_client_response_bytes_total": 5,
		"sluice_client_connection_wait_seconds_total": 1, "sluice_client_connection_wait_longest_seconds": 1,
	} {
		if s := snap.Find(name, labels...); s == nil || s.Value != want {
			t.Errorf("%s: got %+v, want %v", name, s, want)
		}
	}
	for i := range metrics.ClientResults {
		want := 0.
		if i == metrics.ClientOK || i == metrics.ClientLocalRejected {
			want = 1
		}
		if s := snap.Find("sluice_client_results_total", append(labels, metrics.Label{Name: "result", Value: i.String()})...); s == nil || s.Value != want {
			t.Errorf("%v: got %+v, want %v", i, s, want)
		}
	}
	for attempt, want := range map[metrics.Attempt]float64{metrics.FirstAttempt: 1, metrics.RetryAttempt: 1, metrics.HedgeAttempt: 0} {
		if s := snap.Find("sluice_client_attempts_total", append(labels, metrics.Label{Name: "attempt", Value: attempt.String()})...); s == nil || s.Value != want {
			t.Errorf("%v: got %+v, want %v", attempt, s, want)
		}
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
}

func TestResults(t *testing.T) {
	e := func(r rpc.Reason) *rpc.Error { return &rpc.Error{Reason: r, Code: rpc.Unavailable} }
	h := func(c rpc.Code) *rpc.Error { return &rpc.Error{Code: c} }
	for _, c := range []struct {
		err        *rpc.Error
		ran        metrics.ServerResult
		notRun     metrics.ServerResult
		sent, held metrics.ClientResult
	}{
		{nil, metrics.ServerOK, metrics.ServerOK, metrics.ClientOK, metrics.ClientOK},
		{h(rpc.NotFound), metrics.ServerBizError, metrics.ServerBizError, metrics.ClientBizError, metrics.ClientBizError},
		{h(rpc.ResourceExhausted), metrics.ServerBizError, metrics.ServerBizError, metrics.ClientBizError, metrics.ClientBizError},
		{h(rpc.Internal), metrics.ServerInternal, metrics.ServerInternal, metrics.ClientInternal, metrics.ClientInternal},
		{e(rpc.ReasonOverload), metrics.ServerDependency, metrics.ServerOverload, metrics.ClientPeerOverload, metrics.ClientLocalRejected},
		{e(rpc.ReasonDeadline), metrics.ServerTimeout, metrics.ServerTimeout, metrics.ClientTimeout, metrics.ClientTimeout},
		{e(rpc.ReasonNoInstance), metrics.ServerDependency, metrics.ServerDependency, metrics.ClientNoInstance, metrics.ClientNoInstance},
		{e(rpc.ReasonBreaker), metrics.ServerDependency, metrics.ServerDependency, metrics.ClientCircuitOpen, metrics.ClientCircuitOpen},
		{e(rpc.ReasonNetwork), metrics.ServerDependency, metrics.ServerDependency, metrics.ClientNetwork, metrics.ClientNetwork},
		{e(rpc.ReasonCanceled), metrics.ServerCanceled, metrics.ServerCanceled, metrics.ClientCanceled, metrics.ClientCanceled},
		{e(rpc.ReasonUnknown), metrics.ServerDependency, metrics.ServerDependency, metrics.ClientInternal, metrics.ClientInternal},
		{e(rpc.ReasonDecode), metrics.ServerInternal, metrics.ServerBadRequest, metrics.ClientInternal, metrics.ClientInternal},
		{e(rpc.ReasonPanic), metrics.ServerPanic, metrics.ServerPanic, metrics.ClientInternal, metrics.ClientInternal},
		{e(rpc.ReasonShuttingDown), metrics.ServerDependency, metrics.ServerDraining, metrics.ClientPeerDraining, metrics.ClientPeerDraining},
		{e(250), metrics.ServerDependency, metrics.ServerDependency, metrics.ClientInternal, metrics.ClientInternal},
	} {
		name := fmt.Sprint(c.err)
		if c.err != nil {
			name += " " + c.err.Reason.String()
		}
		t.Run(name, func(t *testing.T) {
			if got := metrics.ServerResultOf(c.err, true); got != c.ran {
				t.Errorf("ran: %v, want %v", got, c.ran)
			}
			if got := metrics.ServerResultOf(c.err, false); got != c.notRun {
				t.Errorf("not run: %v, want %v", got, c.notRun)
			}
			if got := metrics.ClientResultOf(c.err, true); got != c.sent {
				t.Errorf("sent: %v, want %v", got, c.sent)
			}
			if got := metrics.ClientResultOf(c.err, false); got != c.held {
				t.Errorf("held: %v, want %v", got, c.held)
			}
		})
	}
}

func TestMethodsShared(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{MaxMethods: 2})
	a := r.With(metrics.Label{Name: "service", Value: "a"})
	first := a.ServerMethod(greet)
	if a.ServerMethod(greet) != first {
		t.Error("the same method has other items the second time")
	}
	if r.With(metrics.Label{Name: "service", Value: "b"}).ServerMethod(greet) == first {
		t.Error("two services of a process share the items of a method")
	}
	x := a.ServerMethod(&rpc.Method{Service: "s.v1.S", Name: "X"})
	y := a.ServerMethod(&rpc.Method{Service: "s.v1.S", Name: "Y"})
	if x != y {
		t.Error("methods beyond the limit must share their items")
	}
	y.Started()
	other := []metrics.Label{{Name: "rpc.method", Value: "_other"}, {Name: "service", Value: "a"}}
	if s := r.Snapshot().Find("sluice_server_calls_total", other...); s == nil || s.Value != 1 {
		t.Errorf("got %+v", s)
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
}

// However many methods there are, a snapshot stays within its limit.
func TestTenThousandMethods(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{MaxItems: 5_000})
	for i := range 10_000 {
		r.ServerMethod(&rpc.Method{Service: "s.v1.S", Name: fmt.Sprint("M", i)}).Started()
	}
	snap := r.Snapshot()
	if dropped := snap.Find("sluice.metrics.dropped").Value; snap.Items() > 5_000 || dropped > 0 || r.Err() != nil {
		t.Errorf("%d items, %v dropped, %v", snap.Items(), dropped, r.Err())
	}
	calls := 0.
	for _, f := range snap.Families {
		if f.Prom == "sluice_server_calls_total" {
			for _, s := range f.Series {
				calls += s.Value
			}
		}
	}
	if calls != 10_000 {
		t.Errorf("%v calls, want 10000: what is beyond the limit must be counted together", calls)
	}
}

func TestAdmission(t *testing.T) {
	var state admission.State
	for v := range admission.Verdicts {
		for c := range qos.MaxClass + 1 {
			state.Counts[v][c] = uint64(v)*100 + uint64(c)
		}
	}
	state.Level, state.Limit, state.Delay, state.Withdrew = qos.PriorityOf(qos.Post, 17), 5, time.Millisecond, 3
	reads := 0
	r := metrics.NewRegistry(metrics.Config{})
	a := r.Admission(func() admission.State { reads++; return state })
	a.Waited(qos.Post, 40*time.Millisecond)
	a.Ended(qos.Critical, true)
	a.Ended(qos.Unspecified, false)
	a.Suppressed(qos.Class(12), 7)
	snap := r.Snapshot()
	class := func(c string) metrics.Label { return metrics.Label{Name: "class", Value: c} }
	for _, c := range []struct {
		name   string
		labels []metrics.Label
		want   float64
	}{
		{"sluice_admission_admitted_total", []metrics.Label{class("post")}, 3},
		{"sluice_admission_queued_total", []metrics.Label{class("interactive")}, 104 + 100}, // and nobody's
		{"sluice_admission_rejected_total", []metrics.Label{class("_other"), {Name: "reason", Value: "expire"}}, 9*500 + 7 + 8 + 9 + 10 + 11 + 12 + 13 + 14 + 15},
		{"sluice_admission_ended_total", []metrics.Label{class("critical"), {Name: "in_time", Value: "true"}}, 1},
		{"sluice_admission_ended_total", []metrics.Label{class("interactive"), {Name: "in_time", Value: "false"}}, 1},
		{"sluice_admission_suppressed_total", []metrics.Label{class("_other")}, 7},
		{"sluice_admission_level", nil, 3*128 + 17},
		{"sluice_admission_level_class", nil, 3},
		{"sluice_admission_level_user", nil, 17},
		{"sluice_admission_limit", nil, 5},
		{"sluice_admission_delay_seconds", nil, .001},
		{"sluice_admission_withdrawn_total", nil, 3},
	} {
		if s := snap.Find(c.name, c.labels...); s == nil || s.Value != c.want {
			t.Errorf("%s %v: got %+v, want %v", c.name, c.labels, s, c.want)
		}
	}
	if s := snap.Find("sluice.admission.queue_wait", class("post")); s.Count() != 1 || s.Sum != .04 {
		t.Errorf("got %+v", s)
	}
	if reads != 1 || r.Err() != nil {
		t.Errorf("%d reads, %v", reads, r.Err())
	}
}

func TestNilSets(_ *testing.T) {
	var s *metrics.ServerMethod
	s.Started()
	s.Waited(1)
	s.Ended(metrics.ServerOK, 1, 1, 1)
	var c *metrics.ClientMethod
	c.Started()
	c.Attempted(metrics.FirstAttempt)
	c.Saved()
	c.Waited(1)
	c.Ended(metrics.ClientOK, 1, 1, 1)
	var a *metrics.Admission
	a.Waited(qos.Post, 1)
	a.Ended(qos.Post, true)
	a.Suppressed(qos.Post, 1)
}

// A new result of a later version must not write into another item.
func TestUnknownResults(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{})
	r.ServerMethod(greet).Ended(200, time.Second, 0, 0)
	r.ClientMethod("hello", greet).Ended(200, time.Second, 0, 0)
	r.ClientMethod("hello", greet).Attempted(200)
	internal := metrics.Label{Name: "result", Value: "internal"}
	snap := r.Snapshot()
	if snap.Find("sluice.server.results", methodLabel(greet), internal).Value != 1 ||
		snap.Find("sluice.client.results", methodLabel(greet), internal, metrics.Label{Name: "callee", Value: "hello"}).Value != 1 {
		t.Error("an unknown result must count as internal")
	}
}

func TestSetAllocations(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{})
	s, c := r.ServerMethod(greet), r.ClientMethod("hello", greet)
	a := r.Admission(func() admission.State { return admission.State{} })
	if n := testing.AllocsPerRun(100, func() {
		s.Started()
		s.Ended(metrics.ServerOK, time.Millisecond, 10, 10)
		c.Started()
		c.Attempted(metrics.FirstAttempt)
		c.Ended(metrics.ClientOK, time.Millisecond, 10, 10)
		a.Waited(qos.Post, time.Millisecond)
		a.Ended(qos.Post, true)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A fresh process shows its items at zero, but for what the process itself is.
func TestProcess(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{})
	r.Process()
	snap := r.Snapshot()
	for _, name := range []string{
		"go_goroutines", "go_memory_allocated_bytes_total", "process_cpu_time_seconds_total", "process_memory_usage_bytes",
		"process_file_descriptors", "process_start_time_seconds", "sluice_build",
	} {
		found := false
		for _, f := range snap.Families {
			for _, s := range f.Series {
				found = found || f.Prom == name && s.Value > 0
			}
		}
		if !found {
			t.Errorf("%s is zero or missing", name)
		}
	}
	used := 0.
	for _, f := range snap.Families {
		for _, s := range f.Series {
			if f.Name == "go.memory.used" {
				used += s.Value
			}
		}
	}
	if mapped := snap.Find("go.memory.mapped").Value - snap.Find("go.memory.released").Value; used != mapped {
		t.Errorf("%v bytes used, of %v: a part is missing", used, mapped)
	}
	if s := snap.Find("process.start_time"); time.Since(time.Unix(int64(s.Value), 0)) > time.Hour {
		t.Errorf("the process has started at %v", s.Value)
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
}

func BenchmarkServerMethod(b *testing.B) {
	m := metrics.NewRegistry(metrics.Config{}).ServerMethod(greet)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			m.Started()
			m.Ended(metrics.ServerOK, 3*time.Millisecond, 100, 100)
		}
	})
}

func TestRoute(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{})
	m := r.Route("GET", "/posts/{id}")
	if r.Route("GET", "/posts/{id}") != m || r.Route("PUT", "/posts/{id}") == m {
		t.Error("a route has the same items each time, and no other route has them")
	}
	labels := []metrics.Label{{Name: "http.request.method", Value: "GET"}, {Name: "http.route", Value: "/posts/{id}"}}
	for _, c := range []struct {
		status int
		gone   bool
		want   metrics.RouteResult
	}{
		{200, false, metrics.RouteOK},
		{304, false, metrics.RouteOK},
		{404, false, metrics.RouteClientError},
		{429, false, metrics.RouteRateLimited},
		{500, false, metrics.RouteServerError},
		{503, false, metrics.RouteOverload},
		{504, false, metrics.RouteTimeout},
		{200, true, metrics.RouteCanceled},
	} {
		got := metrics.RouteResultOf(c.status, c.gone)
		if got != c.want {
			t.Errorf("%d: got %v, want %v", c.status, got, c.want)
		}
		m.Started()
		m.Ended(got, time.Millisecond, 1, 2)
	}
	m.Ended(200, time.Millisecond, 0, 0) // a result of a later version
	m.Started()
	snap := r.Snapshot()
	for i := range metrics.RouteResults {
		want := 1.
		if i == metrics.RouteOK || i == metrics.RouteServerError {
			want = 2
		}
		if s := snap.Find("sluice_entry_results_total", append(labels, metrics.Label{Name: "result", Value: i.String()})...); s == nil || s.Value != want {
			t.Errorf("%v: got %+v, want %v", i, s, want)
		}
	}
	refused := snap.Find("http_server_request_duration_seconds", append(labels, metrics.Label{Name: "outcome", Value: "refused"})...)
	if refused.Count() != 2 || snap.Find("sluice.entry.in_flight", labels...).Value != 0 || snap.Find("sluice.entry.response", labels...).Value != 16 {
		t.Errorf("got %+v", refused)
	}
	var none *metrics.Route
	none.Started()
	none.Ended(metrics.RouteOK, 1, 1, 1)
}

func TestTransport(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{})
	s, c := r.ServerTransport(), r.ClientTransport("hello")
	if r.ClientTransport("hello") != c || r.ClientTransport("bye") == c {
		t.Error("the connections to one service share their items, and no others")
	}
	s.Accepted.Add(3)
	s.Closed[metrics.ClosedSlow].Inc()
	s.Faults[metrics.FrameTooLarge].Inc()
	c.Connected.Inc()
	c.ConnectTime.RecordTime(time.Millisecond)
	snap := r.Snapshot()
	callee := metrics.Label{Name: "callee", Value: "hello"}
	if snap.Find("sluice_listener_open").Value != 2 || snap.Find("sluice_link_open", callee).Value != 1 ||
		snap.Find("sluice_listener_faults_total", metrics.Label{Name: "fault", Value: "too_large"}).Value != 1 ||
		snap.Find("sluice_listener_closed_total", metrics.Label{Name: "cause", Value: "slow"}).Value != 1 {
		t.Errorf("got %s", snap.AppendText(nil, metrics.PromText))
	}
	var none metrics.ServerTransport
	none.Accepted.Inc()
	none.Closed[metrics.ClosedByUs].Inc()
	if err := r.Err(); err != nil {
		t.Error(err)
	}
}
