// SPDX-License-Identifier: Apache-2.0

package tracing_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-rpc/sluice/tracing"
)

func TestTracestate(t *testing.T) {
	many := make([]string, 33)
	for i := range many {
		many[i] = fmt.Sprintf("k%d=v", i)
	}
	long := "long=" + strings.Repeat("x", 250)
	for name, c := range map[string]struct {
		headers []string
		want    string
	}{
		"none":                    {nil, ""},
		"of the standard":         {[]string{"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"}, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"},
		"two headers":             {[]string{"a=1", "b=2"}, "a=1,b=2"},
		"white space and nothing": {[]string{" a=1 ,, \tb=2\t,"}, "a=1,b=2"},
		"tenants":                 {[]string{"0tenant@system=x y"}, "0tenant@system=x y"},
		"32 members":              {[]string{strings.Join(many[:32], ",")}, strings.Join(many[:32], ",")},
		"33 members":              {[]string{strings.Join(many, ",")}, ""},
		"twice the same":          {[]string{"a=1,b=2,a=3"}, ""},
		"one begins like another": {[]string{"ab=1,a=2"}, "ab=1,a=2"},
		"upper case":              {[]string{"A=1"}, ""},
		"a digit first":           {[]string{"0a=1"}, ""},
		"no value":                {[]string{"a="}, ""},
		"no key":                  {[]string{"=1"}, ""},
		"no sign":                 {[]string{"a"}, ""},
		"two signs":               {[]string{"a=b=c"}, ""},
		"not ASCII":               {[]string{"a=ü"}, ""},
		"control characters":      {[]string{"a=\x01"}, ""},
		"long value":              {[]string{"a=" + strings.Repeat("x", 257)}, ""},
		"long tenant":             {[]string{strings.Repeat("a", 242) + "@s=1"}, ""},
		"long system":             {[]string{"a@" + strings.Repeat("s", 15) + "=1"}, ""},
		"long members go first":   {[]string{"a=" + strings.Repeat("x", 250), "b=" + strings.Repeat("y", 100), long}, "a=" + strings.Repeat("x", 250) + ",b=" + strings.Repeat("y", 100)},
		"then the last":           {[]string{"a=" + strings.Repeat("x", 126), "b=" + strings.Repeat("x", 126), "c=" + strings.Repeat("x", 126), "d=" + strings.Repeat("x", 126), "e=1"}, "a=" + strings.Repeat("x", 126) + ",b=" + strings.Repeat("x", 126) + ",c=" + strings.Repeat("x", 126)},
		"megabytes":               {[]string{strings.Repeat("a=1,", 1<<20)}, ""},
	} {
		if got := tracing.ParseTracestate(c.headers); got != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func FuzzTracestate(f *testing.F) {
	f.Add("rojo=00f067aa0ba902b7", "congo=t61rcWkgMzE")
	f.Add(strings.Repeat("k", 300)+"=v", "a@b=c,,")
	f.Fuzz(func(t *testing.T, a, b string) {
		state := tracing.ParseTracestate([]string{a, b})
		if len(state) > tracing.MaxTracestate || strings.Count(state, ",") > 31 {
			t.Fatalf("%d bytes: %q", len(state), state)
		}
		if again := tracing.ParseTracestate([]string{state}); again != state {
			t.Fatalf("%q became %q", state, again)
		}
	})
}

func FuzzIdentifiers(f *testing.F) {
	f.Add([]byte("00f067aa0ba902b7"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var s tracing.SpanID
		if s.UnmarshalText(text) != nil {
			return
		}
		back, err := s.MarshalText()
		if err != nil || (string(back) != string(text) && !s.IsZero()) {
			t.Fatalf("%q became %q: %v", text, back, err)
		}
	})
}
