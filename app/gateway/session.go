// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// maxToken is the longest bearer token in bytes (AccountService.LogInResponse).
const maxToken = 128

// bearer gives the request's token (RFC 6750).
func bearer(r *http.Request) (string, error) {
	v := r.Header["Authorization"]
	if len(v) == 1 && len(v[0]) > 7 && len(v[0]) <= 7+maxToken && strings.EqualFold(v[0][:7], "Bearer ") && visible(v[0][7:]) {
		return v[0][7:], nil
	}
	return "", rpc.WithDetails(
		rpc.Errorf(rpc.Unauthenticated, "send Authorization: Bearer with the token of POST /sessions"),
		&momentsv1.Problem{Type: "unauthenticated"})
}

const (
	// maxSessionAge is how long an answer of Authenticate is believed, and how old the
	// stamps may be by which it is believed for longer: a revocation must act within a second.
	maxSessionAge = time.Second
	// stampsEvery is how often they are asked for: four times in that second.
	stampsEvery = 250 * time.Millisecond
	// maxProof is how long an answer is believed by stamps, so that the account service
	// knows when sessions are used.
	maxProof = 10 * time.Minute
	// keepSessions is how long a token that is not used is remembered as its user's, to
	// rank his requests.
	keepSessions = 15 * time.Minute
	// maxSessions bounds the cache: 2 generations of 131,072 sessions, about 60 MB.
	maxSessions = 128 << 10
)

// sessions remembers whose session a token is: as a proof of it, for a second or for as
// long as nothing is written where the session is stored, and for longer to know whose
// requests they are before anything is done for them. It never remembers a refusal:
// whoever has just logged in must get in.
type sessions struct {
	accounts momentsv1.AccountServiceClient
	now      func() time.Time
	stamps   atomic.Pointer[stamps] // nil before the first

	mu    sync.Mutex // guards known
	known *generations[string, session]
}

type session struct {
	user  string
	id    string    // of the session itself; empty until it was asked for
	until time.Time // when it has to be asked for again, unless its stamp holds
	// last is until when it may be believed by its stamp, which is 0 if there was none: that
	// of a slot as a process of the account service gave it.
	last    time.Time
	process uint64
	slot    uint32
	stamp   uint64
}

// stamps is the latest answer of Stamps.
type stamps struct {
	process uint64
	of      []uint64 // by slot
	asked   time.Time
}

// hold reports whether nothing has changed since a session was asked for.
func (s *stamps) hold(of session, now time.Time) bool {
	return s != nil && of.stamp != 0 && s.process == of.process && int(of.slot) < len(s.of) && s.of[of.slot] == of.stamp &&
		now.Sub(s.asked) < maxSessionAge && now.Before(of.last)
}

func newSessions(accounts momentsv1.AccountServiceClient, now func() time.Time) *sessions {
	return &sessions{accounts: accounts, now: now, known: newGenerations[string, session](maxSessions, keepSessions)}
}

// follow asks for the stamps until ctx ends. While they cannot be had every session is
// asked for once a second.
func (s *sessions) follow(ctx context.Context) {
	tick := time.NewTicker(stampsEvery)
	defer tick.Stop()
	for {
		asked := s.now()
		if res, err := s.accounts.Stamps(ctx, &momentsv1.StampsRequest{}); err == nil { // within the contract's time
			s.stamps.Store(&stamps{process: res.GetProcess(), of: res.GetStamps(), asked: asked})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// find gives the session whose token is: the user and the session's own id.
func (s *sessions) find(ctx context.Context, token string) (session, error) {
	asked := s.now() // the answer's age counts from the asking
	s.mu.Lock()
	known, ok := s.known.get(token, asked)
	s.mu.Unlock()
	if ok && (asked.Before(known.until) || s.stamps.Load().hold(known, asked)) {
		return known, nil
	}
	res, err := s.accounts.Authenticate(ctx, &momentsv1.AuthenticateRequest{Token: token})
	if err != nil {
		if rpc.CodeOf(err) == rpc.Unauthenticated {
			s.forget(token)
		}
		return session{}, err
	}
	age := min(time.Duration(res.GetMaxAgeMs())*time.Millisecond, maxSessionAge)
	found := session{
		user: res.GetUserId(), id: res.GetSessionId(), until: asked.Add(max(age, 0)),
		last:    asked.Add(time.Duration(min(res.GetLastsMs(), uint64(maxProof/time.Millisecond))) * time.Millisecond),
		process: res.GetProcess(), slot: res.GetSlot(), stamp: res.GetStamp(),
	}
	s.keep(token, found, asked)
	return found, nil
}

func (s *sessions) keep(token string, of session, now time.Time) {
	s.mu.Lock()
	s.known.put(token, of, now)
	s.mu.Unlock()
}

// whose gives the user whose requests carry a token, as far as is known without asking;
// the session may have ended since. A token that nobody has vouched for is nobody's:
// it may say anything.
func (s *sessions) whose(r *http.Request) string {
	token, err := bearer(r)
	if err != nil {
		return ""
	}
	now := s.now()
	s.mu.Lock()
	known, _ := s.known.get(token, now)
	s.mu.Unlock()
	return known.user
}

// forget makes the next use of a token ask again.
func (s *sessions) forget(token string) {
	s.mu.Lock()
	s.known.remove(token)
	s.mu.Unlock()
}
