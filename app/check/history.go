// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// Kind is what an operation of a history is.
type Kind string

// The kinds. The last two are no calls: they tell what the checker must know.
const (
	Add     Kind = "add"     // a comment
	Delete  Kind = "delete"  // of a comment
	Like    Kind = "like"    // of a post
	Unlike  Kind = "unlike"  // of a post
	Read    Kind = "read"    // all comments and likes of a post
	Lost    Kind = "lost"    // the disk of Region is gone or set back: what was written there before Start may be lost
	Friends Kind = "friends" // User sees what Who write; who is not named so sees everybody
)

// Outcome is how a call ended.
type Outcome string

// The outcomes.
const (
	OK      Outcome = "ok"
	Unknown Outcome = "unknown" // no answer: it may have happened, now or later
	Failed  Outcome = "failed"  // it has not happened and will not
)

// Op is one call, as its client saw it. A history is any number of them; in a file each
// is a JSON object on a line of its own.
type Op struct {
	Kind Kind `json:"op"`
	// Session is the order that causality follows: what a session has seen comes before
	// what it does next. Each has one User.
	Session string `json:"session,omitempty"`
	User    string `json:"user,omitempty"`
	Region  string `json:"region,omitempty"`
	Server  string `json:"server,omitempty"`
	// Start and End are by one clock that never goes back, in nanoseconds.
	Start   int64   `json:"start"`
	End     int64   `json:"end,omitempty"`
	Outcome Outcome `json:"outcome,omitempty"` // none is OK
	// Error is the type of the problem of a call that has Failed. Foreign is the one that
	// must never be: another region was the reason.
	Error string `json:"error,omitempty"`
	Post  string `json:"post,omitempty"`

	// Key is the idempotency key: calls of one user with one key are one write.
	Key string `json:"key,omitempty"`
	// Text of an Add is like no other in the history.
	Text string `json:"text,omitempty"`
	// ID is of the comment that an Add has made, or a Delete deletes.
	ID     string `json:"id,omitempty"`
	Parent string `json:"parent,omitempty"`

	// Comments and Likes are what a Read has shown, in order; the likes by user.
	Comments []Comment `json:"comments,omitempty"`
	Likes    []string  `json:"likes,omitempty"`
	// CommentCount and LikeCount are the numbers shown beside them, if any were.
	CommentCount *int `json:"comment_count,omitempty"`
	LikeCount    *int `json:"like_count,omitempty"`
	// Final marks a Read after everything has come to rest, in each region by the same
	// users.
	Final bool `json:"final,omitempty"`

	// Who is of Friends.
	Who []string `json:"who,omitempty"`
}

// Foreign is an Error that no write may fail with: the region is cut off from others.
const Foreign = "foreign"

// Comment is a comment as a Read has shown it.
type Comment struct {
	ID     string `json:"id"`
	Writer string `json:"writer,omitempty"`
	Parent string `json:"parent,omitempty"`
	Text   string `json:"text,omitempty"`
	// Deleted is a mark without text.
	Deleted bool `json:"deleted,omitempty"`
	// ParentLost says that the parent is shown as unavailable: it was lost with a region.
	ParentLost bool `json:"parent_lost,omitempty"`
}

// maxLine bounds one operation in a file: a read of 100,000 comments.
const maxLine = 64 << 20

// ReadHistory reads a history, one JSON object a line. Empty lines are left out.
func ReadHistory(r io.Reader) ([]Op, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	var history []Op
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var o Op
		dec := json.NewDecoder(bytes.NewReader(line))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&o); err != nil {
			return nil, fmt.Errorf("check: line %d is no operation: %w", n, err)
		}
		if err := o.check(); err != nil {
			return nil, fmt.Errorf("check: line %d: %w", n, err)
		}
		history = append(history, o)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("check: read the history: %w", err)
	}
	return history, nil
}

// WriteHistory writes what ReadHistory reads.
func WriteHistory(w io.Writer, history []Op) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for i := range history {
		if err := enc.Encode(&history[i]); err != nil {
			return fmt.Errorf("check: write operation %d of the history: %w", i+1, err)
		}
	}
	return nil
}

func (o *Op) check() error {
	switch o.Outcome {
	case "", OK, Unknown, Failed:
	default:
		return fmt.Errorf("outcome %q: want ok, unknown or failed", o.Outcome)
	}
	switch o.Kind {
	case Lost:
		if o.Region == "" {
			return fmt.Errorf("%s names no region", o.Kind)
		}
		return nil
	case Friends:
		if o.User == "" {
			return fmt.Errorf("%s names no user", o.Kind)
		}
		return nil
	case Add, Delete, Like, Unlike, Read:
	default:
		return fmt.Errorf("operation %q: want add, delete, like, unlike, read, lost or friends", o.Kind)
	}
	switch {
	case o.Session == "" || o.User == "" || o.Post == "":
		return fmt.Errorf("%s needs session, user and post", o.Kind)
	case o.Outcome != Unknown && o.End < o.Start:
		return fmt.Errorf("%s ends at %d, before its start at %d", o.Kind, o.End, o.Start)
	case o.Kind == Add && o.Text == "":
		return fmt.Errorf("an add has no text, by which it would be known")
	case o.Kind == Add && o.ok() && o.ID == "", o.Kind == Delete && o.ID == "":
		return fmt.Errorf("%s needs the id of its comment", o.Kind)
	}
	return nil
}

func (o *Op) ok() bool { return o.Outcome == OK || o.Outcome == "" }
