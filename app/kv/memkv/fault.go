// SPDX-License-Identifier: Apache-2.0

package memkv

import (
	"errors"
	"fmt"

	"github.com/sluice-rpc/sluice/app/kv"
)

// Hold makes the disk stop syncing: writes from now on are visible to Local reads but
// not acknowledged, and Linearizable reads of their slots wait, until Release, Crash
// or Close.
func (s *Store) Hold() {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	s.disk.held = true
}

// Release syncs what Hold has kept waiting and lets the disk go on.
func (s *Store) Release() {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	s.disk.settle(nil)
}

// Pending gives the number of writes that wait for a sync.
func (s *Store) Pending() int {
	s.disk.mu.RLock()
	defer s.disk.mu.RUnlock()
	return len(s.disk.pending)
}

// Crash is a loss of power: writes not yet acknowledged are gone and their calls get
// kv.ErrUnknown, and the store answers nothing any more. Reopen gives what survived.
func (s *Store) Crash() {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.closed {
		return
	}
	s.disk.settle(fmt.Errorf("%w: the store crashed before the write was synced", kv.ErrUnknown))
	s.closed, s.disk.owner = true, nil
}

// Reopen opens the data of a closed or crashed store again, without its faults.
func (s *Store) Reopen() (*Store, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.disk.owner != nil {
		return nil, errors.New("memkv: the store is still open; Close or Crash it first")
	}
	s.disk.owner = &Store{disk: s.disk}
	return s.disk.owner, nil
}

// Method names a method of the store.
type Method string

// The methods that can fail.
const (
	Get     Method = "Get"
	Scan    Method = "Scan"
	Apply   Method = "Apply"
	BulkPut Method = "BulkPut"
)

// Call is a call that a test may let fail.
type Call struct {
	Method Method
	Slot   kv.Slot // of BulkPut, the first one
}

// Fault says how a call fails.
type Fault uint8

// The faults. A read that gets any of them returns kv.ErrUnavailable.
const (
	None           Fault = iota
	Unavailable          // kv.ErrUnavailable; not applied
	Full                 // kv.ErrQuota; not applied
	UnknownLost          // kv.ErrUnknown; not applied
	UnknownApplied       // kv.ErrUnknown; applied
	UnknownPart          // kv.ErrUnknown; of a BulkPut some slots are applied
)

// SetFaults lets f decide how each call fails from now on; nil ends it. Only calls
// that would succeed are asked about. f may be called concurrently and must not use
// the store.
func (s *Store) SetFaults(f func(Call) Fault) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	s.faults = f
}

func (s *Store) fault(c Call) Fault {
	if s.faults == nil {
		return None
	}
	return s.faults(c)
}

func (f Fault) before() error {
	switch f {
	case Unavailable:
		return fmt.Errorf("%w: injected fault", kv.ErrUnavailable)
	case Full:
		return fmt.Errorf("%w: injected fault", kv.ErrQuota)
	case UnknownLost:
		return fmt.Errorf("%w: injected fault", kv.ErrUnknown)
	default:
	}
	return nil
}

func (f Fault) after() error {
	if f == UnknownApplied || f == UnknownPart {
		return fmt.Errorf("%w: injected fault", kv.ErrUnknown)
	}
	return nil
}
