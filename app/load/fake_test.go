// SPDX-License-Identifier: Apache-2.0

package load_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// fake answers the routes of Moments' gateway that the generator uses, from memory, with faults on demand.
type fake struct {
	mu       sync.Mutex // guards all below
	names    map[string]string
	password map[string]string
	tokens   map[string]string
	half     map[[2]string]bool
	timeline map[string][]string
	album    map[string][]string
	text     map[string]string
	once     map[string]string // answers by user and key
	calls    map[string]int
	posts    int
	sessions int

	refuse func(call int, user string) bool // 429 for a user's write
	lose   func(post int, reader string) bool
	twice  func(post int, reader string) bool
	leak   func(post int, reader string) bool
	fail   func(r *http.Request) bool
}

func newFake(t *testing.T) (*fake, string) {
	f := &fake{
		names: map[string]string{}, password: map[string]string{}, tokens: map[string]string{}, half: map[[2]string]bool{},
		timeline: map[string][]string{}, album: map[string][]string{}, text: map[string]string{}, once: map[string]string{},
		calls: map[string]int{},
	}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return f, srv.URL
}

func problem(w http.ResponseWriter, status int, kind string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"type":%q,"detail":"planted","retry_after_ms":1}`, kind)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	route := r.Method + " " + r.URL.Path
	if f.fail != nil && f.fail(r) {
		problem(w, http.StatusInternalServerError, "internal")
		return
	}
	var in struct{ Name, Password, User, Text string }
	if r.Method == http.MethodPost && r.ContentLength > 0 {
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			problem(w, http.StatusBadRequest, "invalid")
			return
		}
	}
	switch route {
	case "POST /accounts":
		f.calls[route]++
		if f.password[in.Name] != "" {
			problem(w, http.StatusConflict, "name-taken")
			return
		}
		f.password[in.Name] = in.Password
		f.names[in.Name] = fmt.Sprintf("u%05d", len(f.names))
		w.WriteHeader(http.StatusCreated)
		return
	case "POST /sessions":
		f.calls[route]++
		if f.password[in.Name] == "" || f.password[in.Name] != in.Password {
			problem(w, http.StatusUnauthorized, "bad-credentials")
			return
		}
		f.sessions++
		token := fmt.Sprintf("token%d", f.sessions)
		f.tokens[token] = f.names[in.Name]
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"token":%q,"user":{"id":%q}}`, token, f.names[in.Name])
		return
	}
	user := f.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	if user == "" {
		problem(w, http.StatusUnauthorized, "unauthenticated")
		return
	}
	f.calls[r.Method+" "+user]++
	if r.Method == http.MethodPost && f.refuse != nil && f.refuse(f.calls[r.Method+" "+user], user) {
		problem(w, http.StatusTooManyRequests, "rate-limited")
		return
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case route == "GET /me":
		fmt.Fprintf(w, `{"id":%q}`, user)
	case route == "POST /friend-requests":
		f.half[[2]string{user, in.User}] = true
		fmt.Fprint(w, `{"state":"requested"}`)
	case parts[0] == "friend-requests" && len(parts) == 3:
		if !f.half[[2]string{parts[1], user}] {
			problem(w, http.StatusConflict, "no-request")
			return
		}
		f.half[[2]string{user, parts[1]}] = true
		fmt.Fprint(w, `{"state":"friends"}`)
	case route == "POST /posts":
		f.post(w, user, r.Header.Get("Idempotency-Key"), in.Text)
	case route == "GET /timeline":
		f.page(w, r, f.timeline[user])
	case parts[0] == "posts" && len(parts) == 3 && f.text[parts[1]] != "" && slices.Contains(f.timeline[user], parts[1]):
		f.calls[parts[2]+" on "+parts[1]]++
		f.calls[parts[2]+" by "+user+" on "+parts[1]]++
		fmt.Fprint(w, `{}`)
	case parts[0] == "users" && len(parts) == 3:
		f.page(w, r, f.album[parts[1]])
	default:
		problem(w, http.StatusNotFound, "not-found")
	}
}

func (f *fake) post(w http.ResponseWriter, user, key, text string) {
	id := f.once[user+" "+key]
	if id == "" {
		f.posts++
		id = fmt.Sprintf("p%08d", f.posts)
		f.once[user+" "+key] = id
		f.text[id] = text
		f.album[user] = append(f.album[user], id)
		f.timeline[user] = append(f.timeline[user], id)
		for _, reader := range f.names {
			friend := f.half[[2]string{user, reader}] && f.half[[2]string{reader, user}]
			if reader != user && (friend && (f.lose == nil || !f.lose(f.posts, reader)) || !friend && f.leak != nil && f.leak(f.posts, reader)) {
				f.timeline[reader] = append(f.timeline[reader], id)
				if f.twice != nil && f.twice(f.posts, reader) {
					f.timeline[reader] = append(f.timeline[reader], id)
				}
			}
		}
	}
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, `{"id":%q}`, id)
}

func (f *fake) page(w http.ResponseWriter, r *http.Request, list []string) {
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	newest := slices.Clone(list)
	slices.Reverse(newest)
	type item struct {
		ID   string `json:"id"`
		Text string `json:"text"`
	}
	out := struct {
		Items []item `json:"items"`
		Next  string `json:"next_cursor,omitempty"`
	}{Items: []item{}}
	for i := from; i < min(from+limit, len(newest)); i++ {
		out.Items = append(out.Items, item{newest[i], f.text[newest[i]]})
	}
	if from+limit < len(newest) {
		out.Next = strconv.Itoa(from + limit)
	}
	_ = json.NewEncoder(w).Encode(out)
}
