// SPDX-License-Identifier: Apache-2.0

// Package config fills a struct of settings from its defaults, a file, the
// environment and flags, each overriding the one before, and says where a wrong
// value came from and how to mend it.
//
// A field is a setting if it has a config tag, its name in the file:
//
//	type Config struct {
//		Addr    string        `config:"addr" doc:"where calls are served"`
//		Timeout time.Duration `config:"timeout" doc:"longest a call may take" min:"1ms" max:"1m"`
//		Queue   int           `config:"queue" doc:"calls that may wait" unit:"calls" min:"0"`
//		Cache   config.Size   `config:"cache" doc:"memory for blocks"`
//		Key     config.Secret `config:"key" doc:"signs the tokens"`
//		Limits  Limits        `config:"limits"`
//	}
//
// With the prefix HELLO the timeout is also read from $HELLO_TIMEOUT and from
// -timeout, a field of Limits from $HELLO_LIMITS_NAME and -limits.name. Settings
// are strings, booleans, numbers, [time.Duration], [Size], [Secret], whatever is an
// [encoding.TextUnmarshaler], structs, slices of these, and maps from a string to a
// single value, for names that are the operator's own. The environment and flags
// know neither maps nor slices of structs; of other slices they part the values by
// commas.
//
// A struct, also an inner one, that has a method Validate() error is asked for
// contradictions last; it names the field at fault with [Wrong].
package config

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"
)

// Source says where settings are read, beyond the defaults.
type Source struct {
	File      string   // path of a YAML file; empty for none, else it must be there
	EnvPrefix string   // prefix of the variables, without its underscore; empty reads none
	Env       []string // variables as os.Environ gives them
	Args      []string // flags as in os.Args[1:], nothing else
}

// Load gives defaults overridden by what src says. The error holds all that is
// wrong, an [*Error] each, joined. To the flag -help it is [flag.ErrHelp], and its text is
// all flags with what they set.
func Load[T any](defaults T, src Source) (T, error) {
	text, err := src.read()
	if err != nil {
		return defaults, err
	}
	return Parse(defaults, text, src)
}

func (src Source) read() ([]byte, error) {
	if src.File == "" {
		return nil, nil
	}
	text, err := os.ReadFile(src.File)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return text, nil
}

// Parse is Load with the text of the file given; src.File only names it in errors.
// It reads no file and no environment of its own.
func Parse[T any](defaults T, text []byte, src Source) (T, error) {
	config, _, err := parse(defaults, text, src)
	return config, err
}

// InEffect is one setting as it was found, for who operates the program.
type InEffect struct {
	Setting
	Value string // secrets are not shown
	Where string // "hello.yaml:12", "$HELLO_TIMEOUT", "-timeout" or "default"
}

// Explain is Load that also says what each setting is, in the order of the fields, and
// where that was found.
func Explain[T any](defaults T, src Source) (T, []InEffect, error) {
	text, err := src.read()
	if err != nil {
		return defaults, nil, err
	}
	config, origin, err := parse(defaults, text, src)
	if err != nil {
		return defaults, nil, err
	}
	known, err := Describe(defaults, src.EnvPrefix)
	if err != nil {
		return defaults, nil, err
	}
	now, err := Describe(config, src.EnvPrefix)
	if err != nil {
		return defaults, nil, err
	}
	all := make([]InEffect, len(now))
	for i, s := range now {
		where, found := origin[s.Name]
		if !found {
			where = "default"
		}
		all[i] = InEffect{Setting: known[i], Value: s.Default, Where: where}
	}
	return config, all, nil
}

// parse also gives where each setting that is no default was found.
func parse[T any](defaults T, text []byte, src Source) (T, map[string]string, error) {
	config := defaults
	root := reflect.ValueOf(&config).Elem()
	all, err := settings(root, src.EnvPrefix)
	if err != nil {
		return defaults, nil, err
	}
	p := parser{file: src.File, origin: map[string]string{}}
	p.parseFile(text, root)
	p.parseEnv(src, all)
	if asked := p.parseArgs(src.Args, all); asked {
		return defaults, nil, helpError(usage(all))
	}
	if len(p.problems) == 0 {
		p.validate(root, "")
	}
	if len(p.problems) > 0 {
		return defaults, nil, errors.Join(p.problems...)
	}
	return config, p.origin, nil
}

// Error is one thing that is wrong with a setting.
type Error struct {
	Where   string // "hello.yaml:12", "$HELLO_TIMEOUT", "-timeout", "default"; empty if unknown
	Setting string // "limits.queue"; empty if the problem is not one setting's
	Problem string // what is wrong and how to mend it
}

// Error gives where, setting and problem.
func (e *Error) Error() string {
	var parts []string
	for _, part := range []string{e.Where, e.Setting, e.Problem} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

// Wrong is how a Validate method names the field at fault, by its name in the
// file; an inner struct's field is named with a dot. What the problem says should
// tell how to mend it.
func Wrong(setting, format string, args ...any) error {
	return &Error{Setting: setting, Problem: fmt.Sprintf(format, args...)}
}

// parser collects what is wrong, and where each setting was last set.
type parser struct {
	file     string
	origin   map[string]string
	problems []error
}

func (p *parser) wrong(where, setting, format string, args ...any) {
	p.problems = append(p.problems, &Error{Where: where, Setting: setting, Problem: fmt.Sprintf(format, args...)})
}

func (p *parser) parseEnv(src Source, all []Setting) {
	if src.EnvPrefix == "" {
		return
	}
	known := map[string]Setting{}
	for _, s := range all {
		known[s.Env] = s
	}
	for _, pair := range src.Env {
		name, text, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, src.EnvPrefix+"_") {
			continue
		}
		s, ok := known[name]
		if !ok {
			p.wrong("$"+name, "", "no such setting; unset it, or mend the name")
			continue
		}
		p.set("$"+name, s, text)
	}
}

// parseArgs says whether the flags ask which ones there are.
func (p *parser) parseArgs(args []string, all []Setting) (help bool) {
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	for _, s := range all {
		if s.Flag == "" {
			continue
		}
		set := func(text string) error {
			p.set("-"+s.Flag, s, text)
			return nil
		}
		if s.value.Kind() == reflect.Bool {
			flags.BoolFunc(s.Flag, s.Doc, set)
		} else {
			flags.Func(s.Flag, s.Doc, set)
		}
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return true
	case err != nil:
		p.wrong("", "", "%v; -help lists the flags there are", err)
	case flags.NArg() > 0:
		p.wrong("", "", "%q is no flag: a value follows its flag directly or after =", flags.Arg(0))
	}
	return false
}

// helpError is what becomes of the flag -help.
type helpError string

func (e helpError) Error() string { return string(e) }

func (helpError) Is(target error) bool { return target == flag.ErrHelp }

// usage lists the flags as package flag does, without defaults that are nothing: these
// often stand for another one.
func usage(all []Setting) string {
	var b strings.Builder
	b.WriteString("the flags are:")
	for _, s := range all {
		if s.Flag == "" {
			continue
		}
		fmt.Fprintf(&b, "\n  -%s %s\n    \t%s", s.Flag, s.Type, s.Doc)
		switch s.Default {
		case "", "0", "0s", "false":
		default:
			fmt.Fprintf(&b, " (default %s)", s.Default)
		}
	}
	return b.String()
}

// set gives one setting the value that an environment variable or a flag says.
func (p *parser) set(where string, s Setting, text string) {
	p.origin[s.Name] = where
	if s.value.Kind() != reflect.Slice || isScalar(s.value.Type()) {
		p.setScalar(where, s.Name, s.field, s.value, text)
		return
	}
	var parts []string
	if text != "" {
		parts = strings.Split(text, ",")
	}
	list := reflect.MakeSlice(s.value.Type(), len(parts), len(parts))
	for i, part := range parts {
		p.setScalar(where, s.Name, s.field, list.Index(i), strings.TrimSpace(part))
	}
	s.value.Set(list)
}

func (p *parser) setScalar(where, name string, f field, v reflect.Value, text string) {
	if err := parseScalar(v, text); err != nil {
		p.wrong(where, name, "%v", err)
		return
	}
	if err := f.inRange(v); err != nil {
		p.wrong(where, name, "%v", err)
	}
}

// validate asks inner structs before outer ones: an outer one may rely on them.
func (p *parser) validate(v reflect.Value, path string) {
	for _, f := range fieldsOf(v.Type()) {
		inner, name := v.FieldByIndex(f.index), join(path, f.name)
		switch {
		case isStruct(inner.Type()):
			p.validate(inner, name)
		case inner.Kind() == reflect.Slice && isStruct(inner.Type().Elem()):
			for i := range inner.Len() {
				p.validate(inner.Index(i), fmt.Sprintf("%s[%d]", name, i))
			}
		}
	}
	checked, ok := v.Addr().Interface().(interface{ Validate() error })
	if !ok {
		return
	}
	err := checked.Validate()
	if err == nil {
		return
	}
	list := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	}
	for _, err := range list {
		wrong, ok := errors.AsType[*Error](err)
		if !ok {
			p.wrong(p.origin[path], path, "%v", err)
			continue
		}
		name := join(path, wrong.Setting)
		where, set := p.origin[name]
		if !set {
			where = "default"
		}
		p.wrong(where, name, "%s", wrong.Problem)
	}
}

// Watcher reads a file of settings again whenever it changes.
type Watcher[T any] struct {
	Defaults T
	Source   Source
	Every    time.Duration // how often the file is looked at; 0 means a second
	// Changed takes the settings that the file holds when Run starts, and then
	// after each change.
	Changed func(T)
	// Refused takes what is wrong with a changed file, once a change; the settings
	// taken before go on.
	Refused func(error)
}

// Run watches until ctx ends, then returns nil. It calls Changed and Refused one
// at a time.
func (w Watcher[T]) Run(ctx context.Context) error {
	if w.Source.File == "" {
		return errors.New("watch configuration: no file is named: set Source.File")
	}
	every := w.Every
	if every == 0 {
		every = time.Second
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	// The content is compared, not the time of change: a file put in place by a
	// link, as orchestrators do, may carry an older one.
	var last []byte
	var lastFailure string
	for first := true; ; first = false {
		text, err := w.Source.read()
		switch {
		case err != nil:
			if err.Error() != lastFailure {
				w.Refused(err)
			}
			lastFailure = err.Error()
		case first || lastFailure != "" || !bytes.Equal(text, last):
			last, lastFailure = text, ""
			config, err := Parse(w.Defaults, text, w.Source)
			if err != nil {
				w.Refused(err)
			} else {
				w.Changed(config)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
