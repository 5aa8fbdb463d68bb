// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	mediaedge "github.com/sluice-rpc/sluice/app/edge"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework/edge"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Media of regions 1 and 2.
var (
	near = id.Media{1, 7: 1}
	far  = id.Media{2, 7: 2}
)

// TestRegionsBadAnswer: whatever range a peer answers with, a request fails and no more.
func TestRegionsBadAnswer(t *testing.T) {
	for _, at := range []string{"", "bytes", "bytes 0-9", "bytes 5-3/9", "bytes 1-3/9", "bytes 0--2/9", "bytes 0-9223372036854775807/9", "bytes 0-9/x"} {
		p := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", at)
			w.WriteHeader(http.StatusPartialContent)
		})
		origin := mediaedge.Regions{Own: 1, Origin: newOrigin(), Peers: func(id.Region) http.RoundTripper { return &peer{to: p} }}
		for _, offset := range []int64{0, 5} {
			_, err := origin.ReadRange(t.Context(), &momentsv1.ReadRangeRequest{MediaId: far.String(), Variant: momentsv1.MediaVariant_MEDIA_VARIANT_FULL, Offset: offset, Length: 100})
			if err == nil {
				t.Errorf("range %q is taken for %d and what follows", at, offset)
			}
		}
	}
}

// peer is the way to the edge of region 2.
type peer struct {
	to  http.Handler
	cut bool
}

func (p *peer) RoundTrip(r *http.Request) (*http.Response, error) {
	if p.cut {
		return nil, errors.New("the ocean")
	}
	w := httptest.NewRecorder()
	p.to.ServeHTTP(w, r)
	return w.Result(), nil
}

// TestRegions: an edge pulls what another region has from the edge there, keeps it, and
// serves peers what is its own alone.
func TestRegions(t *testing.T) {
	origins := map[id.Region]*origin{1: newOrigin(), 2: newOrigin()}
	origins[1].objects[near.String()+"/full"] = []byte("near")
	origins[2].objects[far.String()+"/full"] = content
	p := &peer{}
	regions := func(own id.Region) mediaedge.Origin {
		return mediaedge.Regions{Own: own, Origin: origins[own], Peers: func(r id.Region) http.RoundTripper {
			if r != 2 {
				return nil
			}
			return p
		}}
	}
	edges := map[id.Region]*mediaedge.Edge{}
	for own := range origins {
		e, err := mediaedge.New(mediaedge.Config{Origin: regions(own), Region: own, Links: signer, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		edges[own] = e
	}
	entry, mux := edge.New(edge.Config{AdmissionOff: true}), http.NewServeMux()
	mux.Handle(mediaedge.PeerPattern, entry.Handle(mediaedge.PeerPattern, nil, edges[2].ServePeer))
	p.to = mux
	srv := serve(t, edges[1])

	if res, got := get(t, srv.URL+path(far, "full")); res.StatusCode != http.StatusOK || !bytes.Equal(got, content) || res.Header.Get("Content-Type") != "video/mp4" {
		t.Fatalf("from afar: %s, %d bytes of %s", res.Status, len(got), res.Header.Get("Content-Type"))
	}
	if calls := origins[2].calls.Load(); calls != 3 {
		t.Errorf("%d calls for three pieces", calls)
	}
	if calls := origins[1].calls.Load(); calls != 0 {
		t.Errorf("the own origin was asked %d times for what is not its own", calls)
	}
	p.cut = true
	if res, got := get(t, srv.URL+path(far, "full"), "Range", "bytes=5-9"); res.StatusCode != http.StatusPartialContent || !bytes.Equal(got, content[5:10]) {
		t.Errorf("kept, with the line cut: %s %q", res.Status, got)
	}
	if res, _ := get(t, srv.URL+path(far, "thumbnail")); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("not kept, with the line cut: %s", res.Status)
	}
	if res, got := get(t, srv.URL+path(near, "full")); res.StatusCode != http.StatusOK || string(got) != "near" {
		t.Errorf("the own, with the line cut: %s %q", res.Status, got)
	}
	p.cut = false
	if res, _ := get(t, srv.URL+path(far, "thumbnail")); res.StatusCode != http.StatusNotFound {
		t.Errorf("what is not there either: %s", res.Status)
	}
	if res, _ := get(t, srv.URL+path(id.Media{3, 7: 3}, "full")); res.StatusCode != http.StatusNotFound {
		t.Errorf("of a region that nobody knows: %s", res.Status)
	}
	for _, m := range []id.Media{near, {3, 7: 3}} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/peer/media/"+m.String()+"/full", nil))
		if w.Code != http.StatusNotFound {
			t.Errorf("a peer asks for another region's %v: %d", m, w.Code)
		}
	}
}
