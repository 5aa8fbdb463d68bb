// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/sluice-rpc/sluice/qos"
)

// envCommand makes the test's program the command.
const envCommand = "SLUICE_OVERLOAD_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(envTier) != "" || os.Getenv(envCommand) != "" {
		if err := command(os.Args[1:], os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m,
		// netpoll's pollers and the pools below kitex live as long as the process.
		goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"),
		goleak.IgnoreAnyFunction("github.com/cloudwego/gopkg/concurrency/gopool.(*Pool).runWorker"),
		goleak.IgnoreAnyFunction("github.com/cloudwego/gopkg/concurrency/gopool.(*Pool).ticker"),
		goleak.IgnoreAnyFunction("github.com/bytedance/gopkg/util/gopool.(*worker).run.func1"),
	)
}

// TestOverload runs the demo for some seconds: what matters most is served most, every
// task has an answer, and nobody is left behind.
func TestOverload(t *testing.T) {
	if testing.Short() {
		t.Skip("keeps all cores busy for ten seconds")
	}
	script, err := parseScript("0s:1,1s:10,4s:off") // ten times, since a test's machine may have been measured while it was busy
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	seen, err := demo{Length: 5 * time.Second, Script: script, Screen: &screen{out: &out, restore: func() error { return nil }}}.run(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if err := seen.summarize(&out); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + out.String())
	if n := len(seen.phases); n != 3 {
		t.Fatalf("%d phases, want 3", n)
	}
	crowded := &seen.phases[1].figures
	if n := crowded.all().ended[refused]; n == 0 {
		t.Error("nothing was refused at ten times the load")
	}
	best, last := crowded.kinds[0].share(served), crowded.kinds[len(kinds)-1].share(served)
	if best == 0 || best < last {
		t.Errorf("%.2f of critical and %.2f of extra were served", best, last)
	}
	if n := seen.phases[2].figures.all().ended[refused]; n != 0 {
		t.Errorf("%d tasks were refused without admission", n)
	}
	var sum figures
	for i := range seen.phases {
		sum.add(&seen.phases[i].figures)
	}
	ended := 0
	for i := range sum.kinds {
		for _, n := range sum.kinds[i].ended {
			ended += n
		}
	}
	if all := sum.all(); ended != all.offered || all.ended[broken] != 0 {
		t.Errorf("%d tasks offered, %d ended, %d broken: %v", all.offered, ended, all.ended[broken], sum.err)
	}
	var pids [2]int
	if _, err := fmt.Sscanf(out.String(), "middle is process %d, leaf is process %d", &pids[0], &pids[1]); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is left behind", pid)
		}
	}
}

// TestNoTierOutlivesTheCommand ends the command in several ways.
func TestNoTierOutlivesTheCommand(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), envCommand+"=1")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var complaints bytes.Buffer
			cmd.Stderr = &complaints
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Process.Kill() }()
			lines := bufio.NewScanner(out)
			lines.Scan()
			var pids [2]int
			if _, err := fmt.Sscanf(lines.Text(), "middle is process %d, leaf is process %d", &pids[0], &pids[1]); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			for lines.Scan() { // until nobody writes any more
			}
			if err := cmd.Wait(); (err != nil) != (sig == syscall.SIGKILL) {
				t.Errorf("%v: %s", err, complaints.String())
			}
			for deadline := time.Now().Add(20 * time.Second); alive(pids[0]) || alive(pids[1]); {
				if time.Now().After(deadline) {
					t.Fatalf("one of the processes %v is left behind", pids)
				}
				pause := time.NewTimer(10 * time.Millisecond)
				<-pause.C
			}
		})
	}
}

// alive says whether a process runs; one that has ended and that nobody has asked
// after does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestTierThatDies(t *testing.T) {
	ts, err := startTiers(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := ts.leaf.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); !ts.leaf.died(); {
		if time.Now().After(deadline) {
			t.Fatal("its end is not seen")
		}
		pause := time.NewTimer(10 * time.Millisecond)
		<-pause.C
	}
	if err := ts.stop(); err == nil || !strings.Contains(err.Error(), "the leaf: signal: killed") {
		t.Errorf("stopping says %v", err)
	}
}

func TestCommandRefuses(t *testing.T) {
	for _, tc := range []struct{ name, args, want string }{
		{"no time", "-script 5", "want TIME:LOAD"},
		{"bad time", "-script x:5", `"x" is no time`},
		{"time before the start", "-script -1s:5", "is no time"},
		{"bad load", "-script 1s:lots", "want a load"},
		{"load of nothing known", "-script 1s:NaN", "want a load"},
		{"too much", "-script 1s:101", "from 0 to 100"},
		{"negative length", "-seconds -1", "want 0 or more"},
		{"argument", "now", `"now" is no flag`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := command(strings.Fields(tc.args), t.Output(), t.Output())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

func TestScriptIsSorted(t *testing.T) {
	script, err := parseScript("10s:off, 0s:2,5s:0.5")
	if err != nil {
		t.Fatal(err)
	}
	s := setting{Load: 1, Admission: true}
	var got []setting
	for _, step := range script {
		step.Change(&s)
		got = append(got, s)
	}
	if want := []setting{{2, true}, {.5, true}, {.5, false}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// aView is a busy second with numbers that fill their columns.
func aView() *view {
	v := &view{elapsed: 99_999, setting: setting{Load: 99.99}, capacity: 99_999, figures: &figures{}}
	for i := range v.figures.kinds {
		v.figures.kinds[i] = tally{offered: 99_999, ended: [outcomes]int{33_333, 33_333, 33_332, 1}}
	}
	v.figures.served.observe(2 * time.Second)
	v.figures.err = fmt.Errorf("a long\nstory: %s", strings.Repeat("é", 200))
	v.tiers[0] = tierState{Known: true, Done: 199_999, QoS: &qosState{Limit: 9999, Running: 19_998, Asleep: 9999, Waiting: 99_999}}
	v.tiers[0].QoS.Level.Class, v.tiers[0].QoS.Level.User = qos.Interactive.String(), 127
	return v
}

func TestViewFits(t *testing.T) {
	plain, coloured := aView().lines(false), aView().lines(true)
	if len(plain) > 24 {
		t.Errorf("%d lines, a terminal has 24", len(plain))
	}
	for i, line := range plain {
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
		if strings.ContainsRune(line, '\x1b') {
			t.Errorf("colour without being asked: %q", line)
		}
		if uncoloured(coloured[i]) != line {
			t.Errorf("colour changes more than colour:\n%q\n%q", coloured[i], line)
		}
	}
}

func uncoloured(s string) string {
	var b strings.Builder
	for s != "" {
		before, after, found := strings.Cut(s, "\x1b[")
		b.WriteString(before)
		if !found {
			break
		}
		_, s, _ = strings.Cut(after, "m")
	}
	return b.String()
}

func TestBarsDiffer(t *testing.T) {
	for _, tc := range []struct {
		parts []float64
		want  string
	}{
		{[]float64{0, 0, 0}, "          "},
		{[]float64{1, 0, 0}, "██████████"},
		{[]float64{.5, .3, .2}, "█████░░░▒▒"},
		{[]float64{.04, .92, .04}, "░░░░░░░░░░"},
		{[]float64{5}, "██████████"},
	} {
		if got := style(false).bar(10, tc.parts...); got != tc.want {
			t.Errorf("%v: %q, want %q", tc.parts, got, tc.want)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var l latencies
	if _, ok := l.quantile(.5); ok {
		t.Error("a quantile of nothing")
	}
	for range 2_000 {
		var l latencies
		d := time.Duration(rand.Int64N(int64(10 * time.Second)))
		l.observe(d)
		got, _ := l.quantile(.99)
		if got < d || float64(got) > float64(d)*1.126+float64(2*time.Microsecond) {
			t.Fatalf("%v reads as %v", d, got)
		}
	}
	for i := range 100 {
		l.observe(time.Duration(i) * 10 * time.Millisecond)
	}
	half, _ := l.quantile(.5)
	most, _ := l.quantile(.99)
	if half < 480*time.Millisecond || half > 560*time.Millisecond || most < 970*time.Millisecond {
		t.Errorf("p50 %v, p99 %v of 0 to 990 ms", half, most)
	}
	l.observe(time.Hour)  // beyond the last bucket
	l.observe(-time.Hour) // a clock that was set
}

func TestStopsAtOnceWhenAsked(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var out bytes.Buffer
	seen, err := demo{Screen: &screen{out: &out, restore: func() error { return nil }}}.run(ctx)
	if err != nil || len(seen.phases) != 0 {
		t.Errorf("%d phases, %v", len(seen.phases), err)
	}
}
