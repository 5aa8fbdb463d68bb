// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
)

// A route names the method it stands for, reads its body strictly and returns its
// errors.
func Example() {
	greet := &rpc.Method{Service: "hello.v1.Greeter", Name: "Greet", Class: qos.Browse, Timeout: 300 * time.Millisecond}

	mux := http.NewServeMux()
	entry := edge.New(edge.Config{})
	mux.Handle("POST /greetings", entry.Handle("POST /greetings", greet, func(w http.ResponseWriter, r *http.Request) error {
		var in struct {
			Name string `json:"name"`
		}
		if err := edge.DecodeBody(r, &in); err != nil {
			return err
		}
		if in.Name == "" {
			return rpc.Errorf(rpc.InvalidArgument, "name is empty")
		}
		_, err := fmt.Fprintf(w, "Hello %s, as %v", in.Name, rpc.CallFrom(r.Context()).Class)
		return err
	}))
	mux.Handle("/", entry.NotFound(mux))

	for _, body := range []string{`{"name":"Mary"}`, `{"name":""}`, `{"nick":"Mary"}`} {
		r := httptest.NewRequest("POST", "/greetings", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
	}
	// Output:
	// 200 Hello Mary, as browse
	// 400 {"type":"invalid","title":"The request is not valid","status":400,"detail":"name is empty","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}
	// 400 {"type":"invalid-json","title":"Bad Request","status":400,"detail":"there is no member nick","field":"nick","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}
}
