// SPDX-License-Identifier: Apache-2.0

package otlp_test

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/otlp"
)

func ExampleNew() {
	exporter, err := otlp.New(context.Background(), otlp.Config{Service: "post", Endpoint: "http://127.0.0.1:4318"})
	if err != nil {
		fmt.Println(err)
		return
	}
	tracer, err := tracing.New(tracing.Config{Exporter: exporter})
	fmt.Println(tracer.Stats().Kept, err)
	fmt.Println(exporter.Shutdown(context.Background()))
	// Output:
	// 0 <nil>
	// <nil>
}

// In a handler there is nothing of Sluice to be seen: the span of the call is where
// OpenTelemetry looks for it.
func Example_handler() {
	handler := func(ctx context.Context) {
		span := trace.SpanFromContext(ctx)
		span.SetAttributes(attribute.Int("pictures", 9))
		ctx, resize := span.TracerProvider().Tracer("example.org/post").Start(ctx, "resize")
		defer resize.End()
		_ = ctx // for what is called below it
	}
	handler(context.Background())
	// Output:
}
