// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	callTimeout = 30 * time.Second
	maxAnswer   = 16 << 20
)

// Conn is one keep-alive HTTP/1.1 connection, used by one worker at a time. The generator shares its machine with the servers
// it measures, so a call is one write and one parse on the caller's goroutine, where net/http hands it to two others.
// It dials on first use and again after a failure.
type Conn struct {
	host string // as in the Host header
	addr string
	tls  *tls.Config // nil: plain

	nc     net.Conn
	in     *bufio.Reader
	out    []byte
	answer bytes.Buffer
}

// NewConn returns a connection to base, such as http://127.0.0.1:8080, not yet dialled.
func NewConn(base string) (*Conn, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", base, err)
	}
	c := &Conn{host: u.Host, addr: u.Host}
	port := "80"
	switch u.Scheme {
	case "http":
	case "https":
		c.tls = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
		port = "443"
	default:
		return nil, fmt.Errorf("address %q: want http://host:port or https://host:port", base)
	}
	if u.Hostname() == "" || (u.Path != "" && u.Path != "/") {
		return nil, fmt.Errorf("address %q: want a host and no path, such as http://127.0.0.1:8080", base)
	}
	if u.Port() == "" {
		c.addr = net.JoinHostPort(u.Hostname(), port)
	}
	return c, nil
}

// Request is one call. Header lines and path must be free of line breaks.
type Request struct {
	Method string
	Path   string // with the query
	Token  string // Authorization: Bearer, if not empty
	Key    string // Idempotency-Key, if not empty
	Body   []byte // JSON, or nil
}

// StatusError is an answer other than 2xx.
type StatusError struct {
	Method, Path string
	Status       int
	Type         string        // the problem's stable type, empty if the answer had none
	Detail       string        // the problem's detail, or the first bytes of another body
	RetryAfter   time.Duration // 0: not said
}

// Error names the call, the status and the server's reason.
func (e *StatusError) Error() string {
	msg := fmt.Sprintf("%s %s: %d %s", e.Method, e.Path, e.Status, http.StatusText(e.Status))
	if e.Type != "" {
		msg += " (" + e.Type + ")"
	}
	if e.Detail != "" {
		msg += ": " + e.Detail
	}
	return msg
}

// Again says whether err is an answer after which a call with a key may be made again, and after what wait: a user's limit,
// overload, or a deadline that passed, when nobody knows what was done.
func (c *Conn) Again(err error) (wait time.Duration, again bool) {
	var e *StatusError
	if !errors.As(err, &e) {
		return 0, false
	}
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return e.RetryAfter, true
	}
	return 0, false
}

// Do makes the call and returns the body of a 2xx answer, valid until the next Do. Any other answer is a *StatusError. A call on
// a connection that the server had closed meanwhile is made once more on a new one: reads and writes with a key bear that.
func (c *Conn) Do(ctx context.Context, r Request) ([]byte, error) {
	if strings.ContainsAny(r.Path+r.Token+r.Key, "\r\n ") {
		return nil, fmt.Errorf("%s %.80q: a blank or line break in path, token or key", r.Method, r.Path)
	}
	for {
		reused := c.nc != nil
		body, started, err := c.attempt(ctx, r)
		if err == nil {
			return body, nil
		}
		var status *StatusError
		if errors.As(err, &status) {
			return nil, err
		}
		c.hangUp()
		if ctx.Err() != nil {
			err = ctx.Err() // not the time-out that it set off
		}
		if !reused || started || ctx.Err() != nil {
			return nil, fmt.Errorf("%s %s: %w", r.Method, r.Path, err)
		}
	}
}

// Close ends the connection.
func (c *Conn) Close() error {
	c.hangUp()
	return nil
}

func (c *Conn) hangUp() {
	if c.nc != nil {
		_ = c.nc.Close() // it failed already, or nobody waits for it any more
		c.nc = nil
	}
}

// attempt tells in started whether the server had begun to answer.
func (c *Conn) attempt(ctx context.Context, r Request) (body []byte, started bool, err error) {
	if err := c.dial(ctx); err != nil {
		return nil, true, err
	}
	deadline := time.Now().Add(callTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	nc := c.nc
	if err := nc.SetDeadline(deadline); err != nil {
		return nil, false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := nc.Write(c.encode(r)); err != nil {
		return nil, false, err
	}
	if _, err := c.in.Peek(1); err != nil {
		return nil, errors.Is(err, context.DeadlineExceeded) || isTimeout(err), err
	}
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return nil, true, err
	}
	c.answer.Reset()
	_, err = c.answer.ReadFrom(io.LimitReader(res.Body, maxAnswer+1))
	_ = res.Body.Close() // reads nothing more: the body was read to its end, or the connection is dropped below
	switch {
	case err != nil:
		return nil, true, err
	case c.answer.Len() > maxAnswer:
		return nil, true, fmt.Errorf("an answer above %d bytes", maxAnswer)
	}
	if res.Close {
		c.hangUp()
	}
	if res.StatusCode/100 != 2 {
		return nil, true, statusError(r, res, c.answer.Bytes())
	}
	return c.answer.Bytes(), true, nil
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

func (c *Conn) dial(ctx context.Context) error {
	if c.nc != nil {
		return nil
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	nc, err := d.DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return err
	}
	if c.tls != nil {
		sec := tls.Client(nc, c.tls)
		if err := sec.HandshakeContext(ctx); err != nil {
			_ = nc.Close() // the handshake's error is the one to report
			return err
		}
		nc = sec
	}
	c.nc = nc
	c.in = bufio.NewReaderSize(nc, 16<<10)
	return nil
}

func (c *Conn) encode(r Request) []byte {
	b := append(c.out[:0], r.Method...)
	b = append(append(b, ' '), r.Path...)
	b = append(append(b, " HTTP/1.1\r\nHost: "...), c.host...)
	if r.Token != "" {
		b = append(append(b, "\r\nAuthorization: Bearer "...), r.Token...)
	}
	if r.Key != "" {
		b = append(append(b, "\r\nIdempotency-Key: "...), r.Key...)
	}
	if r.Body != nil {
		b = append(b, "\r\nContent-Type: application/json"...)
	}
	if r.Body != nil || r.Method == http.MethodPost {
		b = strconv.AppendInt(append(b, "\r\nContent-Length: "...), int64(len(r.Body)), 10)
	}
	b = append(append(b, "\r\n\r\n"...), r.Body...)
	c.out = b
	return b
}

func statusError(r Request, res *http.Response, body []byte) *StatusError {
	e := &StatusError{Method: r.Method, Path: r.Path, Status: res.StatusCode}
	if secs, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && secs > 0 {
		e.RetryAfter = time.Duration(secs) * time.Second
	}
	var problem struct {
		Type         string  `json:"type"`
		Title        string  `json:"title"`
		Detail       string  `json:"detail"`
		RetryAfterMS float64 `json:"retry_after_ms"`
	}
	if json.Unmarshal(body, &problem) != nil {
		e.Detail = fmt.Sprintf("%.200s", body)
		return e
	}
	e.Type, e.Detail = problem.Type, problem.Detail
	if e.Detail == "" {
		e.Detail = problem.Title
	}
	if problem.RetryAfterMS > 0 {
		e.RetryAfter = time.Duration(problem.RetryAfterMS * float64(time.Millisecond))
	}
	return e
}
