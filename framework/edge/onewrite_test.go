// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-rpc/sluice/framework/edge"
)

// counting tells how many pieces its connections have sent.
type counting struct {
	net.Listener
	mu     sync.Mutex
	pieces []int // bytes of each; guarded by mu
}

func (l *counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &countedConn{c, l}, err
}

func (l *counting) take() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pieces
	l.pieces = nil
	return p
}

type countedConn struct {
	net.Conn
	l *counting
}

func (c *countedConn) Write(b []byte) (int, error) {
	c.l.mu.Lock()
	c.l.pieces = append(c.l.pieces, len(b))
	c.l.mu.Unlock()
	return c.Conn.Write(b)
}

// TestAnswerInOnePiece sends answers of all kinds over one connection each, and looks at
// what leaves and when.
func TestAnswerInOnePiece(t *testing.T) {
	const page = 6 << 10
	release := make(chan struct{})
	e := edge.New(edge.Config{Log: quiet(), AdmissionOff: true, MaxBody: 64 << 10})
	body := strings.Repeat("x", page)
	mux := http.NewServeMux()
	handle := func(path string, h edge.HandlerFunc) { mux.Handle(path, e.Handle("GET "+path, nil, h)) }
	handle("/page", func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Length", fmt.Sprint(page))
		_, err := io.WriteString(w, body)
		return err
	})
	handle("/chunked", func(w http.ResponseWriter, _ *http.Request) error {
		_, err := io.WriteString(w, body)
		return err
	})
	handle("/large", func(w http.ResponseWriter, _ *http.Request) error {
		_, err := io.WriteString(w, strings.Repeat(body, 20))
		return err
	})
	handle("/flushed", func(w http.ResponseWriter, r *http.Request) error {
		_, _ = io.WriteString(w, body)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		select { // the client has the first part and says so
		case <-release:
		case <-r.Context().Done():
			return r.Context().Err()
		}
		_, err := io.WriteString(w, "end")
		return err
	})
	handle("/echo", func(w http.ResponseWriter, r *http.Request) error {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
	handle("/abort", func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Length", fmt.Sprint(2*page))
		_, _ = io.WriteString(w, body)
		panic(http.ErrAbortHandler)
	})
	srv, err := edge.NewServer(edge.ServerConfig{Log: quiet()}, mux)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pieces := &counting{Listener: ln}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, pieces) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	dial := func(t *testing.T) (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c, bufio.NewReader(c)
	}
	ask := func(t *testing.T, c net.Conn, in *bufio.Reader, request string) *http.Response {
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	read := func(t *testing.T, res *http.Response) string {
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	request := func(path, version, more string) string {
		return "GET " + path + " HTTP/" + version + "\r\nHost: h\r\n" + more + "\r\n"
	}

	for _, tt := range []struct {
		name, request, want string
		pieces              int // 0: any number
	}{
		{"with its length", request("/page", "1.1", ""), body, 1},
		{"chunked", request("/chunked", "1.1", ""), body, 1},
		{"longer than is held", request("/large", "1.1", ""), strings.Repeat(body, 20), 0},
		{"of HTTP/1.0", request("/page", "1.0", ""), body, 1},
		{"before the end of the connection", request("/page", "1.1", "Connection: close\r\n"), body, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, in := dial(t)
			for again := range 2 {
				pieces.take()
				if got := read(t, ask(t, c, in, tt.request)); got != tt.want {
					t.Fatalf("%d bytes, want %d", len(got), len(tt.want))
				}
				if p := pieces.take(); tt.pieces != 0 && len(p) != tt.pieces {
					t.Errorf("answer %d left in pieces of %v, want %d", again, p, tt.pieces)
				}
				if !strings.Contains(tt.request, "1.1\r\nHost: h\r\n\r\n") {
					break // the server hangs up
				}
			}
		})
	}
	t.Run("two that were asked for together", func(t *testing.T) {
		c, in := dial(t)
		first := ask(t, c, in, request("/page", "1.1", "")+request("/page", "1.1", ""))
		if read(t, first) != body {
			t.Error("the first is not whole")
		}
		second, err := http.ReadResponse(in, nil)
		if err != nil || read(t, second) != body {
			t.Errorf("the second is not whole: %v", err)
		}
	})
	t.Run("flushed by its handler", func(t *testing.T) {
		c, in := dial(t)
		res := ask(t, c, in, request("/flushed", "1.1", ""))
		part := make([]byte, page)
		if _, err := io.ReadFull(res.Body, part); err != nil {
			t.Fatal(err)
		}
		release <- struct{}{}
		if rest := read(t, res); rest != "end" {
			t.Errorf("after the flush came %q", rest)
		}
	})
	t.Run("after 100 Continue", func(t *testing.T) {
		c, in := dial(t)
		head := "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
		if res := ask(t, c, in, head); res.StatusCode != http.StatusContinue {
			t.Fatalf("status %d before the body was sent", res.StatusCode)
		}
		if got := read(t, ask(t, c, in, "hello")); got != "hello" {
			t.Errorf("answer %q", got)
		}
	})
	t.Run("that breaks off", func(t *testing.T) {
		c, in := dial(t)
		res := ask(t, c, in, request("/abort", "1.1", ""))
		if _, err := io.ReadAll(res.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("reading half an answer: %v, want an unexpected end", err)
		}
	})
}
