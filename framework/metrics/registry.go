// SPDX-License-Identifier: Apache-2.0

// Package metrics keeps the items of a process: counters, gauges and histograms
// that are there, at zero, from start-up, and cost a few nanoseconds to record.
//
// A [Registry] holds them all. The framework registers what it measures of every
// method, of admission and of the process ([Registry.ServerMethod],
// [Registry.ClientMethod], [Registry.Admission], [Registry.Process]); a service adds
// its own with [Registry.Counter] and its siblings. Names and labels are settled once,
// at registration: what records afterwards holds a pointer and looks nothing up.
//
// One [Snapshot] is what everything shows: the text that Prometheus scrapes, the
// catalogue of the admin pages, and OpenTelemetry (package otelmetrics). An item is
// one time series as Prometheus counts them, the buckets of a histogram included.
package metrics

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// The default limits of a registry.
const (
	DefaultMaxItems   = 200_000
	DefaultMaxSeries  = 1_000
	DefaultMaxMethods = 1_000
)

// Config bounds a registry. The zero value of a field means its default.
type Config struct {
	// MaxItems is how many items there may be in all. What comes beyond works but is
	// not shown, and is counted in sluice_metrics_dropped_total.
	MaxItems int
	// MaxSeries is how many label sets one name may have. Those that come beyond
	// share one series whose label values are all "_other", and are counted in
	// sluice_metrics_folded_total. It bounds what services register; the framework's
	// own sets are bounded by MaxMethods.
	MaxSeries int
	// MaxMethods is how many methods served, methods called and HTTP routes are told
	// apart, each. Further ones share the name "_other".
	MaxMethods int
}

// Desc says what an item is. One text of each belongs to one name: series of the
// same name have the same Desc and the same label names.
type Desc struct {
	// Name is the name in OpenTelemetry's form: lower-case words joined by dots, and
	// by underscores inside a word, such as "moments.post.published", without unit
	// and without "total". Prometheus' name follows from it by the usual rule: dots
	// become underscores, the unit and, for a counter, "total" are appended
	// (moments_post_published_total). It begins with the name of the product.
	Name string
	// Help is one sentence: what is counted, and when.
	Help string
	// Unit is the unit of the values.
	Unit Unit
}

// Unit is a unit as UCUM writes it, or what is counted in braces, such as "{call}".
type Unit string

// The units. Times are seconds and sizes bytes, never their multiples.
const (
	Seconds Unit = "s"
	Bytes   Unit = "By"
	Ratio   Unit = "1" // 0 to 1, or a quotient
	Percent Unit = "%"
)

// Label is one name and value that tell series of the same item apart. The name is
// in OpenTelemetry's form, as Desc.Name; the value may be any text: what cannot be
// shown is replaced, and what is longer than 200 bytes is cut.
type Label struct{ Name, Value string }

// Kind is what an item does over time.
type Kind uint8

// The kinds.
const (
	KindCounter   Kind = iota // only grows, from zero at the start of the process
	KindGauge                 // goes up and down
	KindHistogram             // counts values by size
)

// String gives the name of the kind as Prometheus writes it.
func (k Kind) String() string {
	return [...]string{"counter", "gauge", "histogram"}[min(k, KindHistogram)]
}

// Registry holds the items of one process. It is safe for concurrent use.
//
// Registering never fails loudly: an item that is wrong in any way works but is not
// shown, and [Registry.Err] says what to mend. The server's Listen returns that.
type Registry struct {
	*core
	labels []Label // added to all that is registered here
}

type core struct {
	limits Config
	began  time.Time

	mu       sync.Mutex
	families map[string]*family // by name; guarded by mu
	items    int                // guarded by mu
	errs     []error            // guarded by mu
	moreErrs int                // errors beyond maxErrs; guarded by mu
	prepare  []func()           // guarded by mu
	sets     map[string]any     // by what they are about; guarded by setMu
	methods  [3]int             // how many of each side; guarded by setMu
	setMu    sync.Mutex         // taken before mu

	reading sync.Mutex // one snapshot at a time; taken before mu

	folded, dropped, failures *Counter
}

// family is all that has one name.
type family struct {
	desc       Desc
	kind       Kind
	name       string // in Prometheus' form
	shown      string // the same, with a counter's "total"
	labelNames string // joined
	bounds     []float64
	series     []*series
	byLabels   map[string]*series
	other      *series // takes what is beyond the limit; nil until then
	sorted     bool
}

// series is one label set of a family.
type series struct {
	labels []Label // sorted by name
	text   string  // the labels as Prometheus writes them, without braces
	item   any     // *Counter, *Gauge or *Histogram
	value  func() float64
	hist   func(counts []uint64) (sum float64)
}

// maxErrs is how many mistakes Err spells out.
const maxErrs = 20

// NewRegistry makes a registry that holds nothing but the items about itself.
func NewRegistry(cfg Config) *Registry {
	pick := func(v, def int) int {
		if v <= 0 {
			return def
		}
		return v
	}
	r := &Registry{core: &core{
		limits: Config{
			MaxItems:   pick(cfg.MaxItems, DefaultMaxItems),
			MaxSeries:  pick(cfg.MaxSeries, DefaultMaxSeries),
			MaxMethods: pick(cfg.MaxMethods, DefaultMaxMethods),
		},
		began:    time.Now(),
		families: map[string]*family{},
		sets:     map[string]any{},
		folded:   new(Counter), dropped: new(Counter), failures: new(Counter),
	}}
	r.GaugeFunc(Desc{"sluice.metrics.items", "Items that this process shows.", "{item}"}, func() float64 {
		r.mu.Lock()
		defer r.mu.Unlock()
		return float64(r.items)
	})
	r.folded = r.Counter(Desc{"sluice.metrics.folded", "Registrations that share a series of label values _other, because their name has reached its limit.", "{series}"})
	r.dropped = r.Counter(Desc{"sluice.metrics.dropped", "Registrations that are not shown, because the process has reached its limit of items.", "{series}"})
	r.failures = r.Counter(Desc{"sluice.metrics.read_failures", "Items read by a function that panicked; they show NaN.", "{read}"})
	return r
}

// With gives a view of the same registry that adds labels to all that is registered
// through it, such as the service of a process that runs several.
func (r *Registry) With(labels ...Label) *Registry {
	return &Registry{core: r.core, labels: append(slices.Clone(r.labels), labels...)}
}

// Err gives what was wrong with registrations so far, nil if nothing was.
func (r *Registry) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	errs := r.errs
	if r.moreErrs > 0 {
		errs = append(slices.Clone(errs), fmt.Errorf("metrics: %d more items are wrong", r.moreErrs))
	}
	return errors.Join(errs...)
}

// Items is how many items there are.
func (r *Registry) Items() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.items
}

// BeforeRead runs prepare once before each snapshot, on the goroutine that takes
// it, and never twice at a time. Functions that are read for their value see what it
// has prepared without a lock: one look at a source serves many items.
func (r *Registry) BeforeRead(prepare func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.prepare = append(r.prepare, prepare)
}

// Counter registers a counter.
func (r *Registry) Counter(d Desc, labels ...Label) *Counter {
	c := newCounter()
	return orShared(r.register(KindCounter, d, nil, labels, &series{item: c, value: c.read}, false), c)
}

// CounterFunc registers a counter whose value is read for each snapshot. The
// function must not block, take a snapshot, or ever give less than before.
func (r *Registry) CounterFunc(d Desc, value func() float64, labels ...Label) {
	r.register(KindCounter, d, nil, labels, &series{value: value}, false)
}

// Gauge registers a gauge.
func (r *Registry) Gauge(d Desc, labels ...Label) *Gauge {
	g := new(Gauge)
	return orShared(r.register(KindGauge, d, nil, labels, &series{item: g, value: g.Value}, false), g)
}

// GaugeFunc registers a gauge whose value is read for each snapshot. The function
// must neither block nor take a snapshot.
func (r *Registry) GaugeFunc(d Desc, value func() float64, labels ...Label) {
	r.register(KindGauge, d, nil, labels, &series{value: value}, false)
}

// Histogram registers a histogram with the given upper bounds, which are inclusive,
// growing, and in the item's unit (seconds, bytes): a bucket for what is larger is
// added. CallSeconds gives the bounds of calls.
func (r *Registry) Histogram(d Desc, bounds []float64, labels ...Label) *Histogram {
	if err := checkBounds(bounds); err != nil {
		r.fail(fmt.Errorf("metrics: item %q: %w", d.Name, err))
		return newHistogram(CallSeconds(), d.Unit)
	}
	h := newHistogram(slices.Clone(bounds), d.Unit)
	return orShared(r.register(KindHistogram, d, h.index.bounds, labels, &series{item: h, hist: h.read}, false), h)
}

// orShared gives the item to record with: the one that was registered, or the shared
// one of a name that has reached its limit.
func orShared[T any](s *series, item *T) *T {
	if shared, ok := s.item.(*T); ok {
		return shared
	}
	return item // the shared one is a function: this one is not shown
}

func (r *Registry) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failLocked(err)
}

func (r *Registry) failLocked(err error) {
	if len(r.errs) == maxErrs {
		r.moreErrs++
		return
	}
	r.errs = append(r.errs, err)
}

// register adds a series and gives the one that stands for it: s itself, or the
// shared series beyond the limit of a name. A series of a bounded set is not folded.
func (r *Registry) register(k Kind, d Desc, bounds []float64, labels []Label, s *series, bounded bool) *series {
	name, err := familyName(d)
	if err == nil {
		s.labels, err = checkLabels(append(slices.Clone(r.labels), labels...))
	}
	if err != nil {
		r.fail(fmt.Errorf("metrics: item %q: %w", d.Name, err))
		return s
	}
	s.text = labelText(s.labels)
	names := labelNames(s.labels)

	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.families[name]
	if f == nil {
		f = &family{desc: d, kind: k, name: name, shown: name, labelNames: names, bounds: bounds, byLabels: map[string]*series{}}
		if k == KindCounter {
			f.shown += "_total"
		}
	}
	switch {
	case f.kind != k || f.desc != d || !slices.Equal(f.bounds, bounds):
		r.failLocked(fmt.Errorf("metrics: item %q was registered before with another kind, help, unit or bounds (%v, %q, %q): use the same ones, or another name", d.Name, f.kind, f.desc.Help, f.desc.Unit))
		return s
	case f.labelNames != names:
		r.failLocked(fmt.Errorf("metrics: item %q has labels (%s) but had (%s) before: give the same label names each time", d.Name, names, f.labelNames))
		return s
	case f.byLabels[s.text] != nil:
		r.failLocked(fmt.Errorf("metrics: item %s was registered twice: register it once and share what you got", fullName(f.shown, s.text)))
		return s
	}
	size := itemsOf(k, len(bounds))
	if !bounded && len(f.series) >= r.limits.MaxSeries && len(s.labels) > len(r.labels) {
		r.folded.Inc()
		if f.other != nil {
			return f.other
		}
		for i := range s.labels {
			if !slices.ContainsFunc(r.labels, func(l Label) bool { return l.Name == s.labels[i].Name }) {
				s.labels[i].Value = otherValue
			}
		}
		s.text = labelText(s.labels)
		if old := f.byLabels[s.text]; old != nil { // a service uses the word itself
			f.other = old
			return old
		}
		f.other = s
	}
	if r.items+size > r.limits.MaxItems {
		r.dropped.Inc()
		return s
	}
	r.families[name] = f
	f.series = append(f.series, s)
	f.byLabels[s.text] = s
	f.sorted = false
	r.items += size
	return s
}

// otherValue is the value of the labels of what is not told apart any more.
const otherValue = "_other"

// itemsOf is how many items a series of a kind is.
func itemsOf(k Kind, bounds int) int {
	if k == KindHistogram {
		return bounds + 3 // and +Inf, sum, count
	}
	return 1
}
