// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/internal/peers"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves h until the returned stop is called, which gives Serve's error.
func start(t *testing.T, cfg edge.ServerConfig, h http.Handler) (addr string, stop func() error) {
	t.Helper()
	cfg.Log = quiet()
	s, err := edge.NewServer(cfg, h)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	var stopped atomic.Bool
	stop = func() error {
		if stopped.Swap(true) {
			return nil
		}
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = stop() })
	return ln.Addr().String(), stop
}

func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.Header.Get("Traceparent") == "" && strings.HasSuffix(url, "z") {
		t.Errorf("%s: no traceparent", url)
	}
	return res.StatusCode, string(b)
}

func client(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestHealth(t *testing.T) {
	var broken atomic.Bool
	addr, _ := start(t, edge.ServerConfig{Ready: func() error {
		if broken.Load() {
			return errors.New("store is closed")
		}
		return nil
	}}, http.NotFoundHandler())
	c := client(t)
	if code, _ := get(t, c, "http://"+addr+"/livez"); code != 200 {
		t.Errorf("livez = %d", code)
	}
	if code, _ := get(t, c, "http://"+addr+"/readyz"); code != 200 {
		t.Errorf("readyz = %d", code)
	}
	broken.Store(true)
	if code, body := get(t, c, "http://"+addr+"/readyz"); code != 503 || !strings.Contains(body, "store is closed") {
		t.Errorf("readyz = %d %q", code, body)
	}
	if code, _ := get(t, c, "http://"+addr+"/livez"); code != 200 {
		t.Errorf("livez of an unready process = %d", code)
	}
}

// A stop lets a running request finish, and still answers one that is on its way
// on an idle connection, with the wish that the client leaves.
func TestStopLosesNoRequest(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	addr, stop := start(t, edge.ServerConfig{LameDuck: 500 * time.Millisecond}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(entered)
			<-release
		}
		_, _ = io.WriteString(w, "done")
	}))
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	ask := func() *http.Response {
		if _, err := fmt.Fprintf(conn, "GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		return res
	}
	ask() // the connection is now idle

	c := client(t)
	slow := make(chan error, 1)
	go func() {
		res, err := c.Get("http://" + addr + "/slow")
		if err == nil {
			_, err = io.ReadAll(res.Body)
			err = errors.Join(err, res.Body.Close())
		}
		slow <- err
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for {
		// Until the stop is noticed answers keep the connection; then one asks us to leave.
		if res := ask(); res.Close {
			break
		}
	}
	close(release)
	if err := <-slow; err != nil {
		t.Errorf("running request failed: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("still listening after the stop")
	}
}

func TestStopCutsAfterDrain(t *testing.T) {
	entered := make(chan struct{})
	addr, stop := start(t, edge.ServerConfig{LameDuck: time.Millisecond, Drain: 10 * time.Millisecond}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	}))
	c := client(t)
	slow := make(chan error, 1)
	go func() {
		res, err := c.Get("http://" + addr + "/slow")
		if err == nil {
			_ = res.Body.Close()
		}
		slow <- err
	}()
	<-entered
	if err := stop(); err == nil || !strings.Contains(err.Error(), "were cut") {
		t.Errorf("stop = %v", err)
	}
	if err := <-slow; err == nil {
		t.Error("the cut request was answered")
	}
}

func TestHostileHeads(t *testing.T) {
	addr, _ := start(t, edge.ServerConfig{}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	for name, tt := range map[string]struct {
		head string
		want int
	}{
		"huge header": {"GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", 431},
		"no host":     {"GET / HTTP/1.1\r\n\r\n", 400},
		"garbage":     {"\x16\x03\x01 hello\r\n\r\n", 400},
		"two lengths": {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_, _ = io.WriteString(conn, tt.head)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != tt.want {
				t.Errorf("status = %d, want %d", res.StatusCode, tt.want)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key, pool := selfSigned(t, dir)
	addr, _ := start(t, edge.ServerConfig{CertFile: cert, KeyFile: key}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto)
	}))
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	for range 50 { // HTTP/2 reads while it ends a request
		if code, proto := get(t, &http.Client{Transport: tr}, "https://"+addr+"/"); code != 200 || proto != "HTTP/2.0" {
			t.Fatalf("answer = %d %q", code, proto)
		}
	}
	for name, cfg := range map[string]edge.ServerConfig{
		"certificate alone": {CertFile: cert},
		"no such file":      {CertFile: cert, KeyFile: filepath.Join(dir, "none")},
		"wrong pair":        {CertFile: key, KeyFile: cert},
	} {
		if _, err := edge.NewServer(cfg, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func selfSigned(t *testing.T, dir string) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := errors.Join(
		os.WriteFile(certFile, certPEM, 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, pool
}

// TestConnectionsAreShown: what comes over a connection of an entry is on the page of
// connections until it is closed.
func TestConnectionsAreShown(t *testing.T) {
	entry := edge.New(edge.Config{Log: quiet(), AdmissionOff: true})
	h := entry.Handle("GET /hello", nil, func(w http.ResponseWriter, _ *http.Request) error {
		_, err := w.Write([]byte("hello"))
		return err
	})
	addr, stop := start(t, edge.ServerConfig{Service: "door"}, h)
	c := client(t)
	const requests = 3
	for range requests {
		if code, body := get(t, c, "http://"+addr+"/hello"); code != 200 || body != "hello" {
			t.Fatalf("%d %q", code, body)
		}
	}
	var seen []peers.Connection
	for _, one := range peers.List() {
		if one.Local == addr {
			seen = append(seen, one)
		}
	}
	if len(seen) != 1 {
		t.Fatalf("%+v, want the client's one connection", seen)
	}
	if one := seen[0]; !one.Accepted || !one.HTTP || one.Service != "door" || one.Calls != requests || one.Received == 0 || one.Sent < requests*5 || one.Peer == "" || one.Since.IsZero() {
		t.Errorf("%+v", one)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, one := range peers.List() {
		if one.Local == addr {
			t.Errorf("%+v is shown after the end", one)
		}
	}
}

// TestAccessLog: a line for each request, whatever became of it, and none of what people
// have sent.
func TestAccessLog(t *testing.T) {
	var out bytes.Buffer
	entry := edge.New(edge.Config{Log: quiet(), AdmissionOff: true, Access: slog.New(slog.NewJSONHandler(&out, nil))})
	h := entry.Handle("GET /users/{user}", nil, func(w http.ResponseWriter, r *http.Request) error {
		switch r.URL.Query().Get("do") {
		case "fail":
			return rpc.Errorf(rpc.NotFound, "nobody")
		case "panic":
			panic("secret of the handler")
		}
		_, err := w.Write([]byte("hello"))
		return err
	})
	for _, do := range []string{"", "fail", "panic"} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/users/mary?name=secret&do="+do, nil))
	}
	type line struct {
		Entry, Result, Trace, Peer string
		Status, Bytes              int
	}
	var got []line
	for dec := json.NewDecoder(bytes.NewReader(out.Bytes())); dec.More(); {
		var one line
		if err := dec.Decode(&one); err != nil {
			t.Fatal(err)
		}
		if len(one.Trace) != 32 || one.Peer == "" || one.Bytes == 0 {
			t.Errorf("%+v", one)
		}
		one.Trace, one.Peer, one.Bytes = "", "", 0
		got = append(got, one)
	}
	want := []line{
		{Entry: "GET /users/{user}", Status: 200, Result: "ok"},
		{Entry: "GET /users/{user}", Status: 404, Result: "client_error"},
		{Entry: "GET /users/{user}", Status: 500, Result: "server_error"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if strings.Contains(out.String(), "secret") || strings.Contains(out.String(), "mary") {
		t.Errorf("what people have sent is in the log:\n%s", out.String())
	}
}

// TestSettingsAreShown: the admin pages of an entry show the program's configuration.
func TestSettingsAreShown(t *testing.T) {
	entry := edge.New(edge.Config{Log: quiet(), Settings: []config.InEffect{{Setting: config.Setting{Name: "gateway.limits", Doc: "whether writes are limited"}, Value: "true", Where: "region.yaml:3"}}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- entry.ServeAdmin(ctx, ln, nil) }()
	code, body := get(t, client(t), "http://"+ln.Addr().String()+"/admin/config")
	if code != 200 || !strings.Contains(body, "gateway.limits") || !strings.Contains(body, "region.yaml:3") {
		t.Errorf("%d %s", code, body)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
