// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/framework/config"
)

type limits struct {
	Queue int `config:"queue" doc:"calls that may wait" unit:"calls" min:"0" max:"1000"`
	Least int `config:"least" unit:"calls"`
}

func (l limits) Validate() error {
	if l.Least > l.Queue {
		return config.Wrong("least", "%d is above queue (%d): lower it or raise queue", l.Least, l.Queue)
	}
	return nil
}

type peer struct {
	Name string `config:"name"`
	Addr string `config:"addr"`
}

func (p peer) Validate() error {
	if p.Addr == "" {
		return config.Wrong("addr", "is missing")
	}
	return nil
}

type settings struct {
	Addr    string          `config:"addr" doc:"where calls are served"`
	Timeout time.Duration   `config:"max_timeout" doc:"longest a call may take" min:"1ms" max:"1m"`
	Cache   config.Size     `config:"cache" max:"1GiB"`
	Key     config.Secret   `config:"key" doc:"signs the tokens"`
	Level   slog.Level      `config:"level"`
	Ratio   float64         `config:"ratio"`
	Small   uint8           `config:"small"`
	Debug   bool            `config:"debug"`
	Names   []string        `config:"names"`
	Waits   []time.Duration `config:"waits"`
	Limits  limits          `config:"limits"`
	Peers   []peer          `config:"peers"`
	Hook    func()          // not a setting
}

func defaults() settings {
	return settings{Addr: "127.0.0.1:7000", Timeout: time.Second, Cache: 64 << 20, Names: []string{"a"}, Limits: limits{Queue: 100}}
}

func TestEachSourceOverridesTheOneBefore(t *testing.T) {
	file := "addr: file\nmax_timeout: 2s\ncache: 1MiB\nratio: 0.5\nlimits: {queue: 7}\nnames: [x, \"y z\"]\npeers: [{name: p, addr: q}]\nlevel: warn\n"
	got, err := config.Parse(defaults(), []byte(file), config.Source{
		File: "hello.yaml", EnvPrefix: "HELLO",
		Env:  []string{"HELLO_MAX_TIMEOUT=3s", "HELLO_LIMITS_QUEUE=8", "PATH=/bin", "HELLO_WAITS=1s, 2s"},
		Args: []string{"-limits.queue=9", "--debug", "-max-timeout", "4s"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := settings{
		Addr: "file", Timeout: 4 * time.Second, Cache: 1 << 20, Ratio: 0.5, Debug: true, Level: slog.LevelWarn,
		Names: []string{"x", "y z"}, Waits: []time.Duration{time.Second, 2 * time.Second},
		Limits: limits{Queue: 9}, Peers: []peer{{"p", "q"}},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestExplainSaysWhereSettingsWereFound(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hello.yaml")
	if err := os.WriteFile(file, []byte("addr: there\nkey: hush\nlimits:\n  queue: 7\npeers: [{name: p, addr: q}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, all, err := config.Explain(defaults(), config.Source{
		File: file, EnvPrefix: "HELLO", Env: []string{"HELLO_MAX_TIMEOUT=3s", "HELLO_LIMITS_QUEUE=8"}, Args: []string{"-names=x,y"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range all {
		got[s.Name] = s.Value + " by " + filepath.Base(s.Where)
	}
	for name, want := range map[string]string{
		"addr": "there by hello.yaml:1", "key": "(hidden) by hello.yaml:2", "max_timeout": "3s by $HELLO_MAX_TIMEOUT", "limits.queue": "8 by $HELLO_LIMITS_QUEUE",
		"names": "x,y by -names", "cache": "64MiB by default", "peers": "[{name: p, addr: q}] by hello.yaml:5",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if _, _, err := config.Explain(defaults(), config.Source{Args: []string{"-small=-1"}}); err == nil {
		t.Error("a wrong setting was explained")
	}
}

func TestWrongSettingsSayWhereWhatAndHowToMend(t *testing.T) {
	tests := []struct {
		name, file string
		env, args  []string
		want       []string // in the error, in order
	}{
		{name: "unknown key", file: "addr: a\nadr: b\n", want: []string{"h.yaml:2: adr: no such setting; known here are addr, max_timeout"}},
		{name: "unknown inner key", file: "limits:\n  q: 1\n", want: []string{"h.yaml:2: limits.q: no such setting; known here are queue, least"}},
		{name: "number without unit", file: "max_timeout: 150\n", want: []string{`h.yaml:1: max_timeout: "150" is no duration`, `"150ms"`}},
		{name: "wrong unit", file: "max_timeout: 64MiB\n", want: []string{"h.yaml:1: max_timeout", "no duration"}},
		{name: "decimal size", file: "cache: 64MB\n", want: []string{"h.yaml:1: cache", `"64MiB"`}},
		{name: "huge size", file: "cache: 99999999TiB\n", want: []string{"h.yaml:1: cache"}},
		{name: "above the most", file: "max_timeout: 2m\n", want: []string{"h.yaml:1: max_timeout: 2m0s is above the most allowed, 1m"}},
		{name: "below the least", args: []string{"-limits.queue=-1"}, want: []string{"-limits.queue: limits.queue: -1 is below the least allowed, 0"}},
		{name: "does not fit", file: "small: 256\n", want: []string{"h.yaml:1: small: 256 is too large"}},
		{name: "not a number", env: []string{"H_RATIO=NaN"}, want: []string{"$H_RATIO: ratio"}},
		{name: "not a boolean", file: "debug: yes\n", want: []string{`h.yaml:1: debug: "yes" is neither true nor false`}},
		{name: "contradiction in the file", file: "limits:\n  queue: 3\n  least: 4\n", want: []string{"h.yaml:3: limits.least: 4 is above queue (3): lower it"}},
		{name: "contradiction by a flag", args: []string{"-limits.least=101"}, want: []string{"-limits.least: limits.least: 101 is above"}},
		{name: "contradiction with a default", args: []string{"-limits.queue=-0"}, file: "limits: {least: 1}", want: []string{"h.yaml:1: limits.least"}},
		{name: "invalid list item", file: "peers:\n- name: a\n  addr: b\n- name: c\n", want: []string{"default: peers[1].addr: is missing"}},
		{name: "set twice", file: "addr: a\naddr: b\n", want: []string{"h.yaml:2: addr: set twice, first in line 1"}},
		{name: "no value", file: "addr:\n", want: []string{"h.yaml:1: addr: want a single value; write one or remove the line"}},
		{name: "list for a value", file: "addr: [a]\n", want: []string{"h.yaml:1: addr: want a single value"}},
		{name: "value for a list", file: "names: a\n", want: []string{"h.yaml:1: names: want a list"}},
		{name: "value for settings", file: "limits: 3\n", want: []string{"h.yaml:1: limits: want names with values"}},
		{name: "alias", file: "names: &n [a]\n", want: []string{"h.yaml:1: names: anchors and aliases"}},
		{name: "two documents", file: "addr: a\n---\naddr: b\n", want: []string{"h.yaml: more than one document"}},
		{name: "no YAML", file: "addr: a\n\tx: b\n", want: []string{"h.yaml:2: "}},
		{name: "unknown variable", env: []string{"H_ADRR=x"}, want: []string{"$H_ADRR: no such setting"}},
		{name: "unknown flag", args: []string{"-adrr=x"}, want: []string{"-adrr"}},
		{name: "stray argument", args: []string{"-debug", "true"}, want: []string{`"true" is no flag`}},
		{name: "all problems at once", file: "adr: a\nmax_timeout: 1\n", args: []string{"-cache=1"}, want: []string{"h.yaml:1: adr", "h.yaml:2: max_timeout", "-cache: cache"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := config.Parse(defaults(), []byte(tt.file), config.Source{File: "h.yaml", EnvPrefix: "H", Env: tt.env, Args: tt.args})
			if err == nil {
				t.Fatalf("accepted: %+v", got)
			}
			rest := err.Error()
			for _, want := range tt.want {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("error lacks %q:\n%v", want, err)
				}
				rest = after
			}
			if fmt.Sprint(got) != fmt.Sprint(defaults()) {
				t.Errorf("settings came back changed: %+v", got)
			}
			if _, ok := errors.AsType[*config.Error](err); !ok {
				t.Errorf("no *config.Error in %T", err)
			}
		})
	}
}

func TestHelpListsTheFlags(t *testing.T) {
	type hello struct {
		Addr  string              `config:"addr" doc:"where calls are served"`
		Queue int                 `config:"queue_length" doc:"calls that may wait" unit:"calls"`
		Users map[string]string   `config:"users" doc:"who may call"`
		Token config.Secret       `config:"token" doc:"what callers come with"`
		Inner struct{ Deep bool } `config:"inner"`
	}
	before := hello{Addr: "127.0.0.1:7000", Token: "s3cret"}
	for _, args := range [][]string{{"-help"}, {"--help"}, {"-queue-length=3", "-h"}} {
		got, err := config.Parse(before, []byte("addr: a\n"), config.Source{File: "h.yaml", Args: args})
		if !errors.Is(err, flag.ErrHelp) || got.Addr != before.Addr || got.Queue != 0 {
			t.Fatalf("%v: %+v, %v", args, got, err)
		}
		if want := "the flags are:\n  -addr string\n    \twhere calls are served (default 127.0.0.1:7000)\n  -queue-length int\n    \tcalls that may wait\n  -token secret\n    \twhat callers come with"; !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "users") {
			t.Errorf("got %s", err)
		}
	}
	if _, err := config.Parse(before, nil, config.Source{Args: []string{"-adr=x"}}); err == nil || errors.Is(err, flag.ErrHelp) || !strings.Contains(err.Error(), "-help lists") {
		t.Errorf("an unknown flag: %v", err)
	}
}

func TestStructsThatCannotBeConfigurationAreRefused(t *testing.T) {
	if _, err := config.Describe(struct {
		C chan int `config:"c"`
	}{}, ""); err == nil || !strings.Contains(err.Error(), "setting c: a chan int cannot be a setting") {
		t.Error(err)
	}
	if _, err := config.Describe(struct {
		A int `config:"a_b"`
		B struct {
			B int `config:"b"`
		} `config:"a"`
	}{}, "X"); err == nil || !strings.Contains(err.Error(), "one name in the environment") {
		t.Error(err)
	}
	if _, err := config.Describe(struct {
		A int `config:"a" min:"5"`
	}{A: 3}, ""); err == nil || !strings.Contains(err.Error(), "default of setting a") {
		t.Error(err)
	}
	if _, err := config.Parse(3, nil, config.Source{}); err == nil {
		t.Error("an int was taken as configuration")
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	c := defaults()
	c.Key = "swordfish"
	var out bytes.Buffer
	fmt.Fprintf(&out, "%v %+v %#v %s", c, c, c, c.Key)
	slog.New(slog.NewTextHandler(&out, nil)).Info("started", "key", c.Key)
	if err := json.NewEncoder(&out).Encode(struct{ Key config.Secret }{c.Key}); err != nil {
		t.Fatal(err)
	}
	all, err := config.Describe(c, "H")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(&out, all)
	_, err = config.Parse(c, nil, config.Source{Args: []string{"-key=swordfish", "-small=-1"}})
	fmt.Fprint(&out, err)
	if strings.Contains(out.String(), "swordfish") {
		t.Errorf("the secret is in\n%s", out.String())
	}
	if got, err := config.Parse(defaults(), []byte("key: swordfish"), config.Source{}); err != nil || string(got.Key) != "swordfish" {
		t.Errorf("got %q, %v", string(got.Key), err)
	}
}

func TestSizesReadBackAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := config.Size(rapid.Int64Min(0).Draw(t, "size"))
		var got config.Size
		if err := got.UnmarshalText([]byte(want.String())); err != nil || got != want {
			t.Fatalf("%d written %q, read %d, %v", int64(want), want, int64(got), err)
		}
	})
}

func TestMapsHaveNamesOfTheOperator(t *testing.T) {
	type settings struct {
		Limits map[string]time.Duration `config:"limits" max:"1s"`
	}
	old := settings{Limits: map[string]time.Duration{"GET /old": 1}}
	got, err := config.Parse(old, []byte("limits:\n  GET /timeline: 150ms\n  POST /posts: 1s\n"), config.Source{File: "m.yaml"})
	want := map[string]time.Duration{"GET /timeline": 150 * time.Millisecond, "POST /posts": time.Second}
	if err != nil || !maps.Equal(got.Limits, want) {
		t.Errorf("got %v, %v", got.Limits, err)
	}
	if len(old.Limits) != 1 {
		t.Error("the defaults were changed")
	}
	for _, c := range []struct{ text, want string }{
		{"limits: 3", "m.yaml:1: limits: want names with values"},
		{"limits:\n  a: x", "m.yaml:2: limits.a: \"x\" is no duration"},
		{"limits:\n  a: 1s\n  a: 1s", "m.yaml:3: limits.a: set twice, first in line 2"},
		{"limits:\n  a: 2s", "m.yaml:2: limits.a: 2s is above the most allowed"},
		{"limits:\n  a: [1s]", "m.yaml:2: limits.a: want a single value"},
	} {
		if _, err := config.Parse(old, []byte(c.text), config.Source{File: "m.yaml"}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v, want one with %q", c.text, err, c.want)
		}
	}
	all, err := config.Describe(old, "X")
	if err != nil || len(all) != 1 || all[0].Type != "names with duration" || all[0].Default != "{GET /old: 1ns}" || all[0].Flag != "" || all[0].Env != "" {
		t.Errorf("described as %+v, %v", all, err)
	}
}

func TestLoadNamesAFileThatIsNotThere(t *testing.T) {
	_, err := config.Load(defaults(), config.Source{File: filepath.Join(t.TempDir(), "none.yaml")})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "none.yaml") {
		t.Error(err)
	}
}

func TestWatcherKeepsOldSettingsWhenAFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var events []string
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		write("addr: one\n")
		go func() {
			done <- config.Watcher[settings]{
				Defaults: defaults(), Source: config.Source{File: path},
				Changed: func(s settings) { events = append(events, s.Addr) },
				Refused: func(err error) { events = append(events, "refused") },
			}.Run(ctx)
		}()
		step := func(change func()) {
			change()
			time.Sleep(3 * time.Second)
			synctest.Wait()
		}
		step(func() {})
		step(func() { write("addr: two\n") })
		step(func() { write("adr: three\n") })
		step(func() { _ = os.Remove(path) })
		step(func() { write("addr: four\n") })
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if want := []string{"one", "two", "refused", "refused", "four"}; !slices.Equal(events, want) {
			t.Errorf("got %v, want %v", events, want)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("addr: a\nlimits: {queue: 3}\n", "H_SMALL=3", "-debug")
	f.Add("peers:\n- name: a\n  addr: b\n", "H_WAITS=1s,2s", "-cache=1.5KiB")
	f.Add("a: &a [*a]\n---\n", "H_", "--")
	f.Fuzz(func(t *testing.T, file, env, arg string) {
		got, err := config.Parse(defaults(), []byte(file), config.Source{File: "h.yaml", EnvPrefix: "H", Env: []string{env}, Args: []string{arg}})
		if err != nil {
			if fmt.Sprint(got) != fmt.Sprint(defaults()) {
				t.Fatalf("refused, yet changed: %+v", got)
			}
			return
		}
		if got.Limits.Queue < 0 || got.Limits.Queue > 1000 || got.Limits.Least > got.Limits.Queue || got.Timeout > time.Minute {
			t.Fatalf("accepted against its limits: %+v", got)
		}
	})
}

func ExampleDescribe() {
	type hello struct {
		Addr    string        `config:"addr" doc:"where calls are served"`
		Timeout time.Duration `config:"timeout" doc:"longest a call may take"`
		Queue   int           `config:"queue" doc:"calls that may wait" unit:"calls"`
	}
	all, err := config.Describe(hello{Addr: "127.0.0.1:7000", Timeout: time.Second, Queue: 100}, "HELLO")
	if err != nil {
		fmt.Println(err)
	}
	for _, s := range all {
		fmt.Println(s.Name, s.Env, s.Type, s.Default, s.Unit, "-", s.Doc)
	}
	// Output:
	// addr HELLO_ADDR string 127.0.0.1:7000  - where calls are served
	// timeout HELLO_TIMEOUT duration 1s  - longest a call may take
	// queue HELLO_QUEUE int 100 calls - calls that may wait
}
