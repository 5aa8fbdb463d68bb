// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

// A Service is the calls of one server or entry as operators see them: the door lets
// them in, unless it is told to leave them alone. It is safe for concurrent use.
type Service struct {
	name string
	door *Door

	off     atomic.Bool
	exempt  atomic.Int32 // how many methods are
	mu      sync.Mutex
	methods map[string]*Pass // by name; guarded by mu
}

// NewService makes a service whose calls the door lets in.
func (d *Door) NewService(name string) *Service {
	return &Service{name: name, door: d, methods: map[string]*Pass{}}
}

// Name gives the name that operators know the service by.
func (s *Service) Name() string { return s.name }

// Door gives the door that lets the service's calls in.
func (s *Service) Door() *Door { return s.door }

// A Pass is the way of one method's calls: to the door, or past it. A nil Pass leads
// past it.
type Pass struct {
	service *Service
	number  admission.Method
	exempt  atomic.Bool
}

// Method gives the way of a method's calls, under the name that operators know.
func (s *Service) Method(name string, m *rpc.Method) *Pass {
	p := &Pass{service: s, number: s.door.AddMethod(m)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.methods[name]; old != nil {
		return old
	}
	s.methods[name] = p
	return p
}

// Open says that calls go past the door.
func (p *Pass) Open() bool { return p == nil || p.exempt.Load() || p.service.off.Load() }

// Number is the method's number at the door.
func (p *Pass) Number() admission.Method { return p.number }

// Level is what to tell callers. A caller knows one level for a whole service, so one
// exempt method opens it for all: what they then send for nothing is refused here.
func (s *Service) Level() qos.Priority {
	if s == nil || s.off.Load() || s.exempt.Load() > 0 {
		return qos.LastPriority
	}
	return s.door.Level()
}

// Backlog is that of the door, see there, and 0 if the service has none or passes it by.
func (s *Service) Backlog() uint8 {
	if s == nil || s.off.Load() {
		return 0
	}
	return s.door.Backlog()
}

// Join shows the service to operators until leave.
func (s *Service) Join() (leave func()) {
	o := &s.door.overrides
	o.mu.Lock()
	defer o.mu.Unlock()
	o.services = append(o.services, s)
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.services = slices.DeleteFunc(o.services, func(other *Service) bool { return other == s })
	}
}

// Action is what an Override does.
type Action string

// The actions.
const (
	Pin       Action = "pin"        // tell callers Level and refuse what is worse
	Unpin     Action = "unpin"      // find the level again
	Exempt    Action = "exempt"     // let the calls of Method of Service past the door
	EndExempt Action = "end-exempt" // no longer
	Off       Action = "off"        // let all calls of Service past the door
	On        Action = "on"         // no longer
)

// An Override is what an operator changes while the process runs, and why. It ends
// with the process.
type Override struct {
	Action  Action
	Level   qos.Priority
	Service string
	Method  string
	Reason  string
}

// What an override may hold, and how many are remembered.
const (
	MaxReason = 500 // bytes
	MaxAudit  = 100
)

// String says what the override does.
func (o Override) String() string {
	switch o.Action {
	case Pin:
		return "pin the level at " + o.Level.String()
	case Unpin:
		return "unpin the level"
	case Exempt:
		return "exempt " + o.Method + " of " + o.Service
	case EndExempt:
		return "no longer exempt " + o.Method + " of " + o.Service
	case Off, On:
		return "turn admission " + string(o.Action) + " for " + o.Service
	}
	return string(o.Action)
}

// An Audit is one override as it is remembered.
type Audit struct {
	Time   time.Time `json:"time"`
	From   string    `json:"from"` // address of who asked for it
	What   string    `json:"what"`
	Reason string    `json:"reason"`
}

// overrides is what operators have to do with a door.
type overrides struct {
	mu       sync.Mutex
	services []*Service // guarded by mu
	audit    []Audit    // the latest MaxAudit, oldest first; guarded by mu
}

// Override does what an operator asks for, writes it to the log and remembers it. An
// error means that nothing has changed; it says how to mend the request.
func (d *Door) Override(o Override, from string, log *slog.Logger) error {
	o.Reason = strings.TrimSpace(o.Reason)
	switch {
	case o.Reason == "":
		return errors.New("reason is empty: say why, for those who read it later")
	case len(o.Reason) > MaxReason || !utf8.ValidString(o.Reason) || strings.ContainsFunc(o.Reason, unicode.IsControl):
		return fmt.Errorf("reason: want one line of text, at most %d bytes", MaxReason)
	}
	// One at a time: what is remembered is in the order in which it was done.
	d.overrides.mu.Lock()
	defer d.overrides.mu.Unlock()
	if err := d.apply(o); err != nil {
		return err
	}
	a := Audit{Time: time.Now().UTC(), From: from, What: o.String(), Reason: o.Reason}
	if len(d.overrides.audit) == MaxAudit {
		d.overrides.audit = slices.Delete(d.overrides.audit, 0, 1)
	}
	d.overrides.audit = append(d.overrides.audit, a)
	log.Warn("admission overridden by an operator", slog.String("what", a.What), slog.String("from", from), slog.String("reason", a.Reason))
	return nil
}

// apply needs overrides.mu.
func (d *Door) apply(o Override) error {
	switch o.Action {
	case Pin:
		d.Pin(o.Level)
		return nil
	case Unpin:
		d.Unpin()
		return nil
	case Off, On:
		found, err := d.named(o.Service)
		for _, s := range found {
			s.off.Store(o.Action == Off)
		}
		return err
	case Exempt, EndExempt:
		found, err := d.named(o.Service)
		if err != nil {
			return err
		}
		known := false
		for _, s := range found {
			known = s.setExempt(o.Method, o.Action == Exempt) || known
		}
		if !known {
			return fmt.Errorf("method: %s has no %q: it has %s", o.Service, o.Method, strings.Join(found[0].names(), ", "))
		}
		return nil
	}
	return fmt.Errorf("action: %q is none: want pin, unpin, exempt, end-exempt, off or on", string(o.Action))
}

// named gives the services of that name, one at least. It needs overrides.mu.
func (d *Door) named(name string) ([]*Service, error) {
	var found []*Service
	var known []string
	for _, s := range d.overrides.services {
		if s.name == name {
			found = append(found, s)
		}
		known = append(known, s.name)
	}
	if len(found) == 0 {
		slices.Sort(known)
		return nil, fmt.Errorf("service: %q does not run here with admission: want one of %s", name, strings.Join(slices.Compact(known), ", "))
	}
	return found, nil
}

// setExempt says whether there is such a method.
func (s *Service) setExempt(method string, on bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.methods[method]
	if p != nil && p.exempt.Swap(on) != on {
		if on {
			s.exempt.Add(1)
		} else {
			s.exempt.Add(-1)
		}
	}
	return p != nil
}

func (s *Service) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]string, 0, len(s.methods))
	for name := range s.methods {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// ServiceState is a service as pages show it.
type ServiceState struct {
	Name    string   `json:"name"`
	Off     bool     `json:"off"`
	Methods []string `json:"methods"`
	Exempt  []string `json:"exempt"`
}

// Services gives the services whose calls the door lets in, by name.
func (d *Door) Services() []ServiceState {
	d.overrides.mu.Lock()
	defer d.overrides.mu.Unlock()
	all := make([]ServiceState, 0, len(d.overrides.services))
	for _, s := range d.overrides.services {
		state := ServiceState{Name: s.name, Off: s.off.Load(), Methods: s.names(), Exempt: []string{}}
		s.mu.Lock()
		for _, name := range state.Methods {
			if s.methods[name].exempt.Load() {
				state.Exempt = append(state.Exempt, name)
			}
		}
		s.mu.Unlock()
		all = append(all, state)
	}
	slices.SortStableFunc(all, func(a, b ServiceState) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Audited gives the overrides that are remembered, the latest first.
func (d *Door) Audited() []Audit {
	d.overrides.mu.Lock()
	defer d.overrides.mu.Unlock()
	all := slices.Clone(d.overrides.audit)
	slices.Reverse(all)
	return all
}

// Pinned gives the level that an operator has pinned, if one has.
func (d *Door) Pinned() (p qos.Priority, ok bool) {
	v := d.pinned.Load()
	return qos.Priority(max(v, 0)), v != unpinned
}
