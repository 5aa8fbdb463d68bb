// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"cmp"
	"net/http"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"strings"
)

// buildView is how the program was built, as the page shows it.
type buildView struct {
	Path       string       `json:"path"`
	Module     string       `json:"module"`
	Version    string       `json:"version"`
	Go         string       `json:"go"`
	System     string       `json:"system"`
	Processors int          `json:"gomaxprocs"`
	Why        phrase       `json:"gomaxprocs_why"`
	CPUs       int          `json:"cpus"`
	Limit      string       `json:"memory_limit,omitzero"`
	Settings   []pair       `json:"settings"`
	Deps       []dependency `json:"dependencies"`
}

type pair struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Sum     string `json:"sum,omitzero"`
	Replace string `json:"replace,omitzero"`
}

// build is the page of what the program is made of and what it may use.
func (d *Dashboard) build(r *http.Request, q *query) (*page, error) {
	v := buildView{
		Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Processors: runtime.GOMAXPROCS(0), CPUs: runtime.NumCPU(), Settings: []pair{}, Deps: []dependency{},
	}
	v.Why = whyProcessors(v.Processors, v.CPUs, os.Getenv("GOMAXPROCS"), cgroupCPUs())
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Path, v.Module, v.Version = info.Path, info.Main.Path, info.Main.Version
		for _, s := range info.Settings {
			if q.finds(s.Key, s.Value) {
				v.Settings = append(v.Settings, pair{s.Key, s.Value})
			}
		}
		for _, m := range info.Deps {
			dep := dependency{Path: m.Path, Version: m.Version, Sum: m.Sum}
			if m.Replace != nil {
				dep.Replace = m.Replace.Path + " " + m.Replace.Version
			}
			if q.finds(dep.Path, dep.Version, dep.Replace) {
				v.Deps = append(v.Deps, dep)
			}
		}
	}
	deps, g := paged(r, q, v.Deps)
	v.Deps = deps
	p := &page{Title: say("Build"), Pager: g, Data: v}
	settings := &table{Columns: []column{{say("setting"), left}, {say("value"), prose}}, Empty: say("Nothing was noted when it was built.")}
	for _, s := range v.Settings {
		settings.Rows = append(settings.Rows, []cell{{Text: s.Name, Code: true}, {Text: s.Value, Code: true}})
	}
	modules := &table{Columns: []column{{say("module"), left}, {say("version"), left}, {say("replaced by"), left}}, Empty: say("There is no such module.")}
	for _, m := range v.Deps {
		modules.Rows = append(modules.Rows, []cell{{Text: m.Path, Code: true}, {Text: m.Version, Code: true}, {Text: m.Replace, Code: true}})
	}
	p.Parts = []part{
		{Facts: []fact{
			{say("program"), cell{Text: v.Path, Code: true}},
			{say("version"), cell{Text: strings.TrimSpace(v.Module + " " + v.Version), Code: true}},
			{say("built with"), cell{Text: v.Go}},
			{say("for"), cell{Text: v.System}},
			{say("processors"), cell{Text: say("%d: %v", v.Processors, v.Why)}},
		}},
		{Title: say("How it was built"), Table: settings},
		{Title: say("Modules in it"), Table: modules},
	}
	return p, nil
}

// whyProcessors says where GOMAXPROCS comes from. Go reads the environment first, then
// takes the processors that the process may run on, or a lower limit of its cgroup,
// rounded up and at least two (runtime.GOMAXPROCS, Go 1.25).
func whyProcessors(procs, cpus int, env, cgroup string) phrase {
	switch {
	case env == "" && procs == cpus+1:
		return say("the %d that this process may run on, and one more, since netpoll's poller holds one while it waits", cpus)
	case env != "":
		return say("the environment says GOMAXPROCS=%s", env)
	case procs == cpus:
		return say("the processors that this process may run on")
	case cgroup != "" && procs < cpus:
		return say("its cgroup is limited to cpu.max %s, of %d processors", cgroup, cpus)
	}
	return say("set by the program, of %d processors", cpus)
}

// cgroupCPUs gives the limit of the process's cgroup as version 2 writes it, empty if
// there is none.
func cgroupCPUs() string {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(text) {
		group, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "0::")
		if !ok {
			continue
		}
		for ; ; group = path.Dir(group) {
			limit, err := os.ReadFile(path.Join("/sys/fs/cgroup", group, "cpu.max"))
			if quota, _, _ := strings.Cut(string(limit), " "); err == nil && cmp.Or(quota, "max") != "max" {
				return strings.TrimSpace(string(limit))
			}
			if group == "/" || group == "." {
				break
			}
		}
	}
	return ""
}
