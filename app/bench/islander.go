// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/app/check"
)

const (
	islanderTime = 5 * time.Second // for one call
	pageSize     = 100
	password     = "of no worth at all"
)

// problemError is an answer that is no success.
type problemError struct {
	status int
	Type   string `json:"type"`
	Detail string `json:"detail"`
}

func (e *problemError) Error() string { return fmt.Sprintf("%d %s %s", e.status, e.Type, e.Detail) }

// get reads a JSON page.
func (d *seaDrill) get(ctx context.Context, url string, into any) error {
	_, err := d.call(ctx, http.MethodGet, url, nil, nil, into)
	return err
}

func (d *seaDrill) call(ctx context.Context, method, url string, header http.Header, body, into any) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, islanderTime)
	defer cancel()
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		return nil, err
	}
	if header != nil {
		req.Header = header
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := d.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode >= 300 {
		problem := &problemError{status: res.StatusCode}
		_ = json.Unmarshal(b, problem) // the status says enough
		return nil, problem
	}
	if into == nil {
		return res.Header, nil
	}
	return res.Header, json.Unmarshal(b, into)
}

// islander is a person, and the session of his client.
type islander struct {
	d              *seaDrill
	home           string // region
	region         string // where he is
	door           int    // which of its gateways he uses
	travels        bool
	name, id       string
	token, session string
}

// ask calls the gateway of the region where he is.
func (p *islander) ask(ctx context.Context, method, path, key string, body, into any) error {
	header := http.Header{}
	if p.token != "" {
		header.Set("Authorization", "Bearer "+p.token)
	}
	if p.session != "" {
		header.Set("Moments-Session", p.session)
	}
	if key != "" {
		header.Set("Idempotency-Key", strings.ReplaceAll(key, " ", "-")) // of visible characters only
	}
	got, err := p.d.call(ctx, method, p.d.sea.door(p.region, p.door)+path, header, body, into)
	if err == nil && got.Get("Moments-Session") != "" {
		p.session = got.Get("Moments-Session")
	}
	return err
}

// arrive makes an account and logs in.
func (p *islander) arrive(ctx context.Context) error {
	who := map[string]any{"name": p.name, "password": password}
	if err := p.ask(ctx, http.MethodPost, "/accounts", p.name, who, nil); err != nil {
		return fmt.Errorf("register %s: %w", p.name, err)
	}
	var said struct {
		Token string `json:"token"`
		User  struct {
			ID string `json:"id"`
		} `json:"user"`
	}
	if err := p.ask(ctx, http.MethodPost, "/sessions", "", who, &said); err != nil {
		return fmt.Errorf("log in %s: %w", p.name, err)
	}
	p.token, p.id = said.Token, said.User.ID
	return nil
}

// befriend asks everybody who is no friend yet, and gives how many were missing. Who has been asked accepts by asking.
func (p *islander) befriend(ctx context.Context) (missing int, _ error) {
	var said struct {
		Items []struct {
			ID string `json:"id"`
		} `json:"items"`
	}
	if err := p.ask(ctx, http.MethodGet, "/friends?limit=100", "", nil, &said); err != nil {
		return 0, err
	}
	known := map[string]bool{p.id: true}
	for _, f := range said.Items {
		known[f.ID] = true
	}
	for _, other := range p.d.people {
		if known[other.id] {
			continue
		}
		missing++
		// Before the account has come over it is not found, and the request is repeated.
		_ = p.ask(ctx, http.MethodPost, "/friend-requests", strconv.FormatInt(int64(p.d.now()), 36), map[string]any{"user": other.id}, nil)
	}
	return missing, nil
}

func (p *islander) post(ctx context.Context, text string) (id string, _ error) {
	var said struct {
		ID string `json:"id"`
	}
	err := p.ask(ctx, http.MethodPost, "/posts", text, map[string]any{"text": text}, &said)
	return said.ID, err
}

func (p *islander) comment(ctx context.Context, post, text, replyTo, key string) (id string, _ error) {
	var said struct {
		ID string `json:"id"`
	}
	body := map[string]any{"text": text}
	if replyTo != "" {
		body["reply_to"] = replyTo
	}
	err := p.ask(ctx, http.MethodPost, "/posts/"+post+"/comments", key, body, &said)
	return said.ID, err
}

func (p *islander) count(ctx context.Context, post string) (int, error) {
	var said struct {
		Count int `json:"comment_count"`
	}
	err := p.ask(ctx, http.MethodGet, "/posts/"+post+"/comments?limit=1", "", nil, &said)
	return said.Count, err
}

// newest gives the text of the newest comment.
func (p *islander) newest(ctx context.Context, post string) (string, error) {
	var said struct {
		Items []struct {
			Text string `json:"text"`
		} `json:"items"`
	}
	if err := p.ask(ctx, http.MethodGet, "/posts/"+post+"/comments?limit=1", "", nil, &said); err != nil || len(said.Items) == 0 {
		return "", err
	}
	return said.Items[0].Text, nil
}

// view is all that a person sees under a post.
type view struct {
	comments []check.Comment
	likes    []string
}

// look reads the likes and comments of a post as they were at one time.
func (p *islander) look(ctx context.Context, post string) (view, error) {
	// Likes before and after the comments, until they are the same: with those of one time alone, what has come meanwhile would be shown
	// without what its writer had seen.
	before, err := p.likes(ctx, post)
	if err != nil {
		return view{}, err
	}
	for range 10 {
		comments, err := p.comments(ctx, post)
		if err != nil {
			return view{}, err
		}
		after, err := p.likes(ctx, post)
		if err != nil {
			return view{}, err
		}
		if slices.Equal(before, after) {
			return view{comments: comments, likes: after}, nil
		}
		before = after
	}
	return view{}, errUnsteady
}

// errUnsteady is no fault of anybody's: people like and unlike quicker than one can look.
var errUnsteady = errors.New("the likes do not stay the same for as long as one looks")

// likes gives who likes a post, sorted.
func (p *islander) likes(ctx context.Context, post string) (all []string, _ error) {
	for cursor := ""; ; {
		var said struct {
			Items []string `json:"items"`
			Next  string   `json:"next_cursor"`
		}
		path := "/posts/" + post + "/likes?limit=" + strconv.Itoa(pageSize)
		if cursor != "" {
			path += "&cursor=" + cursor
		}
		if err := p.ask(ctx, http.MethodGet, path, "", nil, &said); err != nil {
			return nil, err
		}
		all = append(all, said.Items...)
		if cursor = said.Next; cursor == "" {
			slices.Sort(all)
			return all, nil
		}
	}
}

// comments gives the comments of a post, from the newest page to the oldest: the causes of one are on its page or a later one.
func (p *islander) comments(ctx context.Context, post string) (all []check.Comment, _ error) {
	for cursor := ""; ; {
		var said struct {
			Items []struct {
				ID      string `json:"id"`
				Writer  string `json:"writer_id"`
				Text    string `json:"text"`
				ReplyTo string `json:"reply_to"`
				Deleted bool   `json:"deleted"`
			} `json:"items"`
			Next string `json:"next_cursor"`
		}
		path := "/posts/" + post + "/comments?limit=" + strconv.Itoa(pageSize)
		if cursor != "" {
			path += "&cursor=" + cursor
		}
		if err := p.ask(ctx, http.MethodGet, path, "", nil, &said); err != nil {
			return nil, err
		}
		page := make([]check.Comment, len(said.Items))
		for i, c := range said.Items {
			page[i] = check.Comment{ID: c.ID, Writer: c.Writer, Parent: c.ReplyTo, Text: c.Text, Deleted: c.Deleted}
		}
		all = append(page, all...) // pages go back in time
		if cursor = said.Next; cursor == "" {
			return all, nil
		}
	}
}

// live reads and writes until acting ends.
func (p *islander) live(ctx, acting context.Context, round int, chance *rand.Rand) error {
	var seen view
	var post string
	pause := time.Second / time.Duration(p.d.rate)
	for n := 0; wait(acting, time.Duration(float64(pause)*(0.5+chance.Float64()))); n++ {
		if p.travels && chance.IntN(20) == 0 {
			p.region = regionNames[chance.IntN(len(regionNames))]
		}
		if post == "" || chance.IntN(2) == 0 {
			post = p.d.posts[chance.IntN(len(p.d.posts))]
			seen = p.read(ctx, post)
			continue
		}
		o := check.Op{Kind: check.Add, Session: p.name, User: p.id, Region: p.region, Post: post, Key: fmt.Sprintf("%s-%d-%d", p.name, round, n)}
		switch k := chance.IntN(10); {
		case k < 6:
			o.Text = "says " + o.Key
			if len(seen.comments) > 0 && k < 4 {
				if c := seen.comments[len(seen.comments)-1-chance.IntN(min(5, len(seen.comments)))]; !c.Deleted {
					o.Parent = c.ID
				}
			}
		case k < 8:
			o.Kind = check.Like
		case k < 9:
			o.Kind = check.Unlike
		default:
			mine := slices.DeleteFunc(slices.Clone(seen.comments), func(c check.Comment) bool { return c.Writer != p.id || c.Deleted })
			if len(mine) == 0 {
				continue
			}
			o.Kind, o.ID = check.Delete, mine[chance.IntN(len(mine))].ID
		}
		p.write(ctx, o)
	}
	return nil
}

// read looks at a post once, into the history.
func (p *islander) read(ctx context.Context, post string) view {
	began := time.Now()
	o := check.Op{Kind: check.Read, Session: p.name, User: p.id, Region: p.region, Post: post, Start: int64(p.d.now())}
	before := p.session
	v, err := p.look(ctx, post)
	o.End = int64(p.d.now())
	if err != nil {
		p.session = before
		o.Outcome = check.Failed
		p.failed(check.Read, began, err)
	} else {
		o.Outcome, o.Comments, o.Likes = check.OK, v.comments, v.likes
	}
	p.d.record(o)
	return v
}

// write does one thing, with the same key again while there is no answer.
func (p *islander) write(ctx context.Context, o check.Op) {
	for try := range 5 {
		began := time.Now()
		o.Start = int64(p.d.now())
		var err error
		switch o.Kind {
		case check.Add:
			o.ID, err = p.comment(ctx, o.Post, o.Text, o.Parent, o.Key)
		case check.Delete:
			err = p.ask(ctx, http.MethodDelete, "/posts/"+o.Post+"/comments/"+o.ID, o.Key, nil, nil)
		case check.Like:
			err = p.ask(ctx, http.MethodPut, "/posts/"+o.Post+"/like", o.Key, nil, nil)
		default:
			err = p.ask(ctx, http.MethodDelete, "/posts/"+o.Post+"/like", o.Key, nil, nil)
		}
		o.End, o.Outcome, o.Error = int64(p.d.now()), check.OK, ""
		problem, said := errors.AsType[*problemError](err)
		switch {
		case err == nil:
			p.d.took(p.region, began)
		case said && problem.status < 500:
			o.Outcome, o.Error = check.Failed, problem.Type
		default: // it may have happened, also where a server has said that it did not do it
			o.Outcome = check.Unknown
			p.failed(o.Kind, began, err)
		}
		if said && problem.Type == homeUnreachable {
			o.Outcome, o.Error = check.Failed, check.Foreign
		}
		p.d.record(o)
		if o.Outcome != check.Unknown || !wait(ctx, time.Duration(try+1)*300*time.Millisecond) {
			return
		}
	}
}

// Types of problems.
const (
	behind          = "behind"
	homeUnreachable = "home-unreachable"
)

// took counts a write by how it was around it.
func (d *seaDrill) took(region string, began time.Time) {
	t := time.Since(began)
	w, _ := d.around(region, began)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch w {
	case calmSea:
		d.calm = append(d.calm, t)
	case cutSea:
		d.cut = append(d.cut, t)
	default:
	}
}

// failed counts a call that has failed, which no call may in a region whose processes run: but a traveller may have seen elsewhere what
// has not come here.
func (p *islander) failed(what check.Kind, began time.Time, err error) {
	took := time.Since(began)
	w, whole := p.d.around(p.region, began)
	problem, said := errors.AsType[*problemError](err)
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	switch {
	case errors.Is(err, errUnsteady):
	case said && problem.Type == behind && p.travels:
		p.d.behind++
	case !whole:
		p.d.excused++
	case w == cutSea:
		p.d.failures[fmt.Sprintf("%s in a cut: %v", what, err)]++
	default:
		p.d.failures[fmt.Sprintf("%s after %v: %v", what, took.Round(time.Millisecond), err)]++
	}
}
