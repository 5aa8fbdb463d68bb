// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"runtime"
	"runtime/debug"
	"time"
)

// Process registers the items of the process: Go's runtime, what the system says of
// the process (on Linux), and which build it is. It is called once.
func (r *Registry) Process() {
	r.goRuntime()
	r.system()
	version, revision := build()
	r.GaugeFunc(Desc{"sluice.build", "Always 1; the labels say which build runs.", "{build}"}, func() float64 { return 1 },
		Label{"version", version}, Label{"revision", revision}, Label{"go", runtime.Version()})
}

// build gives the version of the main module and the revision it was built from.
func build() (version, revision string) {
	version, revision = "unknown", "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version, revision
	}
	if info.Main.Version != "" {
		version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value
		}
	}
	return version, revision
}

// seconds gives a point in time as Prometheus writes it.
func seconds(t time.Time) float64 { return float64(t.UnixNano()) / float64(time.Second) }
