// SPDX-License-Identifier: Apache-2.0

package ocean

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// cast is who lives where: the people of the talk, and some more.
var cast = []string{"Wang", "Mary", "Kate", "Li", "Anna", "Zhao", "Tom", "Sun"}

const (
	peopleFile  = "ocean-people.json"
	callTime    = 3 * time.Second
	setTime     = time.Second // between two looks at what the scene still lacks
	opening     = "海上生明月 · The moon rises over the sea. Where are you now?"
	newest      = 60 // comments that are shown of a region
	sessionHead = "Moments-Session"
)

// person is one who acts in a region, always against that region.
type person struct {
	region Region
	host   *person // who he is at home: this is him on a visit; nil for who lives in the region

	Display  string `json:"display"`
	Login    string `json:"name"`
	Password string `json:"password"`

	mu      sync.Mutex
	id      string // guarded by mu
	token   string // guarded by mu; empty before he has logged in
	session string // guarded by mu; what he has seen
}

// scene is a post by the first person on which all others, his friends, comment.
type scene struct {
	file   string
	client *http.Client
	log    *slog.Logger
	wake   chan struct{} // a new post is wanted

	mu     sync.Mutex
	people []*person // guarded by mu; replaced, never changed
	guests []*person // guarded by mu; likewise: of the regions that joined later
	lacks  string    // guarded by mu; what the scene waits for, empty if it is set
	post   string    // guarded by mu
	fresh  bool      // guarded by mu; a new post is wanted
}

// SceneState is the post as it is seen in each region.
type SceneState struct {
	Lacks string `json:"lacks,omitempty"` // what it waits for; empty when all is ready
	Post  string `json:"post,omitempty"`
	Text  string `json:"text,omitempty"`
	Views []View `json:"views"`
}

// View is what one person sees in his region.
type View struct {
	Region   string    `json:"region"`
	Person   string    `json:"person"`
	Guest    bool      `json:"guest,omitempty"`   // he lives in another region
	Problem  string    `json:"problem,omitempty"` // why it is not known
	Absent   bool      `json:"absent"`            // the post has not come yet
	Count    int       `json:"count"`
	Comments []Comment `json:"comments"`
}

// Comment is one comment of a view, in the order of the region.
type Comment struct {
	ID      string    `json:"id"`
	Writer  string    `json:"writer"`
	Text    string    `json:"text"`
	ReplyTo string    `json:"reply_to,omitempty"`
	Deleted bool      `json:"deleted,omitempty"`
	At      time.Time `json:"at"`
}

func newScene(cfg Config, client *http.Client, log *slog.Logger) *scene {
	s := &scene{file: filepath.Join(cfg.Dir, peopleFile), client: client, log: log, wake: make(chan struct{}, 1), lacks: "people"}
	for i, r := range cfg.Regions {
		if i < len(cast) {
			s.people = append(s.people, &person{region: r, Display: cast[i], Login: strings.ToLower(cast[i]) + "-" + r.Name})
		}
	}
	return s
}

// sea has the scene be of these regions. Who lives in one that has left is not seen any more,
// and what one that has joined shows is looked at by a visitor: nobody is at home there, so
// it may leave as it came.
func (s *scene) sea(regions []Region) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := func(people []*person, r Region) int {
		return slices.IndexFunc(people, func(p *person) bool { return p.region.Name == r.Name && p.region.URL == r.URL })
	}
	var people, guests []*person
	for _, p := range s.people {
		if slices.ContainsFunc(regions, func(r Region) bool { return r.Name == p.region.Name && r.URL == p.region.URL }) {
			people = append(people, p)
		}
	}
	for _, r := range regions {
		if in(people, r) >= 0 || len(people) == 0 {
			continue
		}
		if i := in(s.guests, r); i >= 0 && s.guests[i].host == people[0] {
			guests = append(guests, s.guests[i]) // with what he has seen there
			continue
		}
		guests = append(guests, &person{region: r, host: people[0], Display: people[0].Display})
	}
	s.people, s.guests = people, guests
}

// home gives who lives in the regions, and all that act in one.
func (s *scene) home() (people, all []*person) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.people, slices.Concat(s.people, s.guests)
}

// run sets the scene, as often as something is missing.
func (s *scene) run(ctx context.Context) {
	tick := time.NewTicker(setTime)
	defer tick.Stop()
	for {
		lacks, err := s.set(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.log.InfoContext(ctx, "the scene is not set yet", "lacks", lacks, "err", err)
		}
		s.mu.Lock()
		s.lacks = lacks
		s.mu.Unlock()
		if lacks == "" {
			select {
			case <-s.wake:
			case <-ctx.Done():
				return
			}
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// again asks for a new post.
func (s *scene) again() {
	s.mu.Lock()
	s.fresh = true
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// set does what is missing and says what still is.
func (s *scene) set(ctx context.Context) (lacks string, err error) {
	if err := s.meet(ctx); err != nil {
		return "people", err
	}
	if err := s.befriend(ctx); err != nil {
		return "friends", err
	}
	s.mu.Lock()
	post, fresh := s.post, s.fresh
	s.mu.Unlock()
	if post != "" && !fresh {
		return "", nil
	}
	var said struct {
		ID string `json:"id"`
	}
	people, _ := s.home()
	if len(people) == 0 {
		return "people", errors.New("all regions of the start have left")
	}
	if err := people[0].call(ctx, s.client, http.MethodPost, "/posts", map[string]any{"text": opening}, &said); err != nil {
		return "post", err
	}
	s.mu.Lock()
	s.post, s.fresh = said.ID, false
	s.mu.Unlock()
	return "", nil
}

// meet makes the accounts at the first start, and logs in.
func (s *scene) meet(ctx context.Context) error {
	if err := s.remember(); err != nil {
		return err
	}
	people, _ := s.home()
	for _, p := range people {
		if p.loggedIn() {
			continue
		}
		if p.Password == "" {
			p.Password = rand.Text()
			if err := s.keep(); err != nil {
				return err
			}
		}
		err := p.call(ctx, s.client, http.MethodPost, "/accounts", map[string]any{"name": p.Login, "password": p.Password, "display_name": p.Display}, nil)
		if said, ok := errors.AsType[*problem](err); err != nil && (!ok || said.Status != http.StatusConflict) {
			return err
		}
		var said struct {
			Token string `json:"token"`
			User  struct {
				ID string `json:"id"`
			} `json:"user"`
		}
		if err := p.call(ctx, s.client, http.MethodPost, "/sessions", map[string]any{"name": p.Login, "password": p.Password, "device": "ocean"}, &said); err != nil {
			return err
		}
		p.mu.Lock()
		p.token, p.id = said.Token, said.User.ID
		p.mu.Unlock()
	}
	return nil
}

// remember reads the people of an earlier start.
func (s *scene) remember() error {
	b, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the people: %w", err)
	}
	var known []*person
	if err := json.Unmarshal(b, &known); err != nil {
		return fmt.Errorf("read the people in %s: %w", s.file, err)
	}
	people, _ := s.home()
	for _, p := range people {
		for _, k := range known {
			if k.Login == p.Login {
				p.Password = k.Password
			}
		}
	}
	return nil
}

func (s *scene) keep() error {
	people, _ := s.home()
	b, err := json.Marshal(people)
	if err == nil {
		err = os.WriteFile(s.file, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep the people: %w", err)
	}
	return nil
}

// befriend makes all people friends of each other. A request crosses the sea before it
// can be accepted.
func (s *scene) befriend(ctx context.Context) error {
	var waiting []string
	people, _ := s.home()
	for i, a := range people {
		friends, err := a.friends(ctx, s.client)
		if err != nil {
			return err
		}
		for j, b := range people {
			if i == j || slices.Contains(friends, b.who()) {
				continue
			}
			waiting = append(waiting, a.Display+" and "+b.Display)
			// Who has been asked accepts by asking.
			err := a.call(ctx, s.client, http.MethodPost, "/friend-requests", map[string]any{"user": b.who()}, nil)
			if said, ok := errors.AsType[*problem](err); err != nil && (!ok || said.Status != http.StatusConflict && said.Status != http.StatusNotFound) {
				return err
			}
		}
	}
	if len(waiting) > 0 {
		return fmt.Errorf("not friends yet: %s", strings.Join(waiting, ", "))
	}
	return nil
}

func (p *person) friends(ctx context.Context, client *http.Client) ([]string, error) {
	var said struct {
		Items []struct {
			ID string `json:"id"`
		} `json:"items"`
	}
	if err := p.call(ctx, client, http.MethodGet, "/friends?limit=100", nil, &said); err != nil {
		return nil, err
	}
	ids := make([]string, len(said.Items))
	for i, f := range said.Items {
		ids[i] = f.ID
	}
	return ids, nil
}

func (p *person) loggedIn() bool {
	if p.host != nil {
		return p.host.loggedIn()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.token != ""
}

// who gives the person's id, empty before he has logged in once.
func (p *person) who() string {
	if p.host != nil {
		return p.host.who()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.id
}

// state looks at the post with everybody's eyes.
func (s *scene) state(ctx context.Context) SceneState {
	_, actors := s.home()
	s.mu.Lock()
	st := SceneState{Lacks: s.lacks, Post: s.post, Views: make([]View, len(actors))}
	s.mu.Unlock()
	if st.Post != "" {
		st.Text = opening
	}
	names := map[string]string{}
	for _, p := range actors {
		names[p.who()] = p.Display
	}
	var all sync.WaitGroup
	for i, p := range actors {
		st.Views[i] = View{Region: p.region.Name, Person: p.Display, Guest: p.host != nil, Comments: []Comment{}}
		if st.Post == "" || !p.loggedIn() {
			continue
		}
		all.Go(func() { p.look(ctx, s.client, st.Post, names, &st.Views[i]) })
	}
	all.Wait()
	return st
}

// look reads the newest comments as the person sees them.
func (p *person) look(ctx context.Context, client *http.Client, post string, names map[string]string, v *View) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var said struct {
		Items []struct {
			ID      string    `json:"id"`
			Writer  string    `json:"writer_id"`
			Text    string    `json:"text"`
			ReplyTo string    `json:"reply_to"`
			Deleted bool      `json:"deleted"`
			At      time.Time `json:"created_at"`
		} `json:"items"`
		Count int `json:"comment_count"`
	}
	err := p.call(ctx, client, http.MethodGet, "/posts/"+url.PathEscape(post)+"/comments?limit="+fmt.Sprint(newest), nil, &said)
	// The log-in of a visitor crosses the sea, too.
	if problem, ok := errors.AsType[*problem](err); ok && (problem.Status == http.StatusNotFound || p.host != nil && problem.Status == http.StatusUnauthorized) {
		v.Absent = true
		return
	}
	if err != nil {
		v.Problem = err.Error()
		return
	}
	v.Count = said.Count
	for _, c := range said.Items {
		v.Comments = append(v.Comments, Comment{ID: c.ID, Writer: names[c.Writer], Text: c.Text, ReplyTo: c.ReplyTo, Deleted: c.Deleted, At: c.At})
	}
}

// ErrNobody means that nobody lives in a region.
var ErrNobody = errors.New("nobody lives in that region")

// Say has the person of a region comment on the post.
func (s *Server) Say(ctx context.Context, region, text, replyTo string) error {
	s.scene.mu.Lock()
	post := s.scene.post
	s.scene.mu.Unlock()
	_, actors := s.scene.home()
	for _, p := range actors {
		if p.region.Name != region {
			continue
		}
		if post == "" || !p.loggedIn() {
			return errors.New("the scene is not set yet: wait a moment")
		}
		body := map[string]any{"text": text}
		if replyTo != "" {
			body["reply_to"] = replyTo
		}
		return p.call(ctx, s.client, http.MethodPost, "/posts/"+url.PathEscape(post)+"/comments", body, nil)
	}
	return fmt.Errorf("%w: %q", ErrNobody, region)
}

// problem is an answer of a gateway that is not a success.
type problem struct {
	Status int    `json:"status"`
	Type   string `json:"type"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

func (p *problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	if p.Title != "" {
		return p.Title
	}
	return http.StatusText(p.Status)
}

// call asks the gateway of the person's region.
func (p *person) call(ctx context.Context, client *http.Client, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, p.region.URL+path, content)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", rand.Text())
	}
	p.mu.Lock()
	token, session := p.token, p.session
	p.mu.Unlock()
	if p.host != nil {
		p.host.mu.Lock()
		token = p.host.token
		p.host.mu.Unlock()
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if session != "" {
		req.Header.Set(sessionHead, session)
	}
	res, err := client.Do(req)
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner // without method and URL
		}
		return fmt.Errorf("region %s does not answer: %w", p.region.Name, err)
	}
	defer func() { _ = res.Body.Close() }()
	answer := io.LimitReader(res.Body, maxAnswer)
	if res.StatusCode >= http.StatusMultipleChoices {
		said := &problem{}
		_ = json.NewDecoder(answer).Decode(said) // the status says enough
		said.Status = res.StatusCode
		if res.StatusCode == http.StatusUnauthorized {
			p.mu.Lock()
			p.token = ""
			p.mu.Unlock()
		}
		return said
	}
	p.mu.Lock()
	if seen := res.Header.Get(sessionHead); seen != "" {
		p.session = seen
	}
	p.mu.Unlock()
	if into == nil {
		return nil
	}
	return json.NewDecoder(answer).Decode(into)
}
