// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"
)

// Town is a graph whose people have accounts on a Moments. Names and passwords follow from the graph and a secret of the town, so a
// repeated or interrupted seeding finds the same people again. Safe for concurrent use.
type Town struct {
	Graph  *Graph
	secret []byte
	prefix string // of names: two towns on one system are not mixed up
	people []atomic.Pointer[citizen]
	ready  atomic.Int64 // when all friendships were made, Unix milliseconds; 0: not yet
	run    string       // makes idempotency keys of this process unlike those of any other
	keys   atomic.Uint64
}

// citizen is what the system said of a person when they last logged in.
type citizen struct{ id, token string }

// NewTown makes a town of g with a secret of its own. Nobody is registered yet.
func NewTown(g *Graph) (*Town, error) {
	secret := make([]byte, 16)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	return newTown(g, secret)
}

func newTown(g *Graph, secret []byte) (*Town, error) {
	sum := sha256.New()
	if _, err := g.WriteTo(sum); err != nil {
		return nil, err
	}
	var run [8]byte
	if _, err := rand.Read(run[:]); err != nil {
		return nil, err
	}
	return &Town{
		Graph: g, secret: secret, prefix: "t" + hex.EncodeToString(sum.Sum(nil)[:4]),
		people: make([]atomic.Pointer[citizen], g.People()), run: hex.EncodeToString(run[:]),
	}, nil
}

// Name returns a person's user name.
func (t *Town) Name(person int) string { return t.prefix + "-" + strconv.Itoa(person) }

// Password returns a person's password.
func (t *Town) Password(person int) string {
	mac := hmac.New(sha256.New, t.secret)
	mac.Write([]byte(t.Name(person)))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:18])
}

// ID returns the user id that the system gave a person, empty if they have not been registered.
func (t *Town) ID(person int) string {
	if c := t.people[person].Load(); c != nil {
		return c.id
	}
	return ""
}

// Enrol notes the user id of a person who was registered by other means than Target.Register.
func (t *Town) Enrol(person int, id string) { t.people[person].Store(&citizen{id: id}) }

// Finish notes that all friendships of the graph are made. Only the first time counts.
func (t *Town) Finish(now time.Time) { t.ready.CompareAndSwap(0, now.UnixMilli()) }

// Ready returns when all friendships of the graph had been made; the zero time if they are not yet.
func (t *Town) Ready() time.Time {
	if ms := t.ready.Load(); ms != 0 {
		return time.UnixMilli(ms)
	}
	return time.Time{}
}

// townFile is a town as it is stored. The file holds what opens the accounts, so only its owner may read it.
type townFile struct {
	Version int         `json:"version"`
	Secret  string      `json:"secret"`
	ReadyMS int64       `json:"ready_ms,omitempty"`
	People  [][2]string `json:"people"` // id and token
	Edges   [][2]int    `json:"edges"`
}

const townVersion = 1

// Save writes the town to path, whole or not at all, readable by its owner alone.
func (t *Town) Save(path string) error {
	f := townFile{Version: townVersion, Secret: hex.EncodeToString(t.secret), ReadyMS: t.ready.Load(), People: make([][2]string, len(t.people))}
	for i := range t.people {
		if c := t.people[i].Load(); c != nil {
			f.People[i] = [2]string{c.id, c.token}
		}
	}
	t.Graph.Edges(func(a, b int) bool {
		f.Edges = append(f.Edges, [2]int{a, b})
		return true
	})
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return os.Rename(tmp.Name(), path)
}

// OpenTown reads the town that Save wrote to path. Without the file the error is fs.ErrNotExist.
func OpenTown(path string) (*Town, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var f townFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("%s: %w; remove it and seed again", path, err)
	}
	if f.Version != townVersion {
		return nil, fmt.Errorf("%s has version %d, this program knows %d; use the program that wrote it, or remove it and seed again",
			path, f.Version, townVersion)
	}
	secret, err := hex.DecodeString(f.Secret)
	if err != nil || len(secret) == 0 || len(f.People) > MaxPeople {
		return nil, fmt.Errorf("%s is damaged; remove it and seed again", path)
	}
	g := &Graph{Friends: make([][]int32, len(f.People))}
	for i, e := range f.Edges { // in the order of Edges, so each person's friends come in ascending order
		a, b := e[0], e[1]
		if a < 0 || b <= a || b >= len(f.People) {
			return nil, fmt.Errorf("%s: edge %d is %v among %d people; remove the file and seed again", path, i, e, len(f.People))
		}
		g.Friends[a] = append(g.Friends[a], int32(b))
		g.Friends[b] = append(g.Friends[b], int32(a))
	}
	t, err := newTown(g, secret)
	if err != nil {
		return nil, err
	}
	t.ready.Store(f.ReadyMS)
	for i, p := range f.People {
		if p[0] != "" {
			t.people[i].Store(&citizen{id: p[0], token: p[1]})
		}
	}
	return t, nil
}

// OpenOrFound opens the town at path if it is of the same graph, so that seeding goes on where it stopped, and otherwise makes a new
// one.
func OpenOrFound(path string, g *Graph) (t *Town, found bool, err error) {
	fresh, err := NewTown(g)
	if err != nil {
		return nil, false, err
	}
	old, err := OpenTown(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fresh, false, nil
	case err != nil:
		return nil, false, err
	case old.prefix == fresh.prefix && old.Graph.People() == g.People():
		return old, true, nil
	default:
		return fresh, false, nil
	}
}

// Dial returns a function that makes connections to a Moments, each a Target, in turn to each of its gateways, such as
// http://127.0.0.1:8080. There must be one at least.
func (t *Town) Dial(gateways ...string) func() (Target, error) {
	var turn atomic.Uint64
	return func() (Target, error) {
		conn, err := NewConn(gateways[(turn.Add(1)-1)%uint64(len(gateways))])
		if err != nil {
			return nil, err
		}
		return &member{town: t, conn: conn}, nil
	}
}

// member acts for the people of a town over one connection.
type member struct {
	town *Town
	conn *Conn
}

var _ Target = (*member)(nil)

func (m *member) Close() error { return m.conn.Close() }

func (m *member) Again(err error) (time.Duration, bool) { return m.conn.Again(err) }

// Register makes the account, under a key that makes it once, and logs in.
func (m *member) Register(ctx context.Context, person int) error {
	if c := m.town.people[person].Load(); c != nil && c.token != "" {
		_, err := m.conn.Do(ctx, Request{Method: http.MethodGet, Path: "/me", Token: c.token})
		var status *StatusError
		if err == nil || !errors.As(err, &status) || status.Status != http.StatusUnauthorized {
			return err
		}
	}
	body, err := json.Marshal(map[string]string{
		"name": m.town.Name(person), "password": m.town.Password(person), "display_name": "Person " + strconv.Itoa(person),
	})
	if err != nil {
		return err
	}
	_, err = m.conn.Do(ctx, Request{Method: http.MethodPost, Path: "/accounts", Key: "seed-" + m.town.Name(person), Body: body})
	var status *StatusError
	// A name that is taken is that of an earlier seeding, whose key the server has forgotten; logging in tells whether it is ours.
	if err != nil && (!errors.As(err, &status) || status.Status != http.StatusConflict) {
		return err
	}
	return m.logIn(ctx, person)
}

func (m *member) logIn(ctx context.Context, person int) error {
	body, err := json.Marshal(map[string]string{"name": m.town.Name(person), "password": m.town.Password(person), "device": "moments load"})
	if err != nil {
		return err
	}
	answer, err := m.conn.Do(ctx, Request{Method: http.MethodPost, Path: "/sessions", Body: body})
	var status *StatusError
	if errors.As(err, &status) && status.Status == http.StatusUnauthorized {
		return fmt.Errorf("%w: %s was made with another secret, or not at all: seed with the --data directory that it was seeded with",
			err, m.town.Name(person))
	}
	if err != nil {
		return err
	}
	var in struct {
		Token string `json:"token"`
		User  struct {
			ID string `json:"id"`
		} `json:"user"`
	}
	if err := json.Unmarshal(answer, &in); err != nil {
		return fmt.Errorf("POST /sessions: %w", err)
	}
	if in.Token == "" || in.User.ID == "" {
		return errors.New("POST /sessions: the answer has no token or no user id")
	}
	m.town.people[person].Store(&citizen{id: in.User.ID, token: in.Token})
	return nil
}

// do makes a call for a person, logging in if there is no session or it has ended.
func (m *member) do(ctx context.Context, person int, r Request) ([]byte, error) {
	for again := false; ; again = true {
		c := m.town.people[person].Load()
		if c == nil || c.token == "" {
			if err := m.logIn(ctx, person); err != nil {
				return nil, err
			}
			c = m.town.people[person].Load()
		}
		r.Token = c.token
		body, err := m.conn.Do(ctx, r)
		var status *StatusError
		if err == nil || again || !errors.As(err, &status) || status.Status != http.StatusUnauthorized {
			return body, err
		}
		m.town.people[person].CompareAndSwap(c, &citizen{id: c.id})
	}
}

// id returns a person's user id, logging in to learn it.
func (m *member) id(ctx context.Context, person int) (string, error) {
	if m.town.ID(person) == "" {
		if err := m.logIn(ctx, person); err != nil {
			return "", err
		}
	}
	return m.town.ID(person), nil
}

// Follow requests a friendship, or accepts it if who is the larger number.
func (m *member) Follow(ctx context.Context, who, whom int) error {
	other, err := m.id(ctx, whom)
	if err != nil {
		return err
	}
	r := Request{Method: http.MethodPost, Path: "/friend-requests", Body: []byte(`{"user":"` + other + `"}`)}
	if who > whom {
		r = Request{Method: http.MethodPost, Path: "/friend-requests/" + other + "/accept"}
	}
	r.Key = "seed-" + strconv.Itoa(who) + "-" + strconv.Itoa(whom)
	answer, err := m.do(ctx, who, r)
	if err != nil || who < whom {
		return err
	}
	var in struct {
		State string `json:"state"`
	}
	if err := json.Unmarshal(answer, &in); err != nil || in.State != "friends" {
		return fmt.Errorf("%s and %s are not friends after accepting: %.100s", m.town.Name(who), m.town.Name(whom), answer)
	}
	return nil
}

// Compose posts text to all friends, under a key of its own.
func (m *member) Compose(ctx context.Context, author int, text string) (string, error) {
	body, err := json.Marshal(struct {
		Text string `json:"text"`
	}{text})
	if err != nil {
		return "", err
	}
	key := m.town.run + "-" + strconv.FormatUint(m.town.keys.Add(1), 10)
	answer, err := m.do(ctx, author, Request{Method: http.MethodPost, Path: "/posts", Key: key, Body: body})
	if err != nil {
		return "", err
	}
	var in struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(answer, &in); err != nil {
		return "", fmt.Errorf("POST /posts: %w", err)
	}
	return in.ID, nil
}

// Home reads a page of the timeline.
func (m *member) Home(ctx context.Context, reader int, cursor string, limit int) ([]byte, error) {
	path := "/timeline?limit=" + strconv.Itoa(limit)
	if cursor != "" {
		path += "&cursor=" + url.QueryEscape(cursor)
	}
	return m.do(ctx, reader, Request{Method: http.MethodGet, Path: path})
}

// Album reads the newest page of an author's album.
func (m *member) Album(ctx context.Context, viewer, author, limit int) ([]byte, error) {
	id, err := m.id(ctx, author)
	if err != nil {
		return nil, err
	}
	return m.do(ctx, viewer, Request{Method: http.MethodGet, Path: "/users/" + id + "/album?limit=" + strconv.Itoa(limit)})
}

// ParsePage decodes a page; a post without its text is an error.
func (m *member) ParsePage(body []byte) (Page, error) {
	var in struct {
		Items []struct {
			ID   string `json:"id"`
			Text string `json:"text"`
		} `json:"items"`
		Next string `json:"next_cursor"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return Page{}, fmt.Errorf("page: %w", err)
	}
	page := Page{IDs: make([]string, len(in.Items)), Next: in.Next}
	for i, item := range in.Items {
		if item.Text == "" {
			return Page{}, fmt.Errorf("page: post %q came without its text", item.ID)
		}
		page.IDs[i] = item.ID
	}
	return page, nil
}
