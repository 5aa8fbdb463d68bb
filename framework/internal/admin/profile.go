// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"runtime/pprof"
	"runtime/trace"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The bounds of profiles that take time.
const (
	defaultCPUSeconds   = 10
	defaultTraceSeconds = 1
	maxCPUSeconds       = 60
	maxTraceSeconds     = 10
)

// Package net/http/pprof is not used: it serves its pages to whoever reaches any server
// that a program makes of http.DefaultServeMux.

// profiles is the page of the profiles that can be taken.
func (d *Dashboard) profiles(_ *http.Request, q *query) (*page, error) {
	type profileView struct {
		Name  string `json:"name"`
		Path  string `json:"path"`
		Count int    `json:"count,omitzero"`
	}
	views := []profileView{{Name: "profile", Path: "/admin/pprof/profile"}, {Name: "trace", Path: "/admin/pprof/trace"}}
	for _, p := range pprof.Profiles() {
		views = append(views, profileView{p.Name(), "/admin/pprof/" + p.Name(), p.Count()})
	}
	about := map[string]phrase{
		"profile":   say("where processor time goes: ?seconds=1 to %d", maxCPUSeconds),
		"trace":     say("what the runtime does, for go tool trace: ?seconds=1 to %d", maxTraceSeconds),
		"allocs":    say("where memory was allocated since the start"),
		"heap":      say("where the memory in use was allocated"),
		"goroutine": say("where all goroutines stand"),
		"block":     say("where goroutines wait for each other, if the program has switched that on"),
		"mutex":     say("who holds locks that others wait for, if the program has switched that on"),
	}
	t := &table{Columns: []column{{say("profile"), left}, {Name: say("entries")}, {say("read it"), left}, {say("what it shows"), prose}}}
	for _, v := range views {
		row := []cell{{Text: v.Name, Href: v.Path}, none, {}, {Text: about[v.Name]}}
		if v.Count > 0 {
			row[1] = count(uint64(v.Count))
			row[2] = cell{Text: say("as text"), Href: v.Path + "?debug=1"}
		}
		if v.Name == "goroutine" {
			row[2] = cell{Text: say("as text"), Href: v.Path + "?debug=2"}
		}
		t.Rows = append(t.Rows, row)
	}
	return &page{
		Title: say("Profiles"), Says: say("go tool pprof reads them from these addresses."), Data: views, Parts: []part{{Table: t}},
	}, nil
}

// profile writes one profile.
func (d *Dashboard) profile(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	var body bytes.Buffer
	media, err := "application/octet-stream", error(nil)
	switch {
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", "GET")
		err = fail(http.StatusMethodNotAllowed, "profiles are read with GET")
	case r.Header.Get("Sec-Fetch-Site") == "cross-site":
		err = fail(http.StatusForbidden, "cross-origin request: profiles are not for other sites to have taken")
	case name == "profile":
		err = during(r, defaultCPUSeconds, maxCPUSeconds, func() error { return pprof.StartCPUProfile(&body) }, pprof.StopCPUProfile)
	case name == "trace":
		err = during(r, defaultTraceSeconds, maxTraceSeconds, func() error { return trace.Start(&body) }, trace.Stop)
	default:
		p := pprof.Lookup(name)
		debug := 0
		if text := r.FormValue("debug"); text != "" {
			if debug, err = strconv.Atoi(text); err != nil || debug < 0 || debug > 2 {
				err = fail(http.StatusBadRequest, "debug: %q is none: want 0, 1 or 2", cut(text))
				break
			}
		}
		if p == nil {
			err = fail(http.StatusNotFound, "profile %q: there is none: want %s", cut(name), strings.Join(profileNames(), ", "))
			break
		}
		if debug > 0 {
			media = "text/plain; charset=utf-8"
		}
		err = p.WriteTo(&body, debug)
	}
	if err != nil {
		sendError(w, r, "text", statusOf(err), err)
		return
	}
	if media != "text/plain; charset=utf-8" {
		w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
	}
	send(w, r, http.StatusOK, media, body.Bytes())
}

func profileNames() []string {
	names := []string{"profile", "trace"}
	for _, p := range pprof.Profiles() {
		names = append(names, p.Name())
	}
	slices.Sort(names)
	return names
}

// during runs something for as many seconds as the request says, or until the client
// leaves or the server stops.
func during(r *http.Request, standard, most int, start func() error, stop func()) error {
	n := standard
	if text := r.FormValue("seconds"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 || n > most {
			return fail(http.StatusBadRequest, "seconds: %q is none: want 1 to %d", cut(text), most)
		}
	}
	if err := start(); err != nil {
		return &failure{http.StatusConflict, fmt.Errorf("another one is being taken: %w", err)}
	}
	t := time.NewTimer(time.Duration(n) * time.Second)
	defer t.Stop()
	defer stop()
	select {
	case <-t.C:
		return nil
	case <-r.Context().Done():
		return &failure{http.StatusServiceUnavailable, errors.New("the server stops, or nobody waits any more")}
	}
}
