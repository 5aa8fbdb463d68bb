// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

const (
	// maxStreams and maxUserStreams bound the streams of events of a gateway, and of one
	// user there: a stream is a connection and a goroutine, about 30 KB.
	maxStreams, maxUserStreams = 10_000, 6
	// watchEvery is how often the services are asked, for all users at once, whose
	// things have changed; watchUsers is how many one call is about.
	watchEvery, watchUsers = time.Second, 1000
	// beatEvery is how often a stream without news says that it is alive, and whether
	// its session is: shorter than what lines between are known to cut off after.
	beatEvery = 15 * time.Second
	// eventWait bounds writing one event to a client that does not read.
	eventWait = 10 * time.Second
	// lookWait bounds asking what is new for one stream.
	lookWait = 2 * time.Second
)

// hub tells streams of events that something has changed. Its cost is two calls a
// second for each thousand of connected users, and one look for each change; it does
// not grow with what is posted.
type hub struct {
	notices   momentsv1.NotifyServiceClient
	timelines momentsv1.TimelineServiceClient
	log       *slog.Logger

	mu      sync.Mutex
	users   map[string]*watched // guarded by mu
	streams int                 // guarded by mu
	over    bool                // guarded by mu; no streams any more
}

// watched is a user with streams.
type watched struct {
	streams []*stream
	notices uint64 // last stamps that were told; 0 before the first
	head    uint64
	asked   bool // the stamps are known
}

// stream is one connection.
type stream struct {
	wake chan struct{} // holds a token while there may be news; closed at the end of all

	mu            sync.Mutex
	notices, head bool // guarded by mu; what there may be news of
	doubt         bool // guarded by mu; the session may have ended
}

func newHub(notices momentsv1.NotifyServiceClient, timelines momentsv1.TimelineServiceClient, log *slog.Logger) *hub {
	if log == nil {
		log = slog.Default()
	}
	return &hub{notices: notices, timelines: timelines, log: log, users: make(map[string]*watched)}
}

// join adds a stream of a user. It begins with a look at everything.
func (h *hub) join(user string) (*stream, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.users[user]
	if h.over || h.streams >= maxStreams || w != nil && len(w.streams) >= maxUserStreams {
		return nil, rpc.WithDetails(
			&rpc.Error{Code: rpc.ResourceExhausted, Message: "too many streams of events are open; ask now and then instead", Retry: 30 * time.Second},
			&momentsv1.Problem{Type: "busy"})
	}
	if w == nil {
		w = new(watched)
		h.users[user] = w
	}
	s := &stream{wake: make(chan struct{}, 1), notices: true, head: true}
	s.wake <- struct{}{} // there is room
	w.streams = append(w.streams, s)
	h.streams++
	return s, nil
}

func (h *hub) leave(user string, s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.users[user]
	if w == nil {
		return // all have been ended
	}
	if i := slices.Index(w.streams, s); i >= 0 {
		w.streams = slices.Delete(w.streams, i, i+1)
		h.streams--
	}
	if len(w.streams) == 0 {
		delete(h.users, user)
	}
}

// run watches until ctx ends, and then ends all streams.
func (h *hub) run(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			h.end()
			return
		case <-tick.C:
		}
		h.mu.Lock()
		users := make([]string, 0, len(h.users))
		for u := range h.users {
			users = append(users, u)
		}
		h.mu.Unlock()
		for some := range slices.Chunk(users, watchUsers) {
			if err := h.watch(ctx, some); err != nil && ctx.Err() == nil {
				h.log.DebugContext(ctx, "streams of events wait: a service does not answer", "error", err)
			}
		}
	}
}

// watch asks for the stamps of some users and wakes the streams of those that have
// changed.
func (h *hub) watch(ctx context.Context, users []string) error {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	notices, err := h.notices.Watch(ctx, &momentsv1.WatchNoticesRequest{UserIds: users})
	if err != nil {
		return err
	}
	heads, err := h.timelines.Watch(ctx, &momentsv1.WatchTimelinesRequest{ReaderIds: users})
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, u := range users {
		w := h.users[u]
		if w == nil || i >= len(notices.GetStamps()) || i >= len(heads.GetStamps()) {
			continue
		}
		n, t := notices.GetStamps()[i], heads.GetStamps()[i]
		// Before the first stamps a stream has looked by itself, maybe too early.
		changed, moved := !w.asked || n != w.notices, !w.asked || t != w.head
		w.notices, w.head, w.asked = n, t, true
		for _, s := range w.streams {
			s.news(changed, moved)
		}
	}
	return nil
}

// news tells a stream that there may be news.
func (s *stream) news(notices, head bool) {
	if !notices && !head {
		return
	}
	s.mu.Lock()
	s.notices, s.head = s.notices || notices, s.head || head
	s.mu.Unlock()
	s.rouse()
}

func (s *stream) take() (notices, head, doubt bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	notices, head, doubt = s.notices, s.head, s.doubt
	s.notices, s.head, s.doubt = false, false, false
	return notices, head, doubt
}

// doubt has all streams of a user ask whether their sessions go on.
func (h *hub) doubt(user string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.users[user]; w != nil {
		for _, s := range w.streams {
			s.mu.Lock()
			s.doubt = true
			s.mu.Unlock()
			s.rouse()
		}
	}
}

// rouse wakes a stream. It is called under the hub's mutex, since the end closes wake.
func (s *stream) rouse() {
	select {
	case s.wake <- struct{}{}:
	default: // a token is there already
	}
}

// end ends all streams. Closing is under the mutex that news is sent under.
func (h *hub) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	for _, w := range h.users {
		for _, s := range w.streams {
			close(s.wake)
		}
	}
	h.users, h.streams = nil, 0
}

// events streams the red dot and the number of unread notices: as they are, and again
// whenever they have changed. Each event is the whole truth, so a client that comes
// back has missed nothing. Nothing is sent for a session that has ended: its stream ends
// at once if it was ended through this gateway, else at the next news or beat.
func (g *Gateway) events(c *call) error {
	token, err := bearer(c.r)
	if err != nil {
		return err
	}
	s, err := g.hub.join(c.user)
	if err != nil {
		return err
	}
	defer g.hub.leave(c.user, s)
	h := c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // proxies that collect answers must not
	out := &eventWriter{w: c.w, rc: http.NewResponseController(c.w), last: make(map[string]string)}
	if err := out.send([]byte("retry: 2000\n\n")); err != nil {
		return nil //nolint:nilerr // the client has gone
	}
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	for {
		var notices, head, doubt bool
		select {
		case <-c.ctx().Done():
			return nil
		case _, open := <-s.wake:
			if !open {
				return nil
			}
			notices, head, doubt = s.take()
		case <-beat.C:
			notices, head, doubt = s.take() // what could not be asked before
			// An act that is taken back is told of nowhere, so what is unread may have become less.
			notices = notices || out.unread > 0
		}
		if doubt {
			g.sessions.forget(token)
		}
		if _, err := g.sessions.find(c.ctx(), token); rpc.CodeOf(err) == rpc.Unauthenticated {
			return nil
		}
		b := g.look(c, s, out, notices, head)
		if len(b) == 0 {
			b = append(b, ":\n\n"...) // a comment: the line is alive
		}
		if err := out.send(b); err != nil {
			return nil //nolint:nilerr // the client has gone
		}
	}
}

// look gives the events of what has changed. What cannot be asked now is asked at the
// next beat or change.
func (g *Gateway) look(c *call, s *stream, out *eventWriter, notices, head bool) []byte {
	ctx, cancel := context.WithTimeout(c.ctx(), lookWait)
	defer cancel()
	var b []byte
	add := func(name string, data []byte) {
		if out.last[name] != string(data) {
			out.last[name] = string(data)
			b = append(append(append(append(append(b, "event: "...), name...), "\ndata: "...), data...), "\n\n"...)
		}
	}
	if head {
		res, err := g.timelines.Head(ctx, &momentsv1.HeadRequest{ViewerId: c.user})
		if err != nil {
			s.retry(false, true)
		} else {
			add("head", appendHead(nil, res))
		}
	}
	if notices {
		res, err := g.notices.CountUnread(ctx, &momentsv1.CountUnreadRequest{UserId: c.user})
		if err != nil {
			s.retry(true, false)
		} else {
			out.unread = res.GetUnread()
			add("notices", appendUnread(nil, out.unread))
		}
	}
	return b
}

// retry puts back what could not be asked, for the next time the stream wakes.
func (s *stream) retry(notices, head bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notices, s.head = s.notices || notices, s.head || head
}

// eventWriter sends events to a client that may have stopped reading.
type eventWriter struct {
	w      http.ResponseWriter
	rc     *http.ResponseController
	last   map[string]string // data of each event as it was sent
	unread uint32            // notices, as last counted
}

func (o *eventWriter) send(b []byte) error {
	// A server without deadlines, as in some tests, does not know them.
	_ = o.rc.SetWriteDeadline(time.Now().Add(eventWait + beatEvery))
	if _, err := o.w.Write(b); err != nil {
		return err
	}
	return o.rc.Flush()
}
