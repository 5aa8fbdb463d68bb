// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"io"
	"time"

	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// qosAnswer is what is read of a process's page of admission.
type qosAnswer struct {
	State string `json:"state"`
	Says  string `json:"says"`
	Level struct {
		Class string `json:"class"`
		User  uint8  `json:"user"`
	} `json:"level"`
	Limit    int     `json:"limit"`
	Running  int     `json:"running"`
	Waiting  int     `json:"waiting"`
	Capacity float64 `json:"capacity"`
	Demand   float64 `json:"demand"`
	DelayMS  float64 `json:"delay_ms"`
	Classes  []struct {
		Class      string `json:"class"`
		Admitted   uint64 `json:"admitted"`
		Refused    uint64 `json:"refused"`
		Evicted    uint64 `json:"evicted"`
		Late       uint64 `json:"late"`
		Expired    uint64 `json:"expired"`
		Suppressed uint64 `json:"suppressed"`
	} `json:"classes"`
}

func readQoS(r io.Reader) (*qosAnswer, error) {
	var a qosAnswer
	if err := decode(r, &a); err != nil {
		return nil, err
	}
	return &a, nil
}

// qosSample is the state of admission of a process at the end of a round.
type qosSample struct {
	From     int64   `json:"from"` // Unix seconds
	To       int64   `json:"to"`
	State    string  `json:"state"` // open, busy, pinned, overloaded, off; unknown when it could not be asked
	Severity uint8   `json:"severity"`
	Level    string  `json:"level,omitempty"`
	Running  int     `json:"running"`
	Waiting  int     `json:"waiting"`
	Limit    int     `json:"limit"`
	DelayMS  float64 `json:"delay_ms"`
	Admitted uint64  `json:"admitted"` // in this time
	Rejected uint64  `json:"rejected"`
	HeldBack uint64  `json:"held_back"` // by callers
}

const unknownState = "unknown"

// severities are those of the marks in the call graph.
var severities = map[string]uint8{"open": 0, "off": 0, "busy": 1, "pinned": 2, "overloaded": callgraph.MaxSeverity}

// qosHistory is the state of one process over time, as long as rounds are kept.
type qosHistory struct {
	last           *qosAnswer
	rounds, blocks []qosSample
}

func (h *qosHistory) add(from, to time.Time, a *qosAnswer) {
	s := qosSample{From: from.Unix(), To: to.Unix(), State: unknownState}
	if a != nil {
		s.Limit, s.Running, s.Waiting, s.DelayMS = a.Limit, a.Running, a.Waiting, a.DelayMS
		if severity, ok := severities[a.State]; ok {
			s.State, s.Severity = a.State, severity
		}
		s.Level = cut(a.Level.Class, 40)
		if a.Level.Class != "everyone" && a.Level.Class != "" {
			s.Level = fmt.Sprintf("%s/%d", s.Level, a.Level.User)
		}
		if h.last != nil {
			before, now := h.last.total(), a.total()
			for i, into := range []*uint64{&s.Admitted, &s.Rejected, &s.HeldBack} {
				if now[i] >= before[i] { // else it has started again
					*into = now[i] - before[i]
				}
			}
		}
		h.last = a
	}
	if n := len(h.rounds); n > 0 {
		if before := time.Unix(h.rounds[n-1].To, 0); !block(before).Equal(block(to)) {
			h.closeBlock(block(before))
		}
	}
	h.rounds = append(h.rounds, s)
	h.rounds = trimSamples(h.rounds, to.Add(-KeepRounds))
	h.blocks = trimSamples(h.blocks, to.Add(-KeepBlocks))
}

// total gives what was let in, turned away, and held back by callers since the start.
func (a *qosAnswer) total() (n [3]uint64) {
	for _, c := range a.Classes {
		addTo(&n[0], c.Admitted)
		for _, v := range []uint64{c.Refused, c.Evicted, c.Late, c.Expired} {
			addTo(&n[1], v)
		}
		addTo(&n[2], c.Suppressed)
	}
	return n
}

func trimSamples(list []qosSample, before time.Time) []qosSample {
	for len(list) > 0 && list[0].To <= before.Unix() {
		list = list[1:]
	}
	return list
}

// closeBlock keeps of a block the worst state, and the counts of all of it.
func (h *qosHistory) closeBlock(begin time.Time) {
	var b qosSample
	for _, s := range h.rounds {
		if !block(time.Unix(s.To, 0)).Equal(begin) {
			continue
		}
		from, admitted, rejected, held := b.From, b.Admitted, b.Rejected, b.HeldBack
		if from == 0 {
			from = s.From
		}
		if b.From == 0 || s.Severity >= b.Severity {
			b = s
		}
		b.From, b.To = from, s.To
		b.Admitted, b.Rejected, b.HeldBack = admitted+s.Admitted, rejected+s.Rejected, held+s.HeldBack
	}
	if b.From != 0 {
		h.blocks = append(h.blocks, b)
	}
}

// between gives the samples of a span: rounds where there are any, blocks before.
func (h *qosHistory) between(want span) []qosSample {
	out := []qosSample{}
	oldest := want.to.Unix()
	if len(h.rounds) > 0 {
		oldest = h.rounds[0].From
	}
	for _, list := range [][]qosSample{h.blocks, h.rounds} {
		for _, s := range list {
			if s.To > want.from.Unix() && s.From < want.to.Unix() && (&list[0] == first(h.rounds) || s.To <= oldest) {
				out = append(out, s)
			}
		}
	}
	return out
}

func first(list []qosSample) *qosSample {
	if len(list) == 0 {
		return nil
	}
	return &list[0]
}

// now gives the last state.
func (h *qosHistory) now() qosSample {
	if n := len(h.rounds); n > 0 {
		return h.rounds[n-1]
	}
	return qosSample{State: unknownState}
}

// cut makes a text from elsewhere fit to be kept.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && s[most]&0xc0 == 0x80 {
		most--
	}
	return s[:most]
}
