// SPDX-License-Identifier: Apache-2.0

package tracing_test

import (
	"strings"
	"testing"

	"github.com/sluice-rpc/sluice/tracing"
)

const example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" // of the standard, section 3.2

func TestTraceparent(t *testing.T) {
	trace, span, sampled, ok := tracing.ParseTraceparent(example)
	if !ok || !sampled || trace.String() != example[3:35] || span.String() != example[36:52] {
		t.Fatalf("got %v %v %v %v", trace, span, sampled, ok)
	}
	if got := tracing.Traceparent(trace, span, sampled); got != example {
		t.Fatalf("got %s", got)
	}
	for name, c := range map[string]struct {
		value string
		ok    bool
	}{
		"later version, more behind": {"01" + example[2:] + "-what-comes", true},
		"later version, junk behind": {"01" + example[2:] + "what-comes", false},
		"version 00, more behind":    {example + "-x", false},
		"version ff":                 {"ff" + example[2:], false},
		"upper case":                 {strings.ToUpper(example), false},
		"no trace":                   {"00-" + strings.Repeat("0", 32) + example[35:], false},
		"no span":                    {example[:36] + strings.Repeat("0", 16) + "-01", false},
		"short":                      {example[:54], false},
		"empty":                      {"", false},
		"no hex":                     {"00-" + strings.Repeat("g", 32) + example[35:], false},
	} {
		if _, _, _, ok := tracing.ParseTraceparent(c.value); ok != c.ok {
			t.Errorf("%s: accepted %v", name, ok)
		}
	}
}

func FuzzTraceparent(f *testing.F) {
	f.Add(example)
	f.Fuzz(func(t *testing.T, v string) {
		trace, span, sampled, ok := tracing.ParseTraceparent(v)
		if !ok {
			return
		}
		t2, s2, sampled2, ok := tracing.ParseTraceparent(tracing.Traceparent(trace, span, sampled))
		if !ok || t2 != trace || s2 != span || sampled2 != sampled {
			t.Fatalf("%q became %v %v %v", v, t2, s2, sampled2)
		}
	})
}

func TestIdentities(t *testing.T) {
	first, second := tracing.NewTraceID(), tracing.NewTraceID()
	if first.IsZero() || tracing.NewSpanID().IsZero() || first == second {
		t.Error("an identity that identifies nothing")
	}
	if a, b := tracing.EntryOf("GET /timeline"), tracing.EntryOf("POST /posts"); a == b || a == 0 || a != tracing.EntryOf("GET /timeline") {
		t.Errorf("entries %v and %v", a, b)
	}
}
