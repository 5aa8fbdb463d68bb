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

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/sluice-rpc/sluice/app/gateway"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing"
)

// contract is openapi.yaml, made once; its validator is not safe for concurrent use.
var contract = sync.OnceValues(func() (validator.Validator, error) {
	text, err := gateway.OpenAPI()
	if err != nil {
		return nil, err
	}
	doc, err := libopenapi.NewDocument(text)
	if err != nil {
		return nil, err
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if ok, bad := v.ValidateDocument(); !ok {
		for _, b := range bad {
			errs = append(errs, b)
		}
		return nil, errors.Join(errs...)
	}
	return v, nil
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
	v, err := contract()
	if err != nil {
		c.t.Fatal(err)
	}
	if res.StatusCode == 404 && !documented(method, path) || res.StatusCode == 405 {
		return answer{res, text} // an address outside the contract
	}
	res.Body = io.NopCloser(bytes.NewReader(text))
	if ok, bad := v.ValidateHttpResponse(r, res); !ok {
		for _, b := range bad {
			c.t.Errorf("%s %s: answer breaks the contract: %s\n%s\n%v", method, path, b.Message, text, b.SchemaValidationErrors)
		}
	}
	return answer{res, text}
}

// documented reports whether path is of a documented shape.
func documented(method, path string) bool {
	mux := http.NewServeMux()
	for _, p := range gateway.Patterns() {
		mux.Handle(p, http.NotFoundHandler())
	}
	_, pattern := mux.Handler(httptest.NewRequest(method, path, nil))
	return pattern != ""
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
	text, err := gateway.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := libopenapi.NewDocument(text)
	if err != nil {
		t.Fatal(err)
	}
	model, err := doc.BuildV3Model()
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for path, item := range model.Model.Paths.PathItems.FromOldest() {
		for method := range item.GetOperations().FromOldest() {
			documented = append(documented, strings.ToUpper(method)+" "+path)
		}
	}
	served := gateway.Patterns()
	slices.Sort(documented)
	slices.Sort(served)
	if !slices.Equal(documented, served) {
		t.Errorf("documented:\n%s\nserved:\n%s", strings.Join(documented, "\n"), strings.Join(served, "\n"))
	}
}

// The check of answers is worth something: it finds what is missing and what is odd.
func TestContractCatches(t *testing.T) {
	v, err := contract()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{`{}`, `{"items":[{"id":"1"}]}`, `{"items":7}`, `[]`} {
		r := httptest.NewRequest("GET", "/timeline", nil)
		w := httptest.NewRecorder()
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.WriteString(text)
		if ok, _ := v.ValidateHttpResponse(r, w.Result()); ok {
			t.Errorf("%s passes for a timeline", text)
		}
	}
}

// The whole life of a post, every answer held against the contract.
func TestAPI(t *testing.T) {
	t.Run("alone", func(t *testing.T) { testAPI(t, newFake(t).gateway(t)) })
	t.Run("with the services", func(t *testing.T) { testAPI(t, at(t, startSystem(t))) })
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
	t.Run("with the services", func(t *testing.T) { testBadInput(t, at(t, startSystem(t)), nil) })
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
		{"text null", mary, "POST", "/posts", `{"text":null}`, nil, 400, "invalid", "text"},
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
		{"nobody's name", &client{t: t, h: g}, "POST", "/sessions", `{"name":"none","password":"incorrect"}`, nil, 401, "bad-credentials", ""},

		{"no token", &client{t: t, h: g}, "GET", "/timeline", nil, nil, 401, "unauthenticated", ""},
		{"altered token", &client{t: t, h: g, token: mary.token[:len(mary.token)-1] + "x"}, "GET", "/timeline", nil, nil, 401, "unauthenticated", ""},
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
		g := f.gateway(t)
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
		g := f.gateway(t, func(c *gateway.Config) { c.Limits = true })
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
	full := gateway.Config{Accounts: f, Posts: fakePosts{fake: f}, Timelines: fakeTimelines{fake: f}, Comments: fakeComments{fake: f}}
	full.WriteBurst = -1
	if _, err := gateway.New(full); err == nil {
		t.Error("no error with a negative burst")
	}
	full.WriteBurst, full.HTTP.CertFile = 0, "cert.pem"
	if _, err := gateway.New(full); err == nil {
		t.Error("no error with half a certificate")
	}
}
