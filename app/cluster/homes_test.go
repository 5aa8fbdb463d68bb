// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/cluster/clustertest"
	"github.com/sluice-rpc/sluice/app/ocean/emulator"
	"github.com/sluice-rpc/sluice/app/topology"
)

// someone is a person of a test, who asks gateways.
type someone struct {
	t     *testing.T
	at    string // URL of the gateway that is asked
	id    string
	token string
}

// call asks a gateway and gives status and body.
func (p *someone) call(method, path string, body, into any, header ...string) (int, []byte) {
	p.t.Helper()
	var content io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case []byte:
		content, kind = bytes.NewReader(b), "application/octet-stream"
	default:
		text, err := json.Marshal(b)
		if err != nil {
			p.t.Fatal(err)
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.at+path, content)
	if err != nil {
		p.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	if p.token != "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	if into != nil && res.StatusCode < 300 {
		if err := json.Unmarshal(text, into); err != nil {
			p.t.Fatalf("%s %s: %v: %s", method, path, err, text)
		}
	}
	return res.StatusCode, text
}

// must asks until it is answered with a success, for what has to cross the sea first.
func (p *someone) must(method, path string, body, into any, header ...string) {
	p.t.Helper()
	deadline := time.Now().Add(time.Minute)
	pause := time.NewTicker(20 * time.Millisecond) // the processors are needed by who answers
	defer pause.Stop()
	for {
		status, text := p.call(method, path, body, into, header...)
		if status < 300 {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s %s: %d %s", method, path, status, text)
		}
		<-pause.C
	}
}

// settle makes somebody at home in a region.
func settle(t *testing.T, r clustertest.Region, name string) *someone {
	t.Helper()
	p := &someone{t: t, at: r.URL}
	p.must("POST", "/accounts", map[string]string{"name": name, "password": "a password of " + name, "display_name": name}, nil)
	p.login(name)
	return p
}

func (p *someone) login(name string) {
	p.t.Helper()
	var said struct {
		Token string `json:"token"`
		User  struct {
			ID string `json:"id"`
		} `json:"user"`
	}
	p.must("POST", "/sessions", map[string]string{"name": name, "password": "a password of " + name, "device": "test"}, &said)
	p.token, p.id = said.Token, said.User.ID
}

// upload puts a photo up and gives its id.
func (p *someone) upload(photo []byte) string {
	p.t.Helper()
	sum := sha256.Sum256(photo)
	var up, done struct {
		ID string `json:"id"`
	}
	p.must("POST", "/uploads", map[string]any{"kind": "photo", "size": len(photo), "sha256": hex.EncodeToString(sum[:])}, &up)
	p.must("PUT", "/uploads/"+up.ID+"/parts/0", photo, nil, "Content-SHA256", hex.EncodeToString(sum[:]))
	p.must("POST", "/uploads/"+up.ID+"/complete", struct{}{}, &done)
	return done.ID
}

func picture(t *testing.T) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 640, 480))
	for y := range 480 {
		for x := range 640 {
			img.Set(x, y, color.RGBA{R: uint8(x), G: uint8(y), B: uint8(x * y), A: 255})
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestAbroad: requests for home and photos of another region go over the line, under the
// certificates of the regions.
func TestAbroad(t *testing.T) {
	sea := clustertest.StartRegions(t, "sh", "ca")
	sh, ca := sea.Regions[0], sea.Regions[1]
	wang, kate := settle(t, sh, "wang"), settle(t, ca, "kate")
	kate.must("POST", "/friend-requests", map[string]string{"user": wang.id}, nil)
	wang.must("POST", "/friend-requests/"+kate.id+"/accept", nil, nil)

	photo := kate.upload(picture(t))
	var post struct {
		ID string `json:"id"`
	}
	kate.must("POST", "/posts", map[string]any{"text": "moonrise", "media": []string{photo}}, &post)
	var seen struct {
		Media []struct {
			ID   string            `json:"id"`
			URLs map[string]string `json:"urls"`
		} `json:"media"`
	}
	wang.must("GET", "/posts/"+post.ID, nil, &seen)
	if len(seen.Media) != 1 || seen.Media[0].ID != photo {
		t.Fatalf("the post has the media %+v, want %s", seen.Media, photo)
	}
	// Shanghai's edge pulls it from Canada's, once: then the line may be cut.
	for form, url := range seen.Media[0].URLs {
		status, got := wang.call("GET", url, nil, nil)
		kate.at = ca.URL
		_, want := kate.call("GET", url, nil, nil)
		if status != http.StatusOK || !bytes.Equal(got, want) {
			t.Errorf("%s: %d, %d bytes, want the %d that Canada has", form, status, len(got), len(want))
		}
	}
	cut := func(is bool) {
		if err := sea.Lines[0].Set(emulator.Both, func(s *emulator.Setting) { s.Cut = is }); err != nil {
			t.Fatal(err)
		}
	}
	cut(true)
	for form, url := range seen.Media[0].URLs {
		if status, _ := wang.call("GET", url, nil, nil); status != http.StatusOK {
			t.Errorf("%s, with the line cut: %d", form, status)
		}
	}
	if status, _ := wang.call("GET", strings.Replace(seen.Media[0].URLs["full"], "&s=", "&s=A", 1), nil, nil); status != http.StatusNotFound {
		t.Errorf("a forged link: %d", status)
	}
	cut(false)

	// Kate is in Shanghai: her timeline comes from home, and its links hold there.
	kate.at = sh.URL
	kate.login("kate")
	var page struct {
		Items []struct {
			Media []struct {
				URLs map[string]string `json:"urls"`
			} `json:"media"`
		} `json:"items"`
	}
	kate.must("GET", "/timeline", nil, &page)
	if len(page.Items) != 1 || len(page.Items[0].Media) != 1 {
		t.Fatalf("the timeline abroad is %+v", page)
	}
	if status, _ := kate.call("GET", page.Items[0].Media[0].URLs["feed"], nil, nil); status != http.StatusOK {
		t.Errorf("a link of a timeline from home: %d", status)
	}
}

// TestDoorsAreLocked: nobody without a certificate of the regions gets past the doors that
// are for them.
func TestDoorsAreLocked(t *testing.T) {
	cfgs := joined(t, "sh", "hk")
	n, _ := runNode(t, cfgs[0])
	for _, lis := range cfgs[1].Sockets {
		_ = lis.Close()
	}
	for name, at := range map[string]string{"gateway": n.GatewayLine(), "edge": edgeLine(n)} {
		if at == "" {
			t.Fatalf("%s has no door", name)
		}
		for _, scheme := range []string{"http", "https"} {
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: trustAll()}, Timeout: 10 * time.Second}
			res, err := client.Get(fmt.Sprintf("%s://%s/livez", scheme, at))
			if err == nil {
				_ = res.Body.Close()
				if res.StatusCode < 400 {
					t.Errorf("%s by %s: %s", name, scheme, res.Status)
				}
			}
			client.CloseIdleConnections()
		}
	}
}

func edgeLine(n *cluster.Node) string {
	at, _ := n.Running(topology.Edge)
	return at.Line
}

func trustAll() *tls.Config { return &tls.Config{InsecureSkipVerify: true} } //nolint:gosec // who asks is on trial here
