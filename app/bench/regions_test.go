// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParseRegions(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want string // in the error; none if empty
	}{
		{"as it is", nil, ""},
		{"quick", []string{"-quick", "-split=false"}, ""},
		{"too short", []string{"-duration", "3s"}, "-duration 3s"},
		{"an argument", []string{"sh"}, `"sh"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseRegions(tt.args)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want something about %q", err, tt.want)
			}
		})
	}
}

func TestPortsInARow(t *testing.T) {
	const n = 6
	addr, err := portsInARow(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil || port < 1024 || port+n > 32768 {
		t.Errorf("ports from %s on, want some that outgoing connections do not get", addr)
	}
}

func TestWeather(t *testing.T) {
	s := newSea("")
	long := time.Now().Add(-time.Minute)
	s.changed = long
	began := time.Now()
	if w, whole := s.around("sh", began); w != calmSea || !whole {
		t.Errorf("nothing is broken: %v, %v", w, whole)
	}
	s.setBroken(true)
	if w, whole := s.around("sh", began); w != mixedSea || !whole {
		t.Errorf("a line was cut meanwhile: %v, %v", w, whole)
	}
	if w, _ := s.around("sh", time.Now()); w != cutSea {
		t.Errorf("a line is cut: %v", w)
	}
	s.setDown("sh", true)
	if w, whole := s.around("sh", time.Now()); w != mixedSea || whole {
		t.Errorf("its region is down: %v, %v", w, whole)
	}
	if w, whole := s.around("hk", time.Now()); w != mixedSea || !whole {
		t.Errorf("another region is down: %v, %v", w, whole)
	}
	s.setDown("sh", false)
	if _, whole := s.around("sh", time.Now()); whole {
		t.Error("its region has come back just now")
	}
	s.trouble["sh"] = long
	if _, whole := s.around("sh", time.Now()); !whole {
		t.Error("its region has been back for long")
	}
}

// The drill in its short form. Whatever the machine bears, nothing is lost, doubled or out of order.
func TestRegions(t *testing.T) {
	c, err := parseRegions([]string{"-quick", "-split=false", "-dark", "200", "-dir", t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	c.duration, c.samples, c.people, c.dark = 20*time.Second, 3, 3, 200
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	metrics, err := drillRegions(ctx, c, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	promised := map[string]bool{"regions.lost": true, "regions.duplicated": true, "regions.out_of_order": true, "regions.other": true}
	for _, m := range metrics {
		if promised[m.Name] && m.Value != 0 {
			t.Errorf("%s = %v", m.Name, m.Value)
		}
		delete(promised, m.Name)
	}
	if len(promised) > 0 {
		t.Errorf("not measured: %v", promised)
	}
}
