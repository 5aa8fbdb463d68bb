// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
)

// A Callable is a method that operators can try, as its contract has it.
type Callable struct {
	Method    string  `json:"method"`             // package.Service/Method
	Request   string  `json:"request"`            // in JSON, with all its fields empty
	Class     string  `json:"class"`              // that its contract gives a call
	TimeoutMS int     `json:"timeout_ms"`         // the longest its contract lets a call take
	Reads     bool    `json:"reads,omitzero"`     // it only reads
	Message   string  `json:"message,omitempty"`  // the type of its request
	Response  string  `json:"response,omitempty"` // and that of its response
	Fields    []Field `json:"fields,omitempty"`   // of its request; on the page of one method
}

// A Field is one of a message, or of a message in it.
type Field struct {
	Name string `json:"name"` // in JSON; "page.size" for one of a message in it
	Type string `json:"type"`
}

// A Try is a call that an operator asks for.
type Try struct {
	Method  string
	Request []byte    // in JSON
	Class   qos.Class // 0 for that of the contract
}

// Tried is what came of it.
type Tried struct {
	Response []byte // in JSON
	Trace    string // of the call
}

// callOrder is the request to call a method.
type callOrder struct {
	Method    string          `json:"method"`
	Request   json.RawMessage `json:"request"`
	Reason    string          `json:"reason"`
	Class     string          `json:"class"`
	TimeoutMS int             `json:"timeout_ms"` // 0 for what the contract says
}

// callAnswer is what came of it: a response or an error.
type callAnswer struct {
	Method   string          `json:"method"`
	TookMS   float64         `json:"took_ms"`
	Trace    string          `json:"trace"`
	Response json.RawMessage `json:"response,omitempty"`
	Code     string          `json:"code,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Message  string          `json:"message,omitempty"`
}

const (
	// longestTry is how long a call that is tried may take.
	longestTry = 10 * time.Second
	// maxTry is the longest request to try a call in bytes.
	maxTry = 128 << 10
)

func (d *Dashboard) callables() []Callable {
	if d.Callable == nil {
		return nil
	}
	return d.Callable()
}

// calls is the page that says what can be tried, and how; with ?method= it has the form.
func (d *Dashboard) calls(r *http.Request, q *query) (*page, error) {
	if q.given.Has("method") {
		return d.callForm(q)
	}
	var all []Callable
	for _, c := range d.callables() {
		if q.finds(c.Method, c.Message) {
			c.Fields = nil
			all = append(all, c)
		}
	}
	here, g := paged(r, q, all)
	p := &page{
		Title: say("Try a call"), Pager: g, Data: listOf(g, here),
		Says: say("Choose a method, or POST it and its request as JSON, with a reason, to this page. The call is made in this process: no allow-list is asked."),
	}
	t := &table{Columns: []column{{say("method"), left}, {say("request"), prose}}, Empty: say("This process has no method to try.")}
	for _, c := range here {
		t.Rows = append(t.Rows, []cell{{Text: c.Method, Href: q.link(r.URL.Path, "method", c.Method)}, {Text: c.Request, Code: true}})
	}
	p.Parts = []part{{Table: t}}
	if len(here) > 0 {
		p.Parts = append(p.Parts, part{Pre: clean("curl -H 'Content-Type: application/json' " + r.Host + "/admin/call -d '" +
			`{"method":"` + here[0].Method + `","request":` + strings.ReplaceAll(here[0].Request, "'", "") + `,"reason":"..."}'`)})
	}
	return p, nil
}

// callForm is the page on which one method is tried.
func (d *Dashboard) callForm(q *query) (*page, error) {
	for _, c := range d.callables() {
		if c.Method == q.get("method") {
			p := c.page(q, callOrder{Request: json.RawMessage(indented(c.Request)), Class: c.Class, TimeoutMS: c.longest()})
			p.Parts[0].Forms[0].Area.Focus = true
			return p, nil
		}
	}
	return nil, fail(http.StatusNotFound, "method: this server has no method %q that can be tried", cut(q.get("method")))
}

// longest is how long a call that is tried may take, in ms.
func (c *Callable) longest() int { return min(c.TimeoutMS, int(longestTry/time.Millisecond)) }

// page has the form of a method, filled in with an order.
func (c *Callable) page(q *query, o callOrder) *page {
	p := &page{
		Title: say("%s: try a call", c.Method), Back: q.link("/admin/call"), Data: c,
		Says: say("The call is made in this process: no allow-list is asked. It is written to the log, and traced."),
	}
	does := say("this method may change something")
	if c.Reads {
		does = say("this method only reads")
	}
	classes := []string{c.Class} // which may be none
	for class := qos.Critical; class <= qos.Background; class++ {
		if class.String() != c.Class {
			classes = append(classes, class.String())
		}
	}
	rows := min(max(4, strings.Count(string(o.Request), "\n")+2), 24)
	p.Parts = []part{{
		Facts: []fact{
			{say("request"), cell{Text: c.Message, Code: true}},
			{say("response"), cell{Text: c.Response, Code: true}},
			{say("idempotency"), cell{Text: does}},
		},
		Forms: []form{{
			Area:   &area{Label: say("Request, in JSON"), Name: "request", Value: string(o.Request), Rows: rows},
			Select: &choice{Label: say("Class"), Name: "class", Value: o.Class, Options: classes},
			Number: &number{Label: say("Deadline, ms"), Name: "timeout_ms", Min: 1, Max: c.longest(), Value: strconv.Itoa(o.TimeoutMS)},
			Reason: o.Reason, Button: say("Call"),
		}},
	}}
	if len(c.Fields) == 0 {
		return p
	}
	t := &table{Columns: []column{{say("field"), left}, {say("type"), prose}}}
	for _, f := range c.Fields {
		t.Rows = append(t.Rows, []cell{{Text: f.Name, Code: true}, {Text: f.Type, Code: true}})
	}
	p.Parts = append(p.Parts, part{Title: say("Fields of the request"), Table: t})
	return p
}

// indented gives JSON in lines, or as it is if it is none.
func indented(text string) string {
	var b bytes.Buffer
	if json.Indent(&b, []byte(text), "", "  ") != nil {
		return text
	}
	return b.String()
}

// call makes the call that an operator has asked for. A form is answered with the page
// that has sent it, and what came of the call.
func (d *Dashboard) call(w http.ResponseWriter, r *http.Request) {
	o, how, err := ordered(d, w, r, maxTry, callOrderOf)
	if err != nil {
		refuse(w, r, how, err)
		return
	}
	answer, err := d.try(r, o)
	if how == "json" {
		if err != nil {
			refuse(w, r, how, err)
			return
		}
		sendJSON(w, r, answer)
		return
	}
	q, broken := parseQuery(r)
	if broken == nil {
		q.Format = "html"
		o.Method = q.get("method")
		for _, c := range d.callables() {
			if c.Method == o.Method {
				p := c.page(q, o)
				status := http.StatusOK
				if err != nil {
					status = refusalOf(err)
					p.State, p.Mark, p.Says = say("not called"), bad, say("%s", err.Error())
				} else {
					answer.show(q, p)
				}
				d.writeAs(w, r, q, p, status)
				return
			}
		}
		broken = err
	}
	if broken == nil {
		broken = fail(http.StatusBadRequest, "method: this server has no method %q that can be tried", cut(o.Method))
	}
	refuse(w, r, how, broken)
}

// callOrderOf reads the form; the method is in its address.
func callOrderOf(r *http.Request, f url.Values) (callOrder, error) {
	o := callOrder{
		Method: r.URL.Query().Get("method"), Request: json.RawMessage(strings.ReplaceAll(f.Get("request"), "\r\n", "\n")),
		Reason: f.Get("reason"), Class: f.Get("class"),
	}
	if text := f.Get("timeout_ms"); text != "" {
		ms, err := strconv.Atoi(text)
		if err != nil {
			ms = -1 // is told with the others that are none
		}
		o.TimeoutMS = ms
	}
	return o, nil
}

// try makes a call; an error says why none was made.
func (d *Dashboard) try(r *http.Request, o callOrder) (*callAnswer, error) {
	t := Try{Method: o.Method, Request: o.Request}
	within := longestTry
	switch {
	case d.Call == nil:
		return nil, fail(http.StatusNotFound, "this process serves no methods")
	case strings.TrimSpace(o.Reason) == "":
		return nil, fail(http.StatusBadRequest, "reason: say why, it is written to the log")
	case o.TimeoutMS < 0 || o.TimeoutMS > int(longestTry/time.Millisecond):
		return nil, fail(http.StatusBadRequest, "timeout_ms: %d is none: want 1 to %d", o.TimeoutMS, longestTry/time.Millisecond)
	case o.TimeoutMS > 0:
		within = time.Duration(o.TimeoutMS) * time.Millisecond
	}
	if o.Class != "" && o.Class != qos.Unspecified.String() {
		class, err := qos.ParseClass(o.Class)
		if err != nil {
			return nil, fail(http.StatusBadRequest, "class: %w", err)
		}
		t.Class = class
	}
	d.Log.Info("an operator calls a method", slog.String("method", o.Method), slog.String("reason", o.Reason), slog.String("from", r.RemoteAddr))
	ctx, cancel := context.WithTimeout(r.Context(), within)
	defer cancel()
	began := time.Now()
	tried, err := d.Call(ctx, t)
	answer := &callAnswer{Method: o.Method, Trace: tried.Trace, Response: tried.Response, TookMS: float64(time.Since(began).Microseconds()) / 1000}
	if e := callError(err); e != nil {
		answer.Code, answer.Reason, answer.Message = e.Code.String(), e.Reason.String(), e.Message
	} else if err != nil {
		return nil, err // no call was made
	}
	return answer, nil
}

// show puts what came of a call before its form.
func (a *callAnswer) show(q *query, p *page) {
	p.State, p.Mark = say("ok"), good
	answer := part{Title: say("Answer"), Facts: []fact{
		{say("took"), cell{Text: spell(seconds(a.TookMS / 1000))}},
		{say("trace"), cell{Text: a.Trace, Code: true, Href: q.link("/admin/rpcz", "trace", a.Trace)}},
	}}
	if a.Code == "" {
		answer.Pre = indented(string(a.Response))
	} else {
		p.State, p.Mark = say("%s", a.Code), bad
		answer.Facts = append([]fact{{say("code"), cell{Text: a.Code, Mark: bad}}, {say("why"), cell{Text: a.Reason}}, {say("what it says"), cell{Text: a.Message}}}, answer.Facts...)
	}
	p.Parts = append([]part{answer}, p.Parts...)
}

// callError gives what a call has ended with, nil if none was made.
func callError(err error) *rpc.Error {
	e, _ := err.(*rpc.Error) //nolint:errorlint // a connection gives it as it is
	return e
}
