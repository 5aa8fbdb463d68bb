// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal gives both ends of a pseudo terminal: what a person holds, and what the
// program does.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo terminals here:", err)
	}
	t.Cleanup(func() { _ = person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

// TestKeys plays a person at a terminal: five times the load, admission off, quit.
func TestKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("keeps all cores busy for some seconds")
	}
	person, program := terminal(t)
	before, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envCommand+"=1", "TERM=xterm", "NO_COLOR=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	var shown strings.Builder
	until := func(text string) {
		t.Helper()
		b := make([]byte, 4096)
		for from := shown.Len(); !strings.Contains(shown.String()[from:], text); {
			n, err := person.Read(b)
			if err != nil {
				t.Fatalf("never shown: %s: %v\n%s", text, err, shown.String())
			}
			shown.Write(b[:n])
		}
	}
	press := func(key string) {
		t.Helper()
		if _, err := person.WriteString(key); err != nil {
			t.Fatal(err)
		}
	}
	until("load 1x     admission on")
	press("5")
	until("load 5x     admission on")
	press("o")
	until("starting middle and leaf again with admission off")
	until("load 5x     admission OFF")
	press("1")
	until("load 1x     admission OFF")
	press("x") // means nothing
	press("q")
	until("tasks a second; each class")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if strings.Contains(shown.String(), "\x1b[3") || strings.Contains(shown.String(), "\x1b[1m") {
		t.Error("colours in spite of NO_COLOR")
	}
	after, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if *before != *after {
		t.Errorf("the terminal is not as it was: %+v, before %+v", after, before)
	}
}
