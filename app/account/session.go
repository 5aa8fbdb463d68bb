// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// maxAge is how long anybody may believe that a session lasts without looking: a
// revocation must act within a second everywhere. Who keeps an answer counts from
// the sending of the question, so that answers do not add up their ages.
const maxAge = time.Second

// A token is format (1) | key number (1) | user (16) | session (16) | HMAC-SHA256
// of all before it (32), in unpadded URL-safe base64. The user is in it because
// that is where the session's row lies.
const (
	tokenFormat = 1
	tokenKeyNo  = 1
	tokenSigned = 2 + 16 + 16
	tokenLen    = tokenSigned + sha256.Size
)

var (
	token64     = base64.RawURLEncoding
	tokenKeyRow = []byte{prefixTokenKey}
)

// signer makes and checks tokens.
type signer struct{ macs sync.Pool }

func newSigner(key []byte) *signer {
	return &signer{macs: sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}
}

func (s *signer) mac(into, signed []byte) []byte {
	m := s.macs.Get().(hash.Hash)
	defer s.macs.Put(m)
	m.Reset()
	m.Write(signed)
	return m.Sum(into)
}

func (s *signer) token(u id.User, sess id.Session) string {
	b := make([]byte, 0, tokenLen)
	b = append(b, tokenFormat, tokenKeyNo)
	b = append(b, u[:]...)
	b = append(b, sess[:]...)
	return token64.EncodeToString(s.mac(b, b))
}

// cutToken gives the bytes of a token that has the form of one.
func cutToken(token string) (b [tokenLen]byte, ok bool) {
	if len(token) != token64.EncodedLen(tokenLen) {
		return b, false
	}
	_, err := token64.Strict().Decode(b[:], []byte(token))
	return b, err == nil && b[0] == tokenFormat && b[1] == tokenKeyNo
}

// open gives what a token names, if it is one of ours: every region has the keys of all.
func (s *Service) open(ctx context.Context, token string) (u id.User, sess id.Session, err error) {
	b, ok := cutToken(token)
	if !ok {
		return u, sess, errNoSession()
	}
	u, sess = id.User(b[2:18]), id.Session(b[18:34])
	by, err := s.signerOf(ctx, u.Region())
	if err != nil {
		return u, sess, problem.Store("read the key of the session tokens", err)
	}
	var room [sha256.Size]byte
	if by == nil || !hmac.Equal(by.mac(room[:0], b[:tokenSigned]), b[tokenSigned:]) {
		return u, sess, errNoSession()
	}
	return u, sess, nil
}

// tokenKey gives the store's key of the tokens, made at the first start.
func tokenKey(ctx context.Context, store kv.Store) ([]byte, error) {
	slot := kv.SlotOf(tokenKeyRow)
	for {
		item, err := store.Get(ctx, slot, tokenKeyRow, kv.Linearizable)
		if err != nil {
			return nil, fmt.Errorf("account: read the key of the session tokens: %w", err)
		}
		if item.Ver != 0 {
			if len(item.Value) != sha256.Size {
				return nil, fmt.Errorf("%w: the key of the session tokens has %d bytes, want %d", errDamaged, len(item.Value), sha256.Size)
			}
			return item.Value, nil
		}
		key := make([]byte, sha256.Size)
		rand.Read(key) // never fails
		_, err = store.Apply(ctx, slot, new(kv.Batch).IfAbsent(tokenKeyRow).Put(tokenKeyRow, key))
		if err != nil && !errors.Is(err, kv.ErrConflict) && !errors.Is(err, kv.ErrUnknown) {
			return nil, fmt.Errorf("account: store the key of the session tokens: %w", err)
		}
	}
}

// LogIn implements the contract.
func (s *Service) LogIn(ctx context.Context, req *momentsv1.LogInRequest) (*momentsv1.LogInResponse, error) {
	if err := plain("device", req.GetDevice()); err != nil {
		return nil, err
	}
	if n := len([]rune(req.GetDevice())); n > maxDevice {
		return nil, problem.Invalid("device", "has %d characters, want at most %d", n, maxDevice)
	}
	if err := checkSource(req.GetSource()); err != nil {
		return nil, err
	}
	over, err := s.brakes.take(brakeName(req.GetName()), req.GetSource(), s.now())
	if err != nil {
		return nil, err
	}
	wrong := false
	defer func() { over(wrong) }()
	for {
		u, ver, err := s.userByName(ctx, req.GetName())
		if err != nil {
			return nil, problem.Store("log in", err)
		}
		password, err := cleanPassword(req.GetPassword())
		if err != nil {
			// What can be no password is a wrong one, after the same time.
			password, u = "", user{}
		}
		right, err := s.hasher.verify(ctx, u.hash, password)
		if err != nil {
			return nil, problem.Store("log in", err)
		}
		if !right {
			wrong = true
			return nil, problem.New(rpc.Unauthenticated, "bad-credentials", "", "no account has this name and password")
		}
		owner, err := id.ParseUser(u.profile.GetUserId())
		if err != nil {
			return nil, err
		}
		sess, err := id.New[id.Session](s.ids)
		if err != nil {
			return nil, err
		}
		row := session{expires: s.now().Add(s.sessionTTL).Truncate(time.Millisecond), device: req.GetDevice(), used: s.now()}
		err = s.openSession(ctx, owner, ver, sess, row)
		if errors.Is(err, kv.ErrConflict) {
			continue // the account has changed: perhaps this is its password no more
		}
		if err != nil {
			return nil, problem.Store("log in", err)
		}
		// Whoever has moved here has tokens of the key of his first home: his id names that.
		by, err := s.signerOf(ctx, owner.Region())
		if err != nil {
			return nil, problem.Store("log in", err)
		}
		if by == nil {
			return nil, fmt.Errorf("account: the key of the session tokens of region %d is not here", owner.Region())
		}
		return &momentsv1.LogInResponse{
			Token:     by.token(owner, sess),
			Profile:   u.profile,
			ExpiresMs: row.expires.UnixMilli(),
		}, nil
	}
}

// brakeName gives what tries at a name are counted by: all its spellings together. It
// says nothing of whether there is such a name, and one that can be none counts too.
func brakeName(name string) string {
	if clean, err := cleanName(name); err == nil {
		return foldName(clean)
	}
	return name
}

// openSession stores a session and ends those of the user that have expired, and
// the oldest ones beyond the limit. It fails with kv.ErrConflict if the account is
// not of the version any more that the password was checked against.
func (s *Service) openSession(ctx context.Context, u id.User, ver uint64, sess id.Session, row session) error {
	slot := slotOfUser(u)
	items, err := s.openSessions(ctx, u)
	if err != nil {
		return err
	}
	b := new(kv.Batch).IfVer(userKey(prefixUser, u), ver).Put(pairKey(prefixSession, u, sess), row.encode())
	excess := len(items) + 1 - s.maxSessions
	for _, item := range items { // in the order of their opening
		old, err := decodeSession(item.Value)
		if err != nil {
			return err
		}
		if excess <= 0 && s.now().Before(old.expires) {
			continue
		}
		excess--
		b.Delete(item.Key)
		if b.Len() == kv.MaxOps {
			break
		}
	}
	return s.apply(ctx, slot, b)
}

// LogOut implements the contract.
func (s *Service) LogOut(ctx context.Context, req *momentsv1.LogOutRequest) (*momentsv1.LogOutResponse, error) {
	u, sess, err := s.open(ctx, req.GetToken())
	if err != nil {
		return nil, err
	}
	if err := s.apply(ctx, slotOfUser(u), new(kv.Batch).Delete(pairKey(prefixSession, u, sess))); err != nil {
		return nil, problem.Store("log out", err)
	}
	return &momentsv1.LogOutResponse{}, nil
}

// Authenticate implements the contract.
func (s *Service) Authenticate(ctx context.Context, req *momentsv1.AuthenticateRequest) (*momentsv1.AuthenticateResponse, error) {
	u, sess, err := s.open(ctx, req.GetToken())
	if err != nil {
		return nil, err
	}
	now, slot := s.now(), slotOfUser(u)
	stamp := s.stampOf(slot) // like the time, before the row is read
	item, err := s.store.Get(ctx, slot, pairKey(prefixSession, u, sess), kv.Linearizable)
	if err != nil {
		return nil, problem.Store("read session", err)
	}
	if item.Ver == 0 {
		return nil, errNoSession()
	}
	row, err := decodeSession(item.Value)
	if err != nil {
		return nil, err
	}
	if !now.Before(row.expires) {
		return nil, errNoSession()
	}
	if now.Sub(row.used) >= usedEvery && s.home(u) {
		s.noteUse(u, sess)
	}
	return &momentsv1.AuthenticateResponse{
		UserId:    u.String(),
		SessionId: sess.String(),
		MaxAgeMs:  uint32(min(maxAge, row.expires.Sub(now)) / time.Millisecond),
		LastsMs:   uint64(row.expires.Sub(now) / time.Millisecond),
		Process:   s.started,
		Slot:      uint32(slot),
		Stamp:     stamp,
	}, nil
}

// Stamps implements the contract.
func (s *Service) Stamps(context.Context, *momentsv1.StampsRequest) (*momentsv1.StampsResponse, error) {
	res := &momentsv1.StampsResponse{Process: s.started, Stamps: make([]uint64, kv.Slots)}
	for slot := range res.GetStamps() {
		res.Stamps[slot] = s.stampOf(kv.Slot(slot))
	}
	return res, nil
}

// stampOf gives a number of a slot's state, 0 if there is none now.
func (s *Service) stampOf(slot kv.Slot) uint64 {
	if n, ok := s.stamp(slot); ok {
		return n + 1
	}
	return 0
}

func errNoSession() error {
	return problem.New(rpc.Unauthenticated, "unauthenticated", "", "the session has ended or never was; log in again")
}
