// SPDX-License-Identifier: Apache-2.0

package process_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

const envAsked = "SLUICE_TEST_IDENTITY"

func TestMain(m *testing.M) {
	if os.Getenv(envAsked) == "" {
		os.Exit(m.Run())
	}
	process.Serves("post")
	process.Serves("comment")
	process.Serves("post")
	first := process.Identity()
	process.Serves("late") // who pulls would take another identity for another process
	if process.Identity() != first {
		fmt.Println("the identity has changed")
	}
	if err := json.NewEncoder(os.Stdout).Encode(first); err != nil {
		os.Exit(1)
	}
}

// TestIdentity: two instances of a service are told apart, as are two runs of one; what
// they serve is the same.
func TestIdentity(t *testing.T) {
	var ids [2]callgraph.Process
	for i := range ids {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), envAsked+"=1")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &ids[i]); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if ids[i].Service != "comment+post" || ids[i].Instance == "" {
			t.Errorf("%+v", ids[i])
		}
	}
	if ids[0].Instance == ids[1].Instance || ids[0].Epoch >= ids[1].Epoch {
		t.Errorf("%+v and %+v", ids[0], ids[1])
	}
}
