// SPDX-License-Identifier: Apache-2.0

// Command sluicegen writes the Go code of contracts: messages, typed clients and
// servers, and the table of methods with their QoS options. It needs nothing on
// PATH: it compiles .proto files itself and runs protoc-gen-go's own generator in
// process. It is a protoc and buf plugin as well. Run it with --help for the ways
// to call it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const usage = `sluicegen writes x.pb.go (messages) and x.rpc.go (clients and servers) for each x.proto.

Usage:
  sluicegen [-I dir]... [--out dir] [--check] file.proto|dir ...
  sluicegen new module   write a module with a service, see sluicegen new --help
  sluicegen --plugin     read a CodeGeneratorRequest from standard input, as protoc and buf send it

Examples:
  go tool sluicegen -I api api/greet/v1/greet.proto    writes beside the contract
  go tool sluicegen -I api api                         every .proto below api
  go tool sluicegen -I api --check api                 exit 1 and list what is out of date
  go tool sluicegen -I api --out gen api               writes gen/greet/v1/greet.pb.go, ...

As a plugin it writes x.rpc.go only; protoc-gen-go writes the messages:
  go build -o bin/protoc-gen-sluice github.com/sluice-rpc/sluice/idl/cmd/sluicegen
  buf.gen.yaml: plugins: [{local: [go, tool, sluicegen, --plugin], out: ., opt: paths=source_relative}]
google/protobuf/*.proto and qos/v1/qos.proto need no -I. protoc and buf find the latter in
  $(go list -m -f '{{.Dir}}' github.com/sluice-rpc/sluice)/idl

Flags:
`

func main() { os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr)) }

// command is what the flags ask for.
type command struct {
	roots  []string // where imports are looked up
	out    string   // where files are written; empty means beside the contract
	check  bool     // compare with what is on disk and write nothing
	plugin bool     // speak protoc's plugin protocol
	args   []string // files and directories
}

// run is main without the process: args[0] is the name it was called by. It gives
// the exit code: 1 when the contracts are wrong or out of date, 2 when the command
// line is.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 1 && args[1] == "new" {
		if err := newModule(args[2:], stdout, stderr); err != nil {
			fmt.Fprintln(stderr, "sluicegen:", err)
			return 1
		}
		return 0
	}
	cmd, err := parseFlags(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "sluicegen:", err)
		return 2
	case cmd.plugin:
		err = servePlugin(stdin, stdout)
	default:
		err = cmd.generate(stdout, stderr)
	}
	if list, ok := errors.AsType[problems](err); ok {
		fmt.Fprintln(stderr, list) // each line says where, so a prefix would be in the way
		return 1
	}
	if err != nil {
		fmt.Fprintln(stderr, "sluicegen:", err)
		return 1
	}
	return 0
}

func parseFlags(args []string, stdout io.Writer) (*command, error) {
	cmd := &command{}
	flags := flag.NewFlagSet("sluicegen", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Func("I", "look up contracts and imports in `dir`; repeatable, the first that has a file wins (default .)", func(dir string) error {
		cmd.roots = append(cmd.roots, dir)
		return nil
	})
	flags.StringVar(&cmd.out, "out", "", "write below `dir` instead of beside the contracts")
	flags.BoolVar(&cmd.check, "check", false, "write nothing; list the files that are out of date and exit 1")
	flags.BoolVar(&cmd.plugin, "plugin", false, "act as a protoc or buf plugin; so it does under the name protoc-gen-sluice")
	err := flags.Parse(args[1:])
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w; see sluicegen --help", err)
	}
	cmd.args = flags.Args()
	if strings.TrimSuffix(filepath.Base(args[0]), ".exe") == "protoc-gen-sluice" {
		cmd.plugin = true
	}
	if cmd.plugin {
		return cmd, nil
	}
	if len(cmd.args) == 0 {
		return nil, errors.New("no contract given: name .proto files or directories, for example: sluicegen -I api api; see sluicegen --help")
	}
	for _, arg := range cmd.args {
		if strings.HasPrefix(arg, "-") {
			return nil, fmt.Errorf("flag %s stands after a file: put flags first; see sluicegen --help", arg)
		}
	}
	if len(cmd.roots) == 0 {
		cmd.roots = []string{"."}
	}
	return cmd, nil
}

// generate compiles the contracts, makes every file in memory, and only when
// nothing is wrong brings the disk up to date.
func (cmd *command) generate(stdout, stderr io.Writer) error {
	src, err := findSources(cmd.roots, cmd.args)
	if err != nil {
		return err
	}
	req, warnings, err := src.compile()
	if err != nil {
		return err
	}
	for _, w := range warnings {
		w.text = "warning: " + w.text
		fmt.Fprintln(stderr, w)
	}
	if err := src.checkPlaces(req, cmd.out); err != nil {
		return err
	}
	files, err := generateAll(req, src.display)
	if err != nil {
		return err
	}
	disk, err := src.plan(files, cmd.out)
	if err != nil {
		return err
	}
	if cmd.check {
		return disk.check(stdout)
	}
	return disk.apply()
}
