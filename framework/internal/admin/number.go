// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"fmt"
	"strconv"
	"time"
)

// grouped gives a number with its thousands apart.
func grouped(n uint64) string {
	digits := strconv.FormatUint(n, 10)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

func count(n uint64) cell {
	if n == 0 {
		return cell{Text: "0", Mark: soft}
	}
	return cell{Text: grouped(n)}
}

var none = cell{Text: "–", Mark: soft}

// share gives a part of a whole in percent.
func share(part, whole uint64) cell {
	switch {
	case whole == 0:
		return none
	case part == 0:
		return cell{Text: "0%", Mark: soft}
	}
	percent := 100 * float64(part) / float64(whole)
	switch {
	case percent < .01:
		return cell{Text: "<0.01%", Mark: warn}
	case percent < 1:
		return cell{Text: fmt.Sprintf("%.2f%%", percent), Mark: warn}
	}
	return cell{Text: fmt.Sprintf("%.1f%%", percent), Mark: bad}
}

// spell gives a time in three digits.
func spell(d time.Duration) string {
	v, unit := float64(d), "ns"
	switch {
	case d >= 2*time.Hour:
		return d.Round(time.Minute).String()
	case d >= 2*time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		v, unit = d.Seconds(), "s"
	case d >= time.Millisecond:
		v, unit = v/1e6, "ms"
	case d >= time.Microsecond:
		v, unit = v/1e3, "µs"
	}
	switch {
	case unit == "ns":
		return fmt.Sprintf("%.0f ns", v)
	case v < 9.995:
		return fmt.Sprintf("%.2f %s", v, unit)
	case v < 99.95:
		return fmt.Sprintf("%.1f %s", v, unit)
	}
	return fmt.Sprintf("%.0f %s", v, unit)
}

func took(d time.Duration) cell {
	if d <= 0 {
		return none
	}
	return cell{Text: spell(d)}
}

func size(n uint64) cell {
	if n == 0 {
		return none
	}
	v, unit := float64(n), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if v < 1024 {
			break
		}
		v, unit = v/1024, next
	}
	if unit == "B" {
		return cell{Text: strconv.FormatUint(n, 10) + " B"}
	}
	return cell{Text: fmt.Sprintf("%.1f %s", v, unit)}
}

func rate(v float64) cell {
	switch {
	case v == 0:
		return cell{Text: "0", Mark: soft}
	case v < 10:
		return cell{Text: fmt.Sprintf("%.2f", v)}
	case v < 100:
		return cell{Text: fmt.Sprintf("%.1f", v)}
	}
	return cell{Text: grouped(uint64(v + .5))}
}

// quantile gives the value below which the share q of what a histogram has counted
// lies, interpolated within its bucket; the last bound for what lies beyond.
func quantile(bounds []float64, counts []uint64, q float64) float64 {
	var all uint64
	for _, n := range counts {
		all += n
	}
	if all == 0 {
		return 0
	}
	rank, below, lower := float64(all)*q, 0., 0.
	for i, n := range counts {
		if i >= len(bounds) {
			break
		}
		if here := float64(n); here > 0 && below+here >= rank {
			return lower + (bounds[i]-lower)*(rank-below)/here
		}
		below, lower = below+float64(n), bounds[i]
	}
	return lower
}
