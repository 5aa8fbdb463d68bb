// SPDX-License-Identifier: Apache-2.0

package media_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/media"
	"github.com/sluice-rpc/sluice/app/media/probe/probetest"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// s3 runs an S3 server, versitygw on a directory, until the test ends, and gives the URL
// of a bucket and its directory.
func s3(t *testing.T) (bucket, dir string) {
	t.Helper()
	found, err := filepath.Glob("../../build/versitygw-v*")
	if err != nil || len(found) == 0 {
		t.Skip("there is no S3 server: .ci/s3 builds one, once, in some minutes")
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := lis.Addr().String()
	if err := lis.Close(); err != nil {
		t.Fatal(err)
	}
	root, side := t.TempDir(), t.TempDir()
	dir = filepath.Join(root, "moments")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command(found[len(found)-1], "--port", addr, "--quiet", "posix", "--sidecar", side, root)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY=mary", "ROOT_SECRET_KEY=correct-horse")
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // says that it was stopped
		if t.Failed() {
			t.Logf("the S3 server said: %s", said.String())
		}
	})
	t.Setenv("AWS_ACCESS_KEY_ID", "mary")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "correct-horse")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for end := time.Now().Add(20 * time.Second); ; <-tick.C {
		res, err := client.Get("http://" + addr)
		if err == nil {
			_ = res.Body.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the S3 server does not answer: %v: %s", err, said.String())
		}
	}
	return fmt.Sprintf("s3://moments?endpoint=http://%s&use_path_style=true&region=us-east-1&disable_https=true", addr), dir
}

func TestS3(t *testing.T) {
	bucket, dir := s3(t)
	blobs, err := media.OpenBlobs(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := blobs.Close(); err != nil {
			t.Error(err)
		}
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	w := worldOn(t, blobs)
	objects := func() int {
		n := 0
		err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				n++
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}

	photo := w.mustSend(mary, photoKind, picture(t, 900, 600))
	movie := probetest.Movie{Place: "+31.2304+121.4737/", Padding: 13 << 20}.Bytes() // three requests
	clip := w.mustSend(mary, videoKind, movie)
	if n := objects(); n != 4 {
		t.Errorf("%d objects are kept, want the forms of a photo and a video", n)
	}
	for _, f := range photo.GetForms() {
		if data, err := w.read(photo.GetMediaId(), f.GetVariant()); err != nil || !bytes.HasPrefix(data, []byte("\xff\xd8\xff")) {
			t.Errorf("%v: %v", f.GetVariant(), err)
		}
	}
	got, err := w.read(clip.GetMediaId(), momentsv1.MediaVariant_MEDIA_VARIANT_FULL)
	if err != nil || len(got) != len(movie) || strings.Contains(string(got), "121.4737") {
		t.Errorf("the video has %d bytes of %d: %v", len(got), len(movie), err)
	}
	_, err = w.send(mary, videoKind, append(movie, 0x7f, 0xff, 0xff, 0xff, 'f', 'r', 'e', 'e'))
	wantCode(t, err, rpc.InvalidArgument)
	w.collect()
	if n := objects(); n != 4 {
		t.Errorf("%d objects are kept after a refused video", n)
	}

	if err := w.blobs.Put(t.Context(), "media/stray/x/full"); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.now = time.Now().Add(48 * time.Hour)
	w.mu.Unlock()
	res, err := w.CheckBlobs(t.Context(), &momentsv1.CheckBlobsRequest{Mend: true})
	if err != nil || res.GetLookedAt() != 5 || len(res.GetOrphans()) != 1 {
		t.Errorf("%v, %v", res, err)
	}
	w.collect() // all that nobody has used
	if n := objects(); n != 0 {
		t.Errorf("%d objects are left", n)
	}
}

func TestBucketsThatAreNone(t *testing.T) {
	for _, address := range []string{"", "/tmp", "ftp://x", "%zz"} {
		if b, err := media.OpenBlobs(t.Context(), address); err == nil {
			t.Errorf("%q is opened", address)
			_ = b.Close()
		}
	}
}
