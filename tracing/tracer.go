// SPDX-License-Identifier: Apache-2.0

package tracing

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// An Exporter takes records out of the process. Package otlp has one.
type Exporter interface {
	// Export takes a record, which is read-only. It never blocks; false means that
	// there was no room for it.
	Export(*Record) bool
	// ContextValue is what the context of a call answers to a key that is not the
	// framework's own: the exporter may know it as that of the current span, which is
	// the call's own. The user's attributes go into notes. Nil means no such value.
	ContextValue(key any, current Identity, notes *Notes) any
	// SpanOf gives the current span of ctx, be it the user's or that of
	// ContextValue, if there is one.
	SpanOf(ctx context.Context) (Identity, bool)
}

// Config says what a Tracer traces and keeps. The zero Config is a good one.
type Config struct {
	// Rate is that of the entries that Rates does not name. The zero Rate means
	// DefaultRate.
	Rate Rate
	// Rates are those of single entries, by name: "POST /posts".
	Rates map[string]Rate
	// SlowFloor is what no call is called slow below. Zero means DefaultSlowFloor.
	SlowFloor time.Duration
	// KeepPerSecond bounds what is kept of calls that are not traced: so many errors
	// of each method and class, so many slow calls of each method, and so many calls
	// below which one was kept. What goes beyond of the first two is counted in Stats. Zero means DefaultKeepPerSecond.
	KeepPerSecond float64
	// MaxRecords is how many records the process holds for whoever asks for them.
	// Zero means DefaultMaxRecords.
	MaxRecords int
	// Exporter takes the records as they are made; nil for none.
	Exporter Exporter
}

// The defaults and bounds of a Tracer.
const (
	DefaultSlowFloor     = time.Millisecond
	DefaultKeepPerSecond = 8.0
	DefaultMaxRecords    = 4096

	maxMethods  = 2048 // told apart by kind and name; further ones share "_other"
	maxSamplers = 1024 // of entries; further ones share "_other"
	otherName   = "_other"
)

// A Tracer decides and keeps for one process. It is safe for concurrent use and owns
// no goroutine.
type Tracer struct {
	start    time.Time
	floor    time.Duration
	keepRate float64
	exporter atomic.Pointer[Exporter] // nil for none
	records  ring
	rings    atomic.Int64 // rings of errors that methods may still make

	sampled, forced, made, dropped, limited atomic.Uint64

	mu       sync.Mutex // guards what follows
	rate     Rate
	rates    map[string]Rate
	samplers map[string]*Sampler
	names    map[Entry]string
	methods  map[methodKey]*Method
}

type methodKey struct {
	kind Kind
	name string
}

// New makes a Tracer. It fails for a rate that is none.
func New(c Config) (*Tracer, error) {
	t := &Tracer{
		start:    time.Now(),
		floor:    cmp.Or(max(c.SlowFloor, 0), DefaultSlowFloor),
		keepRate: cmp.Or(max(c.KeepPerSecond, 0), DefaultKeepPerSecond),
		samplers: map[string]*Sampler{},
		names:    map[Entry]string{},
		methods:  map[methodKey]*Method{},
	}
	t.records.cells = make([]*Record, cmp.Or(max(c.MaxRecords, 0), DefaultMaxRecords))
	t.rings.Store(maxErrorRings)
	t.SetExporter(c.Exporter)
	if err := t.SetRates(c.Rate, c.Rates); err != nil {
		return nil, err
	}
	return t, nil
}

// SetExporter makes e take the records from now on; nil for nobody. One that is no
// longer wanted is shut down by whoever made it.
func (t *Tracer) SetExporter(e Exporter) {
	if e == nil {
		t.exporter.Store(nil)
		return
	}
	t.exporter.Store(&e)
}

// SetRates changes what is traced from now on: rate for the entries that rates does
// not name. It changes nothing if one of them is no rate.
func (t *Tracer) SetRates(rate Rate, rates map[string]Rate) error {
	if err := rate.check(); err != nil {
		return err
	}
	own := make(map[string]Rate, len(rates))
	for name, r := range rates {
		if err := r.check(); err != nil {
			return fmt.Errorf("entry %q: %w", name, err)
		}
		own[name] = r
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rate, t.rates = rate, own
	for _, s := range t.samplers {
		s.setRate(t.rateOf(s.name))
	}
	return nil
}

// rateOf is called with mu held.
func (t *Tracer) rateOf(name string) Rate {
	if r, ok := t.rates[name]; ok {
		return r
	}
	return t.rate
}

// Sampler gives the Sampler of an entry: an HTTP route, a job, or a method that is
// called outside of any request. It is meant to be asked for once for each.
func (t *Tracer) Sampler(entry string) *Sampler {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.samplers[entry]; s != nil {
		return s
	}
	if len(t.samplers) >= maxSamplers {
		entry = otherName
		if s := t.samplers[entry]; s != nil {
			return s
		}
	}
	entry = cut(entry, maxNameLen)
	s := &Sampler{tracer: t, name: entry}
	s.setRate(t.rateOf(entry))
	t.samplers[entry] = s
	t.names[EntryOf(entry)] = entry
	return s
}

// EntryName gives the name of an entry of this process, and the number as eight hex
// digits of one that came in from elsewhere.
func (t *Tracer) EntryName(e Entry) string {
	t.mu.Lock()
	name := t.names[e]
	t.mu.Unlock()
	if name == "" && e != 0 {
		return e.String()
	}
	return name
}

// Method gives the keeper of a method's calls, at one of their ends. It is meant to be
// asked for once, when the method is registered or first called.
func (t *Tracer) Method(kind Kind, name string) *Method {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.methods[methodKey{kind, name}]; m != nil {
		return m
	}
	if len(t.methods) >= maxMethods {
		name = otherName
		if m := t.methods[methodKey{kind, name}]; m != nil {
			return m
		}
	}
	m := &Method{tracer: t, kind: kind, name: cut(name, maxNameLen)}
	m.slowLimit.set(t.keepRate)
	m.belowLimit.set(t.keepRate)
	for i := range m.errorLimits {
		m.errorLimits[i].set(t.keepRate)
	}
	t.methods[methodKey{kind, name}] = m
	return m
}

// ContextValue answers, for the context of a call that is being served, a key that is
// not the framework's: with an Exporter the user's own spans join the trace by it.
// Notes are those of the call; they belong into its Record.
func (t *Tracer) ContextValue(key any, current Identity, notes *Notes) any {
	if t == nil {
		return nil
	}
	e := t.exporter.Load()
	if e == nil {
		return nil
	}
	return (*e).ContextValue(key, current, notes)
}

// Parent gives the parent of a call that is made with ctx: the span that user code has
// begun there, else current, which is the span of the request being worked on. Outside
// of any request current is zero, and the call joins the user's trace if Parent gives
// one. It is worth asking only when the request is sampled, or outside of any.
func (t *Tracer) Parent(ctx context.Context, current Identity) Identity {
	if t == nil {
		return current
	}
	e := t.exporter.Load()
	if e == nil {
		return current
	}
	id, ok := (*e).SpanOf(ctx)
	if !ok || (id.Trace != current.Trace && !current.Trace.IsZero()) {
		return current // a trace that user code has begun for itself is not the request's
	}
	return id
}

// Stats counts what a Tracer has done since the process started.
type Stats struct {
	Sampled uint64 // requests traced by reservoir or ratio
	Forced  uint64 // requests traced because a trusted caller asked for it
	Kept    uint64 // records made
	Limited uint64 // errors and slow calls not kept because there were too many
	Dropped uint64 // records that the exporter had no room for
}

// Stats gives the counts. They are read one after the other.
func (t *Tracer) Stats() Stats {
	return Stats{
		Sampled: t.sampled.Load(), Forced: t.forced.Load(), Kept: t.made.Load(),
		Limited: t.limited.Load(), Dropped: t.dropped.Load(),
	}
}
