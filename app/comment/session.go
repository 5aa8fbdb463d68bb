// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// A session token holds what one user's session has seen and done: of the latest posts
// a version vector each, and of what came before a time for each region, before which
// it may have seen everything. The vectors count operations that the user must not know
// of, so the token is encrypted; it is tied to its user, and grants nothing.
const (
	maxSession = 1024 // bytes of the text
	maxPosts   = 12   // posts with a vector
	maxRegions = 64   // floors, and entries of a vector

	// A token of version 1 says nothing of its region: there was one only.
	tokenVersion = 2
	// retryBehind is when a session is to come back: the line between regions is to
	// have brought by then what it has seen.
	retryBehind = time.Second
)

// session is a token, opened.
type session struct {
	floors []floor // ascending by region
	posts  []seen  // the latest first

	// These two are not part of it.
	from  id.Region             // where the token was given
	clock func(id.Region) int64 // see sealer
}

type floor struct {
	region id.Region
	at     int64 // unix ms
}

type seen struct {
	post id.Post
	upTo causal.Vector
}

// of gives what the session has seen of a post.
func (t *session) of(p id.Post) causal.Vector {
	for i := range t.posts {
		if t.posts[i].post == p {
			return t.posts[i].upTo
		}
	}
	return nil
}

// note puts down that the session has seen a post up to a vector.
func (t *session) note(p id.Post, upTo causal.Vector) {
	all := append(make([]seen, 0, maxPosts+1), seen{post: p, upTo: upTo})
	for _, s := range t.posts {
		if s.post == p {
			for _, e := range s.upTo {
				all[0].upTo = all[0].upTo.With(e.Region, e.Seq)
			}
			continue
		}
		all = append(all, s)
	}
	if len(all) > maxPosts { // from now on only the time is known of the eldest
		t.forget(all[maxPosts])
		all = all[:maxPosts]
	}
	t.posts = all
}

// forget keeps the time of what was seen of a post and no more: each region's by its own
// clock, since others compare it with that.
func (t *session) forget(s seen) {
	for _, e := range s.upTo {
		t.raise(e.Region, t.clock(e.Region))
	}
}

func (t *session) raise(r id.Region, at int64) {
	for i := range t.floors {
		if t.floors[i].region == r {
			t.floors[i].at = max(t.floors[i].at, at)
			return
		}
	}
	t.floors = append(t.floors, floor{r, at})
}

func (t *session) encode() []byte {
	b := binary.AppendUvarint(make([]byte, 0, 512), uint64(len(t.floors)))
	for _, f := range t.floors {
		b = binary.AppendUvarint(b, uint64(f.region))
		b = binary.AppendUvarint(b, uint64(f.at))
	}
	b = binary.AppendUvarint(b, uint64(len(t.posts)))
	for _, s := range t.posts {
		b = append(b, s.post[:]...)
		b = binary.AppendUvarint(b, uint64(len(s.upTo)))
		for _, e := range s.upTo {
			b = binary.AppendUvarint(b, uint64(e.Region))
			b = binary.AppendUvarint(b, e.Seq)
		}
	}
	return b
}

var errToken = errors.New("comment: a session token of this key holds something else")

func decodeSession(b []byte) (*session, error) {
	t := new(session)
	number := func(most uint64) (n uint64) {
		n, width := binary.Uvarint(b)
		if width <= 0 || n > most {
			b = nil
			return 0
		}
		b = b[width:]
		return n
	}
	for range number(maxRegions) {
		t.floors = append(t.floors, floor{id.Region(number(1<<16 - 1)), int64(number(1<<48 - 1))})
	}
	for range number(maxPosts) {
		if len(b) < 16 {
			return nil, errToken
		}
		s := seen{post: id.Post(b)}
		b = b[16:]
		for range number(maxRegions) {
			r := id.Region(number(1<<16 - 1))
			s.upTo = s.upTo.With(r, number(1<<63-1))
		}
		t.posts = append(t.posts, s)
	}
	if len(b) != 0 {
		return nil, errToken
	}
	return t, nil
}

// sealer makes and opens tokens. Each region has a key of its own, which the others get
// to know, so that a session can move.
type sealer struct {
	region id.Region
	store  kv.Store
	aead   cipher.AEAD
	// clock gives a time in unix ms, by the clock of a region, that nothing which has come
	// from there is newer than.
	clock func(id.Region) int64

	mu    sync.Mutex
	peers map[id.Region]cipher.AEAD // guarded by mu
}

var sessionKey = []byte("k/session")

// peerKey is where the key of another region is.
func peerKey(r id.Region) []byte { return fmt.Appendf(nil, "%s/%d", sessionKey, r) }

// newSealer uses the key that all servers of a store share, and makes it first.
func newSealer(ctx context.Context, store kv.Store, region id.Region, clock func(id.Region) int64) (*sealer, error) {
	slot := kv.SlotOf(sessionKey)
	var fresh [32]byte
	_, _ = rand.Read(fresh[:]) // never fails, by its documentation
	_, err := store.Apply(ctx, slot, new(kv.Batch).IfAbsent(sessionKey).Put(sessionKey, fresh[:]))
	if err != nil && !errors.Is(err, kv.ErrConflict) && !errors.Is(err, kv.ErrUnknown) {
		return nil, fmt.Errorf("comment: make the key of session tokens: %w", err)
	}
	it, err := store.Get(ctx, slot, sessionKey, kv.Linearizable)
	if err != nil {
		return nil, fmt.Errorf("comment: read the key of session tokens: %w", err)
	}
	aead, err := newAEAD(it.Value)
	if err != nil {
		return nil, err
	}
	return &sealer{region: region, store: store, aead: aead, clock: clock, peers: make(map[id.Region]cipher.AEAD)}, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("comment: the key of session tokens: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("comment: the key of session tokens: %w", err)
	}
	return aead, nil
}

// learnKey adds another region's key to a batch, if it is not known.
func (s *Service) learnKey(ctx context.Context, batch *kv.Batch, region id.Region, key []byte) error {
	if len(key) != 32 {
		return idcqueue.Refuse("the key of session tokens of region %d has %d bytes, want 32", region, len(key))
	}
	have, err := s.store.Get(ctx, kv.SlotOf(sessionKey), peerKey(region), kv.Linearizable)
	if err == nil && !bytes.Equal(have.Value, key) {
		batch.Put(peerKey(region), key)
	}
	return err
}

// of gives what opens the tokens of a region, nil if its key is not known here.
func (s *sealer) of(ctx context.Context, region id.Region) (cipher.AEAD, error) {
	if region == s.region {
		return s.aead, nil
	}
	s.mu.Lock()
	aead := s.peers[region]
	s.mu.Unlock()
	if aead != nil {
		return aead, nil
	}
	it, err := s.store.Get(ctx, kv.SlotOf(sessionKey), peerKey(region), kv.Linearizable)
	if err != nil || it.Ver == 0 {
		return nil, err
	}
	if aead, err = newAEAD(it.Value); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers[region] = aead // there are as many as regions
	return aead, nil
}

var tokenText = base64.RawURLEncoding.Strict()

// seal gives the text of a user's session.
func (s *sealer) seal(user id.User, t *session) string {
	for {
		b := s.aead.Seal(binary.BigEndian.AppendUint16([]byte{tokenVersion}, uint16(s.region)), nil, t.encode(), user[:])
		if text := tokenText.EncodeToString(b); len(text) <= maxSession || len(t.posts) == 0 {
			return text
		}
		t.forget(t.posts[len(t.posts)-1]) // with many regions fewer posts fit
		t.posts = t.posts[:len(t.posts)-1]
	}
}

// open reads a user's token; an empty one is of a session that has seen nothing.
func (s *sealer) open(ctx context.Context, user id.User, text string) (*session, error) {
	if text == "" {
		return &session{from: s.region, clock: s.clock}, nil
	}
	bad := problem.Invalid("session", "is not one that this service has given to the user; leave it out to start again")
	if len(text) > maxSession {
		return nil, bad
	}
	b, err := tokenText.DecodeString(text)
	from := s.region
	switch {
	case err != nil || len(b) < 3:
		return nil, bad
	case b[0] == 1:
		b = b[1:]
	case b[0] == tokenVersion:
		from, b = id.Region(binary.BigEndian.Uint16(b[1:])), b[3:]
	default:
		return nil, bad
	}
	aead, err := s.of(ctx, from)
	if err != nil {
		return nil, problem.Store("read the key of session tokens", err)
	}
	if aead == nil {
		return nil, bad
	}
	plain, err := aead.Open(nil, nil, b, user[:])
	if err != nil {
		return nil, bad
	}
	t, err := decodeSession(plain)
	if err != nil {
		return nil, err
	}
	t.from, t.clock = from, s.clock
	return t, nil
}

// errBehind is what users see of a server that has not seen what their session has.
var errBehind = func() error {
	err := problem.New(rpc.Unavailable, "behind", "", "this server has not yet seen all that your session has; try again in a moment")
	if e, ok := errors.AsType[*rpc.Error](err); ok {
		e.Retry = retryBehind
	}
	return err
}()

// reach waits until the service holds all that a session's floors stand for. What a
// token of this region says was seen here is here.
func (s *Service) reach(ctx context.Context, t *session) error {
	if t.from == s.region || len(t.floors) == 0 {
		return nil
	}
	return s.await(ctx, func() (bool, error) {
		for _, f := range t.floors {
			from := homeOf(f.region)
			if m, known := s.Registry().Get(f.region); known && m.State == causal.Lost {
				continue // nobody waits for it
			}
			if from != s.region && (s.caught == nil || !s.caught(from, f.at)) {
				return false, nil
			}
		}
		return true, nil
	})
}
