// SPDX-License-Identifier: Apache-2.0

package tracing_test

import (
	"fmt"
	"time"

	"github.com/sluice-rpc/sluice/tracing"
)

// What a framework does: it decides at the entry, and asks of each call that has ended
// whether it is worth a record.
func Example() {
	tracer, err := tracing.New(tracing.Config{Rates: map[string]tracing.Rate{"POST /posts": {Ratio: 0.01}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	sampler := tracer.Sampler("POST /posts")                                   // once for each entry
	publish := tracer.Method(tracing.Server, "moments.v1.PostService/Publish") // once for each method

	// A request comes in. It has ids in any case; whether it is traced is one bit.
	start := time.Now()
	id := tracing.Identity{Trace: tracing.NewTraceID(), Span: tracing.NewSpanID()}
	id.Sampled = sampler.Sample(start, false)

	// A call of it has ended: with a timeout, which is class 4 in this example.
	end := start.Add(800 * time.Millisecond)
	ended := tracing.Ended{Class: 4, Sampled: id.Sampled, Took: end.Sub(start), At: end, Span: id.Span}
	if keep := publish.Keep(&ended); keep != 0 {
		publish.Add(keep, tracing.Record{
			Trace: id.Trace, Span: tracing.NewSpanID(), Parent: id.Span, Entry: tracing.EntryOf("POST /posts"),
			Start: start.UnixNano(), Duration: end.Sub(start), Class: "timeout", Code: "deadline_exceeded",
		})
	}

	for _, m := range tracer.Methods() {
		for _, r := range m.Errors {
			fmt.Println(r.Named, r.Method, r.Class, r.Duration, r.Kept)
		}
	}
	// Output: POST /posts moments.v1.PostService/Publish timeout 800ms error
}
