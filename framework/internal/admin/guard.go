// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

const (
	// maxAtOnce is how many pages a port writes at the same time: they cost processor
	// time that calls need.
	maxAtOnce = 8
	// maxChange is the longest request for a change in bytes.
	maxChange = 16 << 10
)

// guard lets those through who may look: this machine, and who brings the token. A
// page of another site may send a reader here, but not make a browser fetch anything.
func (d *Dashboard) guard(h http.Handler) http.Handler {
	places := make(chan struct{}, maxAtOnce)
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sendError(w, r, formatOf(r, nil), http.StatusForbidden, errors.New("cross-origin request: changes are taken from pages of this server, and from programs"))
	}))
	return origin.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := d.mayLook(r); err != nil {
			if statusOf(err) == http.StatusUnauthorized {
				w.Header().Add("WWW-Authenticate", `Basic realm="admin token as the password", charset="UTF-8"`)
				w.Header().Add("WWW-Authenticate", "Bearer")
			}
			sendError(w, r, formatOf(r, nil), statusOf(err), err)
			return
		}
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
			h.ServeHTTP(w, r)
		default:
			w.Header().Set("Retry-After", "1")
			sendError(w, r, formatOf(r, nil), http.StatusServiceUnavailable, fmt.Errorf("%d requests for this page are being answered already: try again", maxAtOnce))
		}
	}))
}

// changes holds what is sent to a page of somebody else to the rule for changes. Guard
// leaves that to the pages, of which some find the token in a form.
func (d *Dashboard) changes(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			if err := d.mayChange(r, ""); err != nil {
				if statusOf(err) == http.StatusUnauthorized {
					w.Header().Set("WWW-Authenticate", "Bearer")
				}
				sendError(w, r, formatOf(r, nil), statusOf(err), err)
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// mayLook refuses who may not see the pages. What a change needs is for mayChange.
func (d *Dashboard) mayLook(r *http.Request) error {
	if r.Context().Value(fromSupervisor{}) != nil {
		return nil
	}
	site := r.Header.Get("Sec-Fetch-Site")
	if (site == "cross-site" || site == "same-site") && r.Header.Get("Sec-Fetch-Mode") != "navigate" {
		return fail(http.StatusForbidden, "cross-origin request: the pages are not for other sites to fetch")
	}
	near := here(r)
	switch {
	case near == nil, d.token() != "" && r.Method == http.MethodPost: // a form may hold the token
		return nil
	case d.token() == "":
		return fail(http.StatusForbidden, "%w; give the server an admin token to have its pages elsewhere", near)
	case !d.allowed(r, ""):
		return fail(http.StatusUnauthorized, "send the admin token of this server as Authorization: Bearer, or as a password")
	}
	return nil
}

// mayChange refuses who may not change anything: without a token what does not come
// from this machine.
func (d *Dashboard) mayChange(r *http.Request, token string) error {
	if r.Context().Value(fromSupervisor{}) != nil {
		return nil
	}
	if d.token() == "" {
		if err := here(r); err != nil {
			return fail(http.StatusForbidden, "%w; give the server an admin token to change it from elsewhere", err)
		}
		return nil
	}
	if !d.allowed(r, token) {
		return fail(http.StatusUnauthorized, "send Authorization: Bearer with the admin token of this server, or the form's field token")
	}
	return nil
}

// here refuses what does not come from this machine, and what a browser on it was made
// to send here under a name that is not this machine's.
func here(r *http.Request) error {
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || !at.Addr().Unmap().IsLoopback() {
		return errors.New("the pages of this server are for this machine alone")
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); host != "localhost" && (err != nil || !addr.Unmap().IsLoopback()) {
		return fmt.Errorf("the pages of this server are had under an address of this machine, not as %q", cut(host))
	}
	return nil
}

func (d *Dashboard) token() string {
	if d.Token == nil {
		return ""
	}
	return d.Token()
}

// allowed compares the token in a time that says nothing about it.
func (d *Dashboard) allowed(r *http.Request, token string) bool {
	if d.token() == "" {
		return true
	}
	scheme, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		bearer = ""
	}
	if _, password, ok := r.BasicAuth(); ok {
		bearer = password
	}
	got, want := sha256.Sum256([]byte(cmp.Or(bearer, token))), sha256.Sum256([]byte(d.token()))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// changed takes a request for a change, as a form or JSON, has it carried out, and
// answers: a form with the page that sent it, JSON with the page as it is now.
func changed[T any](d *Dashboard, w http.ResponseWriter, r *http.Request, fromForm func(url.Values) (T, error), do func(context.Context, T) error, now func(context.Context) any) {
	order, how, err := ordered(d, w, r, maxChange, func(_ *http.Request, f url.Values) (T, error) { return fromForm(f) })
	if err == nil {
		err = do(r.Context(), order)
	}
	if err != nil {
		refuse(w, r, how, err)
		return
	}
	if how == "json" {
		sendJSON(w, r, now(r.Context()))
		return
	}
	back := r.URL.Path
	if q, err := parseQuery(r); err == nil {
		back = q.link(back)
	}
	http.Redirect(w, r, back, http.StatusSeeOther)
}

// ordered reads what a request orders from a form or JSON of at most so many bytes, if who
// sends it may order anything. How says in which format it is answered.
func ordered[T any](d *Dashboard, w http.ResponseWriter, r *http.Request, most int64, fromForm func(*http.Request, url.Values) (T, error)) (order T, how string, err error) {
	if err := d.mayChange(r, ""); err != nil && d.token() == "" { // before anything of it is read
		return order, "text", err
	}
	// A deadline that cannot be set is one of a test. It is for reading: left in place it
	// would end the request that has been read.
	limit := http.NewResponseController(w)
	_ = limit.SetReadDeadline(time.Now().Add(headerTimeout))
	defer func() { _ = limit.SetReadDeadline(time.Time{}) }()
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	isJSON, isForm := err == nil && media == "application/json", err == nil && media == "application/x-www-form-urlencoded"
	how = "text"
	if isJSON {
		how = "json"
	}
	if !isJSON && !isForm {
		if err := d.mayChange(r, ""); err != nil {
			return order, how, err
		}
		return order, how, fail(http.StatusUnsupportedMediaType, "send a form or Content-Type: application/json")
	}
	r.Body = http.MaxBytesReader(w, r.Body, most)
	var broken error
	token := ""
	if isJSON {
		order, broken = readJSON[T](r.Body)
	} else if broken = r.ParseForm(); broken == nil {
		token = r.PostForm.Get("token")
		if broken = disguised(r.PostForm); broken == nil {
			order, broken = fromForm(r, r.PostForm)
		}
	} else {
		broken = fmt.Errorf("form: %w", broken)
	}
	if err := d.mayChange(r, token); err != nil {
		return order, how, err
	}
	return order, how, broken
}

// disguised refuses JSON that says it is a form, as curl has it of all it sends with -d.
func disguised(f url.Values) error {
	for name := range f {
		if strings.HasPrefix(strings.TrimSpace(name), "{") {
			return fail(http.StatusUnsupportedMediaType, "this is JSON, sent as a form: say Content-Type: application/json")
		}
	}
	return nil
}

// refuse tells why an order is not carried out.
func refuse(w http.ResponseWriter, r *http.Request, format string, err error) {
	status := refusalOf(err)
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	sendError(w, r, format, status, err)
}

// refusalOf is statusOf for an order, which is to blame if nothing else is said.
func refusalOf(err error) int {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.status
	}
	return http.StatusBadRequest
}

func sendJSON(w http.ResponseWriter, r *http.Request, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		refuse(w, r, "json", fail(http.StatusInternalServerError, "the answer cannot be written: %w", err))
		return
	}
	send(w, r, http.StatusOK, "application/json", append(body, '\n'))
}

func readJSON[T any](body io.Reader) (order T, err error) {
	dec := json.NewDecoder(body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&order); err != nil {
		return order, fmt.Errorf("body: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return order, errors.New("body: want one JSON object, nothing after it")
	}
	return order, nil
}
