// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"bufio"
	"bytes"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
)

// A request that an overloaded process will not serve is refused where its bytes are read,
// before net/http makes a goroutine, contexts and buffered writers for it: at three times
// the capacity two requests of three are refused, and what that costs is what the third
// does not get (measured: 35 µs instead of 100, of which the system calls alone are 33).
//
// It is read and answered by the same code: http.ReadRequest, the route's own counters,
// limits and problem document. A request is only looked at if it came whole, in one piece,
// on a connection whose client waits for each answer before it asks again; every other one
// is net/http's, as are all while there is no overload, and those over TLS.

// refuser is the handler of a route that can say without waiting that it refuses.
type refuser interface {
	// refuse answers a request that would be refused at once, else it does nothing.
	refuse(w http.ResponseWriter, r *http.Request) bool
}

// routes is what http.ServeMux is: it tells who would answer.
type routes interface {
	Handler(*http.Request) (http.Handler, string)
}

// headEnd ends the head of a request.
var headEnd = []byte("\r\n\r\n")

// turn is where a connection is between its requests. Only who reads uses it, and
// net/http between an answer and the next read.
type turn struct {
	// next says that what is read next begins a request.
	next bool
	// lost is set for ever when a request came in pieces or together with another: where
	// one begins is then known to net/http alone.
	lost bool
}

// begins takes what was read. It reports whether that is one whole request, no more
// and no less.
func (t *turn) begins(p []byte) bool {
	if !t.next || t.lost {
		t.lost = t.lost || len(p) == 1 // read by net/http while it answers: the client does not wait
		return false
	}
	t.next = false
	head := bytes.Index(p, headEnd)
	if head >= 0 && len(p)-head-len(headEnd) == bodyLength(p[:head]) {
		return true
	}
	t.lost = true
	return false
}

// bodyLength gives what a head says of the body's length, -1 if that is not plain.
func bodyLength(head []byte) int {
	length := 0
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		name, value, ok := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.IndexByte(line, '\n') >= 0: // net/http takes that for the end of a line, too
			return -1
		case !ok: // the request line
		case bytes.EqualFold(name, []byte("Content-Length")):
			n, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			if err != nil || n < 0 || length != 0 {
				return -1
			}
			length = n
		case bytes.EqualFold(name, []byte("Transfer-Encoding")), bytes.EqualFold(name, []byte("Expect")), bytes.EqualFold(name, []byte("Upgrade")):
			return -1
		}
	}
	return length
}

// refusal is the answer to a request that is refused, as an http.ResponseWriter.
type refusal struct {
	header http.Header
	status int
	body   bytes.Buffer
	in     bytes.Reader
	read   *bufio.Reader
	out    bytes.Buffer
}

var refusals = sync.Pool{New: func() any {
	return &refusal{header: http.Header{}, read: bufio.NewReader(nil)}
}}

// Header implements http.ResponseWriter.
func (w *refusal) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *refusal) WriteHeader(status int) { w.status = status }

// Write implements http.ResponseWriter.
func (w *refusal) Write(p []byte) (int, error) { return w.body.Write(p) }

// refuse answers a whole request if there is overload and it is to be refused at once.
func (c *conn) refuse(p []byte) bool {
	s := c.server
	if s.routes == nil || s.draining.Load() || admit.Process().Level() >= qos.LastPriority {
		return false
	}
	w := refusals.Get().(*refusal)
	defer func() {
		clear(w.header)
		w.status = 0
		w.body.Reset()
		w.out.Reset()
		w.in.Reset(nil)
		refusals.Put(w)
	}()
	w.in.Reset(p)
	w.read.Reset(&w.in)
	r, err := http.ReadRequest(w.read)
	if err != nil || !r.ProtoAtLeast(1, 1) || r.Close || r.Method == http.MethodHead || r.Host == "" {
		return false
	}
	if c.remote == "" {
		c.remote = c.RemoteAddr().String()
	}
	r.RemoteAddr = c.remote
	h, _ := s.routes.Handler(r)
	route, ok := h.(refuser)
	if !ok || !route.refuse(w, r) {
		return false
	}
	w.out.WriteString("HTTP/1.1 ")
	w.out.WriteString(strconv.Itoa(w.status))
	w.out.WriteByte(' ')
	w.out.WriteString(http.StatusText(w.status))
	w.out.WriteString("\r\nDate: ")
	w.out.Write(time.Now().UTC().AppendFormat(w.out.AvailableBuffer(), http.TimeFormat))
	w.out.WriteString("\r\n")
	_ = w.header.Write(&w.out) // a buffer takes everything
	w.out.WriteString("\r\n")
	w.out.Write(w.body.Bytes())
	c.requests.Add(1)
	// net/http does not know that the connection is in use.
	_ = c.SetReadDeadline(time.Now().Add(s.http.IdleTimeout))
	_, _ = c.Write(w.out.Bytes()) // the next read tells
	return true
}

// refuse implements refuser.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request) bool {
	e, rt := h.entry, h.route
	if rt.pass == nil || rt.pass.Open() || r.ContentLength > rt.maxBody {
		return false
	}
	call := rpc.Call{Header: rt.head}
	user := e.rank(&call, rt, r)
	if !e.service.Door().Excludes(qos.PriorityOf(call.Class, call.UserLevel), 0, rt.pass.Number()) && !interceptor.EntryRefused(&call) {
		return false
	}
	q := e.begin(rt, w, r)
	defer q.end(e.access)
	defer e.recoverPanic(q, r)
	q.user, q.call.Class, q.call.UserLevel = user, call.Class, call.UserLevel
	if h.rules.Limit != nil {
		if err := h.rules.Limit(r, user); err != nil {
			e.fail(q, r, err)
			return true
		}
	}
	e.fail(q, r, admit.Overloaded)
	return true
}
