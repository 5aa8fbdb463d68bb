// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/cluster/clustertest"
	"github.com/sluice-rpc/sluice/framework"
)

// from is a client whose connections come from an address of the loopback network.
func from(t *testing.T, address string) *http.Client {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	tr := &http.Transport{DialContext: d.DialContext}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// TestFloodOfLogIns: passwords are guessed from a hundred places, each of which keeps to its
// limit, for names that nobody else tries: up to 300 a second, several times what can be hashed.
// Log-ins rank above reads; still whoever is logged in reads on.
func TestFloodOfLogIns(t *testing.T) {
	address := clustertest.Start(t, func(c *cluster.Config) {
		c.CheapPasswords, c.Topology.Gateway.Limits, c.Topology.Gateway.Admission = false, true, framework.On
	})
	g := at(t, address)
	mary, _ := join(t, g, "mary")
	mary.call("POST", "/posts", map[string]string{"text": "undisturbed"}).want(t, 201, nil)
	stop := make(chan struct{})
	var flood sync.WaitGroup
	var mu sync.Mutex
	guesses := map[int]int{} // by status
	pace := time.NewTicker(time.Second / 300)
	defer pace.Stop()
	for i := range 100 {
		place := from(t, fmt.Sprintf("127.0.1.%d", 1+i))
		flood.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-pace.C:
				}
				status, err := guess(t.Context(), place, address, fmt.Sprintf("nobody%d-%d", i, n))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				guesses[status]++
				mu.Unlock()
			}
		})
	}
	const count, most = 100, 50 // of a busy machine, which has more to do than this
	refused := 0
	for i := range count {
		switch a := mary.call("GET", "/timeline", nil); a.StatusCode {
		case 200:
		case 503, 504:
			refused++
		default:
			t.Errorf("read %d during the flood: %d %s", i, a.StatusCode, a.text)
		}
	}
	close(stop)
	flood.Wait()
	t.Logf("%d of %d reads refused; guesses answered %v", refused, count, guesses)
	if refused > most {
		t.Errorf("%d of %d reads were refused during the flood, want %d at most", refused, count, most)
	}
	for status := range guesses {
		if status != 401 && status != 429 && status != 503 && status != 504 {
			t.Errorf("a guess was answered %d", status)
		}
	}
}

// guess tries a wrong password and gives the status of the answer.
func guess(ctx context.Context, c *http.Client, address, name string) (int, error) {
	body := fmt.Sprintf(`{"name":%q,"password":"a wrong guess"}`, name)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address+"/sessions", strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}
