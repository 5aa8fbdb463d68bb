// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"

	"github.com/sluice-rpc/sluice/app/topology"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// auditBlobs compares what is stored of photos and videos with what is known of them, and
// prints the first differences.
func auditBlobs(ctx context.Context, out io.Writer, data string) error {
	conn, err := dialService(data, topology.Media)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := momentsv1.NewMediaServiceClient(conn)
	const most = 10
	req := new(momentsv1.CheckBlobsRequest)
	looked, wrong := 0, 0
	say := func(what string, names []string) {
		for _, name := range names {
			if wrong++; wrong <= most {
				fmt.Fprintf(out, "  difference: %s %s\n", what, name)
			}
		}
	}
	for {
		res, err := client.CheckBlobs(toolContext(ctx, "moments audit"), req)
		if err != nil {
			return fmt.Errorf("check photos and videos: %w", err)
		}
		looked += int(res.GetLookedAt())
		say("nothing names the stored object", res.GetOrphans())
		say("stored objects are missing of the medium", res.GetMissing())
		if req.Cursor = res.GetNextCursor(); req.GetCursor() == "" {
			break
		}
	}
	fmt.Fprintf(out, "blobs looked at      %d\n", looked)
	if wrong > 0 {
		return fmt.Errorf("%d differences between photos and videos and what is stored of them", wrong)
	}
	return nil
}
