// SPDX-License-Identifier: Apache-2.0

package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// The bounds of what is taken from one process in one round. What goes beyond is cut
// off, and its process is shown as failing.
const (
	pullsAtOnce   = 8
	maxGraphBytes = 8 << 20
	maxItemsBytes = 8 << 20
	maxQoSBytes   = 1 << 20
	maxRPCZBytes  = 8 << 20
	maxHeadBytes  = 64 << 10
	// maxRows is twice what a Recorder holds unless it is told otherwise.
	maxRows = 8192
	// maxCallsPerSecond is more than any process serves: what counts faster lies.
	maxCallsPerSecond = 50e6
)

// A puller asks processes for what they have counted.
type puller struct {
	client *http.Client
	token  string
	most   time.Duration // for all pages of a process together
}

func newPuller(token string, most time.Duration) *puller {
	return &puller{token: token, most: most, client: &http.Client{
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 1, MaxConnsPerHost: 4, IdleConnTimeout: time.Minute,
			MaxResponseHeaderBytes: maxHeadBytes,
		},
		// A process has no reason to send us elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (p *puller) close() { p.client.CloseIdleConnections() }

var errTooLong = errors.New("the answer is too long")

// get reads a page of a process and hands it to read, which must not keep it.
func (p *puller) get(ctx context.Context, t Target, page string, most int64, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url(page), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	if p.token != "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
	res, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return &statusError{page: page, code: res.StatusCode}
	}
	body := &limited{r: res.Body, left: most}
	switch err := read(body); {
	case body.left < 0:
		return fmt.Errorf("%s: %w: more than %d bytes", pathOf(page), errTooLong, most)
	case err != nil:
		return fmt.Errorf("%s: %w", pathOf(page), err)
	}
	return nil
}

func pathOf(page string) string {
	path, _, _ := strings.Cut(page, "?")
	return path
}

// statusError is an answer that is none.
type statusError struct {
	page string
	code int
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("%s: status %d", pathOf(e.page), e.code)
	switch e.code {
	case http.StatusUnauthorized, http.StatusForbidden:
		text += ": give the console the admin token of this process"
	case http.StatusNotFound:
		text += ": is this an admin port of a Sluice process?"
	}
	return text
}

// missing reports whether a page is not there, which old processes may not have.
func missing(err error) bool {
	var s *statusError
	return errors.As(err, &s) && s.code == http.StatusNotFound
}

// limited ends with an error after so many bytes.
type limited struct {
	r    io.Reader
	left int64
}

func (l *limited) Read(b []byte) (int, error) {
	if l.left < 0 {
		return 0, errTooLong
	}
	n, err := l.r.Read(b[:min(int64(len(b)), l.left+1)])
	if l.left -= int64(n); l.left < 0 {
		return 0, errTooLong
	}
	return n, err
}

// decode reads one JSON value, and nothing after it.
func decode(r io.Reader, into any) error {
	dec := json.NewDecoder(r)
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the answer")
	}
	return nil
}

// A pulled is what one process has answered in one round.
type pulled struct {
	snapshot *callgraph.Snapshot
	qos      *qosAnswer
	records  *recordsAnswer
	items    *itemsAnswer
	took     time.Duration
	err      error // of the first page that failed; the others may be there
}

// pull asks one process. since is the number of the last record we have of it. If more
// says no to its graph, nothing else is asked for.
func (p *puller) pull(ctx context.Context, t Target, since uint64, more func(*callgraph.Snapshot) bool) (out pulled) {
	ctx, cancel := context.WithTimeout(ctx, p.most)
	defer cancel()
	began := time.Now()
	defer func() { out.took = time.Since(began) }()
	out.err = p.get(ctx, t, "/admin/graph?format=json", maxGraphBytes, func(r io.Reader) (err error) {
		out.snapshot, err = callgraph.ReadSnapshot(r)
		return err
	})
	if out.err == nil && len(out.snapshot.Rows) > maxRows {
		out.err = fmt.Errorf("/admin/graph: %d rows, at most %d are taken", len(out.snapshot.Rows), maxRows)
		out.snapshot = nil
	}
	if out.err != nil || !more(out.snapshot) {
		return out
	}
	for _, page := range []struct {
		path string
		most int64
		read func(io.Reader) error
	}{
		{"/admin/qos?format=json", maxQoSBytes, func(r io.Reader) (err error) { out.qos, err = readQoS(r); return err }},
		{fmt.Sprintf("/admin/rpcz?format=json&limit=4096&since=%d", since), maxRPCZBytes, func(r io.Reader) (err error) { out.records, err = readRecords(r); return err }},
		{"/admin/items", maxItemsBytes, func(r io.Reader) (err error) { out.items, err = readItems(r); return err }},
	} {
		if err := p.get(ctx, t, page.path, page.most, page.read); err != nil && !missing(err) && out.err == nil {
			out.err = err
		}
	}
	return out
}

// all pulls targets, several at once, and hands each answer to take, one at a time.
// Those that were slow or failed last come last, so that they hold up nobody else.
func (p *puller) all(ctx context.Context, procs []*proc, pull func(context.Context, *proc) pulled, take func(*proc, pulled)) {
	order := slices.Clone(procs)
	slices.SortStableFunc(order, func(a, b *proc) int { return cmp.Compare(a.rank(), b.rank()) })
	var mu sync.Mutex // guards take
	var wg sync.WaitGroup
	work := make(chan *proc)
	for range min(pullsAtOnce, len(order)) {
		wg.Go(func() {
			for one := range work {
				got := pull(ctx, one)
				mu.Lock()
				take(one, got)
				mu.Unlock()
			}
		})
	}
	for _, one := range order {
		work <- one
	}
	close(work)
	wg.Wait()
}
