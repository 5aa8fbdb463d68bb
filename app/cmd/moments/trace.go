// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/otlp"
)

// traceFlags say what is traced, and who gets it besides the admin pages.
type traceFlags struct {
	share float64
	otlp  string
}

func (f *traceFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.Float64Var(&f.share, "trace", tracing.DefaultRate.Ratio, "share of the requests that is traced, 0 to 1, beside one a second of each route")
	flags.StringVar(&f.otlp, "otlp", "", "URL of a receiver of OpenTelemetry, such as http://127.0.0.1:4318, that gets the traces")
}

// args gives the flags as a child process takes them.
func (f *traceFlags) args() []string {
	args := []string{"--trace", strconv.FormatFloat(f.share, 'g', -1, 64)}
	if f.otlp != "" {
		args = append(args, "--otlp", f.otlp)
	}
	return args
}

// flushLimit bounds the wait for the last traces to be sent.
const flushLimit = 3 * time.Second

// begin traces as the flags say. end sends what has not been sent; that the receiver
// does not take it is told and is no failure of the program.
func (f *traceFlags) begin(ctx context.Context, service string) (end func(), err error) {
	tracer := framework.Tracer()
	if err := tracer.SetRates(tracing.Rate{PerSecond: tracing.DefaultRate.PerSecond, Ratio: f.share}, nil); err != nil {
		return nil, &usageError{fmt.Errorf("--trace: %w", err)}
	}
	if f.otlp == "" {
		return func() {}, nil
	}
	e, err := otlp.New(ctx, otlp.Config{Service: service, Endpoint: f.otlp})
	if err != nil {
		return nil, &usageError{fmt.Errorf("--otlp: %w", err)}
	}
	tracer.SetExporter(e)
	return func() {
		tracer.SetExporter(nil)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushLimit)
		defer cancel()
		if err := e.Shutdown(ctx); err != nil {
			slog.WarnContext(ctx, "the last traces were not sent", "to", f.otlp, "err", err)
		}
	}, nil
}
