// SPDX-License-Identifier: Apache-2.0

// Command overload shows a system of three tiers at five times its load: it starts
// the tiers as processes of this machine, sends them work and draws each second what
// becomes of it. See README.md.
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
	"time"
)

func main() {
	if err := command(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "overload:", err)
		}
		os.Exit(1)
	}
}

// command is main without the process: this program is its own tiers too.
func command(args []string, stdout, stderr io.Writer) error {
	if tier := os.Getenv(envTier); tier != "" {
		return runTier(context.Background(), tier, os.Stdin)
	}
	flags := flag.NewFlagSet("overload", flag.ContinueOnError)
	flags.SetOutput(stderr)
	seconds := flags.Int("seconds", 0, "end after so many seconds and print a summary; 0 runs until q or Ctrl-C")
	text := flags.String("script", "", `what happens when, "0s:1,5s:5,10s:1": a number is the load in multiples of the usual one, on and off switch admission`)
	if err := flags.Parse(args); err != nil {
		return err
	}
	script, err := parseScript(*text)
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("%q is no flag: see -help", flags.Arg(0))
	}
	if err == nil && *seconds < 0 {
		err = fmt.Errorf("-seconds %d: want 0 or more", *seconds)
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	screen, err := newScreen(os.Stdin, stdout)
	if err != nil {
		return err
	}
	seen, err := demo{Length: time.Duration(*seconds) * time.Second, Script: script, Screen: screen}.run(ctx)
	if err = errors.Join(err, screen.close()); err != nil {
		return err
	}
	return seen.summarize(stdout)
}
