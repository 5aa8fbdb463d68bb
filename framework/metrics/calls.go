// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"time"
)

// calls are the items that calls of any kind have: served, made, or requests at an
// HTTP entry.
type calls struct {
	slots                   *slots
	results                 int // how many there are
	requestMax, responseMax peak
}

// The words of calls. After the results come the histograms of those that were
// served and of those that were refused, and then what only one kind has.
const (
	wordStarted = iota
	wordRequest
	wordResponse
	wordResult
)

var callIndex = newIndex(callSeconds, Seconds)

// init makes room for so many results and so many words more.
func (c *calls) init(results, more int) {
	c.results = results
	c.slots = newSlots(c.more() + more)
}

// served is the word at which the histogram of served calls begins.
func (c *calls) served() int { return wordResult + c.results }

// more is the first word after those that all kinds have.
func (c *calls) more() int { return c.served() + 2*callIndex.words() }

func (c *calls) started() { c.slots.row()[wordStarted].Add(1) }

func (c *calls) ended(result int, refused bool, took time.Duration, request, response int) {
	row := c.slots.row()
	row[wordResult+result].Add(1)
	at := c.served()
	if refused {
		at += callIndex.words()
	}
	callIndex.record(row[at:], int64(took))
	if request > 0 {
		row[wordRequest].Add(uint64(request))
		c.requestMax.note(uint64(request))
	}
	if response > 0 {
		row[wordResponse].Add(uint64(response))
		c.responseMax.note(uint64(response))
	}
}

// callDescs describe what all kinds have.
type callDescs struct{ started, result, took, inFlight, request, response Desc }

// callItems is how many items calls have, but for their results.
var callItems = 6 + 2*itemsOf(KindHistogram, len(callSeconds))

func (c *calls) register(s *set, d callDescs, resultName func(int) string) {
	s.counter(d.started, wordStarted)
	for i := range c.results {
		s.counter(d.result, wordResult+i, Label{"result", resultName(i)})
	}
	s.histogram(d.took, callIndex, c.served(), Label{"outcome", "served"})
	s.histogram(d.took, callIndex, c.served()+callIndex.words(), Label{"outcome", "refused"})
	s.difference(d.inFlight, wordStarted, wordResult, c.results)
	s.counter(d.request, wordRequest)
	s.counter(d.response, wordResponse)
	s.peak(Desc{d.request.Name + ".largest", "Largest request of the last minute.", Bytes}, &c.requestMax, 1)
	s.peak(Desc{d.response.Name + ".largest", "Largest response of the last minute.", Bytes}, &c.responseMax, 1)
}

// The sides that methodSet counts apart.
const (
	serverSide = iota
	clientSide
	routeSide
)

// methodSet gives the items of a method, or, when there are too many, those that the
// rest share.
func methodSet[T any](r *Registry, side, size int, labels []Label, build func(*Registry, []Label) *T) *T {
	r.setMu.Lock()
	defer r.setMu.Unlock()
	key := fmt.Sprintf("%d %q %q", side, r.labels, labels)
	if r.sets[key] == nil {
		// Room is kept for the items that are shared.
		if r.methods[side] < r.limits.MaxMethods && r.Items()+2*size <= r.limits.MaxItems {
			r.methods[side]++
		} else {
			r.folded.Inc()
			labels = append([]Label(nil), labels...)
			for i := range labels {
				labels[i].Value = otherValue
			}
			key = fmt.Sprintf("%d %q %q", side, r.labels, labels)
		}
	}
	return shared(r, key, func() *T { return build(r, labels) })
}

// shared gives what was built first for a key. It is called with setMu held.
func shared[T any](r *Registry, key string, build func() *T) *T {
	if old, ok := r.sets[key].(*T); ok {
		return old
	}
	item := build()
	r.sets[key] = item
	return item
}

// set registers items that are counted in one block of slots.
type set struct {
	r      *Registry
	slots  *slots
	labels []Label
}

func (s *set) add(k Kind, d Desc, bounds []float64, more []Label, item *series) {
	s.r.register(k, d, bounds, append(append([]Label(nil), s.labels...), more...), item, true)
}

func (s *set) counter(d Desc, word int, more ...Label) {
	s.add(KindCounter, d, nil, more, &series{value: func() float64 { return float64(s.slots.sum(word)) }})
}

func (s *set) time(d Desc, word int) {
	s.add(KindCounter, d, nil, nil, &series{value: func() float64 { return time.Duration(s.slots.sum(word)).Seconds() }})
}

func (s *set) histogram(d Desc, x *index, at int, more ...Label) {
	s.add(KindHistogram, d, x.bounds, more, &series{hist: func(counts []uint64) float64 { return x.read(s.slots, at, counts) }})
}

// difference shows how much a word is ahead of n others. The others are read first,
// so that a call that ends meanwhile cannot make it negative.
func (s *set) difference(d Desc, word, others, n int) {
	s.add(KindGauge, d, nil, nil, &series{value: func() float64 {
		ended := uint64(0)
		for i := range n {
			ended += s.slots.sum(others + i)
		}
		return float64(int64(s.slots.sum(word) - ended))
	}})
}

func (s *set) peak(d Desc, p *peak, scale float64) {
	s.add(KindGauge, d, nil, nil, &series{value: func() float64 { return float64(p.read(time.Now())) * scale }})
}
