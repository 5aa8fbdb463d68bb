// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The limits of what an item is described by.
const (
	maxName       = 100
	maxHelp       = 300
	maxLabels     = 8
	maxLabelValue = 200
	maxBounds     = 64
)

var (
	dotted    = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*(\.[a-z][a-z0-9]*(_[a-z0-9]+)*)*$`)
	countable = regexp.MustCompile(`^\{[a-z][a-z_]{0,30}\}$`)
)

// unitWords are what Prometheus' names carry of a unit.
var unitWords = map[Unit]string{Seconds: "seconds", Bytes: "bytes", Ratio: "ratio", Percent: "percent"}

// badWords are words that promtool objects to inside a name, with what to do.
var badWords = map[string]string{
	"total": "counters get it by themselves", "seconds": "give it as Unit", "bytes": "give it as Unit",
	"ratio": "give it as Unit", "percent": "give it as Unit",
	"milliseconds": "use Seconds", "microseconds": "use Seconds", "nanoseconds": "use Seconds", "minutes": "use Seconds", "hours": "use Seconds",
	"ms": "use Seconds", "us": "use Seconds", "ns": "use Seconds", "sec": "use Seconds", "s": "use Seconds", "m": "use Seconds", "h": "use Seconds", "d": "use Seconds",
	"b": "use Bytes", "kb": "use Bytes", "mb": "use Bytes", "gb": "use Bytes", "tb": "use Bytes", "pb": "use Bytes",
	"kilobytes": "use Bytes", "megabytes": "use Bytes", "gigabytes": "use Bytes",
	"counter": "the kind is told apart from the name", "gauge": "the kind is told apart from the name",
	"histogram": "the kind is told apart from the name", "summary": "the kind is told apart from the name",
	"bits": "use Bytes", "days": "use Seconds", "weeks": "use Seconds",
}

// familyName checks what an item is described by and gives its name in Prometheus'
// form, but for the "total" of a counter: in OpenMetrics that is its family's name.
func familyName(d Desc) (string, error) {
	switch {
	case d.Name == "":
		return "", errors.New("it has no name: give one such as \"shop.cart.opened\"")
	case len(d.Name) > maxName:
		return "", fmt.Errorf("the name has %d characters: use at most %d", len(d.Name), maxName)
	case !dotted.MatchString(d.Name):
		return "", errors.New("the name must be lower-case words joined by dots or underscores, such as \"shop.cart.opened\"")
	case !strings.Contains(d.Name, "."):
		return "", errors.New("the name is one word: begin it with the name of the product and a dot")
	case strings.TrimSpace(d.Help) == "":
		return "", errors.New("it has no help: say in one sentence what is counted, and when")
	case len(d.Help) > maxHelp || !utf8.ValidString(d.Help) || strings.ContainsFunc(d.Help, unicode.IsControl):
		return "", fmt.Errorf("the help must be one line of at most %d bytes of UTF-8", maxHelp)
	}
	name := strings.ReplaceAll(d.Name, ".", "_")
	for word := range strings.SplitSeq(name, "_") {
		if mend, bad := badWords[word]; bad {
			return "", fmt.Errorf("the name must not have the word %q: %s", word, mend)
		}
	}
	word, known := unitWords[d.Unit]
	switch {
	case known:
		name += "_" + word
	case !countable.MatchString(string(d.Unit)):
		return "", fmt.Errorf("unit %q is not known: use Seconds, Bytes, Ratio, Percent, or what is counted, such as \"{call}\"", d.Unit)
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count", "_created"} {
		if strings.HasSuffix(name, suffix) {
			return "", fmt.Errorf("the name must not end in %q: Prometheus gives it a meaning of its own", suffix[1:])
		}
	}
	return name, nil
}

// checkLabels gives the labels by name, with values that every format can carry.
func checkLabels(labels []Label) ([]Label, error) {
	if len(labels) > maxLabels {
		return nil, fmt.Errorf("it has %d labels: use at most %d", len(labels), maxLabels)
	}
	slices.SortFunc(labels, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
	for i := range labels {
		l := &labels[i]
		switch {
		case len(l.Name) > maxName || !dotted.MatchString(l.Name):
			return nil, fmt.Errorf("label %q: the name must be lower-case words joined by dots or underscores", cut(l.Name, maxName))
		case l.Name == "le" || l.Name == "quantile":
			return nil, fmt.Errorf("label %q is used by Prometheus itself: choose another name", l.Name)
		case i > 0 && promLabel(labels[i-1].Name) == promLabel(l.Name):
			return nil, fmt.Errorf("label %q is given twice", l.Name)
		}
		l.Value = clean(l.Value)
	}
	return labels, nil
}

// clean makes a text fit for every format: no broken UTF-8, no control characters
// but the line feed, which all of them can escape, and no more than maxLabelValue
// bytes.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r != '\n' && unicode.IsControl(r) {
			return utf8.RuneError
		}
		return r
	}, cut(s, 4*maxLabelValue)) // Map writes U+FFFD for broken UTF-8
	return cut(s, maxLabelValue)
}

// cut shortens a text to at most n bytes, visibly.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const mark = "…"
	n -= len(mark)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + mark
}

func promLabel(name string) string { return strings.ReplaceAll(name, ".", "_") }

// labelNames joins the names of sorted labels.
func labelNames(labels []Label) string {
	var b strings.Builder
	for i, l := range labels {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(l.Name)
	}
	return b.String()
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// labelText writes labels as Prometheus does, without the braces.
func labelText(labels []Label) string {
	var b strings.Builder
	for i, l := range labels {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(promLabel(l.Name))
		b.WriteString(`="`)
		b.WriteString(labelEscapes.Replace(l.Value))
		b.WriteByte('"')
	}
	return b.String()
}

func fullName(name, labels string) string {
	if labels == "" {
		return name
	}
	return name + "{" + labels + "}"
}

func checkBounds(bounds []float64) error {
	if len(bounds) == 0 || len(bounds) > maxBounds {
		return fmt.Errorf("it has %d bounds: give 1 to %d", len(bounds), maxBounds)
	}
	for i, b := range bounds {
		if math.IsNaN(b) || math.IsInf(b, 0) || b <= 0 {
			return fmt.Errorf("bound %v: bounds are finite and above zero; a bucket for what is larger is added", b)
		}
		if i > 0 && b <= bounds[i-1] {
			return fmt.Errorf("bound %v follows %v: bounds must grow", b, bounds[i-1])
		}
	}
	return nil
}
