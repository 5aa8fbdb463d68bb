// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"net/http"
	"strings"
	"sync"
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
	// maxSessionAge is how long an answer of Authenticate is kept: a revocation must
	// act within a second.
	maxSessionAge = time.Second
	// maxSessions bounds the cache: 2 generations of 32,768 sessions, about 12 MB.
	maxSessions = 32 << 10
)

// sessions remembers for a moment whose session a token is. It never remembers a
// refusal: whoever has just logged in must get in.
type sessions struct {
	accounts momentsv1.AccountServiceClient
	now      func() time.Time

	mu    sync.Mutex // guards known
	known *generations[string, session]
}

type session struct {
	user  string
	until time.Time
}

func newSessions(accounts momentsv1.AccountServiceClient, now func() time.Time) *sessions {
	return &sessions{accounts: accounts, now: now, known: newGenerations[string, session](maxSessions, maxSessionAge)}
}

// user gives the id of the user whose session token is.
func (s *sessions) user(ctx context.Context, token string) (string, error) {
	asked := s.now() // the answer's age counts from the asking
	s.mu.Lock()
	known, ok := s.known.get(token, asked)
	s.mu.Unlock()
	if ok && asked.Before(known.until) {
		return known.user, nil
	}
	res, err := s.accounts.Authenticate(ctx, &momentsv1.AuthenticateRequest{Token: token})
	if err != nil {
		return "", err
	}
	age := min(time.Duration(res.GetMaxAgeMs())*time.Millisecond, maxSessionAge)
	if age > 0 {
		s.mu.Lock()
		s.known.put(token, session{user: res.GetUserId(), until: asked.Add(age)}, asked)
		s.mu.Unlock()
	}
	return res.GetUserId(), nil
}

// forget makes the next use of a token ask again.
func (s *sessions) forget(token string) {
	s.mu.Lock()
	s.known.remove(token)
	s.mu.Unlock()
}
