// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"context"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// A Job is work that no request causes, such as what is done every hour: an entry of its
// own, with a call graph and traces like those of a route. It is safe for concurrent use.
type Job struct {
	header  rpc.Header
	slot    *callgraph.Slot
	sampler *tracing.Sampler
	records *tracing.Method
}

// NewJob makes a job of that name, whose calls are of that class.
func NewJob(name string, class qos.Class) *Job {
	return &Job{
		header: rpc.Header{Entry: tracing.EntryOf(name), Class: class}, slot: process.Graph().Entry(name),
		sampler: process.Tracer().Sampler(name), records: process.Tracer().Method(tracing.Internal, name),
	}
}

// Run does the work once. The calls that it makes with its context are the job's. The
// error is that of work.
func (j *Job) Run(ctx context.Context, work func(context.Context) error) error {
	return j.run(ctx, false, work)
}

// run is Run that may be traced whatever is sampled.
func (j *Job) run(ctx context.Context, traced bool, work func(context.Context) error) error {
	began := time.Now()
	call := &rpc.Call{Header: j.header}
	call.Trace, call.Span = tracing.NewTraceID(), tracing.NewSpanID()
	sampled := traced || j.sampler.Sample(began, false)
	if sampled {
		call.Flags = rpc.FlagSampled
	}
	err := work(rpc.WithCall(ctx, call))
	if interceptor.ProcessObserver() == nil {
		return err
	}
	took := time.Since(began)
	class := interceptor.ClassOf(err)
	j.slot.Record(class, took, 0, 0)
	k := j.records.Keep(&tracing.Ended{Class: uint8(class), Sampled: sampled, Took: took, At: began.Add(took), Span: call.Span, Below: call.Progress().Kept()})
	if k == 0 {
		return err
	}
	r := tracing.Record{
		Trace: call.Trace, Span: call.Span, Entry: call.Entry,
		Start: began.UnixNano(), Duration: took, Class: class.String(),
	}
	interceptor.Describe(&r, err)
	j.records.Add(k, r)
	return err
}
