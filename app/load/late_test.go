// SPDX-License-Identifier: Apache-2.0

package load_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-rpc/sluice/app/load"
)

// stalling is a target on which each read takes a while.
type stalling struct {
	load.Target
	each time.Duration
}

func (s *stalling) Home(context.Context, int, string, int) ([]byte, error) {
	time.Sleep(s.each) // of a synctest bubble
	return nil, nil
}

func (s *stalling) ParsePage([]byte) (load.Page, error) { return load.Page{}, nil }
func (s *stalling) Close() error                        { return nil }

// TestOpenLoopBehindItsSchedule: a stall is no verdict about the rate, going on late forever is.
func TestOpenLoopBehindItsSchedule(t *testing.T) {
	graph, err := load.Generate(5, 1)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		each  time.Duration
		calls int64
		want  string
	}{
		"in time":         {time.Millisecond, 20, ""},
		"a stall":         {500 * time.Millisecond, 20, ""},
		"not at the rate": {2 * time.Second, 6, "fewer than 100 calls a second"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				res, err := load.Run(t.Context(), load.Config{
					Mode: load.OpenLoop, Rate: 100, Duration: 200 * time.Millisecond, Workers: 1, Graph: graph,
					Dial: func() (load.Target, error) { return &stalling{each: c.each}, nil },
				})
				if err != nil {
					t.Fatal(err)
				}
				switch void := res.Void(); {
				case res.Calls() != c.calls:
					t.Errorf("%d calls, want %d", res.Calls(), c.calls)
				case c.want == "" && void != nil, c.want != "" && (void == nil || !strings.Contains(void.Error(), c.want)):
					t.Errorf("void: %v, want %q", void, c.want)
				}
			})
		})
	}
}
