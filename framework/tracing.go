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

// NameEntry makes the name of an entry known to whoever reads the call graph of this
// process, and gives its number for the header of calls. Routes, jobs and queues have
// done it already; it is for who makes an rpc.Call of his own.
func NameEntry(name string) tracing.Entry { return process.Graph().NameEntry(name) }
