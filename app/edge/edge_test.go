// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	mediaedge "github.com/sluice-rpc/sluice/app/edge"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/link"
	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// origin is the media service: objects in memory.
type origin struct {
	calls atomic.Int64
	wait  chan struct{} // if not nil, calls wait for it

	mu      sync.Mutex
	objects map[string][]byte
	err     error // guarded by mu
}

func (o *origin) ReadRange(ctx context.Context, req *momentsv1.ReadRangeRequest) (*momentsv1.ReadRangeResponse, error) {
	o.calls.Add(1)
	if o.wait != nil {
		select {
		case <-o.wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	data, ok := o.objects[req.GetMediaId()+"/"+string(link.FormOf(req.GetVariant()))]
	switch {
	case o.err != nil:
		return nil, o.err
	case !ok:
		return nil, rpc.Errorf(rpc.NotFound, "no such medium")
	}
	end := min(len(data), int(req.GetOffset())+int(req.GetLength()))
	return &momentsv1.ReadRangeResponse{Data: data[req.GetOffset():end], Size: int64(len(data)), ContentType: "video/mp4"}, nil
}

func (o *origin) fail(err error) {
	o.mu.Lock()
	o.err = err
	o.mu.Unlock()
}

const size = 5<<19 + 17 // two and a half pieces and a bit

var (
	clip    = id.Media{1}
	other   = id.Media{2}
	signer  = link.NewSigner(link.Key{7})
	content = func() []byte {
		b := make([]byte, size)
		r := rand.New(rand.NewPCG(1, 2))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}()
)

func newOrigin() *origin {
	return &origin{objects: map[string][]byte{
		clip.String() + "/full": content, other.String() + "/full": []byte("short"), other.String() + "/thumbnail": []byte("tiny"),
	}}
}

type server interface {
	Serve(http.ResponseWriter, *http.Request) error
}

// serve serves what an edge or a relay serves, as a process does.
func serve(t *testing.T, s server) *httptest.Server {
	t.Helper()
	entry := edge.New(edge.Config{AdmissionOff: true})
	mux := http.NewServeMux()
	mux.Handle(mediaedge.Pattern, entry.Handle(mediaedge.Pattern, nil, s.Serve))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv
}

func newEdge(t *testing.T, o mediaedge.Origin, most int64) *mediaedge.Edge {
	t.Helper()
	e, err := mediaedge.New(mediaedge.Config{Origin: o, Links: signer, Dir: t.TempDir(), MaxBytes: most})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func path(m id.Media, form link.Form) string {
	return string(signer.New(m, time.Now()).Append(nil, form))
}

// get reads an address with some headers, given in pairs.
func get(t *testing.T, address string, headers ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, b
}

func TestReading(t *testing.T) {
	o := newOrigin()
	e := serve(t, newEdge(t, o, 0))
	relay, err := mediaedge.NewRelay(mediaedge.RelayConfig{Edges: []string{strings.TrimPrefix(e.URL, "http://")}, Origin: o, Links: signer, Transport: closing(t)})
	if err != nil {
		t.Fatal(err)
	}
	bare, err := mediaedge.NewRelay(mediaedge.RelayConfig{Origin: o, Links: signer})
	if err != nil {
		t.Fatal(err)
	}
	for name, base := range map[string]string{"edge": e.URL, "relay": serve(t, relay).URL, "relay without edges": serve(t, bare).URL} {
		t.Run(name, func(t *testing.T) {
			res, b := get(t, base+path(clip, link.Full))
			if res.StatusCode != 200 || !bytes.Equal(b, content) {
				t.Fatalf("%d with %d bytes", res.StatusCode, len(b))
			}
			etag := res.Header.Get("Etag")
			for header, want := range map[string]string{
				"Content-Type": "video/mp4", "Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff",
				"Content-Security-Policy": "default-src 'none'; sandbox", "Content-Length": fmt.Sprint(size),
			} {
				if got := res.Header.Get(header); got != want {
					t.Errorf("%s is %q, want %q", header, got, want)
				}
			}
			if c := res.Header.Get("Cache-Control"); !strings.HasPrefix(c, "private, max-age=") || !strings.HasSuffix(c, ", immutable") || etag == "" {
				t.Errorf("Cache-Control %q, Etag %q", c, etag)
			}
			for _, r := range []struct {
				ask    string
				status int
				want   []byte
			}{
				{"bytes=0-0", 206, content[:1]},
				{"bytes=100-199", 206, content[100:200]},
				{"bytes=1048570-1048590", 206, content[1048570:1048591]},
				{"bytes=2621400-", 206, content[2621400:]},
				{"bytes=-10", 206, content[size-10:]},
				{"bytes=99999999-", 416, nil},
			} {
				res, b := get(t, base+path(clip, link.Full), "Range", r.ask)
				if res.StatusCode != r.status || r.want != nil && !bytes.Equal(b, r.want) {
					t.Errorf("%s: %d with %d bytes, want %d with %d", r.ask, res.StatusCode, len(b), r.status, len(r.want))
				}
			}
			if res, b := get(t, base+path(clip, link.Full), "If-None-Match", etag); res.StatusCode != 304 || len(b) != 0 {
				t.Errorf("what has not changed: %d with %d bytes", res.StatusCode, len(b))
			}
			if res, _ := get(t, base+path(clip, link.Full), "Range", "bytes=0-9", "If-Range", `"another"`); res.StatusCode != 200 {
				t.Errorf("a range of another object: %d", res.StatusCode)
			}
		})
	}
}

// closing is a transport whose connections end with the test.
func closing(t *testing.T) *http.Transport {
	tr := mediaedge.NewTransport()
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func TestOnlyGoodLinksAreServed(t *testing.T) {
	o := newOrigin()
	e := newEdge(t, o, 0)
	base := serve(t, e).URL
	good := path(other, link.Full)
	old := string(signer.New(other, time.Now().Add(-time.Hour)).Append(nil, link.Full))
	_, missing := get(t, base+path(id.Media{9}, link.Full))
	for name, c := range map[string]struct {
		path   string
		status int
	}{
		"forged":              {strings.Replace(good, "s=", "s=A", 1), 404},
		"without a link":      {strings.SplitN(good, "?", 2)[0], 404},
		"of another medium":   {strings.Replace(good, other.String(), clip.String(), 1), 404},
		"another form is one": {strings.Replace(good, "/full", "/thumbnail", 1), 200},
		"no form":             {strings.Replace(good, "/full", "/secret", 1), 404},
		"a form that is not":  {path(other, link.Feed), 404},
		"a path that climbs":  {"/media/" + other.String() + "/..%2f..%2fetc%2fpasswd?e=1&s=1", 404},
		"no id":               {"/media/%2e%2e/full?e=1&s=1", 404},
		"its time is over":    {old, 403},
	} {
		res, b := get(t, base+c.path)
		if res.StatusCode != c.status {
			t.Errorf("%s: %d, want %d: %s", name, res.StatusCode, c.status, b)
		}
		if c.status == 404 && shape(b) != shape(missing) {
			t.Errorf("%s answers %s, what never existed answers %s", name, b, missing)
		}
	}
}

// shape is a problem document without its trace.
func shape(b []byte) string {
	s, _, _ := strings.Cut(string(b), `"trace_id"`)
	return s
}

func TestAPieceIsFetchedOnceForAll(t *testing.T) {
	o := newOrigin()
	o.wait = make(chan struct{})
	base := serve(t, newEdge(t, o, 0)).URL
	const readers = 50
	var all sync.WaitGroup
	var good atomic.Int64
	for range readers {
		all.Go(func() {
			if _, b := get(t, base+path(clip, link.Full)); bytes.Equal(b, content) {
				good.Add(1)
			}
		})
	}
	close(o.wait)
	all.Wait()
	if good.Load() != readers || o.calls.Load() != 3 {
		t.Errorf("%d of %d readers got it, by %d fetches of 3 pieces", good.Load(), readers, o.calls.Load())
	}
	if _, b := get(t, base+path(clip, link.Full)); !bytes.Equal(b, content) || o.calls.Load() != 3 {
		t.Errorf("a later reader made it %d fetches", o.calls.Load())
	}
}

func TestTheCacheKeepsToItsSize(t *testing.T) {
	o := newOrigin()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/old.piece", make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/letter.txt", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const most = 3 << 19 // one and a half pieces
	e, err := mediaedge.New(mediaedge.Config{Origin: o, Links: signer, Dir: dir, MaxBytes: most})
	if err != nil {
		t.Fatal(err)
	}
	base := serve(t, e).URL
	for range 3 {
		if _, b := get(t, base+path(clip, link.Full)); !bytes.Equal(b, content) {
			t.Fatal("it is not what it was")
		}
		if _, b := get(t, base+path(other, link.Full)); string(b) != "short" {
			t.Fatal("it is not what it was")
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, f := range entries {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
		if f.Name() == "old.piece" {
			t.Error("a piece of an earlier run is still there")
		}
	}
	if _, err := os.Stat(dir + "/letter.txt"); err != nil {
		t.Error("a file that is nobody's piece is gone")
	}
	if total > most || total == 0 {
		t.Errorf("%d bytes are kept, at most %d may be", total, most)
	}
}

func TestAFailedFetchIsNotKept(t *testing.T) {
	o := newOrigin()
	base := serve(t, newEdge(t, o, 0)).URL
	o.fail(rpc.Errorf(rpc.Unavailable, "away"))
	if res, _ := get(t, base+path(other, link.Full)); res.StatusCode != 503 {
		t.Errorf("the origin is away: %d", res.StatusCode)
	}
	o.fail(nil)
	if res, b := get(t, base+path(other, link.Full)); res.StatusCode != 200 || string(b) != "short" {
		t.Errorf("the origin is back: %d %s", res.StatusCode, b)
	}
}

// failing serves as an edge that is ill.
func failing(t *testing.T, how http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(how)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func TestTheRelayGoesOn(t *testing.T) {
	o := newOrigin()
	good := strings.TrimPrefix(serve(t, newEdge(t, o, 0)).URL, "http://")
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	dead := strings.TrimPrefix(gone.URL, "http://")
	ill := failing(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	lost := failing(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	half := failing(t, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(&breaking{ResponseWriter: w, left: 700_000}, r, "x.mp4", time.Time{}, bytes.NewReader(content))
	})
	for name, edges := range map[string][]string{
		"the next edge":                      {dead, ill, good},
		"past all edges":                     {dead, ill},
		"an edge that does not know the key": {lost},
		"an edge that breaks off":            {half},
	} {
		t.Run(name, func(t *testing.T) {
			relay, err := mediaedge.NewRelay(mediaedge.RelayConfig{Edges: edges, Origin: o, Links: signer, Transport: closing(t)})
			if err != nil {
				t.Fatal(err)
			}
			base := serve(t, relay).URL
			for range 3 {
				if res, b := get(t, base+path(clip, link.Full)); res.StatusCode != 200 || !bytes.Equal(b, content) {
					t.Errorf("%d with %d bytes", res.StatusCode, len(b))
				}
				if res, b := get(t, base+path(clip, link.Full), "Range", "bytes=1000-2000000"); res.StatusCode != 206 || !bytes.Equal(b, content[1000:2000001]) {
					t.Errorf("a range: %d with %d bytes", res.StatusCode, len(b))
				}
			}
		})
	}
}

// breaking ends a connection in the middle of an answer.
type breaking struct {
	http.ResponseWriter
	left int
}

func (w *breaking) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return w.ResponseWriter.Write(p)
}

func TestEachMediumHasItsEdge(t *testing.T) {
	var asked [2]atomic.Int64
	o := newOrigin()
	var edges []string
	for i := range asked {
		e := newEdge(t, o, 0)
		edges = append(edges, strings.TrimPrefix(serve(t, counted{e, &asked[i]}).URL, "http://"))
	}
	relay, err := mediaedge.NewRelay(mediaedge.RelayConfig{Edges: edges, Origin: o, Links: signer, Transport: closing(t)})
	if err != nil {
		t.Fatal(err)
	}
	base := serve(t, relay).URL
	for range 5 {
		get(t, base+path(other, link.Full))
		get(t, base+path(other, link.Thumbnail))
	}
	if a, b := asked[0].Load(), asked[1].Load(); a != 10 && b != 10 {
		t.Errorf("one medium was asked of two edges: %d and %d times", a, b)
	}
	if o.calls.Load() != 2 {
		t.Errorf("%d fetches of 2 objects", o.calls.Load())
	}
}

type counted struct {
	server
	n *atomic.Int64
}

func (c counted) Serve(w http.ResponseWriter, r *http.Request) error {
	c.n.Add(1)
	return c.server.Serve(w, r)
}
