// SPDX-License-Identifier: Apache-2.0

package grpcserver

import (
	"context"

	"google.golang.org/grpc/metadata"

	"github.com/sluice-rpc/sluice/framework/rpc"
)

// Metadata gives what the gRPC caller has sent beside its request, by lower-case key; nil
// for a call that came over another transport. It is a copy. None of it has been looked
// at: what a caller says of itself is no proof.
func Metadata(ctx context.Context) map[string][]string {
	c := callOf(ctx)
	if c == nil {
		return nil
	}
	md, _ := metadata.FromIncomingContext(c.stream.Context()) //nolint:contextcheck // what came is in that of the stream alone
	return md.Copy()
}

// SetHeader adds metadata that the gRPC caller gets before the response. It fails when
// that has been sent. A call over another transport has none: nothing happens. Values of
// keys that end in "-bin" may be any bytes.
func SetHeader(ctx context.Context, md map[string][]string) error {
	c := callOf(ctx)
	if c == nil {
		return nil
	}
	if err := c.stream.SetHeader(md); err != nil {
		return rpc.Errorf(rpc.Internal, "metadata cannot be sent any more, or is none: %w", err)
	}
	return nil
}

// SetTrailer adds metadata that the gRPC caller gets after the response, or with the
// error. A call over another transport has none: nothing happens.
func SetTrailer(ctx context.Context, md map[string][]string) {
	if c := callOf(ctx); c != nil {
		c.stream.SetTrailer(md)
	}
}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(rpc.StreamKey).(*call)
	return c
}
