// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// call is one request being answered.
type call struct {
	w    http.ResponseWriter
	r    *http.Request
	user string // the acting user; empty on an open route
	sess string // the id of his session; empty on an open route
}

func (c *call) ctx() context.Context { return c.r.Context() }

const sessionHeader = "Moments-Session"

// maxSession is the longest session token in bytes.
const maxSession = 1024

// passSession gives the client its Moments-Session back. The token is opaque here:
// what it says of the past of a session is between the services.
func (c *call) passSession() error {
	v := c.r.Header[sessionHeader]
	if v == nil {
		return nil
	}
	if len(v) != 1 || len(v[0]) > maxSession || !visible(v[0]) {
		return invalid(sessionHeader, "send back what the last answer carried, unchanged")
	}
	c.w.Header()[sessionHeader] = v
	return nil
}

// visible reports whether s is of visible ASCII characters alone.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// key gives the request's Idempotency-Key, empty if it has none.
func (c *call) key() (string, error) {
	v := c.r.Header["Idempotency-Key"]
	if v == nil {
		return "", nil
	}
	if len(v) != 1 || v[0] == "" || len(v[0]) > 64 || !visible(v[0]) {
		return "", invalid("Idempotency-Key", "give one key of 1 to 64 visible ASCII characters")
	}
	return v[0], nil
}

// ownKey is key, but a request without one gets one of its own, so that attempts
// inside the system still count as one.
func (c *call) ownKey() (string, error) {
	k, err := c.key()
	if err == nil && k == "" {
		k = rand.Text()
	}
	return k, err
}

// query reads the query string strictly: well-formed, no parameter twice.
func (c *call) query() (url.Values, error) {
	if c.r.URL.RawQuery == "" {
		return nil, nil //nolint:nilnil // nil url.Values are the empty ones
	}
	q, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return nil, invalid("", "the query string is malformed")
	}
	for name, values := range q {
		if len(values) > 1 {
			return nil, invalid(name, "the parameter is given more than once")
		}
	}
	return q, nil
}

// maxPage is the largest page that may be asked for.
const maxPage = 100

// firstPage reads the query "limit=N", with which most pages are asked for, without
// making a map of it. What looks otherwise is read in full.
func firstPage(query string) (limit uint32, ok bool) {
	n, ok := strings.CutPrefix(query, "limit=")
	if !ok || n == "" || len(n) > 2 || n[0] == '0' {
		return 0, false
	}
	for i := range len(n) {
		if n[i] < '0' || n[i] > '9' {
			return 0, false
		}
		limit = 10*limit + uint32(n[i]-'0')
	}
	return limit, true
}

// page reads cursor and limit.
func (c *call) page() (cursor string, limit uint32, err error) {
	if limit, ok := firstPage(c.r.URL.RawQuery); ok {
		return "", limit, nil
	}
	q, err := c.query()
	if err != nil {
		return "", 0, err
	}
	limit = 20
	if s, ok := q["limit"]; ok {
		n, err := strconv.ParseUint(s[0], 10, 32)
		if err != nil || n < 1 || n > maxPage {
			return "", 0, invalid("limit", fmt.Sprintf("give a whole number from 1 to %d", maxPage))
		}
		limit = uint32(n)
	}
	cursor = q.Get("cursor")
	if len(cursor) > 512 || !visible(cursor) {
		return "", 0, invalid("cursor", "give the cursor of an earlier answer, unchanged")
	}
	return cursor, limit, nil
}

// An id in the path that is none answers like one that never existed: the client
// asked for a thing, and there is no such thing.

func (c *call) pathUser() (string, error) {
	s := c.r.PathValue("user")
	if _, err := id.ParseUser(s); err != nil {
		return "", notFound("user")
	}
	return s, nil
}

func (c *call) pathPost() (string, error) {
	s := c.r.PathValue("post")
	if _, err := id.ParsePost(s); err != nil {
		return "", notFound("post")
	}
	return s, nil
}

func (c *call) pathComment() (string, error) {
	s := c.r.PathValue("comment")
	if _, err := id.ParseComment(s); err != nil {
		return "", notFound("comment")
	}
	return s, nil
}

// buffers holds answers being written.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 16<<10); return &b }}

// reply answers with the JSON that write appends.
func (c *call) reply(status int, write func([]byte) []byte) error {
	buf := buffers.Get().(*[]byte)
	b := append(write((*buf)[:0]), '\n')
	h := c.w.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	c.w.WriteHeader(status)
	_, err := c.w.Write(b)
	if cap(b) <= 256<<10 { // a rare giant is left to the collector
		*buf = b
		buffers.Put(buf)
	}
	return err
}

// done answers that it is done and there is nothing to show.
func (c *call) done() error {
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// invalid is a 400 that names the field.
func invalid(field, detail string) error {
	return &edge.StatusError{Status: http.StatusBadRequest, Type: "invalid", Field: field, Detail: detail}
}

// notFound is what the services say of what is not there or not to be seen.
func notFound(what string) error {
	return rpc.WithDetails(rpc.Errorf(rpc.NotFound, "there is no such %s", what), &momentsv1.Problem{Type: "not-found"})
}

// fields gives the names that the API has for fields of the contracts.
var fields = map[string]string{
	"other_id":        "user",
	"post_id":         "post",
	"session_id":      "session",
	"parent_id":       "reply_to",
	"idempotency_key": "Idempotency-Key",
	"session":         "Moments-Session",

	"allow_ids":     "allow_users",
	"allow_tag_ids": "allow_tags",
	"deny_ids":      "deny_users",
	"deny_tag_ids":  "deny_tags",
	"media_ids":     "media",
	"link.media_id": "link.media",
	"remind_ids":    "remind",
	"user_ids":      "users",
	"add_ids":       "add",
	"remove_ids":    "remove",
}

// explain puts the services' own word for a problem into the document.
func explain(err error, p *edge.Problem) {
	var d momentsv1.Problem
	if !rpc.Detail(err, &d) {
		return
	}
	if d.GetType() != "" {
		p.Type = d.GetType()
	}
	p.Field = d.GetField()
	if name, ok := fields[p.Field]; ok {
		p.Field = name
	}
	if e, ok := errors.AsType[*rpc.Error](err); ok && e.Reason == rpc.ReasonHandler {
		p.Detail = e.Message // a handler that names its problem speaks to the user
	}
	switch p.Type {
	case "busy", "behind", "home-unreachable":
		p.Status, p.Title = http.StatusServiceUnavailable, "The service cannot do this now"
	case "limit":
		if p.Status == http.StatusTooManyRequests { // waiting does not help: this is no rate
			p.Status, p.Title = http.StatusConflict, "A limit is reached"
		}
	}
}
