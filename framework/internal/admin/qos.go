// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

// level is a priority as the page shows it.
type level struct {
	Priority qos.Priority `json:"priority"`
	Class    string       `json:"class"`
	User     uint8        `json:"user"`
}

func levelOf(p qos.Priority) level {
	class := p.Class().String()
	if p == qos.LastPriority {
		class = "everyone"
	}
	return level{p, class, p.UserLevel()}
}

func (l level) String() string {
	if l.Priority == qos.LastPriority {
		return l.Class
	}
	return l.Priority.String()
}

// view is what the page shows.
type view struct {
	State    phrase  `json:"state"` // open, busy, overloaded, pinned or off
	Says     phrase  `json:"says"`  // the same in a sentence
	Level    level   `json:"level"` // as callers are told
	Found    level   `json:"level_found"`
	Pinned   bool    `json:"pinned"`
	Cores    int     `json:"cores"`
	Limit    int     `json:"limit"`
	Window   int     `json:"window"` // 0 is none
	Running  int     `json:"running"`
	Asleep   int     `json:"asleep"`
	Waiting  int     `json:"waiting"`
	Capacity float64 `json:"capacity"` // calls of mean cost a second
	Demand   float64 `json:"demand"`
	DelayMS  float64 `json:"delay_ms"`
	Backlog  float64 `json:"backlog_ms"` // as callers are told
	Withdrew uint64  `json:"withdrew"`

	Classes  []classView          `json:"classes"`
	Services []admit.ServiceState `json:"services"`
	Audit    []admit.Audit        `json:"audit"` // the latest first

	NeedsToken bool `json:"needs_token"`
}

// classView are the counts of a class since the start.
type classView struct {
	Class      string  `json:"class"`
	Admitted   uint64  `json:"admitted"`
	Queued     uint64  `json:"queued"`
	Refused    uint64  `json:"refused"`
	Evicted    uint64  `json:"evicted"`
	Late       uint64  `json:"late"`
	Expired    uint64  `json:"expired"`
	Suppressed uint64  `json:"suppressed"` // by callers
	WaitMeanMS float64 `json:"wait_mean_ms"`
	WaitP99MS  float64 `json:"wait_p99_ms"`
}

// admission gives what the door does.
func (d *Dashboard) admission(ctx context.Context) admission.State {
	if d.Workers == nil {
		return d.Door.State()
	}
	return d.Workers.admission(ctx)
}

func (d *Dashboard) looked(ctx context.Context) *view {
	if d.Door == nil {
		return &view{
			State: say("off"), Says: say("Admission is off by the configuration of this server (admission: off): whatever comes is served."),
			Level: levelOf(qos.LastPriority), Found: levelOf(qos.LastPriority),
			Classes: []classView{}, Services: []admit.ServiceState{}, Audit: []admit.Audit{},
		}
	}
	s := d.admission(ctx)
	v := &view{
		Level: levelOf(s.Level), Found: levelOf(s.Level), Cores: d.Door.Cores(), Limit: s.Limit, Window: s.Window, Running: s.Running, Asleep: s.Asleep, Waiting: s.Waiting,
		Capacity: s.Capacity, Demand: s.Demand, DelayMS: milliseconds(s.Delay), Backlog: milliseconds(s.Backlog), Withdrew: s.Withdrew,
		Services: d.Door.Services(), Audit: d.Door.Audited(), NeedsToken: d.token() != "",
	}
	p, pinned := d.Door.Pinned()
	switch {
	case pinned:
		v.State, v.Pinned, v.Level = say("pinned"), true, levelOf(p)
		v.Says = say("An operator has pinned the level: what is worse than %v is refused, however little there is to do.", v.Level)
	case s.Level != qos.LastPriority:
		v.State = say("overloaded")
		v.Says = say("There is more to do than can be done: callers hold back what is worse than %v.", v.Level)
	case s.Waiting > 0:
		v.State, v.Says = say("busy"), say("Calls wait for their turn, and all of them will get one.")
	default:
		v.State, v.Says = say("open"), say("Everyone is let in.")
	}
	snap := d.read(ctx)
	for class := range qos.MaxClass + 1 {
		c := classView{
			Class: class.String(), Admitted: s.Counts[admission.Run][class], Queued: s.Counts[admission.Queue][class],
			Refused: s.Counts[admission.Refuse][class], Evicted: s.Counts[admission.Evict][class],
			Late: s.Counts[admission.Late][class], Expired: s.Counts[admission.Expire][class],
		}
		if class < qos.Critical || class > qos.Background { // nobody's, or a later version's
			if c.Admitted+c.Queued+c.Refused+c.Evicted+c.Late+c.Expired > 0 {
				v.Classes = append(v.Classes, c)
			}
			continue
		}
		label := metrics.Label{Name: "class", Value: c.Class}
		if series := snap.Find("sluice.admission.suppressed", label); series != nil {
			c.Suppressed = uint64(series.Value)
		}
		c.WaitMeanMS, c.WaitP99MS = waited(snap, label)
		v.Classes = append(v.Classes, c)
	}
	return v
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// waited gives mean and 99th percentile of the time in the queue, in milliseconds.
func waited(snap *metrics.Snapshot, label metrics.Label) (mean, p99 float64) {
	series := snap.Find("sluice.admission.queue_wait", label)
	if series == nil || series.Count() == 0 {
		return 0, 0
	}
	for i := range snap.Families {
		if f := &snap.Families[i]; f.Name == "sluice.admission.queue_wait" {
			p99 = quantile(f.Bounds, series.Counts, .99) * 1e3
		}
	}
	return series.Sum / float64(series.Count()) * 1e3, p99
}

// qos is the page of admission: what it does in this process, and what operators do
// about it.
func (d *Dashboard) qos(r *http.Request, _ *query) (*page, error) {
	v := d.looked(r.Context())
	p := &page{Title: say("QoS"), State: v.State, Says: v.Says, Data: v, Mark: warn}
	if v.State.format == "open" || v.State.format == "busy" {
		p.Mark = good
	}
	told := cell{Text: v.Level.String()}
	if v.Pinned {
		told.Text = say("%v (pinned; found: %v)", v.Level, v.Found)
	}
	window := cell{Text: say("as many as like: no service is behind that they go on to")}
	if v.Window > 0 {
		window.Text = say("%d at most, asleep or not: services are behind that they go on to", v.Window)
	}
	p.Parts = []part{{Facts: []fact{
		{say("level told to callers"), told},
		{say("running"), cell{Text: say("%d, of them %d asleep; limit %d; %d cores", v.Running, v.Asleep, v.Limit, v.Cores)}},
		{say("inside at once"), window},
		{say("work that waits"), cell{Text: say("%.0f ms here or behind, as callers are told", v.Backlog)}},
		{say("waiting"), cell{Text: say("%d; %d gave up so far", v.Waiting, v.Withdrew)}},
		{say("capacity"), cell{Text: say("%.0f calls of mean cost a second", v.Capacity)}},
		{say("demand"), cell{Text: say("%.0f a second, with what callers held back", v.Demand)}},
		{say("delay after admission"), cell{Text: say("%.2f ms", v.DelayMS)}},
	}}, v.classes()}
	p.Parts = append(p.Parts, v.overrides()...)
	if len(v.Audit) > 0 {
		p.Parts = append(p.Parts, audited(v.Audit))
	}
	return p, nil
}

func (v *view) classes() part {
	t := &table{
		Columns: []column{
			{say("class"), left},
			{Name: say("admitted")},
			{Name: say("queued")},
			{Name: say("refused")},
			{Name: say("evicted")},
			{Name: say("late")},
			{Name: say("expired")},
			{Name: say("held back by callers")},
			{Name: say("wait, mean ms")},
			{Name: say("p99 ms")},
		},
		Empty: say("Nothing has been counted."),
	}
	for _, c := range v.Classes {
		row := []cell{{Text: c.Class}}
		for _, n := range []uint64{c.Admitted, c.Queued, c.Refused, c.Evicted, c.Late, c.Expired, c.Suppressed} {
			row = append(row, count(n))
		}
		t.Rows = append(t.Rows, append(row, cell{Text: fmt.Sprintf("%.1f", c.WaitMeanMS)}, cell{Text: fmt.Sprintf("%.1f", c.WaitP99MS)}))
	}
	return part{Title: say("Calls since the start"), Table: t}
}

// overrides are the forms by which operators change what admission does.
func (v *view) overrides() []part {
	if len(v.Services) == 0 {
		return nil
	}
	pin := form{
		Label: say("Refuse what is worse than"), Hidden: []hidden{{"action", "pin"}}, Button: say("Pin"),
		Select: &choice{Name: "class", Value: qos.Interactive.String()}, Number: &number{Label: say("user level"), Name: "user", Max: qos.UserLevels - 1},
	}
	for c := qos.Critical; c <= qos.Background; c++ {
		pin.Select.Options = append(pin.Select.Options, c.String())
	}
	if v.Pinned {
		pin = form{Label: say("Level pinned at %v", v.Level), Hidden: []hidden{{"action", "unpin"}}, Button: say("Unpin")}
	}
	parts := []part{{Title: say("Overrides"), Note: say("They act at once, end with the process, and are written down."), Forms: []form{pin}}}
	for _, s := range v.Services {
		service := hidden{"service", s.Name}
		here := part{Facts: []fact{{say("methods"), count(uint64(len(s.Methods)))}}, Title: say("service %s: admission on", s.Name)}
		turn := form{Hidden: []hidden{service, {"action", "off"}}, Button: say("Turn off")}
		if s.Off {
			here.Title = say("service %s: admission off", s.Name)
			turn = form{Hidden: []hidden{service, {"action", "on"}}, Button: say("Turn on")}
		}
		if len(s.Exempt) > 0 {
			here.Facts = append(here.Facts, fact{say("exempt"), cell{Text: strings.Join(s.Exempt, ", ")}})
		}
		here.Forms = append(here.Forms, turn)
		if len(s.Methods) > 0 {
			here.Forms = append(here.Forms, form{
				Hidden: []hidden{service, {"action", "exempt"}}, Select: &choice{Name: "method", Options: s.Methods}, Button: say("Exempt"),
			})
		}
		for _, m := range s.Exempt {
			here.Forms = append(here.Forms, form{
				Label: say("Exempt: %s", m), Hidden: []hidden{service, {"method", m}, {"action", "end-exempt"}}, Button: say("End it"),
			})
		}
		parts = append(parts, here)
	}
	return parts
}

// audited shows what operators have done.
func audited(all []admit.Audit) part {
	t := &table{Columns: []column{{say("time"), left}, {say("from"), left}, {say("what"), prose}, {say("why"), prose}}}
	for _, a := range all {
		t.Rows = append(t.Rows, []cell{{Text: a.Time.UTC().Format(time.DateTime) + "Z"}, {Text: a.From}, {Text: a.What}, {Text: a.Reason}})
	}
	return part{Title: say("What operators did, the latest first"), Table: t}
}

// order is the request for an override.
type order struct {
	Action  string `json:"action"`
	Class   string `json:"class"` // of the level to pin
	User    *uint8 `json:"user"`  // of the level to pin; all of the class if nil
	Service string `json:"service"`
	Method  string `json:"method"`
	Reason  string `json:"reason"`
}

func (o *order) level() (qos.Priority, error) {
	class, err := qos.ParseClass(o.Class)
	if err != nil {
		return 0, fmt.Errorf("class: %w", err)
	}
	user := uint8(qos.UserLevels - 1)
	if o.User != nil {
		if *o.User >= qos.UserLevels {
			return 0, fmt.Errorf("user: %d is no level of a user: want 0, the best, to %d", *o.User, qos.UserLevels-1)
		}
		user = *o.User
	}
	return qos.PriorityOf(class, user), nil
}

func readForm(f url.Values) (o order, err error) {
	o = order{
		Action: f.Get("action"), Class: f.Get("class"), Service: f.Get("service"), Method: f.Get("method"),
		Reason: f.Get("reason"),
	}
	if text := f.Get("user"); text != "" {
		n, err := strconv.ParseUint(text, 10, 8)
		if err != nil {
			return o, fmt.Errorf("user: %q is no level of a user: want 0, the best, to %d", text, qos.UserLevels-1)
		}
		user := uint8(n)
		o.User = &user
	}
	return o, nil
}

func (d *Dashboard) override(w http.ResponseWriter, r *http.Request) {
	changed(d, w, r, readForm, func(ctx context.Context, o order) error {
		if d.Door == nil {
			return errors.New("admission is off by the configuration of this server: set admission: on there and start it again")
		}
		var level qos.Priority
		if o.Action == string(admit.Pin) {
			var err error
			if level, err = o.level(); err != nil {
				return err
			}
		}
		by := admit.Override{Action: admit.Action(o.Action), Level: level, Service: o.Service, Method: o.Method, Reason: o.Reason}
		if err := d.Door.Override(by, r.RemoteAddr, d.Log); err != nil || d.Workers == nil {
			return err
		}
		return d.Workers.order(ctx, workerOrder{Override: &by, From: r.RemoteAddr})
	}, func(ctx context.Context) any { return d.looked(ctx) })
}
