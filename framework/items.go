// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/metrics"
)

// Items gives the registry of this process: what the framework measures is in it, a
// service adds its own items at start-up, and the admin pages show both.
func Items() *metrics.Registry { return process.Items() }
