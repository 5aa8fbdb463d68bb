// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-rpc/sluice/app/link"
	"github.com/sluice-rpc/sluice/app/lockfile"
	"github.com/sluice-rpc/sluice/app/topology"
)

// Files in a data directory, beside one directory for each service.
const (
	stampFile = "FORMAT"
	lockFile  = "LOCK"
	tokenFile = "admin.token"
	stateFile = "run.json"

	linkKeyFile = "link.key"
)

// dataFormat is the version of the layout of a data directory. Each store inside
// has its own.
const dataFormat = 1

// What OpenData finds wrong with a directory.
var (
	// ErrForeign: the directory holds something else.
	ErrForeign = errors.New("not a data directory of Moments")
	// ErrNewer: a newer program has written the directory.
	ErrNewer = errors.New("the data directory is of a newer format")
	// ErrInUse: another process works on the directory.
	ErrInUse = errors.New("the data directory is in use")
)

// Data is a directory that holds the stores of the services of a process, or of
// several that belong together.
type Data struct {
	dir   string
	token string
	lock  *lockfile.Lock // nil without Lock
}

// OpenData opens the directory, making it if it is absent or empty. A directory that
// is anything else is refused and left untouched.
func OpenData(dir string) (*Data, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w; choose another with --data", err)
	}
	if err := checkStamp(dir); err != nil {
		return nil, err
	}
	d := &Data{dir: dir}
	if d.token, err = d.makeToken(); err != nil {
		return nil, err
	}
	return d, nil
}

func checkStamp(dir string) error {
	path := filepath.Join(dir, stampFile)
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		var version int
		if _, err := fmt.Sscanf(string(b), "moments data %d\n", &version); err != nil || version < 1 {
			return fmt.Errorf("%w: %s holds something else; choose another directory with --data", ErrForeign, path)
		}
		if version > dataFormat {
			return fmt.Errorf("%w: %s says %d, this program knows up to %d; use the newer program", ErrNewer, path, version, dataFormat)
		}
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("read the data directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the data directory: %w", err)
	}
	for _, e := range entries {
		// What a start leaves that was cut off before its stamp.
		if !strings.HasPrefix(e.Name(), ".moments-") {
			return fmt.Errorf("%w: %s is not empty (%s) and has no file %s; choose another directory with --data", ErrForeign, dir, e.Name(), stampFile)
		}
	}
	if err := writeFile(path, fmt.Appendf(nil, "moments data %d\n", dataFormat), 0o600); err != nil {
		return fmt.Errorf("the data directory cannot be written: %w; choose another with --data", err)
	}
	return nil
}

// makeToken reads the token that lets its holder use the admin doors, made once.
// Whoever may read the file may read the data anyway.
func (d *Data) makeToken() (string, error) {
	path := filepath.Join(d.dir, tokenFile)
	if token, err := ReadToken(d.dir); err == nil {
		return token, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var b [32]byte
	rand.Read(b[:]) // never fails
	if err := writeFile(path, []byte(hex.EncodeToString(b[:])+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("the data directory cannot be written: %w", err)
	}
	return ReadToken(d.dir) // another process of this directory may have been as fast
}

// ReadToken gives the token of a data directory for its admin doors.
func ReadToken(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, tokenFile))
	if err != nil {
		return "", fmt.Errorf("read the admin token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if len(token) != 64 {
		return "", fmt.Errorf("%s has %d characters, want 64; delete it and start again", filepath.Join(dir, tokenFile), len(token))
	}
	return token, nil
}

// Dir gives the directory as an absolute path.
func (d *Data) Dir() string { return d.dir }

// store gives the directory of a service's store.
func (d *Data) store(r topology.Role) string { return filepath.Join(d.dir, string(r)) }

// Lock takes the directory for this process, until Unlock or the end of the process.
// A process that runs single roles does not need it: each store has its own lock.
func (d *Data) Lock() error {
	lock, err := lockfile.Take(filepath.Join(d.dir, lockFile))
	if held, ok := errors.AsType[*lockfile.HeldError](err); ok {
		return fmt.Errorf("%w: %s, %w; stop it or choose another directory with --data", ErrInUse, d.dir, held)
	}
	if err != nil {
		return fmt.Errorf("lock the data directory: %w", err)
	}
	d.lock = lock
	return nil
}

// Unlock gives the directory back.
func (d *Data) Unlock() error {
	if d.lock == nil {
		return nil
	}
	defer func() { d.lock = nil }()
	return d.lock.Release()
}

// writeFile writes a file that is there whole or not at all, and survives a loss of
// power.
func writeFile(path string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".moments-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already if all went well
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// linkKey gives the secret behind the links to photos and videos, made once.
func (d *Data) linkKey() (link.Key, error) { return keptLinkKey(filepath.Join(d.dir, linkKeyFile)) }

// keptLinkKey gives the key in a file, made once.
func keptLinkKey(path string) (link.Key, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		var fresh link.Key
		rand.Read(fresh[:]) // never fails
		if err := writeFile(path, []byte(hex.EncodeToString(fresh[:])+"\n"), 0o600); err != nil {
			return link.Key{}, fmt.Errorf("the data directory cannot be written: %w", err)
		}
		b, err = os.ReadFile(path) // another process of this directory may have been as fast
	}
	if err != nil {
		return link.Key{}, fmt.Errorf("read the key of links: %w", err)
	}
	key, err := link.ParseKey(strings.TrimSpace(string(b)))
	if err != nil {
		return link.Key{}, fmt.Errorf("%s: %w; or delete it and start again", path, err)
	}
	return key, nil
}
