// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/framework/metrics"
)

// A service describes its own items once, at start-up, and records through what it
// got.
func Example() {
	registry := metrics.NewRegistry(metrics.Config{})

	published := registry.Counter(metrics.Desc{
		Name: "moments.post.published", Help: "Posts published.", Unit: "{post}",
	}, metrics.Label{Name: "kind", Value: "photo"})
	outbox := registry.Histogram(metrics.Desc{
		Name: "moments.outbox.wait", Help: "Time a record waits to be sent.", Unit: metrics.Seconds,
	}, []float64{.01, .1, 1})
	registry.GaugeFunc(metrics.Desc{
		Name: "moments.outbox.depth", Help: "Records that wait to be sent.", Unit: "{record}",
	}, func() float64 { return 7 })
	if err := registry.Err(); err != nil {
		fmt.Println(err) // what is wrong, and how to mend it
		return
	}

	published.Inc()
	outbox.RecordTime(30 * time.Millisecond)

	text := registry.Snapshot().AppendText(nil, metrics.PromText)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "moments") {
			fmt.Print(line)
		}
	}
	// Output:
	// moments_outbox_depth 7
	// moments_outbox_wait_seconds_bucket{le="0.01"} 0
	// moments_outbox_wait_seconds_bucket{le="0.1"} 1
	// moments_outbox_wait_seconds_bucket{le="1"} 1
	// moments_outbox_wait_seconds_bucket{le="+Inf"} 1
	// moments_outbox_wait_seconds_sum 0.03
	// moments_outbox_wait_seconds_count 1
	// moments_post_published_total{kind="photo"} 1
}
