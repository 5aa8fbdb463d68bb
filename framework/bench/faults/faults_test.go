// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/bench/faults/fleet"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == fleet.ChildArg {
		os.Exit(fleet.Main(os.Args[2:], nil))
	}
	os.Exit(m.Run())
}

// TestRun drills one fault; what its callers saw is for the figures to judge.
func TestRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.jsonl")
	if err := run(t.Context(), config{lasts: fleet.Settled + time.Second/2, json: path, only: []string{"garbage"}}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"faults.garbage.error_share_after_3s"`, `"faults.garbage.attempts_ratio"`, `"faults.garbage.recovery_s"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is missing in\n%s", want, text)
		}
	}
}

func TestParse(t *testing.T) {
	for _, args := range [][]string{{"-only", "sulking"}, {"-lasts", "1s"}, {"-away", "1s"}, {"more"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
}
