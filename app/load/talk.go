// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
)

// Talker is a Target where people can also say something to a post.
type Talker interface {
	Target
	// Comment adds a comment of the person to a post that they can see.
	Comment(ctx context.Context, person int, post, text string) error
	// CommentOnce does so under a key: repeated, it is there once.
	CommentOnce(ctx context.Context, person int, post, text, key string) error
	// Like says that the person likes a post that they can see. Saying it again changes nothing.
	Like(ctx context.Context, person int, post string) error
	// Unlike takes that back.
	Unlike(ctx context.Context, person int, post string) error
}

// commentLength is the length of each comment of Talk, in characters.
const commentLength = 40

// Talk makes people comment and like what they see: each post that stands on somebody's first home page gets that many comments,
// and likes of as many people, all by those on whose page it stands. It returns how many posts that were. What is refused for
// overload is put off and done later. report is as in Populate.
func Talk(ctx context.Context, g *Graph, each, workers int, seed uint64, dial func() (Target, error), report func(Stage)) (posts int, err error) {
	if report == nil {
		report = func(Stage) {}
	}
	p := &populating{workers: workers, dial: func() (Founder, error) { return dial() }, report: report}
	var mu sync.Mutex
	readers := map[string][]int{} // by post; guarded by mu
	err = p.stage(ctx, "pages", g.People(), func(ctx context.Context, f Founder, reader int) error {
		t, ok := f.(Talker)
		if !ok {
			return errors.New("nobody can comment or like there")
		}
		body, err := t.Home(ctx, reader, "", PageSize)
		if err != nil {
			return err
		}
		page, err := t.ParsePage(body)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, id := range page.IDs {
			readers[id] = append(readers[id], reader)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	type act struct {
		post   string
		person int
		like   bool
	}
	var acts []act
	rng := rand.New(rand.NewPCG(seed, 0x74616c6b)) // #nosec G404 -- who says something
	ids := make([]string, 0, len(readers))
	for id := range readers {
		ids = append(ids, id)
	}
	slices.Sort(ids) // the same seed draws the same people
	for _, id := range ids {
		who := readers[id]
		slices.Sort(who)
		rng.Shuffle(len(who), func(i, j int) { who[i], who[j] = who[j], who[i] })
		for i := range each {
			acts = append(acts, act{id, who[i%len(who)], false})
			if i < len(who) {
				acts = append(acts, act{id, who[i], true})
			}
		}
	}
	rng.Shuffle(len(acts), func(i, j int) { acts[i], acts[j] = acts[j], acts[i] })
	return len(ids), p.stage(ctx, "comments and likes", len(acts), func(ctx context.Context, f Founder, i int) error {
		t, a := f.(Talker), acts[i]
		if a.like {
			return t.Like(ctx, a.person, a.post)
		}
		text := randomText(rand.New(rand.NewPCG(seed, uint64(i)))) // #nosec G404 -- a text
		return t.Comment(ctx, a.person, a.post, text[:commentLength])
	})
}

// Greet lets everybody look at their first page once, which logs them in. report is as in Populate.
func Greet(ctx context.Context, g *Graph, workers int, dial func() (Target, error), report func(Stage)) error {
	if report == nil {
		report = func(Stage) {}
	}
	p := &populating{workers: workers, dial: func() (Founder, error) { return dial() }, report: report}
	return p.stage(ctx, "sessions", g.People(), func(ctx context.Context, f Founder, reader int) error {
		_, err := f.(Target).Home(ctx, reader, "", 1) // what dial gives
		return err
	})
}

var _ Talker = (*member)(nil)

// Comment comments a post, under a key of its own.
func (m *member) Comment(ctx context.Context, person int, post, text string) error {
	return m.CommentOnce(ctx, person, post, text, m.town.run+"-"+strconv.FormatUint(m.town.keys.Add(1), 10))
}

// CommentOnce comments a post under a key, so that it can be repeated when nobody knows whether it was done.
func (m *member) CommentOnce(ctx context.Context, person int, post, text, key string) error {
	body, err := json.Marshal(map[string]string{"text": text})
	if err != nil {
		return err
	}
	if _, err = m.do(ctx, person, Request{Method: http.MethodPost, Path: "/posts/" + post + "/comments", Key: key, Body: body}); err != nil {
		return fmt.Errorf("comment: %w", err)
	}
	return nil
}

// Like likes a post.
func (m *member) Like(ctx context.Context, person int, post string) error {
	key := m.town.run + "-" + strconv.FormatUint(m.town.keys.Add(1), 10)
	if _, err := m.do(ctx, person, Request{Method: http.MethodPut, Path: "/posts/" + post + "/like", Key: key}); err != nil {
		return fmt.Errorf("like: %w", err)
	}
	return nil
}

// Unlike takes a like back.
func (m *member) Unlike(ctx context.Context, person int, post string) error {
	key := m.town.run + "-" + strconv.FormatUint(m.town.keys.Add(1), 10)
	if _, err := m.do(ctx, person, Request{Method: http.MethodDelete, Path: "/posts/" + post + "/like", Key: key}); err != nil {
		return fmt.Errorf("unlike: %w", err)
	}
	return nil
}
