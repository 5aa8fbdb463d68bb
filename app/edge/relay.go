// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/link"
)

// RelayConfig is what a Relay is made of.
type RelayConfig struct {
	// Edges are the addresses of edges, host:port. There may be none.
	Edges []string
	// Origin has everything.
	Origin Origin
	// Links checks links, so that an edge is not troubled with others.
	Links *link.Signer
	// Region is the own region: an edge that cannot have another's media has not failed.
	// Zero without other regions.
	Region id.Region
	// Transport sends the requests to edges; nil means one of its own.
	Transport http.RoundTripper
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
}

const (
	// headTime is how long an edge may take to begin its answer: as long as its fetch from
	// the origin, and a little more.
	headTime = fetchTime + time.Second
	// avoid is for how long an edge that has failed is asked after the others.
	avoid = 5 * time.Second
	// relayBuffer is the memory of an answer under way.
	relayBuffer = 32 << 10
)

// Relay leads requests to edges. Requests for one medium go to the same edge as long as
// it answers, so that each edge keeps its own share. It is safe for concurrent use.
type Relay struct {
	door
	edges  []string
	client *http.Client
	origin Origin
	region id.Region

	mu     sync.Mutex
	failed map[string]time.Time // when an edge failed last; guarded by mu
}

// NewRelay makes a Relay.
func NewRelay(cfg RelayConfig) (*Relay, error) {
	if cfg.Origin == nil || cfg.Links == nil {
		return nil, errors.New("edge: RelayConfig needs Origin and Links")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Transport == nil {
		cfg.Transport = NewTransport()
	}
	return &Relay{
		door: newDoor(cfg.Links, cfg.Now), edges: cfg.Edges, origin: cfg.Origin, region: cfg.Region,
		client: &http.Client{Transport: cfg.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		failed: map[string]time.Time{},
	}, nil
}

// NewTransport gives a transport with the bounds that requests to edges need.
func NewTransport() *http.Transport {
	return &http.Transport{
		ResponseHeaderTimeout: headTime, MaxIdleConnsPerHost: 32, IdleConnTimeout: time.Minute, DisableCompression: true,
	}
}

// Serve answers one request of Pattern. An error is of the request, for a problem
// document; nothing has been written then.
func (y *Relay) Serve(w http.ResponseWriter, r *http.Request) error {
	o, until, err := y.check(r)
	if err != nil {
		return err
	}
	leave, err := y.enter()
	if err != nil {
		return err
	}
	defer leave()
	for _, addr := range y.order(o) {
		res, err := y.ask(r, addr)
		if err != nil {
			if r.Context().Err() != nil {
				return r.Context().Err()
			}
			if !errors.Is(err, errAnswered) || o.media.Region() == y.region {
				y.fails(addr)
			}
			continue
		}
		err = y.pass(w, r, o, res)
		_ = res.Body.Close() // it was only read
		return err
	}
	return y.serve(w, r, o, until, direct{y.origin})
}

// order gives the edges, best first: by rendezvous hashing (Thaler and Ravishankar, 1998),
// those that have just failed last.
func (y *Relay) order(o object) []string {
	type ranked struct {
		addr   string
		failed bool
		rank   uint64
	}
	list := make([]ranked, len(y.edges))
	now := y.now()
	y.mu.Lock()
	for i, addr := range y.edges {
		h := fnv.New64a()
		_, _ = h.Write(o.media[:]) // never fails
		_, _ = io.WriteString(h, addr)
		at, failed := y.failed[addr]
		list[i] = ranked{addr: addr, rank: h.Sum64(), failed: failed && now.Sub(at) < avoid}
	}
	y.mu.Unlock()
	slices.SortFunc(list, func(a, b ranked) int {
		if a.failed != b.failed {
			if a.failed {
				return 1
			}
			return -1
		}
		return cmp.Compare(b.rank, a.rank)
	})
	order := make([]string, len(list))
	for i, e := range list {
		order[i] = e.addr
	}
	return order
}

func (y *Relay) fails(addr string) {
	y.mu.Lock()
	y.failed[addr] = y.now()
	y.mu.Unlock()
}

var (
	askedHeaders = []string{"Range", "If-Range", "If-None-Match"}
	givenHeaders = []string{"Accept-Ranges", "Cache-Control", "Content-Length", "Content-Range", "Content-Type", "Etag"}
)

// errAnswered means that an edge has said that it cannot serve.
var errAnswered = errors.New("edge: an edge cannot serve")

// ask sends a request to an edge. An edge that cannot serve is an error.
func (y *Relay) ask(r *http.Request, addr string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+addr+r.URL.Path+"?"+r.URL.RawQuery, nil)
	if err != nil {
		return nil, err
	}
	for _, name := range askedHeaders {
		if v := r.Header.Get(name); v != "" {
			req.Header.Set(name, v)
		}
	}
	res, err := y.client.Do(req)
	if err != nil {
		return nil, err
	}
	switch res.StatusCode {
	case http.StatusOK, http.StatusPartialContent, http.StatusNotModified, http.StatusRequestedRangeNotSatisfiable:
		return res, nil
	}
	// The link is good: whatever else an edge says, the next one or the origin may know
	// better.
	return nil, errors.Join(fmt.Errorf("%w: %s: %s", errAnswered, addr, res.Status), res.Body.Close())
}

// pass gives the answer of an edge on. If the edge breaks off, the rest comes from the
// origin.
func (y *Relay) pass(w http.ResponseWriter, r *http.Request, o object, res *http.Response) error {
	h := w.Header()
	for _, name := range givenHeaders {
		if v := res.Header.Get(name); v != "" {
			h.Set(name, v)
		}
	}
	harden(h)
	w.WriteHeader(res.StatusCode)
	if r.Method == http.MethodHead {
		return nil
	}
	out := &patient{ResponseWriter: w}
	body := &counter{r: res.Body}
	_, err := io.CopyBuffer(out, body, make([]byte, relayBuffer))
	if err == nil || body.err == nil || r.Context().Err() != nil { // all of it, or the reader has gone
		return err
	}
	first, last, ok := span(res)
	if !ok {
		return err
	}
	return y.rest(r.Context(), out, o, first+body.n, last, err)
}

// rest gives the bytes of an object from first to last, straight from the origin.
func (y *Relay) rest(ctx context.Context, w io.Writer, o object, first, last int64, cause error) error {
	c := &content{ctx: ctx, from: direct{y.origin}, object: o, size: last + 1, offset: first, index: -1}
	defer c.Close()
	if _, err := io.CopyBuffer(w, c, make([]byte, relayBuffer)); err != nil {
		return errors.Join(cause, err)
	}
	return nil
}

// span says which bytes of the object an answer was to have.
func span(res *http.Response) (first, last int64, ok bool) {
	if res.StatusCode == http.StatusOK {
		return 0, res.ContentLength - 1, res.ContentLength > 0
	}
	bounds, whole := strings.CutPrefix(res.Header.Get("Content-Range"), "bytes ")
	bounds, _, _ = strings.Cut(bounds, "/")
	from, to, dash := strings.Cut(bounds, "-")
	first, err1 := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	return first, last, whole && dash && err1 == nil && err2 == nil && first <= last && last-first+1 == res.ContentLength
}

// counter counts what is read, and remembers how reading ended.
type counter struct {
	r   io.Reader
	n   int64
	err error // but io.EOF
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}
