// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"

	"github.com/sluice-rpc/sluice/app/load"
)

func startMoments(ctx context.Context, c *config, root, dir string, graph *load.Graph, out io.Writer) (*system, error) {
	return nil, errors.New("not yet")
}
