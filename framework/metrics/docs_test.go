// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-rpc/sluice/framework/metrics"
)

// TestDocs holds docs/metrics.md to what there is.
func TestDocs(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the page lists what Linux says of a process")
	}
	const path, begin, end = "../../docs/metrics.md", "<!-- items -->\n", "<!-- end -->\n"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(page), begin)
	old, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no %s ... %s", path, begin, end)
	}
	tables := tablesOf(everything(t).Snapshot())
	if *update {
		if err := os.WriteFile(path, []byte(head+begin+tables+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if old != tables {
		t.Errorf("%s is not up to date: go test ./framework/metrics -run TestDocs -update", path)
	}
}

// open are the labels whose values depend on what runs.
var open = []string{"rpc.method", "callee", "http.request.method", "http.route", "version", "revision", "go"}

func tablesOf(snap *metrics.Snapshot) string {
	groups := map[string][]metrics.Family{}
	for _, f := range snap.Families {
		groups[f.Group()] = append(groups[f.Group()], f)
	}
	// What is about the same thing stands together, whatever it is called.
	order := []struct {
		title  string
		groups []string
	}{
		{"A method at its server", []string{"rpc.server", "sluice.server"}},
		{"A method at its client", []string{"rpc.client", "sluice.client"}},
		{"An HTTP route", []string{"http", "sluice.entry"}},
		{"The connections of a server", []string{"sluice.listener"}},
		{"The connections to a service", []string{"sluice.link"}},
		{"Admission", []string{"sluice.admission"}},
		{"Traces and the call graph", []string{"sluice.trace", "sluice.graph", "sluice.requests"}},
		{"The process", []string{"process", "sluice.build", "sluice.metrics"}},
		{"Go", []string{"go"}},
	}
	var b strings.Builder
	for _, part := range order {
		var families []metrics.Family
		items := 0
		for _, g := range part.groups {
			families = append(families, groups[g]...)
			delete(groups, g)
		}
		for _, f := range families {
			items += f.Items()
		}
		fmt.Fprintf(&b, "\n### %s: %d\n\n| name | kind | labels | items | what |\n|---|---|---|---|---|\n", part.title, items)
		for _, f := range families {
			fmt.Fprintf(&b, "| `%s` | %v | %s | %d | %s |\n", f.Prom, f.Kind, labelsOf(f), f.Items(), f.Help)
		}
	}
	for g := range groups {
		fmt.Fprintf(&b, "group %s has no place on the page\n", g)
	}
	b.WriteString("\n")
	return b.String()
}

// labelsOf lists the labels of a family, with their values where those are fixed.
func labelsOf(f metrics.Family) string {
	var names []string
	values := map[string][]string{}
	for _, s := range f.Series {
		for _, l := range s.Labels {
			if !slices.Contains(names, l.Name) {
				names = append(names, l.Name)
			}
			if !slices.Contains(values[l.Name], l.Value) {
				values[l.Name] = append(values[l.Name], l.Value)
			}
		}
	}
	for i, name := range names {
		shown := "`" + strings.ReplaceAll(name, ".", "_") + "`"
		if !slices.Contains(open, name) {
			slices.Sort(values[name])
			shown += " (" + strings.Join(values[name], ", ") + ")"
		}
		names[i] = shown
	}
	return strings.Join(names, "; ")
}
