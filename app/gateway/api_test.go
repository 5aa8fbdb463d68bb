// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-rpc/sluice/app/cluster/clustertest"
	"github.com/sluice-rpc/sluice/app/gateway"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing"
)

// moments is the contract in openapi.yaml, read once.
var moments = sync.OnceValues(func() (*contract, error) {
	text, err := gateway.OpenAPI()
	if err != nil {
		return nil, err
	}
	return loadContract(text)
})

// client calls a gateway, and holds every answer against the contract.
type client struct {
	t     *testing.T
	h     http.Handler
	token string
}

// answer is what came back.
type answer struct {
	*http.Response
	text []byte
}

// call sends a request; body may be nil, a string (sent as it is) or anything else
// (sent as JSON). Headers come in pairs.
func (c *client) call(method, path string, body any, headers ...string) answer {
	c.t.Helper()
	var in []byte
	switch b := body.(type) {
	case nil:
	case string:
		in = []byte(b)
	default:
		var err error
		if in, err = json.Marshal(b); err != nil {
			c.t.Fatal(err)
		}
	}
	r := httptest.NewRequest(method, path, bytes.NewReader(in))
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	c.h.ServeHTTP(w, r)
	res := w.Result()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, _, _, ok := tracing.ParseTraceparent(res.Header.Get("Traceparent")); !ok {
		c.t.Errorf("%s %s: no traceparent", method, path)
	}
	c.contract(r, in, res, text)
	return answer{res, text}
}

// contract holds a request and its answer against openapi.yaml.
func (c *client) contract(r *http.Request, in []byte, res *http.Response, text []byte) {
	c.t.Helper()
	m, err := moments()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := m.check(r, in, res, text); err != nil {
		c.t.Errorf("%s %s: %v\n%s", r.Method, r.URL, err, text)
	}
}

// want checks the status and reads the answer into v, if not nil.
func (a answer) want(t *testing.T, status int, v any) {
	t.Helper()
	if a.StatusCode != status {
		t.Fatalf("status = %d, want %d: %s", a.StatusCode, status, a.text)
	}
	if v != nil {
		if err := json.Unmarshal(a.text, v); err != nil {
			t.Fatalf("%v: %s", err, a.text)
		}
	}
}

func (a answer) problem(t *testing.T) edge.Problem {
	t.Helper()
	var p edge.Problem
	if ct := a.Header.Get("Content-Type"); ct != "application/problem+json" {
		t.Fatalf("status %d, content type %q: %s", a.StatusCode, ct, a.text)
	}
	a.want(t, a.StatusCode, &p)
	if p.Status != a.StatusCode {
		t.Errorf("status of document = %d, of answer = %d", p.Status, a.StatusCode)
	}
	return p
}

type user struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	DisplayName string    `json:"display_name"`
	CreatedAt   time.Time `json:"created_at"`
}

type comment struct {
	ID        string    `json:"id"`
	WriterID  string    `json:"writer_id"`
	Text      string    `json:"text"`
	CreatedAt time.Time `json:"created_at"`
	ReplyTo   string    `json:"reply_to"`
	ReplyUser string    `json:"reply_to_user_id"`
}

type post struct {
	ID           string    `json:"id"`
	AuthorID     string    `json:"author_id"`
	CreatedAt    time.Time `json:"created_at"`
	Text         string    `json:"text"`
	Audience     string    `json:"audience"`
	Liked        bool      `json:"liked"`
	LikeCount    int       `json:"like_count"`
	LikeIDs      []string  `json:"like_ids"`
	CommentCount int       `json:"comment_count"`
	Comments     []comment `json:"comments"`
}

type page[T any] struct {
	Items        []T    `json:"items"`
	NextCursor   string `json:"next_cursor"`
	NewestCursor string `json:"newest_cursor"`
}

// eventually asks until something that happens in the background has happened.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !happened(); {
		if time.Now().After(end) {
			t.Fatalf("%s has not come in 20 s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// join registers somebody and logs in.
func join(t *testing.T, h http.Handler, name string) (*client, user) {
	t.Helper()
	c := &client{t: t, h: h}
	var u user
	a := c.call("POST", "/accounts", map[string]string{"name": name, "password": "correct horse", "display_name": strings.ToUpper(name)})
	a.want(t, 201, &u)
	if a.Header.Get("Location") != "/users/"+u.ID || u.Name != name {
		t.Errorf("registered %+v at %q", u, a.Header.Get("Location"))
	}
	var s struct {
		Token string `json:"token"`
		User  user   `json:"user"`
	}
	c.call("POST", "/sessions", map[string]string{"name": name, "password": "correct horse"}).want(t, 201, &s)
	if s.User != u || s.Token == "" {
		t.Errorf("session = %+v", s)
	}
	c.token = s.Token
	return c, u
}

// befriend makes two people friends through the API.
func befriend(t *testing.T, a, b *client, au, bu user) {
	t.Helper()
	a.call("POST", "/friend-requests", map[string]string{"user": bu.ID}).want(t, 200, nil)
	b.call("POST", "/friend-requests/"+au.ID+"/accept", nil).want(t, 200, nil)
}

func TestRoutesAndContractAgree(t *testing.T) {
	m, err := moments()
	if err != nil {
		t.Fatal(err)
	}
	documented := slices.Sorted(maps.Keys(m.operations))
	served := gateway.Patterns()
	slices.Sort(served)
	if !slices.Equal(documented, served) {
		t.Errorf("documented:\n%s\nserved:\n%s", strings.Join(documented, "\n"), strings.Join(served, "\n"))
	}
}

// The contract itself is worth something: a slip in the document is found.
func TestContractIsSound(t *testing.T) {
	if _, err := moments(); err != nil {
		t.Fatal(err)
	}
	text, err := gateway.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, old, slip string }{
		{"version", "openapi: 3.1.0", "openapi: 3.0.3"},
		{"unknown member", "operationId: me\n", "operationId: me\n      answers: {}\n"},
		{"operation without id", "operationId: me\n", "deprecated: false\n"},
		{"id twice", "operationId: me\n", "operationId: timeline\n"},
		{"no responses", `        "204": {$ref: "#/components/responses/Done"}
        default: {$ref: "#/components/responses/Problem"}
  /me:`, "        {}\n  /me:"},
		{"response to nowhere", `"#/components/responses/User"`, `"#/components/responses/Nobody"`},
		{"parameter to nowhere", `"#/components/parameters/Limit"`, `"#/components/parameters/Most"`},
		{"schema to nowhere", `$ref: "#/components/schemas/Comment"`, `$ref: "#/components/schemas/Remark"`},
		{"response without description", "          description: The session.\n", ""},
		{"wrong type in a schema", "fresh: {type: boolean}", "fresh: {type: truth}"},
		{"wrong bound in a schema", "minLength: 26", "minLength: long"},
		{"path parameter undeclared", "parameters: [{$ref: \"#/components/parameters/Post\"}]", "parameters: []"},
		{"path parameter of another name", "name: user, in: path", "name: friend, in: path"},
		{"path parameter not required", "in: path, required: true", "in: path"},
		{"tag", "tags: [friends]", "tags: [foes]"},
		{"security scheme", "- session: []", "- key: []"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			slipped := strings.Replace(string(text), tt.old, tt.slip, 1)
			if slipped == string(text) {
				t.Fatal("nothing to replace")
			}
			if _, err := loadContract([]byte(slipped)); err == nil {
				t.Error("no error")
			}
		})
	}
}

// The check of answers is worth something: it finds what is missing and what is odd.
func TestContractCatches(t *testing.T) {
	m, err := moments()
	if err != nil {
		t.Fatal(err)
	}
	const (
		user = `{"id":"01234567890123456789012345","name":"a","display_name":"A","created_at":"2026-01-02T03:04:05Z"}`
		fail = `{"type":"invalid","title":"Bad Request","status":400}`
	)
	tests := []struct {
		name    string
		want    string // part of the error; empty for none
		pattern string
		body    string
		status  int
		answer  string
		change  func(r *http.Request, answer http.Header)
	}{
		{"right", "", "GET /timeline?limit=5", "", 200, `{"items":[]}`, nil},
		{"right with a body", "", "POST /accounts", `{"name":"a","password":"b"}`, 201, user, nil},
		{"right in a path", "", "GET /users/1", "", 200, user, nil},
		{"right without content", "", "DELETE /sessions/current", "", 204, "", nil},
		{"right problem", "", "GET /timeline?limit=0", "", 400, fail, nil},
		{"an address of nobody", "", "GET /nothing", "", 404, fail, nil},

		{"member missing", "items", "GET /timeline", "", 200, `{}`, nil},
		{"inner member missing", "author_id", "GET /timeline", "", 200, `{"items":[{"id":"1"}]}`, nil},
		{"number for a list", "got number, want array", "GET /timeline", "", 200, `{"items":7}`, nil},
		{"list for an object", "got array, want object", "GET /timeline", "", 200, `[]`, nil},
		{"string for a bool", "got string, want boolean", "GET /timeline/head", "", 200, `{"fresh":"yes"}`, nil},
		{"id too short", "minLength", "GET /me", "", 200, strings.Replace(user, "0123", "", 1), nil},
		{"time of day only", "date-time", "GET /me", "", 200, strings.Replace(user, "2026-01-02T", "", 1), nil},
		{"value of no enum", "must be one of", "POST /friend-requests/1/accept", "", 200, `{"state":"foes"}`, nil},
		{"no JSON", "invalid character", "GET /me", "", 200, `me`, nil},
		{"no body", "not documented", "GET /me", "", 200, ``, func(_ *http.Request, h http.Header) { h.Del("Content-Type") }},
		{"a body where none is", "not documented", "DELETE /sessions/current", "", 204, `{}`, nil},
		{"problem as plain JSON", "not documented", "GET /me", "", 400, fail, func(_ *http.Request, h http.Header) { h.Set("Content-Type", "application/json") }},
		{"problem without type", "type", "GET /me", "", 400, `{"title":"a","status":400}`, nil},
		{"other content type", "not documented", "GET /me", "", 200, user, func(_ *http.Request, h http.Header) { h.Set("Content-Type", "text/plain") }},
		{"undocumented status", "status 202", "GET /me", "", 202, user, nil},
		{"undocumented operation", "operation", "GET /nothing", "", 200, user, nil},
		{"undocumented method", "operation", "PUT /me", "", 200, user, nil},
		{"header missing", "traceparent", "GET /me", "", 200, user, func(_ *http.Request, h http.Header) { h.Del("Traceparent") }},
		{"other header missing", "Location", "POST /accounts", `{"name":"a","password":"b"}`, 201, user, func(_ *http.Request, h http.Header) { h.Del("Location") }},
		{"header of wrong type", "Retry-After", "GET /me", "", 400, fail, func(_ *http.Request, h http.Header) { h.Set("Retry-After", "soon") }},

		{"undocumented query", "query parameter page", "GET /timeline?page=2", "", 200, `{"items":[]}`, nil},
		{"query too large", "maximum", "GET /timeline?limit=101", "", 200, `{"items":[]}`, nil},
		{"query of wrong type", "want integer", "GET /timeline?limit=ten", "", 200, `{"items":[]}`, nil},
		{"query twice", "2 times", "GET /timeline?limit=1&limit=2", "", 200, `{"items":[]}`, nil},
		{"undocumented header", "header parameter X-Odd", "GET /me", "", 200, user, func(r *http.Request, _ http.Header) { r.Header.Set("X-Odd", "1") }},
		{"request of wrong type", "got number, want string", "POST /accounts", `{"name":1,"password":"b"}`, 201, user, nil},
		{"unknown member in request", "age", "POST /accounts", `{"name":"a","password":"b","age":7}`, 201, user, nil},
		{"request without body", "request", "POST /accounts", "", 201, user, nil},
		{"body nobody asked for", "request", "PUT /posts/1/like", `{}`, 204, "", nil},
		{"request of other type", "request", "POST /accounts", `{"name":"a","password":"b"}`, 201, user, func(r *http.Request, _ http.Header) { r.Header.Set("Content-Type", "text/plain") }},
		{"success without token", "token", "GET /me", "", 200, user, func(r *http.Request, _ http.Header) { r.Header.Del("Authorization") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			method, target, _ := strings.Cut(tt.pattern, " ")
			r := httptest.NewRequest(method, target, nil)
			r.Header.Set("Authorization", "Bearer a")
			if tt.body != "" {
				r.Header.Set("Content-Type", "application/json")
			}
			h := http.Header{"Traceparent": {"a"}, "Location": {"/a"}, "Content-Type": {"application/json"}}
			if tt.status >= 400 {
				h.Set("Content-Type", "application/problem+json")
			}
			if tt.change != nil {
				tt.change(r, h)
			}
			err := m.check(r, []byte(tt.body), &http.Response{StatusCode: tt.status, Header: h}, []byte(tt.answer))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error = %v, want %q", err, tt.want)
			}
		})
	}
}

// The whole life of a post, every answer held against the contract.
func TestAPI(t *testing.T) {
	t.Run("alone", func(t *testing.T) { testAPI(t, newFake(t).gateway(t)) })
	t.Run("with the services", func(t *testing.T) { testAPI(t, at(t, clustertest.Start(t))) })
}

func testAPI(t *testing.T, g http.Handler) {
	mary, m := join(t, g, "mary")
	li, l := join(t, g, "lilei")

	var me user
	mary.call("GET", "/me", nil).want(t, 200, &me)
	if me != m || time.Since(me.CreatedAt) > time.Minute || me.CreatedAt.Location() != time.UTC {
		t.Errorf("me = %+v", me)
	}
	mary.call("GET", "/users/"+l.ID, nil).want(t, 200, &me)
	if me != l {
		t.Errorf("user = %+v", me)
	}
	var users page[user]
	mary.call("GET", "/users?name=lilei", nil).want(t, 200, &users)
	if len(users.Items) != 1 || users.Items[0] != l {
		t.Errorf("found %+v", users)
	}
	users = page[user]{}
	mary.call("GET", "/users?name=nobody", nil).want(t, 200, &users)
	if users.Items == nil || len(users.Items) != 0 {
		t.Errorf("found %+v, want an empty list", users)
	}
	mary.call("GET", "/users?ids="+l.ID+","+m.ID, nil).want(t, 200, &users)
	if len(users.Items) != 2 {
		t.Errorf("found %+v", users)
	}

	var state struct {
		State string `json:"state"`
	}
	step := func(c *client, method, path string, body any, want string) {
		t.Helper()
		c.call(method, path, body).want(t, 200, &state)
		if state.State != want {
			t.Errorf("%s %s: state = %q, want %q", method, path, state.State, want)
		}
	}
	step(mary, "POST", "/friend-requests", map[string]string{"user": l.ID}, "requested")
	var asking page[struct {
		User user `json:"user"`
	}]
	li.call("GET", "/friend-requests", nil).want(t, 200, &asking)
	if len(asking.Items) != 1 || asking.Items[0].User != m {
		t.Errorf("requests = %+v", asking)
	}
	step(li, "POST", "/friend-requests/"+m.ID+"/decline", nil, "none")
	step(mary, "POST", "/friend-requests", map[string]string{"user": l.ID}, "requested")
	step(li, "POST", "/friend-requests/"+m.ID+"/accept", nil, "friends")
	var friends page[user]
	mary.call("GET", "/friends?limit=1", nil).want(t, 200, &friends)
	if len(friends.Items) != 1 || friends.Items[0] != l {
		t.Errorf("friends = %+v", friends)
	}

	const text = "早上好 ☀️ \u2028 <b>\"quoted\"\\</b>\r\n\tX-Injected: 1"
	var p, again post
	a := mary.call("POST", "/posts", map[string]string{"text": text}, "Idempotency-Key", "k1")
	a.want(t, 201, &p)
	if p.Text != text || p.AuthorID != m.ID || p.Audience != "friends" || a.Header.Get("Location") != "/posts/"+p.ID || a.Header.Get("X-Injected") != "" {
		t.Errorf("post = %+v", p)
	}
	mary.call("POST", "/posts", map[string]string{"text": text}, "Idempotency-Key", "k1").want(t, 201, &again)
	if again.ID != p.ID {
		t.Error("the same key made a second post")
	}
	if prob := mary.call("POST", "/posts", map[string]string{"text": "other"}, "Idempotency-Key", "k1").problem(t); prob.Type != "idempotency-conflict" || prob.Status != 409 || prob.Field != "Idempotency-Key" {
		t.Errorf("problem = %+v", prob)
	}

	var head struct {
		Fresh    bool   `json:"fresh"`
		PostID   string `json:"post_id"`
		AuthorID string `json:"author_id"`
	}
	eventually(t, "the red dot", func() bool {
		li.call("GET", "/timeline/head", nil).want(t, 200, &head)
		return head.Fresh
	})
	if head.PostID != p.ID || head.AuthorID != m.ID {
		t.Errorf("head = %+v", head)
	}
	li.call("PUT", "/posts/"+p.ID+"/like", nil).want(t, 204, nil)
	var c1, c2 comment
	li.call("POST", "/posts/"+p.ID+"/comments", map[string]string{"text": "好看"}).want(t, 201, &c1)
	mary.call("POST", "/posts/"+p.ID+"/comments", map[string]string{"text": "谢谢", "reply_to": c1.ID}).want(t, 201, &c2)
	if c2.ReplyTo != c1.ID || c2.ReplyUser != l.ID || c2.WriterID != m.ID {
		t.Errorf("reply = %+v", c2)
	}

	var home page[post]
	li.call("GET", "/timeline?limit=10", nil).want(t, 200, &home)
	if len(home.Items) != 1 || home.NextCursor != "" || home.NewestCursor == "" {
		t.Fatalf("timeline = %+v", home)
	}
	got := home.Items[0]
	if got.ID != p.ID || got.Text != text || !got.Liked || got.LikeCount != 1 || !slices.Equal(got.LikeIDs, []string{l.ID}) || got.CommentCount != 2 || !slices.Equal(got.Comments, []comment{c1, c2}) {
		t.Errorf("item = %+v", got)
	}
	li.call("PUT", "/timeline/seen", map[string]string{"cursor": home.NewestCursor}).want(t, 204, nil)
	var one post
	li.call("GET", "/posts/"+p.ID, nil).want(t, 200, &one)
	if !slices.Equal(one.Comments, got.Comments) {
		t.Errorf("post = %+v", one)
	}
	var album page[post]
	li.call("GET", "/users/"+m.ID+"/album", nil).want(t, 200, &album)
	if len(album.Items) != 1 || album.Items[0].CommentCount != 2 {
		t.Errorf("album = %+v", album)
	}
	mary.call("POST", "/posts", map[string]string{"text": "second"}).want(t, 201, nil)
	var newer page[post]
	eventually(t, "the second post", func() bool {
		li.call("GET", "/timeline/newer?cursor="+url.QueryEscape(home.NewestCursor), nil).want(t, 200, &newer)
		return len(newer.Items) > 0
	})
	if len(newer.Items) != 1 || newer.Items[0].Text != "second" {
		t.Errorf("newer = %+v", newer)
	}
	li.call("GET", "/timeline?limit=1", nil).want(t, 200, &home)
	if len(home.Items) != 1 || home.NextCursor == "" {
		t.Fatalf("first page = %+v", home)
	}
	li.call("GET", "/timeline?limit=1&cursor="+url.QueryEscape(home.NextCursor), nil).want(t, 200, &album)
	if len(album.Items) != 1 || album.Items[0].ID != p.ID {
		t.Errorf("second page = %+v", album)
	}

	li.call("DELETE", "/posts/"+p.ID+"/like", nil).want(t, 204, nil)
	li.call("DELETE", "/posts/"+p.ID+"/comments/"+c1.ID, nil).want(t, 204, nil)
	mary.call("DELETE", "/posts/"+p.ID, nil).want(t, 204, nil)
	if prob := li.call("GET", "/posts/"+p.ID, nil).problem(t); prob.Status != 404 || prob.Type != "not-found" {
		t.Errorf("problem = %+v", prob)
	}
	step(mary, "DELETE", "/friends/"+l.ID, nil, "none")
	newer = page[post]{}
	li.call("GET", "/timeline", nil).want(t, 200, &newer)
	if len(newer.Items) != 0 {
		t.Errorf("timeline after the friendship = %+v", newer)
	}
	li.call("DELETE", "/sessions/current", nil).want(t, 204, nil)
	li.call("DELETE", "/sessions/current", nil).want(t, 204, nil)
	if prob := li.call("GET", "/me", nil).problem(t); prob.Status != 401 || prob.Type != "unauthenticated" {
		t.Errorf("problem = %+v", prob)
	}
}

func TestBadInput(t *testing.T) {
	t.Run("alone", func(t *testing.T) {
		f := newFake(t)
		testBadInput(t, f.gateway(t), func() string { return strconv.Itoa(f.writes) })
	})
	t.Run("with the services", func(t *testing.T) { testBadInput(t, at(t, clustertest.Start(t)), nil) })
}

// testBadInput tries bad requests. After each, stored must tell the same as before;
// if it is nil, what Mary sees is compared.
func testBadInput(t *testing.T, g http.Handler, stored func() string) {
	mary, m := join(t, g, "mary")
	li, l := join(t, g, "lilei")
	stranger, _ := join(t, g, "zoe")
	befriend(t, mary, li, m, l)
	var p post
	mary.call("POST", "/posts", map[string]string{"text": "seen by friends"}).want(t, 201, &p)
	if stored == nil {
		stored = func() string {
			all := string(mary.call("GET", "/users/"+m.ID+"/album", nil).text)
			for _, path := range []string{"/posts/" + p.ID, "/friends", "/friend-requests", "/users?name=ann", "/users?name=" + url.QueryEscape("<script>")} {
				all += string(mary.call("GET", path, nil).text)
			}
			return all
		}
	}
	foreign := newID[id.Post](newFake(t)).String()
	deep := `{"text":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`

	// Another last character, whichever it is: a fixed one would be the token's own
	// in one of 64 runs.
	altered := []byte(mary.token)
	if altered[len(altered)-1] != 'x' {
		altered[len(altered)-1] = 'x'
	} else {
		altered[len(altered)-1] = 'y'
	}
	tests := []struct {
		name         string
		by           *client
		method, path string
		body         any
		headers      []string
		status       int
		kind, field  string
	}{
		{"text of wrong type", mary, "POST", "/posts", `{"text":5}`, nil, 400, "invalid-json", "text"},
		{"text missing", mary, "POST", "/posts", `{}`, nil, 400, "invalid", "text"},
		{"text blank", mary, "POST", "/posts", `{"text":" \n "}`, nil, 400, "invalid", "text"},
		{"text null", mary, "POST", "/posts", `{"text":null}`, nil, 400, "invalid-json", "text"},
		{"text too long", mary, "POST", "/posts", map[string]string{"text": strings.Repeat("长", 2001)}, nil, 400, "invalid", "text"},
		{"NUL in text", mary, "POST", "/posts", `{"text":"a\u0000b"}`, nil, 400, "invalid", "text"},
		{"invalid UTF-8", mary, "POST", "/posts", "{\"text\":\"\xff\"}", nil, 400, "invalid-json", ""},
		{"half a surrogate pair", mary, "POST", "/posts", `{"text":"\ud800"}`, nil, 400, "invalid-json", ""},
		{"unknown member", mary, "POST", "/posts", `{"text":"a","author_id":"x"}`, nil, 400, "invalid-json", "author_id"},
		{"member twice", mary, "POST", "/posts", `{"text":"a","text":"b"}`, nil, 400, "invalid-json", "text"},
		{"two values", mary, "POST", "/posts", `{"text":"a"}{"text":"b"}`, nil, 400, "invalid-json", ""},
		{"no JSON", mary, "POST", "/posts", `hello`, nil, 400, "invalid-json", ""},
		{"nothing", mary, "POST", "/posts", ``, nil, 400, "invalid-json", ""},
		{"10,000 deep", mary, "POST", "/posts", deep, nil, 400, "invalid-json", ""},
		{"other content type", mary, "POST", "/posts", `{"text":"a"}`, []string{"Content-Type", "text/plain"}, 415, "unsupported-media-type", ""},
		{"too large", mary, "POST", "/posts", `{"text":"` + strings.Repeat("a", 100<<10) + `"}`, nil, 413, "too-large", ""},
		{"key too long", mary, "POST", "/posts", `{"text":"a"}`, []string{"Idempotency-Key", strings.Repeat("k", 65)}, 400, "invalid", "Idempotency-Key"},
		{"key with a blank", mary, "POST", "/posts", `{"text":"a"}`, []string{"Idempotency-Key", "a b"}, 400, "invalid", "Idempotency-Key"},
		{"session header too long", mary, "GET", "/me", nil, []string{"Moments-Session", strings.Repeat("s", 2000)}, 400, "invalid", "Moments-Session"},

		{"comment missing", li, "POST", "/posts/" + p.ID + "/comments", `{}`, nil, 400, "invalid", "text"},
		{"comment too long", li, "POST", "/posts/" + p.ID + "/comments", map[string]string{"text": strings.Repeat("长", 501)}, nil, 400, "invalid", "text"},
		{"reply to no id", li, "POST", "/posts/" + p.ID + "/comments", `{"text":"a","reply_to":"7"}`, nil, 400, "invalid", "reply_to"},
		{"reply to nobody's", li, "POST", "/posts/" + p.ID + "/comments", map[string]string{"text": "a", "reply_to": foreign}, nil, 404, "not-found", ""},

		{"post of a stranger", stranger, "GET", "/posts/" + p.ID, nil, nil, 404, "not-found", ""},
		{"post that never was", stranger, "GET", "/posts/" + foreign, nil, nil, 404, "not-found", ""},
		{"post with no id", stranger, "GET", "/posts/1", nil, nil, 404, "not-found", ""},
		{"like by a stranger", stranger, "PUT", "/posts/" + p.ID + "/like", nil, nil, 404, "not-found", ""},
		{"comment by a stranger", stranger, "POST", "/posts/" + p.ID + "/comments", `{"text":"a"}`, nil, 404, "not-found", ""},
		{"deletion by a friend", li, "DELETE", "/posts/" + p.ID, nil, nil, 404, "not-found", ""},
		{"deletion of no comment", li, "DELETE", "/posts/" + p.ID + "/comments/" + foreign, nil, nil, 404, "not-found", ""},
		{"user with no id", mary, "GET", "/users/%00", nil, nil, 404, "not-found", ""},
		{"user id as post id", mary, "GET", "/posts/" + m.ID, nil, nil, 404, "not-found", ""},

		{"limit zero", mary, "GET", "/timeline?limit=0", nil, nil, 400, "invalid", "limit"},
		{"limit negative", mary, "GET", "/timeline?limit=-1", nil, nil, 400, "invalid", "limit"},
		{"limit too large", mary, "GET", "/timeline?limit=101", nil, nil, 400, "invalid", "limit"},
		{"limit no number", mary, "GET", "/timeline?limit=ten", nil, nil, 400, "invalid", "limit"},
		{"limit twice", mary, "GET", "/timeline?limit=1&limit=2", nil, nil, 400, "invalid", "limit"},
		{"malformed query", mary, "GET", "/timeline?limit=%zz", nil, nil, 400, "invalid", ""},
		{"forged cursor", mary, "GET", "/timeline?cursor=AAAA", nil, nil, 400, "invalid", "cursor"},
		{"cursor with line end", mary, "GET", "/timeline?cursor=a%0d%0ab", nil, nil, 400, "invalid", "cursor"},
		{"huge cursor", mary, "GET", "/timeline?cursor=" + strings.Repeat("a", 600), nil, nil, 400, "invalid", "cursor"},
		{"seen without cursor", mary, "PUT", "/timeline/seen", `{}`, nil, 400, "invalid", "cursor"},
		{"neither name nor ids", mary, "GET", "/users", nil, nil, 400, "invalid", "name"},
		{"name and ids", mary, "GET", "/users?name=a&ids=" + m.ID, nil, nil, 400, "invalid", "name"},
		{"ids that are none", mary, "GET", "/users?ids=1,2", nil, nil, 400, "invalid", "ids"},
		{"too many ids", mary, "GET", "/users?ids=" + strings.Repeat(m.ID+",", 100) + m.ID, nil, nil, 400, "invalid", "ids"},

		{"request to nobody", mary, "POST", "/friend-requests", map[string]string{"user": foreign}, nil, 404, "not-found", ""},
		{"request to no id", mary, "POST", "/friend-requests", `{"user":"bob"}`, nil, 400, "invalid", "user"},
		{"request to oneself", mary, "POST", "/friend-requests", map[string]string{"user": m.ID}, nil, 400, "invalid", "user"},
		{"accepting no request", stranger, "POST", "/friend-requests/" + m.ID + "/accept", nil, nil, 409, "no-request", "user"},

		{"short password", &client{t: t, h: g}, "POST", "/accounts", `{"name":"ann","password":"short"}`, nil, 400, "invalid", "password"},
		{"name with markup", &client{t: t, h: g}, "POST", "/accounts", `{"name":"<script>","password":"correct horse"}`, nil, 400, "invalid", "name"},
		{"name with line end", &client{t: t, h: g}, "POST", "/accounts", `{"name":"a\r\nb","password":"correct horse"}`, nil, 400, "invalid", "name"},
		{"name taken", &client{t: t, h: g}, "POST", "/accounts", `{"name":"mary","password":"correct horse"}`, nil, 409, "name-taken", "name"},
		{"wrong password", &client{t: t, h: g}, "POST", "/sessions", `{"name":"mary","password":"incorrect"}`, nil, 401, "bad-credentials", ""},
		{"ending a session with no id", mary, "DELETE", "/sessions/1", nil, nil, 404, "not-found", ""},
		{"ending all but what", mary, "DELETE", "/sessions?keep=all", nil, nil, 400, "invalid", "keep"},
		{"ending sessions without one", &client{t: t, h: g}, "DELETE", "/sessions", nil, nil, 401, "unauthenticated", ""},
		{"another's password to change", mary, "PUT", "/me/password", `{"old_password":"incorrect","new_password":"battery staple"}`, nil, 403, "wrong-password", "old_password"},
		{"no old password", mary, "PUT", "/me/password", `{"new_password":"battery staple"}`, nil, 403, "wrong-password", "old_password"},
		{"a short new password", mary, "PUT", "/me/password", `{"old_password":"correct horse","new_password":"short"}`, nil, 400, "invalid", "new_password"},
		{"a password of wrong type", mary, "PUT", "/me/password", `{"old_password":"correct horse","new_password":[]}`, nil, 400, "invalid-json", "new_password"},
		{"deletion with a wrong password", mary, "POST", "/me/deletion", `{"password":"incorrect"}`, nil, 403, "wrong-password", "password"},
		{"deletion without a password", mary, "POST", "/me/deletion", `{}`, nil, 403, "wrong-password", "password"},
		{"deletion of another", mary, "POST", "/me/deletion", `{"password":"correct horse","user":"x"}`, nil, 400, "invalid-json", "user"},
		{"a blank display name", mary, "PATCH", "/me", `{"display_name":""}`, nil, 400, "invalid", "display_name"},
		{"a long display name", mary, "PATCH", "/me", `{"display_name":"` + strings.Repeat("n", 65) + `"}`, nil, 400, "invalid", "display_name"},
		{"nobody's name", &client{t: t, h: g}, "POST", "/sessions", `{"name":"none","password":"incorrect"}`, nil, 401, "bad-credentials", ""},

		{"no token", &client{t: t, h: g}, "GET", "/timeline", nil, nil, 401, "unauthenticated", ""},
		{"altered token", &client{t: t, h: g, token: string(altered)}, "GET", "/timeline", nil, nil, 401, "unauthenticated", ""},
		{"token of algorithm none", &client{t: t, h: g, token: "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."}, "GET", "/timeline", nil, nil, 401, "unauthenticated", ""},
		{"huge token", &client{t: t, h: g, token: strings.Repeat("a", 5000)}, "GET", "/timeline", nil, nil, 401, "unauthenticated", ""},
		{"token with a blank", &client{t: t, h: g, token: "a b"}, "GET", "/timeline", nil, nil, 401, "unauthenticated", ""},
		{"other scheme", &client{t: t, h: g}, "GET", "/timeline", nil, []string{"Authorization", "Basic bWFyeTp4"}, 401, "unauthenticated", ""},
		{"log out without token", &client{t: t, h: g}, "DELETE", "/sessions/current", nil, nil, 401, "unauthenticated", ""},
		{"no such address", mary, "GET", "/nothing", nil, nil, 404, "not-found", ""},
		{"no such method", mary, "PUT", "/posts", nil, nil, 405, "method-not-allowed", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := stored()
			c := *tt.by
			c.t = t
			a := c.call(tt.method, tt.path, tt.body, tt.headers...)
			got := a.problem(t)
			if got.Status != tt.status || got.Type != tt.kind || got.Field != tt.field {
				t.Errorf("problem = %+v", got)
			}
			if stored() != before {
				t.Error("something was stored")
			}
			if tt.status == 401 && a.Header.Get("WWW-Authenticate") == "" {
				t.Error("401 without WWW-Authenticate")
			}
		})
	}
}

// What may not be seen answers like what never existed, to the byte.
func TestHiddenLooksLikeMissing(t *testing.T) {
	f := newFake(t)
	g := f.gateway(t)
	mary, _ := join(t, g, "mary")
	stranger, _ := join(t, g, "zoe")
	var p post
	mary.call("POST", "/posts", map[string]string{"text": "secret"}).want(t, 201, &p)
	for _, method := range []string{"GET", "DELETE"} {
		shape := func(path string) string {
			a := stranger.call(method, path, nil)
			prob := a.problem(t)
			prob.TraceID = ""
			a.Header.Del("Traceparent")
			return fmt.Sprint(prob, a.Header)
		}
		hidden, missing, none := shape("/posts/"+p.ID), shape("/posts/"+newID[id.Post](f).String()), shape("/posts/x")
		if hidden != missing || missing != none {
			t.Errorf("%s:\nhidden  %s\nmissing %s\nno id   %s", method, hidden, missing, none)
		}
	}
}

// 100 MB are refused at the first byte too many, whether their length is said or not.
func TestHugeBody(t *testing.T) {
	f := newFake(t)
	g := f.gateway(t)
	mary, _ := join(t, g, "mary")
	srv := httptest.NewServer(g)
	defer srv.Close()
	for _, said := range []bool{true, false} {
		body := &counting{}
		body.left.Store(100 << 20) // the transport may still be sending when the answer is there
		r, err := http.NewRequestWithContext(t.Context(), "POST", srv.URL+"/posts", body)
		if err != nil {
			t.Fatal(err)
		}
		if said {
			r.ContentLength = 100 << 20
		}
		r.Header.Set("Authorization", "Bearer "+mary.token)
		r.Header.Set("Content-Type", "application/json")
		res, err := srv.Client().Do(r)
		if err == nil { // the server may also cut the line while we are still sending
			_ = res.Body.Close()
			if res.StatusCode != 413 {
				t.Errorf("status = %d", res.StatusCode)
			}
		}
		if sent := 100<<20 - body.left.Load(); sent > 16<<20 {
			t.Errorf("the server took %d bytes", sent)
		}
	}
	if f.writes != 1 {
		t.Error("something was stored")
	}
}

type counting struct{ left atomic.Int64 }

func (c *counting) Read(b []byte) (int, error) {
	n := min(len(b), int(c.left.Load()))
	if n == 0 {
		return 0, io.EOF
	}
	for i := range b[:n] {
		b[i] = 'a'
	}
	c.left.Add(-int64(n))
	return n, nil
}

func TestSessionsAreKeptForASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		g := f.gateway(t, withoutAdmission)
		mary, _ := join(t, g, "mary")
		for range 10 {
			mary.call("GET", "/me", nil).want(t, 200, nil)
		}
		if f.authCalls != 1 {
			t.Errorf("asked %d times, want once", f.authCalls)
		}
		clear(f.tokens) // revoked elsewhere
		time.Sleep(999 * time.Millisecond)
		mary.call("GET", "/me", nil).want(t, 200, nil)
		time.Sleep(time.Millisecond)
		if a := mary.call("GET", "/me", nil); a.StatusCode != 401 {
			t.Errorf("status = %d a second after the revocation", a.StatusCode)
		}
	})
}

func TestLogOutActsAtOnceHere(t *testing.T) {
	g := newFake(t).gateway(t)
	mary, _ := join(t, g, "mary")
	mary.call("GET", "/me", nil).want(t, 200, nil)
	mary.call("DELETE", "/sessions/current", nil).want(t, 204, nil)
	mary.call("GET", "/me", nil).want(t, 401, nil)
}

func TestWriteLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		g := f.gateway(t, withoutAdmission, func(c *gateway.Config) { c.Limits = true })
		mary, _ := join(t, g, "mary")
		li, _ := join(t, g, "lilei")
		for i := range 20 {
			mary.call("POST", "/posts", map[string]string{"text": strconv.Itoa(i)}).want(t, 201, nil)
		}
		before := f.writes
		a := mary.call("POST", "/posts", map[string]string{"text": "too fast"})
		p := a.problem(t)
		if p.Status != 429 || p.Type != "rate-limited" || p.RetryAfterMS != 2000 || a.Header.Get("Retry-After") != "2" || f.writes != before {
			t.Errorf("problem = %+v, Retry-After = %q", p, a.Header.Get("Retry-After"))
		}
		mary.call("GET", "/timeline", nil).want(t, 200, nil)
		li.call("POST", "/posts", map[string]string{"text": "somebody else"}).want(t, 201, nil)
		time.Sleep(2 * time.Second)
		mary.call("POST", "/posts", map[string]string{"text": "in time"}).want(t, 201, nil)
		mary.call("POST", "/posts", map[string]string{"text": "again"}).want(t, 429, nil)
	})
}

func TestTroubleInside(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		status int
		kind   string
		retry  string
	}{
		{"overload", &rpc.Error{Code: rpc.ResourceExhausted, Reason: rpc.ReasonOverload, Retry: 1500 * time.Millisecond}, 503, "overload", "2"},
		{"busy", problemErr(rpc.ResourceExhausted, "busy", "", "too many are logging in"), 503, "busy", "1"},
		{"behind", problemErr(rpc.Unavailable, "behind", "", "not seen yet"), 503, "behind", "1"},
		{"limit", problemErr(rpc.ResourceExhausted, "limit", "friends", "5,000 friends"), 409, "limit", ""},
		{"deadline", &rpc.Error{Code: rpc.DeadlineExceeded, Reason: rpc.ReasonDeadline}, 504, "deadline", ""},
		{"no instance", &rpc.Error{Code: rpc.Unavailable, Reason: rpc.ReasonNoInstance, Message: "10.0.0.7:1"}, 503, "unavailable", "1"},
		{"bug", errors.New("secret"), 500, "internal", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			g := f.gateway(t, func(c *gateway.Config) { c.Log = slog.New(slog.DiscardHandler) })
			mary, _ := join(t, g, "mary")
			f.fail = func(_ context.Context, method string) error {
				if method == "Home" {
					return tt.err
				}
				return nil
			}
			a := mary.call("GET", "/timeline", nil)
			p := a.problem(t)
			if p.Status != tt.status || p.Type != tt.kind || a.Header.Get("Retry-After") != tt.retry {
				t.Errorf("problem = %+v, Retry-After = %q", p, a.Header.Get("Retry-After"))
			}
			if strings.Contains(string(a.text), "secret") || strings.Contains(string(a.text), "10.0.0.7") {
				t.Errorf("inner detail is shown: %s", a.text)
			}
		})
	}
}

// The two hot routes make one call each, in the class and time of its contract.
func TestOneCall(t *testing.T) {
	f := newFake(t)
	g := f.gateway(t)
	mary, _ := join(t, g, "mary")
	mary.call("GET", "/me", nil).want(t, 200, nil) // the session is known now
	var calls []string
	f.fail = func(ctx context.Context, method string) error {
		c := rpc.CallFrom(ctx)
		deadline, _ := ctx.Deadline()
		calls = append(calls, fmt.Sprintf("%s class=%v entry=%v in-time=%v", method, c.Class, c.Entry, time.Until(deadline) <= 800*time.Millisecond))
		return nil
	}
	mary.call("GET", "/timeline", nil).want(t, 200, nil)
	mary.call("POST", "/posts", map[string]string{"text": "a"}).want(t, 201, nil)
	want := []string{
		fmt.Sprintf("Home class=browse entry=%v in-time=true", tracing.EntryOf("GET /timeline")),
		fmt.Sprintf("Publish class=post entry=%v in-time=true", tracing.EntryOf("POST /posts")),
	}
	if !slices.Equal(calls, want) {
		t.Errorf("calls = %q, want %q", calls, want)
	}
}

func TestSessionHeaderComesBack(t *testing.T) {
	mary, _ := join(t, newFake(t).gateway(t), "mary")
	if got := mary.call("GET", "/me", nil, "Moments-Session", "v1.abc").Header.Get("Moments-Session"); got != "v1.abc" {
		t.Errorf("Moments-Session = %q", got)
	}
	if got := mary.call("GET", "/me", nil).Header.Values("Moments-Session"); len(got) != 0 {
		t.Errorf("Moments-Session = %q without being asked", got)
	}
}

func TestNewRefusesHalfAConfig(t *testing.T) {
	if _, err := gateway.New(gateway.Config{}); err == nil {
		t.Error("no error without clients")
	}
	f := newFake(t)
	full := gateway.Config{Accounts: f, Posts: fakePosts{fake: f}, Timelines: fakeTimelines{fake: f}, Comments: fakeComments{fake: f}, Notices: fakeNotices{fake: f}}
	full.WriteBurst = -1
	if _, err := gateway.New(full); err == nil {
		t.Error("no error with a negative burst")
	}
	full.WriteBurst, full.HTTP.CertFile = 0, "cert.pem"
	if _, err := gateway.New(full); err == nil {
		t.Error("no error with half a certificate")
	}
}
