// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"context"
	"crypto/rand"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

// A route is what the entry knows of one name.
type route struct {
	name   string
	method *rpc.Method // nil for a route that calls nothing
	head   rpc.Header
	class  atomic.Uint32 // that of the table, else the contract's
	pass   *admit.Pass   // nil without admission
	// maxBody is the largest body in bytes.
	maxBody int64
	meter
}

func (e *Entry) newRoute(name string, m *rpc.Method) *route {
	rt := &route{name: name, method: m, head: rpc.Header{Entry: tracing.EntryOf(name)}, meter: newMeter(name)}
	if m == nil {
		return rt
	}
	rt.head.Budget = m.CallTimeout()
	e.mu.Lock()
	defer e.mu.Unlock()
	rt.class.Store(uint32(m.Class))
	if class, ok := e.classes[name]; ok {
		rt.class.Store(uint32(class))
	}
	e.routes = append(e.routes, rt)
	if e.service != nil {
		// A route has costs of its own, whatever else calls its method in this process.
		rt.pass = e.service.Method(name, &rpc.Method{Service: "http", Name: name})
	}
	return rt
}

type userKey struct{}

// User gives what Config.User has said of the request that ctx belongs to.
func User(ctx context.Context) string {
	user, _ := ctx.Value(userKey{}).(string)
	return user
}

// rank gives the request its class and its user's level, and tells who that is. What
// the request itself says of its importance is not read.
func (e *Entry) rank(call *rpc.Call, rt *route, r *http.Request) (user string) {
	if rt.method == nil {
		return ""
	}
	if e.user != nil {
		user = e.user(r)
	}
	who := user
	if who == "" {
		if place := Place(r); place != "" {
			who = "at " + place
		}
	}
	call.Class = qos.Class(rt.class.Load())
	call.UserLevel = e.key.UserLevel(who, time.Now())
	return user
}

// Place gives where a request comes from, as its connection says: an IPv4 address, or the
// /64 of an IPv6 address, of which one household or server has all 2^64. Behind a proxy
// that is the proxy. Empty if it is not known.
func Place(r *http.Request) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	a := at.Addr().Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	network, err := a.Prefix(64)
	if err != nil {
		return ""
	}
	return network.String()
}

// enter lets a request in, after a wait if need be. If the error is nil the caller
// must call leave.
func (e *Entry) enter(ctx context.Context, call *rpc.Call, rt *route) (leave func(), err error) {
	call.Progress().Admit() // calls within the process do not queue again
	if rt.pass.Open() {
		return func() {}, nil
	}
	if interceptor.EntryRefused(call) {
		return nil, admit.Overloaded
	}
	// Too late for the deadline is too much to do, too: the deadline is our own.
	deadline, _ := ctx.Deadline()
	leave, refused := e.service.Door().Enter(ctx, deadline, qos.PriorityOf(call.Class, call.UserLevel), 0, rt.pass.Number())
	if refused != nil {
		return nil, admit.Overloaded
	}
	return leave, nil
}

// classTable is a file of the form
//
//	classes:
//	  GET /timeline: browse
type classTable struct {
	Classes map[string]qos.Class `config:"classes" doc:"class of each entry that has another one than its contract says"`
}

// ReadClasses reads a table of classes from a YAML file and gives routes these classes
// instead of those of their contracts. It belongs after the last Handle.
//
//	classes:
//	  GET /timeline: browse
//	  POST /posts/{post}/comments: extra
//
// While Run runs the file is watched, and a change takes effect within a second. A
// wrong file is refused with an error in the log, and what the last good one said goes
// on. Names that no route has are reported in the log.
func (e *Entry) ReadClasses(file string) error {
	table, err := config.Load(classTable{}, config.Source{File: file})
	if err != nil {
		return err
	}
	e.setClasses(table)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tableFile = file
	return nil
}

func (e *Entry) setClasses(t classTable) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.classes != nil && maps.Equal(t.Classes, e.classes) {
		return
	}
	e.classes = maps.Clone(t.Classes)
	known := map[string]bool{}
	for _, rt := range e.routes {
		known[rt.name] = true
		class, ok := e.classes[rt.name]
		if !ok {
			class = rt.method.Class
		}
		rt.class.Store(uint32(class))
	}
	var unknown []string
	for name := range e.classes {
		if !known[name] {
			unknown = append(unknown, name)
		}
	}
	e.log.Info("classes of entries taken from the table", slog.Int("entries", len(e.classes)))
	if len(unknown) > 0 {
		slices.Sort(unknown)
		e.log.Warn("the table of classes names entries that are not there; mend the names or remove the lines", slog.Any("unknown", unknown))
	}
}

// Run keeps admission going, and watches the table of classes, until ctx ends; then it
// returns nil. It should end after the last request.
func (e *Entry) Run(ctx context.Context) error {
	if e.service != nil {
		e.service.Door().Open()
		defer e.service.Door().Close()
		defer e.service.Join()()
		if e.ownKey {
			e.log.Info("no key of user levels is given: this process has made one of its own, so a user has another level at each entry and after a restart")
		}
	}
	e.mu.Lock()
	file := e.tableFile
	e.mu.Unlock()
	if file == "" {
		<-ctx.Done()
		return nil
	}
	return config.Watcher[classTable]{
		Source: config.Source{File: file}, Every: e.lookEvery, Changed: e.setClasses,
		Refused: func(err error) {
			e.log.Error("the table of classes is refused; the classes stay as they were", slog.Any("err", err))
		},
	}.Run(ctx)
}

// newKey gives a key that nobody knows.
func newKey() (k qos.Key) {
	_, _ = rand.Read(k[:]) // never fails, by its documentation
	return k
}
