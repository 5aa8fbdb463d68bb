// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Shrink makes a plan smaller, as long as what it comes to is still wrong: fewer steps,
// fewer servers. It removes stretches, half of the plan at first and single steps at
// last (Zeller, Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE
// TSE 2002). It runs the plan at most runs times.
func Shrink(p Plan, wrong func(Plan) bool, runs int) Plan {
	try := func(q Plan) bool {
		if runs <= 0 {
			return false
		}
		runs--
		return wrong(q)
	}
	for length := len(p.Steps) / 2; length > 0; {
		smaller := false
		for from := 0; from+length <= len(p.Steps); {
			q := p
			q.Steps = slices.Delete(slices.Clone(p.Steps), from, from+length)
			if try(q) {
				p, smaller = q, true
			} else {
				from += length
			}
		}
		if !smaller {
			length /= 2
		}
		length = min(length, len(p.Steps))
	}
	for i := range p.Regions {
		q := p
		q.Regions = slices.Clone(p.Regions)
		if q.Regions[i] = 1; p.Regions[i] > 1 && try(q) {
			p = q
		}
	}
	return p
}

// kept is the form of a plan that is kept.
type kept struct {
	Why string
	Plan
}

// Encode gives a plan as text, to be kept, with why it is.
func (p Plan) Encode(why string) ([]byte, error) {
	b, err := json.MarshalIndent(kept{Why: why, Plan: p}, "", "\t")
	return append(b, '\n'), err
}

// ParsePlan reads what Encode gives.
func ParsePlan(b []byte) (p Plan, why string, err error) {
	var k kept
	if err := json.Unmarshal(b, &k); err != nil {
		return p, "", fmt.Errorf("sim: a kept plan: %w", err)
	}
	p = k.Plan
	if len(p.Regions) == 0 || p.Posts < 1 || p.Posts > maxPosts || p.Users < 1 || p.Users > users {
		return p, "", fmt.Errorf("sim: a kept plan with %d regions, %d posts and %d users", len(p.Regions), p.Posts, p.Users)
	}
	for i, s := range p.Steps {
		if s.Action >= actions || s.Session < 0 || s.Session >= sessions || s.Post < 0 || s.Post >= p.Posts || s.Region < 0 || s.Peer < 0 || s.Server < 0 {
			return p, "", fmt.Errorf("sim: step %d of a kept plan is none: %+v", i, s)
		}
	}
	return p, k.Why, nil
}
