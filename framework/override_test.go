// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
)

// TestOperatorsOverrideAdmission does over the admin port what an operator does, and
// looks at what calls of the last class get over the wire.
func TestOperatorsOverrideAdmission(t *testing.T) {
	srv := framework.NewServer(framework.ServerConfig{Service: "overridden", Admin: ":0"}, framework.WithoutSignals(),
		framework.WithLogger(slog.New(slog.DiscardHandler)))
	testpb.RegisterEchoServer(srv, &spinner{})
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	conn, err := framework.Dial(framework.ClientConfig{Service: "overridden", Addrs: []string{srv.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	browser := &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = conn.Close()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	client := testpb.NewEchoClient(conn)
	page := "http://" + srv.AdminAddr() + "/admin/qos"
	operate := func(order string) {
		t.Helper()
		res, err := browser.Post(page, "application/json", strings.NewReader(order))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%v: %d %s", err, res.StatusCode, body)
		}
	}
	t.Cleanup(func() { operate(`{"action":"unpin","reason":"the test is over"}`) })
	call := func(c qos.Class) error {
		ctx, cancel := context.WithTimeout(as(t.Context(), c, 5), 10*time.Second)
		defer cancel()
		_, err := client.Echo(ctx, &testpb.EchoRequest{})
		return err
	}
	// A client believes a level for a second: it may take as long to notice.
	becomes := func(what string, want bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			err := call(qos.Background)
			switch {
			case err != nil && (rpc.ReasonOf(err) != rpc.ReasonOverload || rpc.CodeOf(err) != rpc.ResourceExhausted):
				t.Fatalf("%s: %v", what, err)
			case (err == nil) == want:
				return
			case time.Now().After(end):
				t.Fatalf("%s: calls of the last class get %v, want passed: %t", what, err, want)
			}
		}
	}

	becomes("before", true)
	operate(`{"action":"pin","class":"browse","reason":"a drill"}`)
	becomes("pinned", false)
	if err := call(qos.Browse); err != nil {
		t.Errorf("pinned at browse: a call of browse got %v", err)
	}
	operate(`{"action":"exempt","service":"overridden","method":"` + testpb.EchoEchoMethod.FullName() + `","reason":"a drill"}`)
	becomes("exempt", true)
	operate(`{"action":"end-exempt","service":"overridden","method":"` + testpb.EchoEchoMethod.FullName() + `","reason":"a drill"}`)
	becomes("no longer exempt", false)
	operate(`{"action":"off","service":"overridden","reason":"a drill"}`)
	becomes("off", true)
	operate(`{"action":"on","service":"overridden","reason":"a drill"}`)
	becomes("on", false)
	operate(`{"action":"unpin","reason":"a drill"}`)
	becomes("unpinned", true)

	for path, want := range map[string]string{
		"/admin/qos":   "pin the level at browse/127 ",
		"/metrics":     "sluice_admission_admitted_total{class=\"background\"}",
		"/admin/items": "\"sluice.admission.queue_wait\"",
	} {
		res, err := browser.Get("http://" + srv.AdminAddr() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %v, %d, no %q in %.2000s", path, err, res.StatusCode, want, body)
		}
	}
}
