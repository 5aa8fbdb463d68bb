// SPDX-License-Identifier: Apache-2.0

package grpcwire

import (
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing"
)

// TraceKey is the metadata that carries a trace, see https://www.w3.org/TR/trace-context/.
const TraceKey = "traceparent"

// Parent fills trace and span of a header from metadata. What is no traceparent, and
// anything but exactly one, is as if there were none.
func Parent(h *rpc.Header, md map[string][]string) {
	if v := md[TraceKey]; len(v) == 1 {
		if t, s, _, ok := tracing.ParseTraceparent(v[0]); ok {
			h.Trace, h.Span = t, s
		}
	}
}

// Traceparent gives the metadata of a header.
func Traceparent(h *rpc.Header) string {
	return tracing.Traceparent(h.Trace, h.Span, h.Flags&rpc.FlagSampled != 0)
}
