// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/crypto/argon2"

	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// Cost is what one password hash by argon2id takes (RFC 9106).
type Cost struct {
	MemoryKiB uint32 // at least 8 per lane
	Passes    uint32 // at least 1
	Lanes     uint8  // at least 1
}

var (
	// DefaultCost is the minimum that OWASP's Password Storage Cheat Sheet asks of
	// argon2id: 19 MiB, 2 passes, 1 lane.
	DefaultCost = Cost{MemoryKiB: 19 << 10, Passes: 2, Lanes: 1}
	// CheapestCost protects nothing. It lets benches make many accounts.
	CheapestCost = Cost{MemoryKiB: 8, Passes: 1, Lanes: 1}
)

func (c Cost) validate() error {
	switch {
	case c.Passes < 1 || c.Passes > 1000:
		return fmt.Errorf("password cost: %d passes, want 1 to 1,000", c.Passes)
	case c.Lanes < 1:
		return errors.New("password cost: no lanes, want at least 1")
	case c.MemoryKiB < 8*uint32(c.Lanes) || c.MemoryKiB > 4<<20:
		return fmt.Errorf("password cost: %d KiB of memory, want %d (8 per lane) to %d", c.MemoryKiB, 8*uint32(c.Lanes), 4<<20)
	}
	return nil
}

const (
	saltLen = 16
	hashLen = 32
)

// hasher works passwords, a few at a time: hashing is meant to be slow, and what
// is slow must neither take all processors from those who are reading nor pile up
// without bound.
type hasher struct {
	cost    Cost
	room    chan struct{} // holds one token for each hash being worked
	waiting atomic.Int64
	queue   int64 // most calls that may wait for room
	decoy   string
}

func newHasher(cost Cost, workers, queue int) *hasher {
	h := &hasher{cost: cost, room: make(chan struct{}, workers), queue: int64(queue)}
	h.decoy = encodeHash(cost, make([]byte, saltLen), make([]byte, hashLen))
	return h
}

// enter waits for room. Each success is followed by one leave.
func (h *hasher) enter(ctx context.Context) error {
	select {
	case h.room <- struct{}{}:
		return nil
	default:
	}
	if h.waiting.Add(1) > h.queue {
		h.waiting.Add(-1)
		return problem.New(rpc.ResourceExhausted, "busy", "", "too many people are logging in or registering; try again in a few seconds")
	}
	defer h.waiting.Add(-1)
	select {
	case h.room <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *hasher) leave() { <-h.room }

// hash makes the stored form of a password, the PHC string of argon2id.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if err := h.enter(ctx); err != nil {
		return "", err
	}
	defer h.leave()
	salt := make([]byte, saltLen)
	rand.Read(salt) // never fails: crypto/rand ends the process instead
	key := argon2.IDKey([]byte(password), salt, h.cost.Passes, h.cost.MemoryKiB, h.cost.Lanes, hashLen)
	return encodeHash(h.cost, salt, key), nil
}

// verify reports whether password is the one behind stored. An empty stored takes
// as long as any and is never right, so that time does not tell who has an account.
func (h *hasher) verify(ctx context.Context, stored, password string) (bool, error) {
	known := stored != ""
	if !known {
		stored = h.decoy
	}
	cost, salt, want, err := decodeHash(stored)
	if err != nil {
		return false, err
	}
	if err := h.enter(ctx); err != nil {
		return false, err
	}
	defer h.leave()
	got := argon2.IDKey([]byte(password), salt, cost.Passes, cost.MemoryKiB, cost.Lanes, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1 && known, nil
}

var phc64 = base64.RawStdEncoding

func encodeHash(c Cost, salt, key []byte) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, c.MemoryKiB, c.Passes, c.Lanes, phc64.EncodeToString(salt), phc64.EncodeToString(key))
}

func decodeHash(s string) (cost Cost, salt, key []byte, err error) {
	var version int
	var rest string
	if _, err := fmt.Sscanf(s, "$argon2id$v=%d$m=%d,t=%d,p=%d$%s", &version, &cost.MemoryKiB, &cost.Passes, &cost.Lanes, &rest); err != nil {
		return Cost{}, nil, nil, errors.New("account: the stored password hash is not argon2id in PHC form")
	}
	if version != argon2.Version {
		return Cost{}, nil, nil, fmt.Errorf("account: the stored password hash is of argon2 version %d, want %d", version, argon2.Version)
	}
	if err := cost.validate(); err != nil {
		return Cost{}, nil, nil, fmt.Errorf("account: stored %w", err)
	}
	for i := range len(rest) {
		if rest[i] != '$' {
			continue
		}
		salt, err = phc64.DecodeString(rest[:i])
		if err == nil {
			key, err = phc64.DecodeString(rest[i+1:])
		}
		if err != nil || len(salt) < 8 || len(key) < 16 || len(key) > 64 {
			break
		}
		return cost, salt, key, nil
	}
	return Cost{}, nil, nil, errors.New("account: salt or hash of the stored password hash is damaged")
}
