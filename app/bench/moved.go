// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
)

// judge looks at everything that he has, wherever he is.
func (d *rehomeDrill) judge(ctx context.Context, p *mover, m move, home string) error {
	number := map[string]id.Region{}
	for i, name := range regionNames {
		number[name] = id.Region(i + 1)
	}
	acked := map[string]sent{} // by id
	var lastOld, firstNew time.Duration
	var ends []time.Duration
	for _, s := range p.sent {
		if s.id == "" {
			d.refused++
			continue
		}
		d.posts++
		acked[s.id] = s
		ends = append(ends, s.end)
		made, err := id.ParsePost(s.id)
		if err != nil {
			return err
		}
		switch made.Region() {
		case number[oldHome]:
			lastOld = max(lastOld, s.start)
		case number[newHome]:
			if firstNew == 0 || s.end < firstNew {
				firstNew = s.end
			}
		default:
			d.wrong(&d.twoWriters, "a post of %s was taken by region %d", p.name, made.Region())
		}
	}
	if firstNew != 0 && (lastOld > firstNew || m.back) {
		d.wrong(&d.twoWriters, "%s has taken a post of %s at %v, after %s had taken one at %v", oldHome, p.name, lastOld, newHome, firstNew)
	}
	if m.at == never && !m.back {
		slices.Sort(ends)
		longest := time.Duration(0)
		for i := 1; i < len(ends); i++ { // none may have been taken
			longest = max(longest, ends[i]-ends[i-1])
		}
		d.pauses = append(d.pauses, longest.Seconds())
	}
	if err := d.oneWriter(ctx, p, home); err != nil {
		return err
	}
	var err error
	if p.friendPost, err = d.post(ctx, d.somebody(newHome), "to "+p.name); err != nil {
		return err
	}
	for _, region := range regionNames {
		looking, enough := context.WithTimeout(ctx, 30*time.Second)
		err := d.until(looking, 200*time.Millisecond, func() error { return d.hasAll(looking, p, acked, region) })
		if enough(); err != nil {
			d.wrong(&d.lost, "in %s, of %s: %v", region, p.name, err)
		}
	}
	return d.cutOff(ctx, p, home)
}

// oneWriter asks each region itself to take a post: of one that is not his home the gateway would send it there.
func (d *rehomeDrill) oneWriter(ctx context.Context, p *mover, home string) error {
	for _, region := range regionNames {
		err := d.until(ctx, 100*time.Millisecond, func() error {
			header := http.Header{"Authorization": {"Bearer " + p.token}, "Moments-Forwarded": {"1"}, "Idempotency-Key": {"asked-" + region}}
			_, err := d.call(ctx, http.MethodPost, d.door(region, 0)+"/posts", header, map[string]any{"text": "asked of " + region}, nil)
			problem, said := errors.AsType[*problemError](err)
			switch {
			case region == home:
				return err
			case err == nil:
				return fatalError{fmt.Errorf("%s takes a post of %s, who is at home in %s", region, p.name, home)}
			case !said || problem.Type != homeUnreachable:
				return err
			}
			return nil
		})
		if err != nil {
			d.wrong(&d.twoWriters, "%s is asked for a post of %s: %v", region, p.name, err)
			if ctx.Err() != nil {
				return err
			}
		}
	}
	return nil
}

// pages reads all pages of a list of posts, as ids and texts.
func (p *islander) pages(ctx context.Context, path string) (all []listed, _ error) {
	for cursor := ""; ; {
		var said struct {
			Items []listed `json:"items"`
			Next  string   `json:"next_cursor"`
		}
		at := path + "?limit=100"
		if cursor != "" {
			at += "&cursor=" + cursor
		}
		if err := p.ask(ctx, http.MethodGet, at, "", nil, &said); err != nil {
			return nil, err
		}
		all = append(all, said.Items...)
		if cursor = said.Next; cursor == "" {
			return all, nil
		}
	}
}

type listed struct {
	ID    string `json:"id"`
	Text  string `json:"text"`
	Media []struct {
		URLs map[string]string `json:"urls"`
	} `json:"media"`
}

// hasAll reports what a region does not show of what he has, to a friend there and to himself.
func (d *rehomeDrill) hasAll(ctx context.Context, p *mover, acked map[string]sent, region string) error {
	friend, self := d.somebody(region), p.in(region)
	album, err := friend.pages(ctx, "/users/"+p.id+"/album")
	if err != nil {
		return err
	}
	if err := d.complete("album", album, p, acked); err != nil {
		return err
	}
	timeline, err := self.pages(ctx, "/timeline")
	if err != nil {
		return err
	}
	if err := d.complete("timeline", timeline, p, acked); err != nil {
		return err
	}
	if !slices.ContainsFunc(timeline, func(x listed) bool { return x.ID == p.friendPost }) {
		return errors.New("what a friend has posted since is not in his timeline")
	}
	seen, err := friend.comments(ctx, p.post)
	if err != nil {
		return err
	}
	count := map[string]int{}
	for _, c := range seen {
		count[c.Text]++
	}
	for _, text := range p.comments {
		if count[text] != 1 {
			return fmt.Errorf("his comment %q is there %d times", text, count[text])
		}
	}
	likes, err := friend.likes(ctx, p.post)
	if err != nil || !slices.Equal(likes, []string{p.id}) {
		return fmt.Errorf("his post is liked by %v, %w", likes, err)
	}
	if err := d.seesPhoto(ctx, friend, p); err != nil {
		return err
	}
	return d.isHimself(ctx, self)
}

// complete reports which of his posts are not in a list exactly once.
func (d *rehomeDrill) complete(what string, list []listed, p *mover, acked map[string]sent) error {
	ids, texts := map[string]int{}, map[string]int{}
	for _, x := range list {
		ids[x.ID]++
		texts[x.Text]++
	}
	for id, s := range acked {
		if ids[id] == 0 {
			return fmt.Errorf("post %s, %q, is not in his %s", id, s.text, what)
		}
	}
	if ids[p.post] == 0 || ids[p.photo] == 0 {
		return fmt.Errorf("his first posts are not in his %s", what)
	}
	for _, s := range p.sent {
		if texts[s.text] > 1 {
			d.wrong(&d.duplicated, "%q is %d times in the %s of %s", s.text, texts[s.text], what, p.name)
		}
	}
	return nil
}

// seesPhoto fetches his photo, which is the same in all regions.
func (d *rehomeDrill) seesPhoto(ctx context.Context, friend *islander, p *mover) error {
	var post listed
	if err := friend.ask(ctx, http.MethodGet, "/posts/"+p.photo, "", nil, &post); err != nil {
		return fmt.Errorf("his photo: %w", err)
	}
	if len(post.Media) != 1 {
		return fmt.Errorf("his photo has %d pictures", len(post.Media))
	}
	at := post.Media[0].URLs["full"]
	if !strings.HasPrefix(at, "http") {
		at = d.door(friend.region, 0) + at
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return err
	}
	res, err := d.client.Do(req)
	if err != nil {
		return fmt.Errorf("his photo: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("his photo: %s, %w", res.Status, err)
	}
	if p.picture == nil {
		p.picture = b
	}
	if !bytes.Equal(p.picture, b) {
		return errors.New("his photo is another one here")
	}
	return nil
}

// isHimself asks, as he, for what he has at home. The session is that of before the move.
func (d *rehomeDrill) isHimself(ctx context.Context, self *islander) error {
	for _, want := range []struct {
		path   string
		things int
	}{{"/friends", len(d.people)}, {"/tags", 1}, {"/friend-settings", 1}} {
		var said struct {
			Items []map[string]any `json:"items"`
		}
		if err := self.ask(ctx, http.MethodGet, want.path, "", nil, &said); err != nil {
			return fmt.Errorf("%s: %w", want.path, err)
		}
		if len(said.Items) != want.things {
			return fmt.Errorf("%s has %d, want %d", want.path, len(said.Items), want.things)
		}
	}
	var settings map[string]any
	if err := self.ask(ctx, http.MethodGet, "/me/settings", "", nil, &settings); err != nil {
		return err
	}
	if settings["album_window"] != "6_months" || settings["open_to_strangers"] != true {
		return fmt.Errorf("his settings are %v", settings)
	}
	again := &islander{d: d.seaDrill, region: self.region, name: self.name}
	var said struct {
		User struct {
			ID string `json:"id"`
		} `json:"user"`
	}
	if err := again.ask(ctx, http.MethodPost, "/sessions", "", map[string]any{"name": self.name, "password": password}, &said); err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	if said.User.ID != self.id {
		return fmt.Errorf("who logs in is %s", said.User.ID)
	}
	return nil
}

// cutOff asks the region where he was, or was to be, while it cannot reach his home: posts, comments and likes go on there, and all
// else tells why it does not.
func (d *rehomeDrill) cutOff(ctx context.Context, p *mover, home string) error {
	region := oldHome
	if home == oldHome {
		region = newHome
	}
	self := p.in(region)
	if err := d.set(ctx, [2]string{oldHome, newHome}, map[string]any{"cut": true}); err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	try := func(what string, do func() error) {
		if err := d.until(limit, 50*time.Millisecond, do); err != nil {
			d.wrong(&d.strange, "%s of %s, cut off from his home: %v", what, p.name, err)
		}
	}
	unreachable := func(method, path string, body any) func() error {
		return func() error {
			began := time.Now()
			err := self.ask(limit, method, path, "cut off "+p.name, body, nil)
			if problem, said := errors.AsType[*problemError](err); said && problem.Type == homeUnreachable {
				d.answers = append(d.answers, time.Since(began).Seconds())
				return nil
			}
			return fmt.Errorf("want %s: %w", homeUnreachable, err)
		}
	}
	try("timeline", unreachable(http.MethodGet, "/timeline", nil))
	try("a post", unreachable(http.MethodPost, "/posts", map[string]any{"text": "cut off"}))
	try("reading a post", func() error { return self.ask(limit, http.MethodGet, "/posts/"+p.post, "", nil, nil) })
	try("a comment", func() error {
		_, err := self.comment(limit, p.post, "cut off", "", "cut off comment")
		return err
	})
	try("a like", func() error {
		return self.ask(limit, http.MethodPut, "/posts/"+p.photo+"/like", "cut off like", nil, nil)
	})
	if err := d.healAll(ctx); err != nil {
		return err
	}
	limit, cancel = context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	try("the timeline, the line whole again,", func() error { return self.ask(limit, http.MethodGet, "/timeline", "", nil, nil) })
	return nil
}
