// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/discovery"
)

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name string
		all  []discovery.Instance
		want string // of the error
	}{
		{name: "none"},
		{name: "as they should be", all: []discovery.Instance{{Addr: "b:2", Campus: "east"}, {Addr: "a:1", Weight: 7}}},
		{name: "no port", all: []discovery.Instance{{Addr: "a"}}, want: "not host:port"},
		{name: "no host", all: []discovery.Instance{{Addr: ":80"}}, want: "no host"},
		{name: "port 0", all: []discovery.Instance{{Addr: "a:0"}}, want: "1 to 65535"},
		{name: "port beyond", all: []discovery.Instance{{Addr: "a:70000"}}, want: "1 to 65535"},
		{name: "weight below", all: []discovery.Instance{{Addr: "a:1", Weight: -1}}, want: "1 to 1000"},
		{name: "weight beyond", all: []discovery.Instance{{Addr: "a:1", Weight: 1001}}, want: "1 to 1000"},
		{name: "admin ports", all: []discovery.Instance{{Addr: "a:1", Admin: "a:2"}, {Addr: "b:1", Admin: "https://b:2"}}},
		{name: "an admin port that is none", all: []discovery.Instance{{Addr: "a:1", Admin: "http://a:2/admin"}}, want: "a:1: admin"},
		{name: "twice", all: []discovery.Instance{{Addr: "a:1"}, {Addr: "a:1"}}, want: "twice"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := discovery.Check(tc.all)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("got %v, want %q", err, tc.want)
				}
				return
			}
			if err != nil || len(got) != len(tc.all) {
				t.Fatal(got, err)
			}
			for _, i := range got {
				if i.Weight == 0 {
					t.Errorf("%+v has no weight", i)
				}
			}
			if !slices.IsSortedFunc(got, func(a, b discovery.Instance) int { return strings.Compare(a.Addr, b.Addr) }) {
				t.Errorf("not in order: %v", got)
			}
		})
	}
}

func TestStatic(t *testing.T) {
	s := discovery.Static{"greeter": {{Addr: "a:1"}}, "wrong": {{}}}
	ctx, stop := context.WithCancel(t.Context())
	told := 0
	err := s.Watch(ctx, "greeter", func(all []discovery.Instance) {
		if told++; len(all) != 1 || all[0].Weight != discovery.DefaultWeight {
			t.Error(all)
		}
		stop()
	})
	if err != nil || told != 1 {
		t.Errorf("told %d times, %v", told, err)
	}
	if err := s.Watch(t.Context(), "wrong", nil); err == nil {
		t.Error("an instance without an address is taken")
	}
}

// lines is a log that tells of each line.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
	more chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { l.more <- struct{}{} }()
	return l.text.Write(p)
}

// TestFile: what is right is taken over as a whole, and what is wrong is refused as a
// whole, with its place, and changes nothing.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "instances.yaml")
	put := func(text string) { // at once, as it is done to a file that is watched
		t.Helper()
		next := path + ".next"
		if err := errors.Join(os.WriteFile(next, []byte(text), 0o600), os.Rename(next, path)); err != nil {
			t.Fatal(err)
		}
	}
	log := &lines{more: make(chan struct{}, 16)}
	lists := make(chan []discovery.Instance, 16)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	f := discovery.File{Path: path, Every: time.Millisecond, Log: slog.New(slog.NewTextHandler(log, nil))}
	go func() {
		ended <- f.Watch(ctx, "greeter", func(all []discovery.Instance) { lists <- all })
	}()

	<-log.more // it is not there yet
	put("services:\n  - name: greeter\n    instances:\n      - {addr: 'b:2', campus: east, weight: 7, version: v1, draining: true}\n      - {addr: 'a:1'}\n")
	want := []discovery.Instance{{Addr: "a:1", Weight: 100}, {Addr: "b:2", Campus: "east", Weight: 7, Version: "v1", Draining: true}}
	if got := <-lists; !slices.Equal(got, want) {
		t.Fatalf("got %+v", got)
	}
	for _, bad := range []struct{ name, text, want string }{
		{"no YAML", "services: [", "instances.yaml"},
		{"unknown key", "services:\n  - name: greeter\n    instances:\n      - {addr: 'a:1', campos: x}\n", "instances.yaml:4"},
		{"weight off the scale", "services:\n  - name: greeter\n    instances:\n      - {addr: 'a:1', weight: 5000}\n", "weight"},
		{"twice", "services:\n  - name: greeter\n    instances: [{addr: 'a:1'}, {addr: 'a:1'}]\n", "twice"},
		{"no name", "services:\n  - instances: [{addr: 'a:1'}]\n", "no name"},
		{"service twice", "services:\n  - name: greeter\n  - name: greeter\n", "greeter is there twice"},
		{"another one's is wrong", "services:\n  - name: greeter\n    instances: [{addr: 'a:1'}]\n  - name: other\n    instances: [{addr: 'a'}]\n", "other"},
		{"not there", "services: []\n", "instances: []"},
		{"empty", "", "instances: []"},
	} {
		put(bad.text)
		<-log.more
		log.mu.Lock()
		text := log.text.String()
		log.text.Reset()
		log.mu.Unlock()
		if !strings.Contains(text, bad.want) {
			t.Errorf("%s: the log says %q, want %q", bad.name, text, bad.want)
		}
	}
	put("services:\n  - name: greeter\n    instances: []\n")
	if got := <-lists; len(got) != 0 {
		t.Fatalf("after what was refused comes %+v", got)
	}
	stop()
	if err := <-ended; err != nil || len(lists) != 0 {
		t.Errorf("%v, and %d lists more", err, len(lists))
	}
}

// FuzzInstance reads an instance as a registry may hold it.
func FuzzInstance(f *testing.F) {
	f.Add([]byte(`{"addr":"10.0.0.7:7000","campus":"east","weight":3,"version":"1.2","drain":true,"admin":"https://a:1"}`))
	f.Add([]byte(`{"addr":"[::1]:1","weight":-1}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := discovery.Parse(b)
		if err != nil {
			return
		}
		if i.Weight < 1 || i.Weight > discovery.MaxWeight {
			t.Errorf("%q has weight %d", b, i.Weight)
		}
		if _, _, err := net.SplitHostPort(i.Addr); err != nil {
			t.Errorf("%q: %v", b, err)
		}
	})
}
