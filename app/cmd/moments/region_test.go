// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/topology"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// numbersOf reads which number each region of a directory has.
func numbersOf(t *testing.T, data string) map[string]uint32 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(data, "regions.json"))
	numbers := map[string]uint32{}
	if err == nil {
		err = json.Unmarshal(b, &numbers)
	}
	if err != nil {
		t.Fatal(err)
	}
	return numbers
}

// refuses wants an error that says so.
func refuses(t *testing.T, want string, args ...string) {
	t.Helper()
	if out, err := tool(t.Context(), args...); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("moments %s: %v, want something about %q:\n%s", strings.Join(args, " "), err, want, out)
	}
}

// idOf finds somebody by his name in a region.
func idOf(t *testing.T, data, name string) string {
	t.Helper()
	res, err := mustDial(t, data).accounts.FindUser(toolContext(t.Context(), "moments region"), &momentsv1.FindUserRequest{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return res.GetProfile().GetUserId()
}

// TestRegion: the commands that have a region join and leave, and what they refuse.
func TestRegion(t *testing.T) {
	data := filepath.Join(t.TempDir(), "sea")
	refuses(t, "no regions run on", "region", "--data", data)
	cmd, _ := launch(t, "up", "--regions", "SH,HK", "--addr", "127.0.0.1:0", "--ocean", "127.0.0.1:0", "--console", "off", "--password-cost", "min", "--delay", "1ms", "--data", data)
	says(t, 0, []string{"SH ", "HK "}, "region", "--data", data)
	for _, c := range []struct {
		want string
		args []string
	}{
		{"region sh is there already", []string{"join", "SH"}},
		{"lower-case letters", []string{"join", "s_g"}},
		{"lower-case letters", []string{"join", "a/b"}},
		{"lower-case letters", []string{"join", ""}},
		{"certificates", []string{"join", "certs"}},
		{"there is no region sg", []string{"leave", "SG"}},
		{"there is no region a/b", []string{"leave", "a/b"}},
		{"only 1 regions would be left", []string{"leave", "HK"}},
		{"only 1 regions would be left", []string{"leave", "HK", "--anyway"}},
	} {
		refuses(t, c.want, append([]string{"region", "--data", data}, c.args...)...)
	}
	refuses(t, "arg", "region", "join", "--data", data)

	if err := os.Mkdir(filepath.Join(data, "jp"), 0o700); err != nil {
		t.Fatal(err)
	}
	refuses(t, "is of no region that has a number", "region", "join", "jp", "--data", data)
	numbers, err := os.ReadFile(filepath.Join(data, "regions.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ numbers, want string }{
		{`{"sh":1,"hk":2,"ca":2}`, "the number 2 to both ca and hk"},
		{`{"sh":1,"hk":2,"ca":0}`, "the number 0: want 1 to 255"},
		{`{"sh":1,"hk":2,"ca":256}`, "the number 256: want 1 to 255"},
		{`{"sh":1,"hk":2,"old":255}`, "all 255 numbers"},
		{`{"sh":`, "read the numbers"},
	} {
		if err := os.WriteFile(filepath.Join(data, "regions.json"), []byte(c.numbers), 0o600); err != nil {
			t.Fatal(err)
		}
		refuses(t, c.want, "region", "join", "ca", "--data", data)
	}
	if err := os.WriteFile(filepath.Join(data, "regions.json"), numbers, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := numbersOf(t, data); len(got) != 2 {
		t.Errorf("what was refused has a number: %v", got)
	}

	for number := uint32(3); number <= 4; number++ { // none is given again
		says(t, 0, []string{"CA has joined"}, "region", "join", "CA", "--data", data)
		says(t, 0, []string{"SH ", "HK ", "CA "}, "region", "--data", data)
		if got := numbersOf(t, data)["ca"]; got != number {
			t.Errorf("it has number %d, want %d", got, number)
		}
		refuses(t, "people are at home in sh", "region", "leave", "SH", "--data", data)
		sh, ca := filepath.Join(data, "sh"), filepath.Join(data, "ca")
		says(t, 0, []string{"at home in ca"}, "rehome", "wang-sh", "--to", "ca", "--data", sh)
		refuses(t, "1 people are at home in ca", "region", "leave", "CA", "--data", data)
		says(t, 0, []string{"people               1\n"}, "rebuild", "--all", "--data", ca)
		says(t, 0, []string{"people               0\n"}, "rebuild", "--all", "--data", sh)
		refuses(t, "kept in region", "rebuild", "--user", idOf(t, sh, "wang-sh"), "--data", sh)
		says(t, 0, []string{"at home in sh"}, "rehome", "wang-sh", "--to", "sh", "--data", ca)
		says(t, 0, []string{"CA has left"}, "region", "leave", "CA", "--data", data)
		refuses(t, "there is no region ca", "region", "leave", "CA", "--data", data)
	}
	stop(t, cmd)
}

// TestJoinFails: a region that does not come up, or that not all others hear of, has not
// joined: none waits for its number, and it joins when it is tried again.
func TestJoinFails(t *testing.T) {
	t.Setenv(mainEnv, "1")
	dir := t.TempDir()
	data, broken, binary := filepath.Join(dir, "sea"), filepath.Join(dir, "broken"), filepath.Join(dir, "moments")
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *ca.yaml*) [ ! -e %q ] || exit 7;; esac\nexec %q \"$@\"\n", broken, os.Args[0])
	if err := os.WriteFile(binary, []byte(script), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	world, err := cluster.NewWorld(t.Context(), cluster.WorldConfig{
		Dir: data, Regions: []string{"sh", "hk"}, Addr: "127.0.0.1:0", Binary: binary, Flags: []string{"--password-cost", "min"}, Stderr: t.Output(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := world.Join(t.Context(), "ca"); err == nil {
		t.Error("a region joins others that do not run")
	}
	if err := world.Leave(t.Context(), "hk"); err == nil {
		t.Error("a region leaves others that do not run")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	up := make(chan struct{})
	go func() {
		ended <- world.Run(ctx, func(ctx context.Context) error {
			close(up)
			<-ctx.Done()
			return nil
		})
	}()
	defer func() { // before the files are removed
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-up:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}

	_, err = world.Join(t.Context(), "ca")
	if err == nil || !strings.Contains(err.Error(), "region ca has not joined") || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("a process that ends: %v", err)
	}
	forgotten(t, world, data, 3)
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}

	hk, err := world.State("hk")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(hk.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	short, done := context.WithTimeout(t.Context(), 2*time.Second)
	_, err = world.Join(short, "ca")
	done()
	if again := syscall.Kill(hk.PID, syscall.SIGCONT); again != nil {
		t.Fatal(again)
	}
	if err == nil || !strings.Contains(err.Error(), "region ca has not joined") {
		t.Errorf("one that does not hear of it: %v", err)
	}
	forgotten(t, world, data, 4)

	ca, err := world.Join(t.Context(), "ca")
	if err != nil || ca.Number != 5 {
		t.Fatalf("the next try: %+v, %v", ca, err)
	}
	if err := world.Complete(t.Context(), "ca"); err != nil {
		t.Error(err)
	}
	if err := world.Leave(t.Context(), "nobody"); err == nil || !strings.Contains(err.Error(), "no region nobody") {
		t.Errorf("one that is not there leaves: %v", err)
	}
	if err := world.Leave(t.Context(), "ca"); err != nil {
		t.Error(err)
	}
	forgotten(t, world, data, 5)
}

// forgotten waits until nobody waits for a region any more: its number has ended in all that
// know it, it is in no list, and its name is free.
func forgotten(t *testing.T, world *cluster.World, data string, number id.Region) {
	t.Helper()
	if regions, lines := world.Regions(), world.Lines(); len(regions) != 2 || len(lines) != 1 {
		t.Errorf("there are %v, %v", regions, lines)
	}
	numbers := numbersOf(t, data)
	if _, there := numbers["ca"]; there || numbers[fmt.Sprintf("ca.left-%d", number)] != uint32(number) {
		t.Errorf("the numbers are %v", numbers)
	}
	for _, gone := range []string{"ca", "ca.yaml"} {
		if _, err := os.Lstat(filepath.Join(data, gone)); err == nil {
			t.Errorf("%s is there", gone)
		}
	}
	for _, r := range world.Regions() {
		until(t, fmt.Sprintf("%s has forgotten region %d", r.Name, number), func() bool {
			pages, err := cluster.Queues(t.Context(), r.Dir)
			if err != nil {
				return false
			}
			for _, page := range pages {
				if page.Queue.Peer(number) != nil {
					return false
				}
			}
			return slices.ContainsFunc(pages[topology.Comment].Causality.Members, func(m cluster.Member) bool { return m.Number == number && m.State == "left" })
		})
	}
}
