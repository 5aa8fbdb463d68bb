// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

// QoS is the page of admission: what it does in this process, and what operators do
// about it.
type QoS struct {
	Door  *admit.Door // nil: admission is off by configuration
	Items *metrics.Registry
	// Token, if there is one, must come with every override, wherever it comes from.
	// Without one overrides are taken from this machine alone.
	Token string
	Log   *slog.Logger
}

// maxOverride is the longest request for an override in bytes.
const maxOverride = 16 << 10

// Handler gives the page: GET shows it as HTML to browsers, as text to others, as JSON
// to who asks for it by Accept or ?format=json. POST overrides, by form or JSON.
func (q *QoS) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", q.show)
	mux.HandleFunc("POST /", q.override)
	return http.NewCrossOriginProtection().Handler(mux)
}

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
	State    string  `json:"state"` // open, busy, overloaded, pinned or off
	Says     string  `json:"says"`  // the same in a sentence
	Level    level   `json:"level"` // as callers are told
	Found    level   `json:"level_found"`
	Pinned   bool    `json:"pinned"`
	Cores    int     `json:"cores"`
	Limit    int     `json:"limit"`
	Running  int     `json:"running"`
	Asleep   int     `json:"asleep"`
	Waiting  int     `json:"waiting"`
	Capacity float64 `json:"capacity"` // calls of mean cost a second
	Demand   float64 `json:"demand"`
	DelayMS  float64 `json:"delay_ms"`
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

func (q *QoS) look() *view {
	if q.Door == nil {
		return &view{
			State: "off", Says: "Admission is off by the configuration of this server (admission: off): whatever comes is served.",
			Level: levelOf(qos.LastPriority), Found: levelOf(qos.LastPriority),
			Classes: []classView{}, Services: []admit.ServiceState{}, Audit: []admit.Audit{},
		}
	}
	s := q.Door.State()
	v := &view{
		Level: levelOf(s.Level), Found: levelOf(s.Level), Cores: q.Door.Cores(), Limit: s.Limit, Running: s.Running, Asleep: s.Asleep, Waiting: s.Waiting,
		Capacity: s.Capacity, Demand: s.Demand, DelayMS: milliseconds(s.Delay), Withdrew: s.Withdrew,
		Services: q.Door.Services(), Audit: q.Door.Audited(), NeedsToken: q.Token != "",
	}
	p, pinned := q.Door.Pinned()
	switch {
	case pinned:
		v.State, v.Pinned, v.Level = "pinned", true, levelOf(p)
		v.Says = "An operator has pinned the level: what is worse than " + v.Level.String() + " is refused, however little there is to do."
	case s.Level != qos.LastPriority:
		v.State = "overloaded"
		v.Says = "There is more to do than can be done: callers hold back what is worse than " + v.Level.String() + "."
	case s.Waiting > 0:
		v.State, v.Says = "busy", "Calls wait for their turn, and all of them will get one."
	default:
		v.State, v.Says = "open", "Everyone is let in."
	}
	snap := q.Items.Snapshot()
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
	n := series.Count()
	mean = series.Sum / float64(n) * 1e3
	var bounds []float64
	for i := range snap.Families {
		if snap.Families[i].Name == "sluice.admission.queue_wait" {
			bounds = snap.Families[i].Bounds
		}
	}
	rank, below, lower := float64(n)*.99, 0., 0.
	for i, count := range series.Counts {
		if i >= len(bounds) {
			break
		}
		if here := float64(count); here > 0 && below+here >= rank {
			return mean, (lower + (bounds[i]-lower)*(rank-below)/here) * 1e3
		}
		below, lower = below+float64(count), bounds[i]
	}
	return mean, lower * 1e3
}

//go:embed qos.html
var qosHTML string

var qosPage = template.Must(template.New("qos").Parse(qosHTML))

// qosPolicy allows the page its own style and forms, and nothing else.
var qosPolicy = func() string {
	_, rest, _ := strings.Cut(qosHTML, "<style>")
	style, _, _ := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}()

func (q *QoS) show(w http.ResponseWriter, r *http.Request) {
	v := q.look()
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept")
	switch format := formatOf(r); format {
	case "json":
		sendJSON(w, http.StatusOK, v)
	case "text":
		h.Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(v.text())
	case "html":
		var page bytes.Buffer
		if err := qosPage.Execute(&page, v); err != nil {
			http.Error(w, "the page cannot be written: "+err.Error(), http.StatusInternalServerError)
			return
		}
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", qosPolicy)
		h.Set("Referrer-Policy", "no-referrer")
		_, _ = w.Write(page.Bytes())
	default:
		http.Error(w, fmt.Sprintf("format %q is none: want html, text or json", format), http.StatusBadRequest)
	}
}

// formatOf reads ?format=, else Accept. Whoever names neither HTML nor JSON, as curl,
// gets text.
func formatOf(r *http.Request) string {
	if format := r.URL.Query().Get("format"); format != "" {
		return format
	}
	accept := r.Header.Get("Accept")
	switch {
	case strings.Contains(accept, "text/html"):
		return "html"
	case strings.Contains(accept, "application/json"):
		return "json"
	}
	return "text"
}

func sendJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, "the answer cannot be written: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

// text is the page for terminals.
func (v *view) text() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s: %s\n\n", v.State, v.Says)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "level\t%v\t(found: %v)\n", v.Level, v.Found)
	fmt.Fprintf(t, "running\t%d\tof %d that do not sleep; %d sleep; %d cores\n", v.Running, v.Limit, v.Asleep, v.Cores)
	fmt.Fprintf(t, "waiting\t%d\t%d gave up\n", v.Waiting, v.Withdrew)
	fmt.Fprintf(t, "capacity\t%.0f\tcalls/s\n", v.Capacity)
	fmt.Fprintf(t, "demand\t%.0f\tcalls/s\n", v.Demand)
	fmt.Fprintf(t, "delay\t%.2f\tms after admission\n", v.DelayMS)
	_ = t.Flush() // a buffer takes everything
	b.WriteByte('\n')
	t = tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "class\tadmitted\tqueued\trefused\tevicted\tlate\texpired\tsuppressed\twait ms\tp99\t\n")
	for _, c := range v.Classes {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%.1f\t%.1f\t\n",
			c.Class, c.Admitted, c.Queued, c.Refused, c.Evicted, c.Late, c.Expired, c.Suppressed, c.WaitMeanMS, c.WaitP99MS)
	}
	_ = t.Flush()
	for _, s := range v.Services {
		state := "on"
		if s.Off {
			state = "OFF by an operator"
		}
		fmt.Fprintf(&b, "\nservice %s: admission %s\n", s.Name, state)
		for _, m := range s.Exempt {
			fmt.Fprintf(&b, "  exempt: %s\n", m)
		}
	}
	if len(v.Audit) > 0 {
		b.WriteString("\noverrides, the latest first\n")
	}
	for _, a := range v.Audit {
		fmt.Fprintf(&b, "  %s  %s  %s: %s\n", a.Time.Format(time.RFC3339), a.From, a.What, a.Reason)
	}
	return b.Bytes()
}

// order is the request for an override.
type order struct {
	Action  string `json:"action"`
	Class   string `json:"class"` // of the level to pin
	User    *uint8 `json:"user"`  // of the level to pin; all of the class if nil
	Service string `json:"service"`
	Method  string `json:"method"`
	Reason  string `json:"reason"`

	token string
}

func (q *QoS) override(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	asJSON := false
	refuse := func(status int, err error) {
		if asJSON {
			sendJSON(w, status, map[string]string{"error": err.Error()})
			return
		}
		http.Error(w, err.Error(), status)
	}
	if err := q.near(r); err != nil {
		refuse(http.StatusForbidden, err)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxOverride)
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var o order
	switch {
	case err == nil && media == "application/json":
		asJSON = true
		o, err = readJSON(r.Body)
	case err == nil && media == "application/x-www-form-urlencoded":
		o, err = readForm(r)
	default:
		refuse(http.StatusUnsupportedMediaType, errors.New("send a form or Content-Type: application/json"))
		return
	}
	if !q.allowed(r, o.token) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		refuse(http.StatusUnauthorized, errors.New("send Authorization: Bearer with the admin token of this server, or the form's field token"))
		return
	}
	if err == nil && q.Door == nil {
		err = errors.New("admission is off by the configuration of this server: set admission: on there and start it again")
	}
	var level qos.Priority
	if err == nil && o.Action == string(admit.Pin) {
		level, err = o.level()
	}
	if err == nil {
		err = q.Door.Override(admit.Override{
			Action: admit.Action(o.Action), Level: level, Service: o.Service, Method: o.Method, Reason: o.Reason,
		}, r.RemoteAddr, q.Log)
	}
	switch {
	case err != nil:
		refuse(http.StatusBadRequest, err)
	case asJSON:
		sendJSON(w, http.StatusOK, q.look())
	default:
		http.Redirect(w, r, r.URL.Path, http.StatusSeeOther)
	}
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

func readJSON(body io.Reader) (o order, err error) {
	dec := json.NewDecoder(body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil {
		return o, fmt.Errorf("body: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return o, errors.New("body: want one JSON object, nothing after it")
	}
	return o, nil
}

func readForm(r *http.Request) (o order, err error) {
	if err := r.ParseForm(); err != nil {
		return o, fmt.Errorf("form: %w", err)
	}
	f := r.PostForm
	o = order{
		Action: f.Get("action"), Class: f.Get("class"), Service: f.Get("service"), Method: f.Get("method"),
		Reason: f.Get("reason"), token: f.Get("token"),
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

// near refuses, without a token, what does not come from this machine, and what a
// browser on it was made to send here under a name that is not this machine's.
func (q *QoS) near(r *http.Request) error {
	if q.Token != "" {
		return nil
	}
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || !at.Addr().Unmap().IsLoopback() {
		return errors.New("overrides are taken from this machine alone; give the server an admin token to take them from elsewhere")
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); host != "localhost" && (err != nil || !addr.Unmap().IsLoopback()) {
		return fmt.Errorf("overrides are taken under an address of this machine, not as %q", host)
	}
	return nil
}

// allowed compares the token in a time that says nothing about it.
func (q *QoS) allowed(r *http.Request, token string) bool {
	if q.Token == "" {
		return true
	}
	scheme, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		bearer = ""
	}
	got, want := sha256.Sum256([]byte(cmp.Or(bearer, token))), sha256.Sum256([]byte(q.Token))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}
