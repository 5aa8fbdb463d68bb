// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// TestBulkhead: two of ten requests are served at once, three wait for that in their order,
// and the others are refused, by one bulkhead for two routes.
func TestBulkhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bulkhead := edge.NewBulkhead(2, 3, &rpc.Error{Code: rpc.ResourceExhausted, Retry: 2 * time.Second, Message: "too many"})
		e := edge.New(edge.Config{Log: quiet(), AdmissionOff: true})
		var inside, most atomic.Int64
		work := func(http.ResponseWriter, *http.Request) error {
			most.Store(max(most.Load(), inside.Add(1)))
			time.Sleep(100 * time.Millisecond)
			inside.Add(-1)
			return nil
		}
		routes := []http.Handler{
			e.HandleRoute("POST /x", publish, edge.Rules{Bulkhead: bulkhead}, work),
			e.HandleRoute("POST /y", publish, edge.Rules{Bulkhead: bulkhead}, work),
		}
		var all sync.WaitGroup
		var statuses [10]int
		for i := range statuses {
			all.Go(func() {
				w := httptest.NewRecorder()
				routes[i%2].ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/x", nil))
				statuses[i] = w.Code
			})
			synctest.Wait()
		}
		if in, wait := bulkhead.Inside(), bulkhead.Waiting(); in != 2 || wait != 3 {
			t.Errorf("%d inside and %d waiting, want 2 and 3", in, wait)
		}
		all.Wait()
		if want := [10]int{200, 200, 200, 200, 200, 429, 429, 429, 429, 429}; statuses != want {
			t.Errorf("answers %v, want %v", statuses, want)
		}
		if n := most.Load(); n != 2 {
			t.Errorf("%d were served at once, want 2", n)
		}
		if in, wait := bulkhead.Inside(), bulkhead.Waiting(); in != 0 || wait != 0 {
			t.Errorf("%d inside and %d waiting after the last", in, wait)
		}
	})
}

// TestBulkheadHasTheDeadlineOfTheRequest: who waits too long is answered, and has left no trace.
func TestBulkheadHasTheDeadlineOfTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bulkhead := edge.NewBulkhead(1, 1, &rpc.Error{Code: rpc.ResourceExhausted})
		e := edge.New(edge.Config{Log: quiet(), AdmissionOff: true})
		let := make(chan struct{})
		h := e.HandleRoute("POST /x", publish, edge.Rules{Bulkhead: bulkhead}, func(http.ResponseWriter, *http.Request) error {
			<-let
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var first, second sync.WaitGroup
		serve := func(into *sync.WaitGroup, want int) {
			into.Go(func() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/x", nil))
				if w.Code != want {
					t.Errorf("status %d, want %d", w.Code, want)
				}
			})
			synctest.Wait()
		}
		serve(&first, 200)
		serve(&second, 504)
		second.Wait()
		if in, wait := bulkhead.Inside(), bulkhead.Waiting(); in != 1 || wait != 0 {
			t.Errorf("%d inside and %d waiting, want 1 and 0", in, wait)
		}
		close(let)
		first.Wait()
	})
}
