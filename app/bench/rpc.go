// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/sluice-rpc/sluice/app/load"
	"github.com/sluice-rpc/sluice/framework"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// overRPC reads home pages from the timeline service itself, as its gateway does from another process: over a socket, but without HTTP,
// JSON and the session. All else it does as the Target it stands for.
type overRPC struct {
	load.Target
	town      *load.Town
	timelines momentsv1.TimelineServiceClient
	page      *momentsv1.HomeResponse // the latest
}

// dialRPC returns a function that makes such Targets over one connection, which hangUp ends.
func dialRPC(addr string, town *load.Town, plain func() (load.Target, error)) (dial func() (load.Target, error), hangUp func() error, err error) {
	conn, err := framework.Dial(framework.ClientConfig{Service: "timeline", Addrs: []string{addr}})
	if err != nil {
		return nil, nil, err
	}
	timelines := momentsv1.NewTimelineServiceClient(conn)
	return func() (load.Target, error) {
		t, err := plain()
		return &overRPC{Target: t, town: town, timelines: timelines}, err
	}, conn.Close, nil
}

// Home reads a page, which ParsePage then tells of.
func (t *overRPC) Home(ctx context.Context, reader int, cursor string, limit int) (_ []byte, err error) {
	t.page, err = t.timelines.Home(ctx, &momentsv1.HomeRequest{ViewerId: t.town.ID(reader), Cursor: cursor, Limit: uint32(limit)})
	return nil, err
}

// ParsePage tells of the latest page.
func (t *overRPC) ParsePage([]byte) (load.Page, error) {
	p := load.Page{Next: t.page.GetNextCursor()}
	for _, item := range t.page.GetItems() {
		p.IDs = append(p.IDs, item.GetPost().GetId())
	}
	return p, nil
}
