// SPDX-License-Identifier: Apache-2.0

package pebblekv_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/pebblekv"
)

// parallel runs b.N operations on c goroutines.
func parallel(b *testing.B, c int, op func(n int64) error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range c {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				if err := op(n); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// childDir makes this test binary the process that is killed: it writes to the store
// in that directory and prints every key when it is acknowledged.
const childDir = "PEBBLEKV_TEST_CHILD_DIR"

const childWriters = 8

func child(dir string) int {
	s, err := pebblekv.Open(dir, pebblekv.Options{RowCacheBytes: 1 << 20})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx := context.Background()
	round := os.Getenv("PEBBLEKV_TEST_ROUND")
	var out sync.Mutex
	var wg sync.WaitGroup
	for w := range childWriters {
		wg.Go(func() {
			for n := 0; ; n++ {
				key := fmt.Sprintf("%s/%d/%06d", round, w, n)
				slot := kv.SlotOf([]byte(key))
				var err error
				if w%2 == 0 {
					_, err = s.Apply(ctx, slot, new(kv.Batch).Put([]byte(key), []byte(key)).IfAbsent([]byte(key)))
				} else {
					err = s.BulkPut(ctx, []kv.SlotPut{{Slot: slot, Key: []byte(key), Value: []byte(key)}, {Slot: 0, Key: []byte(key), Value: []byte(key)}})
				}
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				// One system call for the line: it is in the pipe before the process can be killed.
				out.Lock()
				fmt.Printf("%s\n", key)
				out.Unlock()
			}
		})
	}
	wg.Wait()
	return 0
}

func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var acknowledged []string
	lastVer := uint64(0)
	for round := range 5 {
		acknowledged = append(acknowledged, killRound(t, dir, round)...)

		s, err := pebblekv.Open(dir, pebblekv.Options{})
		if err != nil {
			t.Fatalf("round %d: open after the kill: %v", round, err)
		}
		for _, key := range acknowledged {
			item, err := s.Get(t.Context(), kv.SlotOf([]byte(key)), []byte(key), kv.Linearizable)
			if err != nil || string(item.Value) != key {
				t.Fatalf("round %d: acknowledged key %s = %q, %v", round, key, item.Value, err)
			}
			if item.Ver <= lastVer && strings.HasPrefix(key, fmt.Sprintf("%d/", round)) {
				t.Fatalf("round %d: version %d was already used before the kill", round, item.Ver)
			}
		}
		if lastVer, err = s.Apply(t.Context(), 1, new(kv.Batch).Put([]byte("round"), nil)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d acknowledged writes survived 5 kills", len(acknowledged))
}

// killRound lets a child write to dir and kills it; it gives what was acknowledged.
func killRound(t *testing.T, dir string, round int) (acknowledged []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, fmt.Sprintf("PEBBLEKV_TEST_ROUND=%d", round))
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		acknowledged = append(acknowledged, lines.Text())
		if len(acknowledged) == 300+100*round {
			if round == 0 {
				_, err := pebblekv.Open(dir, pebblekv.Options{})
				if want := fmt.Sprintf("process %d", cmd.Process.Pid); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("Open while the child has it = %v, want an error naming %s", err, want)
				}
			}
			if err := cmd.Process.Kill(); err != nil { // SIGKILL
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
	if len(acknowledged) < 300 {
		t.Fatalf("the child acknowledged %d writes, want at least 300", len(acknowledged))
	}
	return acknowledged
}
