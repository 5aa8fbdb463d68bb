// SPDX-License-Identifier: Apache-2.0

package load_test

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-rpc/sluice/app/load"
)

// scripted is a target that answers after a while, and in the way its status says.
type scripted struct {
	load.Target
	each   time.Duration
	status func(load.Verb) int // 200, or the refusal
	posts  *atomic.Int64
}

func (s *scripted) answer(v load.Verb) error {
	time.Sleep(s.each) // of a synctest bubble
	if status := s.status(v); status != http.StatusOK {
		return &load.StatusError{Status: status}
	}
	return nil
}

func (s *scripted) Home(context.Context, int, string, int) ([]byte, error) {
	return nil, s.answer(load.VerbHome)
}

func (s *scripted) Album(context.Context, int, int, int) ([]byte, error) {
	return nil, s.answer(load.VerbAlbum)
}

func (s *scripted) Compose(context.Context, int, string) (string, error) {
	return fmt.Sprint("p", s.posts.Add(1)), s.answer(load.VerbPost)
}

func (s *scripted) Close() error { return nil }

func crowdOf(t *testing.T, connections int, s scripted) *load.Crowd {
	t.Helper()
	graph, err := load.Generate(20, 1)
	if err != nil {
		t.Fatal(err)
	}
	s.posts = &atomic.Int64{}
	c, err := load.NewCrowd(load.CrowdConfig{
		Graph: graph, Connections: connections, Mix: load.MixX, Seed: 1,
		Dial:   func() (load.Target, error) { one := s; return &one, nil },
		InTime: [...]time.Duration{load.VerbHome: 100 * time.Millisecond, load.VerbAlbum: 20 * time.Millisecond, load.VerbPost: 100 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func always(status int) func(load.Verb) int { return func(load.Verb) int { return status } }

// TestCrowdCountsWhatBecameOfCalls: each call is counted once, where it belongs.
func TestCrowdCountsWhatBecameOfCalls(t *testing.T) {
	for name, c := range map[string]struct {
		target scripted
		want   func(home, album load.Tally) bool
	}{
		"in time":  {scripted{each: time.Millisecond, status: always(200)}, func(h, a load.Tally) bool { return h.Done == h.Offered && a.Done == a.Offered }},
		"too late": {scripted{each: 50 * time.Millisecond, status: always(200)}, func(h, a load.Tally) bool { return h.Done == h.Offered && a.Slow == a.Offered }},
		"refused":  {scripted{status: always(503)}, func(h, a load.Tally) bool { return h.Refused == h.Offered && a.Refused == a.Offered }},
		"limited":  {scripted{status: always(429)}, func(h, a load.Tally) bool { return h.Refused == h.Offered && a.Refused == a.Offered }},
		"timeout":  {scripted{status: always(504)}, func(h, a load.Tally) bool { return h.TimedOut == h.Offered && a.TimedOut == a.Offered }},
		"broken":   {scripted{status: always(500)}, func(h, a load.Tally) bool { return h.Failed == h.Offered && a.Failed == a.Offered }},
		"extras go first": {scripted{status: func(v load.Verb) int {
			if v == load.VerbAlbum {
				return 503
			}
			return 200
		}}, func(h, a load.Tally) bool { return h.Done == h.Offered && a.Refused == a.Offered }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				crowd := crowdOf(t, 100, c.target)
				windows, err := crowd.Open(t.Context(), []load.Step{{Rate: 100, Seconds: 2}, {Rate: 300, Seconds: 1}}, nil)
				if err != nil {
					t.Fatal(err)
				}
				if len(windows) != 3 {
					t.Fatalf("%d windows", len(windows))
				}
				var all load.Window
				for i, w := range windows {
					mean := []int64{100, 100, 300}[i]
					if n := w.Sum().Offered; n < mean/2 || n > 2*mean {
						t.Errorf("%d calls in second %d", n, i)
					}
					all.Merge(w)
				}
				sum := all.Sum()
				if n := sum.Done + sum.Slow + sum.Refused + sum.TimedOut + sum.Failed + sum.Unsent; n != sum.Offered || all.Late.Count() > 0 {
					t.Errorf("%d calls became something, %d late: %+v", n, all.Late.Count(), sum)
				}
				if h, a := all.Verbs[load.VerbHome], all.Verbs[load.VerbAlbum]; !c.want(h, a) || h.Offered < a.Offered {
					t.Errorf("timelines %+v, albums %+v", h, a)
				}
				if got := all.FirstError != nil; got != (sum.Failed+sum.TimedOut > 0) {
					t.Errorf("first error %v", all.FirstError)
				}
			})
		})
	}
}

// TestCrowdDoesNotWaitForTheSystem: a call that finds no free connection is no call, and nothing else is late for it.
func TestCrowdDoesNotWaitForTheSystem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		crowd := crowdOf(t, 5, scripted{each: time.Second, status: always(200)})
		windows, err := crowd.Open(t.Context(), []load.Step{{Rate: 50, Seconds: 2}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var all load.Window
		for _, w := range windows {
			all.Merge(w)
		}
		if sum := all.Sum(); sum.Slow < 5 || sum.Slow > 10 || sum.Slow+sum.Unsent != sum.Offered {
			t.Errorf("%+v", sum)
		}
	})
}

// TestCrowdClosedLoop: so many at a time, each as soon as it was answered.
func TestCrowdClosedLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		crowd := crowdOf(t, 8, scripted{each: 10 * time.Millisecond, status: always(200)})
		w, err := crowd.Closed(t.Context(), 4, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if sum := w.Sum(); sum.Done != 400 || sum.Offered != 400 {
			t.Errorf("%+v", sum)
		}
		if _, err := crowd.Closed(t.Context(), 9, time.Second); err == nil {
			t.Error("more workers than connections")
		}
	})
}

func TestNewCrowdRefuses(t *testing.T) {
	graph, err := load.Generate(5, 1)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]load.CrowdConfig{
		"nobody":         {Connections: 1, Mix: load.MixX},
		"no connection":  {Graph: graph, Mix: load.MixX},
		"half a mix":     {Graph: graph, Connections: 1, Mix: load.Mix{50}},
		"a negative mix": {Graph: graph, Connections: 1, Mix: load.Mix{110, -10}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := load.NewCrowd(c); err == nil {
				t.Error("taken")
			}
		})
	}
}
