// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"cmp"
	"context"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// The bounds of a stream of records.
const (
	defaultRecords = 1000
	maxRecords     = 4096
)

// recordStream is what ?since= gives: the console asks again with Next.
type recordStream struct {
	Process callgraph.Process `json:"process"`
	Time    int64             `json:"time_ms"`
	Records []*tracing.Record `json:"records"` // oldest first
	Next    uint64            `json:"next"`
	Lost    uint64            `json:"lost"` // records that were gone before they were asked for
}

// keptView is what is kept of each method.
type keptView struct {
	Process callgraph.Process       `json:"process"`
	Time    int64                   `json:"time_ms"`
	Stats   tracing.Stats           `json:"stats"`
	Methods []tracing.MethodRecords `json:"methods"`
	Records list[*tracing.Record]   `json:"records"` // newest first
}

// rpcz is the page of the calls that were kept: ?since=SEQ, for programs, is a stream
// of them.
func (d *Dashboard) rpcz(r *http.Request, q *query) (*page, error) {
	if q.Format == "json" && q.given.Has("since") {
		return d.stream(r.Context(), q)
	}
	records, _, _ := d.since(r.Context(), 0, maxRecords)
	slices.Reverse(records)
	method, trace, why := q.get("method"), strings.ToLower(q.get("trace")), q.get("kept")
	if why != "" && why != "error" && why != "slow" && why != "sampled" && why != "below" {
		return nil, fail(http.StatusBadRequest, "kept: %q is no reason: want error, slow, sampled or below", cut(why))
	}
	records = slices.DeleteFunc(records, func(c *tracing.Record) bool {
		return method != "" && c.Method != method || trace != "" && c.Trace.String() != trace || !strings.Contains(c.Kept, why) ||
			!q.finds(c.Method, c.Caller, c.Named, c.Class, c.Message, c.Peer, c.Trace.String())
	})
	if trace != "" {
		slices.SortFunc(records, func(a, b *tracing.Record) int {
			return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.Seq, b.Seq))
		})
	}
	here, g := paged(r, q, records)
	stats, methods := d.keeps(r.Context())
	kept := keptView{Process: d.process(), Time: time.Now().UnixMilli(), Stats: stats, Records: listOf(g, here)}
	p := &page{
		Title: say("Kept calls"), Pager: g,
		Says: say("Calls that have failed, were unusually slow, or are traced. %s kept so far, %s more were too many.", grouped(stats.Kept), grouped(stats.Limited)),
	}
	switch {
	case trace != "":
		p.Title, p.Says = say("Trace %s", trace), say("What this process has kept of one request.")
		p.Back = q.link(r.URL.Path)
	case method != "":
		p.Title = say("%s: kept calls", method)
		p.Back = q.link(r.URL.Path)
	}
	if trace == "" {
		var only []link
		for _, kind := range []struct {
			why  string
			text phrase
		}{{"", say("all")}, {"error", say("errors")}, {"slow", say("slow calls")}, {"sampled", say("traced calls")}, {"below", say("callers of kept calls")}} {
			only = append(only, link{Href: q.link(r.URL.Path, "kept", kind.why, "method", method), Text: kind.text, Current: kind.why == why})
		}
		p.Parts = append(p.Parts, part{Links: only})
	}
	p.Parts = append(p.Parts, recordTable(q, here, trace != ""))
	if trace == "" {
		kept.Methods = methods
		if method != "" {
			kept.Methods = slices.DeleteFunc(kept.Methods, func(m tracing.MethodRecords) bool { return m.Method != method })
		}
		p.Parts = append(p.Parts, slowTable(q, kept.Methods))
	}
	p.Data = kept
	return p, nil
}

// since gives the records after the one numbered seq.
func (d *Dashboard) since(ctx context.Context, seq uint64, limit int) (records []*tracing.Record, next, lost uint64) {
	if d.Workers != nil {
		return d.Workers.since(ctx, seq, limit)
	}
	return d.Tracer.Since(seq, limit)
}

// keeps gives what is kept, in numbers and of each method.
func (d *Dashboard) keeps(ctx context.Context) (tracing.Stats, []tracing.MethodRecords) {
	if d.Workers != nil {
		return d.Workers.keeps(ctx)
	}
	return d.Tracer.Stats(), d.Tracer.Methods()
}

// stream gives the records after the one numbered ?since=, oldest first.
func (d *Dashboard) stream(ctx context.Context, q *query) (*page, error) {
	since, err := strconv.ParseUint(cmp.Or(q.get("since"), "0"), 10, 64)
	if err != nil {
		return nil, fail(http.StatusBadRequest, "since: %q is no number of a record", cut(q.get("since")))
	}
	limit := defaultRecords
	if text := q.get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxRecords {
			return nil, fail(http.StatusBadRequest, "limit: %q is none: want 1 to %d", cut(text), maxRecords)
		}
	}
	s := recordStream{Process: d.process(), Time: time.Now().UnixMilli(), Records: []*tracing.Record{}}
	records, next, lost := d.since(ctx, since, limit)
	s.Records, s.Next, s.Lost = append(s.Records, records...), next, lost
	return &page{Data: s}, nil
}

// recordTable lists records with a bar each: of a trace where the call lies in it, else
// how long it took beside the others.
func recordTable(q *query, records []*tracing.Record, trace bool) part {
	t := &table{
		Columns: []column{
			{say("time"), left},
			{say("end"), left},
			{say("method"), left},
			{say("took"), left},
			{say("result"), left},
			{say("what happened"), prose},
			{say("entry"), left},
			{say("caller"), left},
			{say("trace"), left},
		},
		Empty: say("Nothing is kept that fits."),
	}
	if len(records) == 0 {
		return part{Table: t}
	}
	// Beside each other the square root: most calls are much shorter than the longest.
	begin, end, longest := records[0].Start, int64(0), time.Duration(1)
	for _, c := range records {
		begin, end, longest = min(begin, c.Start), max(end, c.Start+int64(c.Duration)), max(longest, c.Duration)
	}
	for _, c := range records {
		b := &bar{Length: max(2, int(1000*math.Sqrt(float64(c.Duration)/float64(longest))))}
		if trace {
			whole := float64(max(1, end-begin))
			b.From = min(998, int(1000*float64(c.Start-begin)/whole))
			b.Length = max(2, min(1000-b.From, int(1000*float64(c.Duration)/whole)))
		}
		result := cell{Text: c.Class, Mark: good}
		switch {
		case strings.Contains(c.Kept, "error"):
			result.Mark, b.Mark = bad, bad
		case strings.Contains(c.Kept, "slow"):
			result = cell{Text: say("%s, slow", c.Class), Mark: warn}
			b.Mark = warn
		}
		t.Rows = append(t.Rows, []cell{
			{Text: time.Unix(0, c.Start).UTC().Format("15:04:05.000") + "Z"},
			{Text: c.Kind.String(), Mark: soft},
			{Text: c.Method, Href: q.link("/admin/rpcz", "method", c.Method)},
			{Text: spell(c.Duration), Bar: b},
			result,
			{Text: happened(c)},
			{Text: c.Named, Href: entryLink(q, c)},
			{Text: c.Caller},
			{Text: c.Trace.String()[:8], Href: q.link("/admin/rpcz", "trace", c.Trace.String()), Code: true},
		})
	}
	return part{Table: t}
}

func entryLink(q *query, c *tracing.Record) string {
	if c.Entry == 0 {
		return ""
	}
	return q.link("/admin/graph", "entry", cmp.Or(c.Named, c.Entry.String()))
}

// happened says in a line what a record has to say besides its result.
func happened(c *tracing.Record) string {
	var said []string
	for _, s := range []string{c.Code, c.Reason, c.Message} {
		if s != "" {
			said = append(said, s)
		}
	}
	if c.Status != 0 {
		said = append(said, "HTTP "+strconv.Itoa(c.Status)+" "+c.Path)
	}
	if c.Attempt > 1 {
		said = append(said, "attempt "+strconv.Itoa(c.Attempt))
	}
	if c.Peer != "" {
		said = append(said, c.Peer)
	}
	for _, n := range c.Notes {
		said = append(said, n.Key+"="+n.Value)
	}
	return strings.Join(said, "; ")
}

// slowTable says of each method what counts as slow.
func slowTable(q *query, methods []tracing.MethodRecords) part {
	t := &table{
		Columns: []column{{say("method"), left}, {say("end"), left}, {Name: say("slow from")}, {Name: say("errors kept")}, {Name: say("slow calls kept")}, {Name: say("too many to keep")}},
		Empty:   say("No method has been called yet."),
	}
	for i := range methods[:min(len(methods), maxRows)] {
		m := &methods[i]
		t.Rows = append(t.Rows, []cell{
			{Text: m.Method, Href: q.link("/admin/rpcz", "method", m.Method)},
			{Text: m.Kind.String()},
			took(m.Slow),
			count(uint64(len(m.Errors))), count(uint64(len(m.Slowest))), count(m.Limited),
		})
	}
	return part{Title: say("What is kept of each method"), Table: t}
}
