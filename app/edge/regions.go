// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/link"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// PeerPattern is the route on which edges of other regions are served, who have proved
// who they are: it needs no link.
const PeerPattern = "GET /peer" + link.Prefix + "{media}/{form}"

// Regions is the origin of media of all regions. Media are never copied to another
// region: what is looked at there is pulled piece by piece from the edge of the region in
// whose id they are, and kept as long as it is used.
type Regions struct {
	Own    id.Region
	Origin Origin // of the own media
	// Peers gives the way to the edge of another region, nil if there is none.
	Peers func(id.Region) http.RoundTripper
}

// errFar means that media of another region cannot be had now.
var errFar = problem.New(rpc.Unavailable, "unavailable", "", "the region that has this photo or video cannot be reached from here; try again later")

// ReadRange implements Origin.
func (s Regions) ReadRange(ctx context.Context, req *momentsv1.ReadRangeRequest) (*momentsv1.ReadRangeResponse, error) {
	m, err := id.ParseMedia(req.GetMediaId())
	if err != nil || m.Region() == s.Own || s.Peers == nil {
		return s.Origin.ReadRange(ctx, req)
	}
	peer := s.Peers(m.Region())
	if peer == nil {
		return nil, errNotFound
	}
	url := "https://edge/peer" + link.Prefix + req.GetMediaId() + "/" + string(link.FormOf(req.GetVariant()))
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", req.GetOffset(), req.GetOffset()+int64(req.GetLength())-1))
	res, err := peer.RoundTrip(r)
	if err != nil {
		return nil, errFar
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	switch res.StatusCode {
	case http.StatusPartialContent:
	case http.StatusNotFound:
		return nil, errNotFound
	default:
		return nil, errFar
	}
	first, last, ok := span(res)
	size, err := strconv.ParseInt(res.Header.Get("Content-Range")[strings.LastIndexByte(res.Header.Get("Content-Range"), '/')+1:], 10, 64)
	if !ok || err != nil || first != req.GetOffset() || last-first >= int64(req.GetLength()) {
		return nil, fmt.Errorf("edge: region %d answered with the range %q of %v", m.Region(), res.Header.Get("Content-Range"), m)
	}
	data := make([]byte, last-first+1)
	if _, err := io.ReadFull(res.Body, data); err != nil {
		return nil, errFar
	}
	return &momentsv1.ReadRangeResponse{Data: data, Size: size, ContentType: res.Header.Get("Content-Type")}, nil
}

// ServePeer answers one request of PeerPattern, for media of the own region alone. An
// error is of the request, for a problem document; nothing has been written then.
func (e *Edge) ServePeer(w http.ResponseWriter, r *http.Request) error {
	o, err := parse(r)
	if err != nil || o.media.Region() != e.region {
		return errNotFound
	}
	leave, err := e.enter()
	if err != nil {
		return err
	}
	defer leave()
	return e.serve(w, r, o, e.now(), e.cache)
}
