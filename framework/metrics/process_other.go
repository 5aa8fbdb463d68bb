// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package metrics

import "time"

// system registers what is known of the process elsewhere than on Linux.
func (r *Registry) system() {
	started := seconds(time.Now())
	r.GaugeFunc(Desc{"process.start_time", "When the process started, since 1970.", Seconds}, func() float64 { return started })
}
