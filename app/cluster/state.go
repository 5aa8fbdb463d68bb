// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-rpc/sluice/app/topology"
)

// State is what a running Moments leaves in its data directory for the commands that
// look for it. It may be old: a process that was killed does not remove it.
type State struct {
	PID      int                       `json:"pid"`
	Started  time.Time                 `json:"started"`
	Split    bool                      `json:"split"` // each service is a process of its own
	Region   uint32                    `json:"region"`
	Gateways []GatewayState            `json:"gateways"`
	Services map[topology.Role]Running `json:"services"`
}

// GatewayState is a running gateway.
type GatewayState struct {
	URL   string `json:"url"`   // of the page and the API
	Admin string `json:"admin"` // of its admin pages
	// Line is host:port on which gateways of other regions are accepted.
	Line string `json:"line,omitempty"`
	PID  int    `json:"pid"`
}

// Running is a running service.
type Running struct {
	Addr  string `json:"addr"`           // of its RPC server
	Admin string `json:"admin"`          // of its admin pages
	Line  string `json:"line,omitempty"` // on which peers in other regions are accepted
	PID   int    `json:"pid"`
}

// ErrNotRunning means that a data directory has no running Moments.
var ErrNotRunning = errors.New("no running Moments")

// ReadState gives what runs, or ran last, on a data directory.
func ReadState(dir string) (*State, error) {
	path := filepath.Join(dir, stateFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w on %s (%s is not there); start it with: moments up --data %s", ErrNotRunning, dir, path, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read the state: %w", err)
	}
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("read the state in %s: %w", path, err)
	}
	return &s, nil
}

// WriteState lets other commands find what runs on the directory.
func (d *Data) WriteState(s State) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = writeFile(filepath.Join(d.dir, stateFile), append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	return nil
}

// RemoveState says that nothing runs any more.
func (d *Data) RemoveState() error {
	err := os.Remove(filepath.Join(d.dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
