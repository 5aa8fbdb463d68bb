// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"math"
	"strconv"
	"strings"
)

// Format is a text format of Prometheus.
type Format uint8

// The formats, with their content types.
const (
	PromText    Format = iota // text/plain; version=0.0.4
	OpenMetrics               // application/openmetrics-text; version=1.0.0
)

// ContentType is the media type of the format.
func (f Format) ContentType() string {
	if f == OpenMetrics {
		return "application/openmetrics-text; version=1.0.0; charset=utf-8"
	}
	return "text/plain; version=0.0.4; charset=utf-8"
}

var (
	helpEscapes     = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	helpEscapesOpen = labelEscapes
)

// AppendText appends all items in a format of Prometheus.
func (s *Snapshot) AppendText(b []byte, format Format) []byte {
	for i := range s.Families {
		b = s.Families[i].appendText(b, format)
	}
	if format == OpenMetrics {
		b = append(b, "# EOF\n"...)
	}
	return b
}

func (f *Family) appendText(b []byte, format Format) []byte {
	name, help := f.Prom, helpEscapes.Replace(f.Help)
	if format == OpenMetrics {
		help = helpEscapesOpen.Replace(f.Help)
		if f.Kind == KindCounter { // there a counter's name is without, its sample with
			name = strings.TrimSuffix(name, "_total")
		}
	}
	b = append(b, "# HELP "+name+" "+help+"\n# TYPE "+name+" "+f.Kind.String()+"\n"...)
	if unit := unitWords[f.Unit]; format == OpenMetrics && unit != "" {
		b = append(b, "# UNIT "+name+" "+unit+"\n"...)
	}
	for i := range f.Series {
		s := &f.Series[i]
		if f.Kind == KindHistogram {
			b = s.appendBuckets(b, f, format)
			continue
		}
		b = append(b, fullName(f.Prom, s.text)...)
		b = append(b, ' ')
		b = append(appendNumber(b, s.Value), '\n')
	}
	return b
}

func (s *Series) appendBuckets(b []byte, f *Family, format Format) []byte {
	sum := uint64(0)
	for i, n := range s.Counts {
		sum += n
		b = append(b, f.Prom+"_bucket{"+s.text...)
		if s.text != "" {
			b = append(b, ',')
		}
		b = append(b, `le="`...)
		b = appendBound(b, f.Bounds, i, format)
		b = append(b, `"} `...)
		b = append(strconv.AppendUint(b, sum, 10), '\n')
	}
	b = append(b, fullName(f.Prom+"_sum", s.text)+" "...)
	b = append(appendNumber(b, s.Sum), '\n')
	b = append(b, fullName(f.Prom+"_count", s.text)+" "...)
	return append(strconv.AppendUint(b, sum, 10), '\n')
}

// appendBound writes bound i; OpenMetrics wants a float to look like one.
func appendBound(b []byte, bounds []float64, i int, format Format) []byte {
	if i == len(bounds) {
		return append(b, "+Inf"...)
	}
	n := len(b)
	b = strconv.AppendFloat(b, bounds[i], 'g', -1, 64)
	if format == OpenMetrics && !strings.ContainsAny(string(b[n:]), ".e") {
		b = append(b, ".0"...)
	}
	return b
}

// maxExact is where a float64 ceases to hold every whole number.
const maxExact = 1 << 53

func appendNumber(b []byte, v float64) []byte {
	switch {
	case math.IsNaN(v):
		return append(b, "NaN"...)
	case math.IsInf(v, 0):
		if v < 0 {
			return append(b, "-Inf"...)
		}
		return append(b, "+Inf"...)
	case v == math.Trunc(v) && math.Abs(v) < maxExact:
		return strconv.AppendInt(b, int64(v), 10)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}
