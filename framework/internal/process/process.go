// SPDX-License-Identifier: Apache-2.0

// Package process holds what there is one of in a process, however many servers,
// entries and clients run in it.
package process

import (
	"sync"

	"github.com/sluice-rpc/sluice/framework/metrics"
)

var items = sync.OnceValue(func() *metrics.Registry {
	r := metrics.NewRegistry(metrics.Config{})
	r.Process()
	return r
})

// Items gives the registry of all items of this process.
func Items() *metrics.Registry { return items() }
