// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sluice-rpc/sluice/app/cluster/clustertest"
)

// What is wrong with a request is made up from openapi.yaml itself, for every operation
// and every member of its request, so that no route is forgotten.

type request = map[string]any

const (
	// script is text that would be markup, a header or a second answer if it were ever
	// taken for one.
	script = "<script>alert(1)</script>\r\nX-Injected: 1\r\n\r\n<img src=x onerror=alert(1)>"
	// malformed is no escape of a query.
	malformed = "%zz"
	// noneToken is a JSON web token that asks to be believed without a signature.
	noneToken = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiIwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NSJ9."
)

// try is a request of an operation that would work, for the test to spoil.
type try struct {
	by      person
	path    string // its last steps, for the parameters of the path
	body    string // JSON; empty for none
	headers []string
}

// spoilt is what was made of a try.
type spoilt struct {
	what, path, body string
	headers          []string
	// fields is what the problem may name; none if it need not name anything. ok says
	// that it may also work, since what is asked for is harmless: to delete what is not
	// there, text that is only text.
	fields []string
	ok     bool
}

// TestNothingWrongIsTaken sends every operation of openapi.yaml what it must not take. Each
// answer is a problem document that names what is at fault, nothing is stored, and memory
// stays flat.
func TestNothingWrongIsTaken(t *testing.T) {
	m, err := moments()
	if err != nil {
		t.Fatal(err)
	}
	address := clustertest.Start(t)
	s := newSpoiler(t, address)
	stop := watchMemory()
	for _, pattern := range slices.Sorted(maps.Keys(m.operations)) {
		op := m.operations[pattern]
		tr, known := s.tries[pattern]
		if !known {
			t.Errorf("%s: say in newSpoiler what a request that works is like", pattern)
			continue
		}
		t.Run(strings.ReplaceAll(pattern, "/", "_"), func(t *testing.T) {
			before := s.stored(t)
			for _, bad := range s.spoil(m, op, pattern, tr) {
				if !bad.ok {
					s.send(t, pattern, tr, bad)
				}
			}
			s.strangers(t, op, pattern, tr)
			if after := s.stored(t); after != before {
				t.Errorf("something was stored:\nbefore %s\nafter  %s", before, after)
			}
			for _, bad := range s.spoil(m, op, pattern, tr) { // what may work comes after the rest
				if bad.ok {
					s.send(t, pattern, tr, bad)
				}
			}
			if op.RequestBody.Required {
				s.flood(t, address, pattern, tr)
			}
		})
	}
	const most = 100 << 20
	if grown := stop(); grown > most {
		t.Errorf("memory grew by %d MB, at most %d may be", grown>>20, most>>20)
	}
}

// spoiler has some people with one of everything, and makes bad requests.
type spoiler struct {
	tries   map[string]try
	mary    person
	looks   []string // what Mary reads to see what is stored
	other   string   // an id of what is somebody else's, or of nothing
	cursors []string // of another list, or another's
	altered string   // her token, with another end
	ended   string   // the token of a session that has ended
}

func newSpoiler(t *testing.T, address string) *spoiler {
	t.Helper()
	g := at(t, address)
	mary, li, han, pat := newPerson(t, g, "mary"), newPerson(t, g, "lilei"), newPerson(t, g, "hanmei"), newPerson(t, g, "pat")
	mary.befriend(li)
	han.call("POST", "/friend-requests", map[string]string{"user": mary.ID}).want(t, 200, nil)
	mary.welcomed(2) // a yes and a request
	var made struct {
		ID string `json:"id"`
	}
	mary.call("POST", "/tags", map[string]any{"name": "climbers", "users": []string{li.ID}}).want(t, 201, &made)
	tag := made.ID
	p, hers := mary.post("seen by friends").ID, mary.post("another").ID
	c := mary.says(p, "", "first")
	data := photograph(t, 64, 64)
	start := request{"kind": "photo", "size": len(data), "sha256": hexSum(data)}
	mary.call("POST", "/uploads", start).want(t, 201, &made)
	upload := made.ID
	li.call("POST", "/uploads", start).want(t, 201, &made)
	foreign := made.ID // another's upload
	var list page[notice]
	mary.call("GET", "/notices", nil).want(t, 200, &list)
	var first, his page[post]
	mary.call("GET", "/timeline?limit=1", nil).want(t, 200, &first)
	li.arrived(hers)
	li.call("GET", "/timeline?limit=1", nil).want(t, 200, &his)
	leaver := again(t, g, "mary", "correct horse")
	leaver.call("DELETE", "/sessions/current", nil).want(t, 204, nil)

	js := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	s := &spoiler{mary: mary, other: foreign, cursors: []string{his.NextCursor, his.NewestCursor}, ended: leaver.token}
	s.altered = mary.token[:len(mary.token)-2] + map[bool]string{true: "xy", false: "zw"}[mary.token[len(mary.token)-2:] != "xy"]
	s.looks = []string{
		"/me", "/me/settings", "/sessions", "/friends", "/friend-requests", "/friend-settings", "/friends/" + li.ID + "/settings", "/tags", "/tags/" + tag,
		"/users/" + mary.ID + "/album", "/posts/" + p, "/posts/" + p + "/comments", "/posts/" + p + "/likes", "/timeline", "/notices", "/notices/unread", "/uploads/" + upload,
	}
	s.tries = map[string]try{}
	add := func(by person, pattern, path string, body any, headers ...string) {
		text := ""
		if body != nil {
			text = js(body)
		}
		s.tries[pattern] = try{by, path, text, headers}
	}
	add(person{client: &client{t: t, h: g}}, "POST /accounts", "", request{"name": "ann", "password": "correct horse", "display_name": "Ann"})
	add(person{client: &client{t: t, h: g}}, "POST /sessions", "", request{"name": "pat", "password": "incorrect", "device": "a phone"})
	add(mary, "GET /sessions", "", nil)
	add(pat, "DELETE /sessions", "", nil)
	add(mary, "DELETE /sessions/{session}", foreign, nil)
	add(pat, "DELETE /sessions/current", "", nil)
	add(mary, "GET /me", "", nil)
	add(mary, "PATCH /me", "", request{"display_name": "Mary", "avatar_media_id": mary.photo(60).ID, "cover_media_id": mary.photo(70).ID})
	add(pat, "PUT /me/password", "", request{"old_password": "incorrect", "new_password": "battery staple"})
	add(pat, "POST /me/deletion", "", request{"password": "incorrect"})
	add(mary, "GET /users", "", nil)
	add(mary, "GET /users/{user}", li.ID, nil)
	add(mary, "GET /users/{user}/album", li.ID, nil)
	add(mary, "GET /friends", "", nil)
	add(mary, "DELETE /friends/{user}", li.ID, nil)
	add(mary, "GET /friend-requests", "", nil)
	add(mary, "POST /friend-requests", "", request{"user": pat.ID})
	add(mary, "POST /friend-requests/{user}/accept", han.ID, nil)
	add(mary, "POST /friend-requests/{user}/decline", han.ID, nil)
	add(mary, "DELETE /friend-requests/{user}", pat.ID, nil)
	add(mary, "GET /me/settings", "", nil)
	add(mary, "PATCH /me/settings", "", request{"album_window": "all", "open_to_strangers": false})
	add(mary, "GET /friend-settings", "", nil)
	add(mary, "GET /friends/{user}/settings", li.ID, nil)
	add(mary, "PATCH /friends/{user}/settings", li.ID, request{"chat_only": false, "hide_mine": false, "hide_theirs": false})
	add(mary, "PUT /blocks/{user}", pat.ID, nil)
	add(mary, "DELETE /blocks/{user}", pat.ID, nil)
	add(mary, "GET /tags", "", nil)
	add(mary, "POST /tags", "", request{"name": "sailors", "users": []string{li.ID}})
	add(mary, "GET /tags/{tag}", tag, nil)
	add(mary, "PATCH /tags/{tag}", tag, request{"name": "walkers", "add": []string{han.ID}, "remove": []string{li.ID}})
	add(mary, "DELETE /tags/{tag}", tag, nil)
	add(mary, "PUT /posts/{post}/audience", p, request{"audience": "only_me"})
	add(mary, "POST /posts", "", request{
		"text": "hello", "audience": "allow", "allow_users": []string{li.ID}, "allow_tags": []string{tag}, "deny_users": []string{han.ID}, "deny_tags": []string{tag},
		"link": request{"url": "https://example.com/", "title": "A page"}, "location": "Oslo", "remind": []string{li.ID},
	})
	add(mary, "GET /posts/{post}", p, nil)
	add(mary, "DELETE /posts/{post}", p, nil)
	add(mary, "GET /posts/{post}/comments", p, nil)
	add(mary, "POST /posts/{post}/comments", p, request{"text": "hello", "reply_to": c})
	add(mary, "DELETE /posts/{post}/comments/{comment}", p+" "+c, nil)
	add(mary, "GET /posts/{post}/likes", p, nil)
	add(mary, "PUT /posts/{post}/like", p, nil)
	add(mary, "DELETE /posts/{post}/like", p, nil)
	add(mary, "GET /timeline", "", nil)
	add(mary, "GET /timeline/newer", "", nil)
	add(mary, "GET /timeline/head", "", nil)
	add(mary, "PUT /timeline/seen", "", request{"cursor": first.NewestCursor})
	add(mary, "POST /uploads", "", start)
	add(mary, "GET /uploads/{upload}", upload, nil)
	add(mary, "DELETE /uploads/{upload}", upload, nil)
	s.tries["PUT /uploads/{upload}/parts/{index}"] = try{mary, upload + " 0", string(data), []string{"Content-Type", "application/octet-stream", "Content-SHA256", hexSum(data)}}
	add(mary, "POST /uploads/{upload}/complete", upload, nil)
	add(mary, "GET /media/{media}/{form}", foreign+" full", nil)
	add(mary, "GET /notices", "", nil)
	add(mary, "GET /notices/unread", "", nil)
	add(mary, "PUT /notices/read", "", request{"up_to": list.Items[0].ID})
	add(mary, "GET /events", "", nil)
	return s
}

// signature is how long a picture's address is good, and that it is: another each minute.
var signature = regexp.MustCompile(`e=\d+\\u0026s=[\w-]+`)

// stored is all that Mary can see of what is stored.
func (s *spoiler) stored(t *testing.T) string {
	t.Helper()
	c := *s.mary.client
	c.t = t
	var all strings.Builder
	for _, path := range s.looks {
		a := c.call("GET", path, nil)
		fmt.Fprintf(&all, "%s %d %s", path, a.StatusCode, signature.ReplaceAll(a.text, []byte("signed")))
	}
	return all.String()
}

// spoil makes bad requests of one that would work.
func (s *spoiler) spoil(m *contract, op *operation, pattern string, tr try) (all []spoilt) {
	method, path, _ := strings.Cut(pattern, " ")
	add := func(b spoilt) {
		if b.path == "" {
			b.path = fill(path, tr.path)
		}
		all = append(all, b)
	}
	deletes, link := method == http.MethodDelete, strings.HasPrefix(path, "/media/")
	for _, v := range op.Parameters {
		switch v.In {
		case "path":
			steps := strings.Fields(tr.path)
			at := slices.Index(parametersOf(path), v.Name)
			for what, bad := range map[string]string{
				"no id": "x", "another's": s.other, "a line end": "a%0d%0aX-Injected:%201", "a NUL": "%00", "long": strings.Repeat("a", 3000), "markup": "%3Cscript%3E", "a way up": "..%2f..%2fetc%2fpasswd",
			} {
				if steps[at] == bad || v.Name == "index" && what == "another's" {
					continue
				}
				given := slices.Clone(steps)
				given[at] = bad
				// The album of nobody is empty, as that of somebody who is hidden.
				add(spoilt{what: v.Name + " is " + what, path: fill(path, strings.Join(given, " ")), body: tr.body, ok: deletes || strings.HasSuffix(path, "/album")})
			}
		case "query":
			for _, bad := range s.queries(v.Name) {
				b := spoilt{what: v.Name + " is " + bad, path: fill(path, tr.path) + "?" + v.Name + "=" + bad, body: tr.body, ok: v.Name == "name"}
				if bad != malformed && !link { // that names no parameter; a link is as a whole good or not
					b.fields = []string{v.Name}
				}
				add(b)
			}
			if !link {
				add(spoilt{what: v.Name + " twice", path: fill(path, tr.path) + "?" + v.Name + "=a&" + v.Name + "=b", fields: []string{v.Name}})
			}
		case "header":
			for _, bad := range map[string][]string{
				"Idempotency-Key": {strings.Repeat("k", 65), "a b", "é"}, "Moments-Session": {strings.Repeat("s", 3000)}, "Content-SHA256": {"x", hexSum([]byte("other"))},
			}[v.Name] {
				add(spoilt{what: v.Name + " is bad", body: tr.body, headers: []string{v.Name, bad}, fields: []string{v.Name}})
			}
		}
	}
	media, isJSON := op.RequestBody.Content["application/json"]
	if !isJSON {
		return all
	}
	for what, body := range map[string]string{
		"no JSON": "hello", "nothing": "", "a list": "[]", "a text": `"a"`, "a number": "7", "null": "null", "cut off": tr.body[:len(tr.body)-1], "two": tr.body + tr.body,
		"10,000 lists deep": `{"a":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + "}", "10,000 objects deep": strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000),
		"no UTF-8": strings.Replace(tr.body, `":`, "\xff\":", 1), "half a pair": strings.Replace(tr.body, `":`, `\ud800":`, 1), "200 KB": tr.body[:len(tr.body)-1] + strings.Repeat(" ", 200<<10) + "}",
	} {
		add(spoilt{what: "the body is " + what, body: body})
	}
	add(spoilt{what: "the type is text", body: tr.body, headers: []string{"Content-Type", "text/plain"}})
	var good map[string]any
	if err := json.Unmarshal([]byte(tr.body), &good); err != nil {
		panic(pattern + ": " + err.Error())
	}
	schema := deref(m.schemas[media.Schema])
	secret := strings.HasPrefix(pattern, "POST /sessions") // which of the two is wrong is not told
	for _, b := range s.members(schema, good, "", func(g map[string]any) string { text, _ := json.Marshal(g); return string(text) }) {
		if secret {
			b.fields = nil
		}
		add(b)
	}
	return all
}

// members spoils each member of an object, and of the objects in it.
func (s *spoiler) members(schema *jsonschema.Schema, good map[string]any, at string, whole func(map[string]any) string) (all []spoilt) {
	with := func(name string, v any) string {
		g := maps.Clone(good)
		g[name] = v
		return whole(g)
	}
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		prop, full := deref(schema.Properties[name]), at+name
		add := func(what string, v any, ok bool) {
			all = append(all, spoilt{what: full + " is " + what, body: with(name, v), fields: []string{full, name}, ok: ok})
		}
		types := ""
		if prop.Types != nil {
			types = strings.Join(prop.Types.ToStrings(), " ")
		}
		for kind, v := range map[string]any{"string": "a", "integer": 7, "number": 7.5, "boolean": true, "array": []any{7}, "object": map[string]any{"a": 1}, "null": nil} {
			if !strings.Contains(types, kind) && (kind != "integer" || types != "number") {
				add("of type "+kind, v, false)
			}
		}
		if slices.Contains(schema.Required, name) {
			g := maps.Clone(good)
			delete(g, name)
			all = append(all, spoilt{what: full + " is missing", body: whole(g), fields: []string{full, name}})
		}
		switch types {
		case "string":
			secret := strings.Contains(name, "password")
			add("empty", "", !slices.Contains(schema.Required, name) && prop.Enum == nil)
			add("too long", strings.Repeat("长", 5000), false)
			add("with a NUL", "a\x00b", secret)
			add("a script", script, true)
			if prop.Enum != nil {
				add("of no enum", "none of these", false)
			}
		case "array":
			for what, item := range map[string]any{"of a number": 7, "of no id": "x", "of a script": script, "of null": nil, "of a list": []any{}} {
				add(what, []any{item}, false)
			}
			many := make([]any, 6000)
			for i := range many {
				many[i] = s.other
			}
			add("too many", many, false)
		case "integer":
			for what, v := range map[string]any{"negative": -1, "zero": 0, "huge": 1e18, "beyond all": json.Number("1e400"), "a half": 1.5, "digits": "7"} {
				add(what, v, false)
			}
		case "object":
			inner, _ := good[name].(map[string]any)
			all = append(all, s.members(prop, inner, full+".", func(g map[string]any) string { return with(name, g) })...)
		}
	}
	all = append(all,
		spoilt{what: at + "unknown member", body: with("is_admin", true), fields: []string{at + "is_admin", "is_admin"}},
		spoilt{what: at + "markup as a member", body: with("<script>", true)})
	for name := range good {
		text := whole(good)
		member := fmt.Sprintf("%q:", name)
		twice := strings.Replace(text, member, member+"1,"+member, 1)
		all = append(all, spoilt{what: at + name + " is there twice", body: twice, fields: []string{at + name, name}})
		break
	}
	return all
}

// queries gives bad values for a parameter of the query.
func (s *spoiler) queries(name string) []string {
	bad := []string{malformed, url.QueryEscape(script), strings.Repeat("a", 3000), "%00", "a%ffb"}
	switch name {
	case "limit":
		return append(bad, "0", "-1", "101", "1.5", "1e1", "ten", "99999999999999999999", "%201")
	case "cursor":
		return append(append(bad, "AAAA", "0", strings.Repeat("A", 28)), s.cursors...)
	case "ids":
		return append(bad, "x", "x,y", strings.Repeat(s.mary.ID+",", 100)+s.mary.ID, ",")
	case "month":
		return append(bad, "2026-13", "2026", "26-01", "2026-1", "0000-00")
	}
	return bad
}

// send sends what is bad, and looks at the answer.
func (s *spoiler) send(t *testing.T, pattern string, tr try, b spoilt) {
	t.Helper()
	method, _, _ := strings.Cut(pattern, " ")
	c := *tr.by.client
	c.t = t
	var body any
	if b.body != "" || tr.body != "" {
		body = b.body
	}
	a := c.call(method, b.path, body, slices.Concat(tr.headers, b.headers)...)
	what := fmt.Sprintf("%s: answered %d %s", b.what, a.StatusCode, shortened(string(a.text)))
	if a.Header.Get("X-Injected") != "" {
		t.Errorf("%s: a header was injected", what)
	}
	kind, _, _ := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if a.StatusCode < 400 {
		if !b.ok {
			t.Errorf("%s: it is taken", what)
		}
		if kind != "" && kind != "application/json" || kind != "" && a.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: as %q", what, kind)
		}
		return
	}
	if a.StatusCode >= 500 || kind != "application/problem+json" {
		t.Errorf("%s as %q, want a problem of 400 to 499", what, kind)
		return
	}
	p := a.problem(t)
	if !b.ok && len(b.fields) > 0 && a.StatusCode != http.StatusRequestEntityTooLarge && !slices.ContainsFunc(b.fields, func(f string) bool { return strings.EqualFold(f, p.Field) }) {
		t.Errorf("%s: it names %q, want %q", what, p.Field, b.fields)
	}
	if strings.Contains(string(a.text), "<script") || strings.ContainsAny(p.Detail+p.Field, "\r\n\x00") {
		t.Errorf("%s: what was sent comes back as it was", what)
	}
}

// strangers sends the request itself without a session of anybody.
func (s *spoiler) strangers(t *testing.T, op *operation, pattern string, tr try) {
	t.Helper()
	if len(op.Security) == 0 {
		return
	}
	method, path, _ := strings.Cut(pattern, " ")
	for what, token := range map[string]string{
		"none": "", "altered": s.altered, "of algorithm none": noneToken, "of an ended session": s.ended, "an id": s.mary.ID, "huge": strings.Repeat("a", 5000), "a blank": "a b",
	} {
		c := *tr.by.client
		c.t, c.token = t, token
		var body any
		if tr.body != "" {
			body = tr.body
		}
		a := c.call(method, fill(path, tr.path), body, tr.headers...)
		if pattern == "DELETE /sessions/current" && a.StatusCode == http.StatusNoContent && token == s.ended {
			continue // to end what has ended is fine
		}
		if p := a.problem(t); p.Status != http.StatusUnauthorized || p.Type != "unauthenticated" || a.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("a token that is %s: %+v", what, p)
		}
	}
}

// flood sends 100 MB, their length said and unsaid: the server stops reading at the first
// byte too many.
func (s *spoiler) flood(t *testing.T, address, pattern string, tr try) {
	t.Helper()
	method, path, _ := strings.Cut(pattern, " ")
	for _, said := range []bool{true, false} {
		body := &counting{}
		body.left.Store(100 << 20)
		r, err := http.NewRequestWithContext(t.Context(), method, address+fill(path, tr.path), body)
		if err != nil {
			t.Fatal(err)
		}
		if said {
			r.ContentLength = 100 << 20
		}
		r.Header.Set("Authorization", "Bearer "+tr.by.token)
		r.Header.Set("Content-Type", "application/json")
		for i := 0; i < len(tr.headers); i += 2 {
			r.Header.Set(tr.headers[i], tr.headers[i+1])
		}
		res, err := http.DefaultClient.Do(r)
		if err == nil { // the server may also cut the line while we are still sending
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if res.StatusCode != http.StatusRequestEntityTooLarge && res.StatusCode != http.StatusLengthRequired {
				t.Errorf("100 MB (length said: %v): status %d", said, res.StatusCode)
			}
		}
		if sent := 100<<20 - body.left.Load(); sent > 16<<20 {
			t.Errorf("100 MB (length said: %v): the server took %d bytes", said, sent)
		}
	}
}

// deref gives what a schema refers to, or itself.
func deref(s *jsonschema.Schema) *jsonschema.Schema {
	for s.Ref != nil {
		s = s.Ref
	}
	return s
}

func parametersOf(path string) (names []string) {
	for step := range strings.SplitSeq(path, "/") {
		if strings.HasPrefix(step, "{") {
			names = append(names, strings.Trim(step, "{}"))
		}
	}
	return names
}

// fill puts values, separated by blanks, in the place of a path's parameters.
func fill(path, values string) string {
	for i, name := range parametersOf(path) {
		path = strings.Replace(path, "{"+name+"}", strings.Fields(values)[i], 1)
	}
	return path
}

func shortened(s string) string { return s[:min(len(s), 200)] }
