// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"sync"

	"github.com/sluice-rpc/sluice/framework/internal/process"
)

var observer = sync.OnceValue(func() *Observer {
	return &Observer{Items: process.Items(), Graph: process.Graph()}
})

// ProcessObserver gives where this process counts its calls.
func ProcessObserver() *Observer { return observer() }
