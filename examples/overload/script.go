// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// setting is how the demo runs: what the keys change.
type setting struct {
	Load      float64 // in multiples of the usual load
	Admission bool
}

// step changes the setting after a while.
type step struct {
	After  time.Duration
	Change func(*setting)
}

const maxLoad = 100

// parseScript reads "0s:1,5s:5,10s:off". Steps are sorted by their time.
func parseScript(text string) ([]step, error) {
	if text == "" {
		return nil, nil
	}
	var script []step
	for _, part := range strings.Split(text, ",") {
		when, what, found := strings.Cut(strings.TrimSpace(part), ":")
		if !found {
			return nil, fmt.Errorf("-script %q: %q: want TIME:LOAD, such as 5s:5", text, part)
		}
		after, err := time.ParseDuration(when)
		if err != nil || after < 0 {
			return nil, fmt.Errorf("-script %q: %q is no time: want one such as 5s", text, when)
		}
		change, err := parseChange(what)
		if err != nil {
			return nil, fmt.Errorf("-script %q: %w", text, err)
		}
		script = append(script, step{After: after, Change: change})
	}
	slices.SortStableFunc(script, func(a, b step) int { return cmp.Compare(a.After, b.After) })
	return script, nil
}

func parseChange(what string) (func(*setting), error) {
	switch what {
	case "on", "off":
		return func(s *setting) { s.Admission = what == "on" }, nil
	}
	load, err := strconv.ParseFloat(what, 64)
	if err != nil || !(load >= 0 && load <= maxLoad) {
		return nil, fmt.Errorf("%q: want a load from 0 to %d, on or off", what, maxLoad)
	}
	return func(s *setting) { s.Load = load }, nil
}
