// SPDX-License-Identifier: Apache-2.0

package redisref

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-rpc/sluice/app/load"
)

// Target drives a Front over one HTTP connection.
type Target struct{ conn *load.Conn }

var _ load.Target = (*Target)(nil)

// NewTarget returns a Target for the front at base, such as http://127.0.0.1:9000.
func NewTarget(base string) (*Target, error) {
	conn, err := load.NewConn(base)
	if err != nil {
		return nil, err
	}
	return &Target{conn: conn}, nil
}

// Close ends the connection.
func (t *Target) Close() error { return t.conn.Close() }

// Again says whether a call may be made again. The reference has neither limits nor overload control, so no answer says so.
func (t *Target) Again(err error) (time.Duration, bool) { return t.conn.Again(err) }

// Register makes the person.
func (t *Target) Register(ctx context.Context, person int) error {
	_, err := t.post(ctx, "/register", registerRequest{UserID: int64(person), Username: username(person)})
	return err
}

// Follow makes who a follower of whom.
func (t *Target) Follow(ctx context.Context, who, whom int) error {
	_, err := t.post(ctx, "/follow", followRequest{UserID: int64(who), FolloweeID: int64(whom)})
	return err
}

// Compose posts text and returns the post's id.
func (t *Target) Compose(ctx context.Context, author int, text string) (string, error) {
	body, err := t.post(ctx, "/compose", composeRequest{UserID: int64(author), Username: username(author), Text: text})
	if err != nil {
		return "", err
	}
	var out struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(body, &out); err != nil {
		return "", fmt.Errorf("compose: %w", err)
	}
	return out.ID, nil
}

// Home reads a page of the reader's timeline.
func (t *Target) Home(ctx context.Context, reader int, cursor string, limit int) ([]byte, error) {
	return t.page(ctx, "/home", reader, cursor, limit)
}

// Album reads the author's newest posts; the reference does not ask who looks.
func (t *Target) Album(ctx context.Context, _, author, limit int) ([]byte, error) {
	return t.page(ctx, "/album", author, "", limit)
}

// ParsePage decodes a page.
func (t *Target) ParsePage(body []byte) (load.Page, error) {
	var in struct {
		Posts []post `json:"posts"`
		Next  string `json:"next"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return load.Page{}, fmt.Errorf("page: %w", err)
	}
	page := load.Page{IDs: make([]string, len(in.Posts)), Next: in.Next}
	for i, p := range in.Posts {
		if p.Text == "" {
			return load.Page{}, fmt.Errorf("post %s came without its text", p.ID)
		}
		page.IDs[i] = p.ID
	}
	return page, nil
}

func (t *Target) page(ctx context.Context, route string, person int, cursor string, limit int) ([]byte, error) {
	start := 0
	if cursor != "" {
		var err error
		if start, err = strconv.Atoi(cursor); err != nil {
			return nil, fmt.Errorf("cursor %q: %w", cursor, err)
		}
	}
	path := route + "?user_id=" + strconv.Itoa(person) + "&start=" + strconv.Itoa(start) + "&stop=" + strconv.Itoa(start+limit-1)
	return t.conn.Do(ctx, load.Request{Method: http.MethodGet, Path: path})
}

func (t *Target) post(ctx context.Context, route string, in any) ([]byte, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	return t.conn.Do(ctx, load.Request{Method: http.MethodPost, Path: route, Body: body})
}

func username(person int) string { return "person" + strconv.Itoa(person) }
