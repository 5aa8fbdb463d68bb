// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/app/comment"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv/pebblekv"
	"github.com/sluice-rpc/sluice/app/topology"
)

// A backup is one store directory for each service, the directory of photos and videos if
// they are in the data directory, and this file, written last: a
// backup without it was not finished.
const manifestFile = "BACKUP"

const manifestFormat = 1

type manifest struct {
	Format   int             `json:"format"`
	Made     time.Time       `json:"made"`
	Services []topology.Role `json:"services"`
}

// backupOrder is asked of a service's admin port.
type backupOrder struct {
	Dest string `json:"dest"` // absolute path of a directory that does not exist
}

// maxOrder bounds the body of an order in bytes.
const maxOrder = 64 << 10

// backupDoor lets who can read the data directory have a copy of a running store
// made, with the directory of its blobs if there is one. The process that has the store
// open must make it: the store's lock keeps all others out.
func backupDoor(d *Data, r topology.Role, store *pebblekv.Store, blobs string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		given, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
		if subtle.ConstantTimeCompare([]byte(given), []byte(d.token)) != 1 {
			http.Error(w, "the token in "+tokenFile+" of the data directory is wanted", http.StatusUnauthorized)
			return
		}
		var order backupOrder
		if err := json.NewDecoder(http.MaxBytesReader(w, req.Body, maxOrder)).Decode(&order); err != nil || !filepath.IsAbs(order.Dest) {
			http.Error(w, `want {"dest": "/absolute/path"}`, http.StatusBadRequest)
			return
		}
		if err := store.Checkpoint(req.Context(), order.Dest); err != nil {
			http.Error(w, fmt.Sprintf("back up %s: %v", r, err), http.StatusInternalServerError)
			return
		}
		if blobs != "" { // after the store, which names none that is not there
			if err := copyBlobs(blobs, filepath.Join(filepath.Dir(order.Dest), blobsDir)); err != nil {
				http.Error(w, fmt.Sprintf("back up photos and videos: %v", err), http.StatusInternalServerError)
				return
			}
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// Backup has the processes that run on a data directory copy their stores to the new
// directory dest while they go on. Every acknowledged write from before the call is
// in it. The stores are copied one after the other, each before those that refer to
// it, so the newest entries of a later one may point to what an earlier one does not
// have yet; such entries are never shown.
func Backup(ctx context.Context, dataDir, dest string) error {
	state, err := ReadState(dataDir)
	if err != nil {
		return err
	}
	token, err := ReadToken(dataDir)
	if err != nil {
		return err
	}
	if dest, err = filepath.Abs(dest); err != nil {
		return err
	}
	if err := wantEmpty(dest); err != nil {
		return err
	}
	if err := os.MkdirAll(dest, 0o700); err != nil {
		return fmt.Errorf("make the backup's directory: %w", err)
	}
	m := manifest{Format: manifestFormat, Made: time.Now().UTC()}
	for _, r := range topology.Services() {
		running, ok := state.Services[r]
		if !ok {
			return fmt.Errorf("the state in %s names no %s service", dataDir, r)
		}
		if err := orderBackup(ctx, running.Admin, token, dirOf(dest, r)); err != nil {
			return fmt.Errorf("%s: %w", r, err)
		}
		m.Services = append(m.Services, r)
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dest, manifestFile), append(b, '\n'), 0o600)
}

// adminClient calls admin pages. It keeps no connection: it calls rarely.
var adminClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func orderBackup(ctx context.Context, admin, token, dest string) error {
	body, err := json.Marshal(backupOrder{Dest: dest})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+admin+"/backup", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := adminClient.Do(req)
	if err != nil {
		return fmt.Errorf("%w: its process does not answer: %w", ErrNotRunning, err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusNoContent {
		said, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10)) // what came is enough
		return fmt.Errorf("refused with %s: %s", res.Status, bytes.TrimSpace(said))
	}
	return nil
}

// Restore makes the new data directory dest from a backup. It checks every item and
// leaves nothing if it fails.
func Restore(ctx context.Context, backup, dest string) (err error) {
	b, err := os.ReadFile(filepath.Join(backup, manifestFile))
	if err != nil {
		return fmt.Errorf("%s is no finished backup: %w", backup, err)
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("read %s: %w", filepath.Join(backup, manifestFile), err)
	}
	if m.Format < 1 || m.Format > manifestFormat {
		return fmt.Errorf("%s is of format %d, this program knows up to %d; use the newer program", backup, m.Format, manifestFormat)
	}
	if dest, err = filepath.Abs(dest); err != nil {
		return err
	}
	if err := wantEmpty(dest); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dest), 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	// All is made beside dest and then given its name, so that dest is whole or is
	// not there.
	work, err := os.MkdirTemp(filepath.Dir(dest), ".moments-restore-*")
	if err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }() // gone already if all went well
	for _, r := range m.Services {
		if err := pebblekv.Restore(ctx, dirOf(backup, r), dirOf(work, r), pebblekv.Options{}); err != nil {
			return fmt.Errorf("restore %s: %w", r, err)
		}
		if err := renewLog(ctx, dirOf(work, r), r); err != nil {
			return fmt.Errorf("restore %s: %w", r, err)
		}
	}
	if _, err := os.Stat(filepath.Join(backup, blobsDir)); err == nil {
		if err := copyBlobs(filepath.Join(backup, blobsDir), filepath.Join(work, blobsDir)); err != nil {
			return fmt.Errorf("restore photos and videos: %w", err)
		}
	}
	stamp := fmt.Appendf(nil, "moments data %d\n", dataFormat)
	if err := writeFile(filepath.Join(work, stampFile), stamp, 0o600); err != nil {
		return err
	}
	if err := os.Remove(dest); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(work, dest)
}

// renewLog tells the regions that a store is joined to that its log goes on from a copy: they
// may have more of it than the copy has. Its comments go on under another number.
func renewLog(ctx context.Context, dir string, r topology.Role) (err error) {
	store, err := pebblekv.Open(dir, pebblekv.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if r == topology.Comment {
		if err := comment.Renew(ctx, store); err != nil {
			return err
		}
	}
	return idcqueue.Renew(ctx, store)
}

// wantEmpty refuses a directory that holds anything.
func wantEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s is not empty; name a directory that does not exist", dir)
	}
	return nil
}
