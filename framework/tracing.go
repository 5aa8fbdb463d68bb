// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/tracing"
)

// Tracer gives what decides which requests of this process are traced, and keeps the
// records of its calls, whichever servers, clients and entries make them. SetExporter
// takes the records out of the process, for example with package tracing/otlp; SetRates
// says how many requests of each entry are traced.
func Tracer() *tracing.Tracer { return process.Tracer() }
