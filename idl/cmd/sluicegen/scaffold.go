// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"embed"
	"errors"
	"flag"
	"fmt"
	"go/format"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"text/template"
)

//go:embed scaffold/*.tmpl
var scaffoldFiles embed.FS

const newUsage = `sluicegen new writes a module with a service that builds, passes its tests and runs.

Usage:
  sluicegen new [--dir dir] [--replace path] module [Service]

Example:
  sluicegen new example.com/greet     writes greet/, with the service Greet
  cd greet && go mod tidy && go test ./... && go run .

Flags:
`

// A scaffold is what the files of a new service say.
type scaffold struct {
	Module  string // example.com/shop-cart
	Name    string // shop-cart: as clients, metrics and pages show it
	Package string // shopcart: in the contract, and in Go
	Upper   string // SHOP_CART: begins the variables of the environment
	Service string // ShopCart
	Version string // of the framework
	Replace string // where the framework lies; empty for where Go finds it
}

var (
	modulePattern  = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*(/[A-Za-z0-9._~-]+)+$`)
	namePattern    = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	servicePattern = regexp.MustCompile(`^[A-Z][A-Za-z0-9]*$`)
)

// newModule is the command new.
func newModule(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("sluicegen new", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	dir := flags.String("dir", "", "write into `dir`, which must be empty or not there (default the last part of the module)")
	replace := flags.String("replace", "", "take the framework from `path`, a checkout of it")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, newUsage)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return nil
	} else if err != nil {
		return fmt.Errorf("new: %w; see sluicegen new --help", err)
	}
	if flags.NArg() < 1 || flags.NArg() > 2 {
		return errors.New("new: give the module, for example: sluicegen new example.com/greet; see sluicegen new --help")
	}
	s, err := newScaffold(flags.Arg(0), flags.Arg(1), *replace)
	if err != nil {
		return err
	}
	if *dir == "" {
		*dir = s.Name
	}
	if err := s.write(*dir); err != nil {
		return err
	}
	generate := &command{roots: []string{filepath.Join(*dir, "api")}, args: []string{filepath.Join(*dir, "api")}}
	if err := generate.generate(stdout, stderr); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s is there. Next:\n  cd %s && go mod tidy && go test ./... && go run .\n", s.Service, *dir)
	return nil
}

func newScaffold(module, service, replace string) (*scaffold, error) {
	name := module[strings.LastIndex(module, "/")+1:]
	switch {
	case !modulePattern.MatchString(module):
		return nil, fmt.Errorf("new: module %q: write a path such as example.com/greet", module)
	case !namePattern.MatchString(name) || len(name) > 63:
		return nil, fmt.Errorf("new: module %q: its last part names the service: at most 63 lower-case letters, digits and inner hyphens, a letter first", module)
	case service != "" && !servicePattern.MatchString(service):
		return nil, fmt.Errorf("new: service %q: write letters and digits, a capital first, as in Greeter", service)
	}
	s := &scaffold{
		Module: module, Name: name, Package: strings.ReplaceAll(name, "-", ""), Service: service, Version: "v0.0.0", // replaced, or that of the generator
		Upper: strings.ToUpper(strings.ReplaceAll(name, "-", "_")),
	}
	for part := range strings.SplitSeq(name, "-") {
		if service == "" {
			s.Service += strings.ToUpper(part[:1]) + part[1:]
		}
	}
	if replace != "" {
		abs, err := filepath.Abs(replace)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(filepath.Join(abs, "go.mod")); err != nil {
			return nil, fmt.Errorf("new: --replace %s is no checkout of the framework: %w", replace, err)
		}
		s.Replace = abs
		return s, nil
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || !fetchable(&info.Main) {
		return nil, errors.New("new: this sluicegen was built from a checkout, and Go can fetch no such version: say with --replace PATH where the checkout is")
	}
	s.Version = info.Main.Version
	return s, nil
}

// fetchable says whether Go can fetch the framework that a generator was built from: a tool
// of a module that replaces it has a version, too, which others need not find.
func fetchable(from *debug.Module) bool {
	return strings.HasPrefix(from.Version, "v") && !strings.Contains(from.Version, "+dirty") && from.Replace == nil
}

// write writes the files of a new module, or none.
func (s *scaffold) write(dir string) error {
	if there, err := os.ReadDir(dir); err == nil && len(there) > 0 {
		return fmt.Errorf("new: %s is not empty: name another directory with --dir", dir)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("new: %w", err)
	}
	all, err := template.ParseFS(scaffoldFiles, "scaffold/*.tmpl")
	if err != nil {
		return err
	}
	for _, f := range []struct{ from, to string }{
		{"go.mod", "go.mod"},
		{"contract.proto", "api/" + s.Package + "/v1/" + s.Package + ".proto"},
		{"main.go", "main.go"},
		{"service.go", "service.go"},
		{"service_test.go", "service_test.go"},
		{"settings.yaml", s.Name + ".yaml"},
	} {
		var b bytes.Buffer
		if err := all.ExecuteTemplate(&b, f.from+".tmpl", s); err != nil {
			return err
		}
		text := b.Bytes()
		if strings.HasSuffix(f.to, ".go") {
			if text, err = format.Source(text); err != nil {
				return fmt.Errorf("new: %s: %w", f.to, err)
			}
		}
		path := filepath.Join(dir, filepath.FromSlash(f.to))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("new: %w", err)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return fmt.Errorf("new: %w", err)
		}
	}
	return nil
}
