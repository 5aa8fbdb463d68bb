// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write testdata anew")

// goldenItems compares what a process measures with what is written down: name, type,
// unit, labels and number of each item. A name is settled once, docs/metrics.md says how.
func goldenItems(t *testing.T, service, admin string) {
	t.Helper()
	res, err := http.Get("http://" + admin + "/admin/items?format=text")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	all, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%v, %s: %s", err, res.Status, all)
	}
	var got []byte
	for line := range bytes.Lines(all) {
		// Helps and label values stand indented, the Go runtime's items come with Go, and
		// the last line is their number.
		if line[0] != ' ' && !bytes.HasPrefix(line, []byte("go_")) && !bytes.HasSuffix(line, []byte(" items\n")) {
			got = append(got, line...)
		}
	}
	file := filepath.Join("testdata", "items-"+service+".txt")
	if *update {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(want) {
		if !bytes.Contains(got, line) {
			t.Errorf("%s: missing, or not as written: %s", service, line)
		}
	}
	for line := range bytes.Lines(got) {
		if !bytes.Contains(want, line) {
			t.Errorf("%s: new, or not as written: %s", service, line)
		}
	}
	if t.Failed() {
		t.Errorf("if this is meant: go test ./app/cmd/moments -run TestUpSplit -update")
	}
}
