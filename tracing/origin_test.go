// SPDX-License-Identifier: Apache-2.0

package tracing_test

import (
	"testing"

	"github.com/sluice-rpc/sluice/tracing"
)

func FuzzOrigin(f *testing.F) {
	f.Add(tracing.Origin{
		Entry: tracing.EntryOf("POST /posts"), Caller: 7,
		Identity: tracing.Identity{Trace: tracing.NewTraceID(), Span: tracing.NewSpanID(), Sampled: true},
	}.Append(nil))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		o, ok := tracing.ParseOrigin(b)
		if !ok {
			if o != (tracing.Origin{}) {
				t.Fatalf("%+v of what cannot be read", o)
			}
			return
		}
		again := o.Append([]byte{9})
		if len(again) != 1+tracing.OriginLen {
			t.Fatalf("%d bytes, want %d", len(again)-1, tracing.OriginLen)
		}
		if back, ok := tracing.ParseOrigin(append(again[1:], 1, 2, 3)); !ok || back != o {
			t.Fatalf("%+v became %+v", o, back)
		}
	})
}
