// SPDX-License-Identifier: Apache-2.0

// Command callgraph runs a small system of five services under steady load, and shows
// its call graph in the console. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if err := command(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "callgraph:", err)
		}
		os.Exit(1)
	}
}

// command is main without the process: this program is its own services too.
func command(args []string, stdout, stderr io.Writer) error {
	if name := os.Getenv(envService); name != "" {
		return serve(context.Background(), name, os.Stdin)
	}
	flags := flag.NewFlagSet("callgraph", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("console", "127.0.0.1:7900", "host:port of the console; port 0 takes a free one")
	rate := flags.Float64("rate", 60, "requests a second, 1 to 1000")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is no flag: see -help", flags.Arg(0))
	}
	if !(*rate >= 1 && *rate <= 1000) {
		return fmt.Errorf("-rate %v: want 1 to 1000", *rate)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	return run(ctx, *addr, *rate, func(s *system) {
		_, _ = fmt.Fprintf(stdout, `The console is at http://%s
The shop is at http://%s/product?item=7 and /search?item=7
Stop with Ctrl-C.
`, s.console, s.web)
	})
}
