// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// view is one second, to be shown.
type view struct {
	elapsed int
	setting
	capacity float64
	figures  *figures
	tiers    [2]tierState // middle, leaf
}

// style colours text, or does not.
type style bool

const (
	green  = "32"
	red    = "31"
	yellow = "33"
	bold   = "1"
	dim    = "2"
)

func (s style) paint(colour, text string) string {
	if !s || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

const (
	barWidth  = 32
	wideWidth = 48
)

// bar draws the parts of a whole: served, refused, late. They differ without colour
// too. What is left is blank.
func (s style) bar(width int, parts ...float64) string {
	marks := [...]struct{ colour, mark string }{{green, "█"}, {red, "░"}, {yellow, "▒"}}
	var b strings.Builder
	sum, drawn := 0., 0
	for i, part := range parts {
		sum += part
		n := max(0, min(width, int(math.Round(sum*float64(width))))-drawn)
		drawn += n
		b.WriteString(s.paint(marks[i].colour, strings.Repeat(marks[i].mark, n)))
	}
	return b.String() + strings.Repeat(" ", width-drawn)
}

// goodput is tasks served in a second as a part of the capacity.
func (v *view) goodput() float64 {
	all := v.figures.all()
	return float64(all.ended[served]) / v.capacity
}

// lines draws the second, at most 80 columns wide.
func (v *view) lines(s style) []string {
	f := v.figures
	all := f.all()
	admission := s.paint(green, "on")
	if !v.Admission {
		admission = s.paint(red, "OFF")
	}
	lines := []string{
		s.paint(bold, fmt.Sprintf("Sluice under overload  %4d s", v.elapsed)) +
			fmt.Sprintf("     load %s     admission %s", s.paint(bold, fmt.Sprintf("%gx", v.Load)), admission),
		"",
		fmt.Sprintf("offered  %s %4.0f %%  %5d/s", s.bar(wideWidth, float64(all.offered)/v.capacity/maxDrawn), 100*float64(all.offered)/v.capacity, all.offered),
		fmt.Sprintf("goodput  %s %4.0f %%  %5d/s", s.bar(wideWidth, v.goodput()/maxDrawn), 100*v.goodput(), all.ended[served]),
		s.paint(dim, fmt.Sprintf("         %s of %.0f/s", scale(), v.capacity)),
		"",
		s.paint(dim, fmt.Sprintf("%-9s%8s%8s%8s%7s  %s", "class", "offered", "served", "refused", "late", "█ served  ░ refused  ▒ late")),
	}
	for i, k := range kinds {
		t := &f.kinds[i]
		lines = append(lines, fmt.Sprintf("%-9s%8d%8d%8d%7d  %s %3.0f %%", k.method.Class, t.offered, t.ended[served], t.ended[refused],
			t.ended[late]+t.ended[broken], s.bar(barWidth, t.share(served), t.share(refused), t.share(late)+t.share(broken)), 100*t.share(served)))
	}
	lines = append(lines, "",
		fmt.Sprintf("answers  served p50 %s p99 %s      refused p50 %s p99 %s", at(&f.served, .5), at(&f.served, .99), at(&f.refused, .5), at(&f.refused, .99)),
		"",
		s.paint(dim, fmt.Sprintf("%-9s%5s%8s%7s%8s  %-18s%s", "tier", "limit", "running", "asleep", "waiting", "lets in as far as", "work done")))
	for i, name := range []string{tierMiddle, tierLeaf} {
		lines = append(lines, v.tiers[i].line(name, v.wasted(i)))
	}
	broken := ""
	if f.err != nil {
		broken = s.paint(yellow, cut("an unexpected error: "+f.err.Error(), 79))
	}
	return append(lines, "", broken,
		s.paint(dim, "keys  5 five times the load   1 the usual load   o admission on/off   q quit"))
}

// maxDrawn is where the bars of offered load and goodput end, in capacities.
const maxDrawn = 4

// scale marks every whole capacity below the bars.
func scale() string {
	var b strings.Builder
	for i := 1; i <= maxDrawn; i++ {
		fmt.Fprintf(&b, "%*s", wideWidth/maxDrawn, fmt.Sprintf("%d00 %%|", i))
	}
	return b.String()
}

// wasted is the part of a tier's work that served nobody.
func (v *view) wasted(tier int) float64 {
	all := v.figures.all()
	// Calls under way at the ends of the second make it a little more or less than it is.
	return max(0, 1-float64(all.ended[served])/float64(max(1, v.tiers[tier].Done)))
}

func (t *tierState) line(name string, wasted float64) string {
	if !t.Known {
		return fmt.Sprintf("%-9s  too busy to answer", name)
	}
	limit, running, asleep, waiting, level := "-", "-", "-", "-", "-"
	if q := t.QoS; q != nil {
		limit, running, asleep = fmt.Sprint(q.Limit), fmt.Sprint(q.Running), fmt.Sprint(q.Asleep)
		waiting, level = fmt.Sprint(q.Waiting), q.level()
	}
	// Calls under way at the ends of the second are no waste: a tenth is not shown.
	work := fmt.Sprintf("%5d/s", t.Done)
	if wasted > .1 {
		work += fmt.Sprintf(", %.0f %% in vain", 100*wasted)
	}
	return fmt.Sprintf("%-9s%5s%8s%7s%8s  %-18s%s", name, limit, running, asleep, waiting, level, work)
}

// at gives a quantile in 7 columns.
func at(l *latencies, q float64) string {
	d, ok := l.quantile(q)
	switch {
	case !ok:
		return fmt.Sprintf("%4s ms", "-")
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%4.1f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%4.0f ms", d.Seconds()*1e3)
}

// cut shortens text to n runes.
func cut(text string, n int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text)
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n])
}

// line is the second in one line, for a file or a pipe.
func (v *view) line() string {
	f := v.figures
	all := f.all()
	var b strings.Builder
	fmt.Fprintf(&b, "%3d s  load %gx  admission %-3s  offered %4.0f %%  goodput %3.0f %%  |", v.elapsed, v.Load, onOff(v.Admission),
		100*float64(all.offered)/v.capacity, 100*v.goodput())
	for i, k := range kinds {
		fmt.Fprintf(&b, " %v %3.0f %%", k.method.Class, 100*f.kinds[i].share(served))
	}
	fmt.Fprintf(&b, " | served p99 %s, refused %s", at(&f.served, .99), at(&f.refused, .99))
	for i, name := range []string{tierMiddle, tierLeaf} {
		if q := v.tiers[i].QoS; q != nil {
			fmt.Fprintf(&b, " | %s lets in %s, limit %d", name, q.level(), q.Limit)
		}
	}
	fmt.Fprintf(&b, " | in vain: %.0f %% of middle, %.0f %% of leaf", 100*v.wasted(0), 100*v.wasted(1))
	if f.err != nil {
		b.WriteString(" | " + cut(f.err.Error(), 200))
	}
	return b.String()
}

// summarize writes what each phase was like.
func (r *report) summarize(w io.Writer) error {
	if len(r.phases) == 0 {
		return nil // stopped before there was anything to see
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-9s%5s %-9s%8s%8s", "seconds", "load", "admission", "offered", "goodput")
	for _, k := range kinds {
		fmt.Fprintf(&b, "%9v", k.method.Class)
	}
	fmt.Fprintf(&b, "  %10s %11s\n", "served p99", "refused p99")
	for i := range r.phases {
		p := &r.phases[i]
		if p.seconds == 0 {
			continue
		}
		all, span := p.figures.all(), r.capacity*float64(p.seconds)
		fmt.Fprintf(&b, "%-9s%4gx %-9s%6.0f %%%6.0f %%", fmt.Sprintf("%d-%d", p.from, p.from+p.seconds), p.Load, onOff(p.Admission),
			100*float64(all.offered)/span, 100*float64(all.ended[served])/span)
		for i := range kinds {
			fmt.Fprintf(&b, "%7.0f %%", 100*p.figures.kinds[i].share(served))
		}
		fmt.Fprintf(&b, "  %10s %11s\n", at(&p.figures.served, .99), at(&p.figures.refused, .99))
	}
	fmt.Fprintf(&b, "offered and goodput in %% of the capacity, %.0f tasks a second; each class: served of its own\n", r.capacity)
	_, err := io.WriteString(w, b.String())
	return err
}
