// SPDX-License-Identifier: Apache-2.0

package child

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// What every framework is measured with.
const (
	EchoBytes   = 1000        // data of an echo
	HoldBytes   = 64          // data of a call that is blocked
	EchoName    = "benchmark" // the name in every call
	Connections = 4
)

// A Peer is one framework under measurement.
type Peer struct {
	Name string
	// About is shown with the figures: version and what differs from the others.
	About string
	// Deadline says that the caller's context carries a deadline.
	Deadline bool
	// Serve listens on a free loopback port and serves in the background.
	Serve func(*Service) (addr string, err error)
	// Middle is Serve with a handler of blocked calls that asks the server at next; nil
	// if the framework is not measured so.
	Middle func(s *Service, next string) (addr string, err error)
	// Dial connects to a server; its clients live until the process ends.
	Dial func(addr string) (Client, error)
	// Local gives a client of a server in the same process; nil if the framework
	// is not measured so.
	Local func(*Service) (Client, error)
}

// A Client makes callers. A caller belongs to one goroutine and uses its request
// again and again, so that what is allocated is the framework's.
type Client interface {
	Echo(data []byte) Caller
	Hold(data []byte) Caller
	// ComeAgain says whether a call was refused for now, and when to make it again.
	ComeAgain(err error) (after time.Duration, refused bool)
}

// TakesAll is a client of a framework that refuses nothing.
type TakesAll struct{}

// ComeAgain is never said.
func (TakesAll) ComeAgain(error) (time.Duration, bool) { return 0, false }

// A Caller makes one call and checks the answer.
type Caller func(ctx context.Context, id int64) error

// ErrMismatch is the answer to another question.
var ErrMismatch = errors.New("wrong answer")

// Check compares an answer with what was asked.
func Check(id, gotID int64, size, gotSize int) error {
	if id != gotID || size != gotSize {
		return fmt.Errorf("%w: id %d and %d bytes, want id %d and %d bytes", ErrMismatch, gotID, gotSize, id, size)
	}
	return nil
}

// Service is what every framework's handlers do.
type Service struct {
	served   atomic.Int64 // echo calls answered
	held     atomic.Int64 // calls that are blocked, or were
	released chan struct{}
}

func newService() *Service { return &Service{released: make(chan struct{})} }

// Echo counts a call that is answered.
func (s *Service) Echo() { s.served.Add(1) }

// Hold blocks its call until the whole service is released.
func (s *Service) Hold() {
	s.Pass()
	<-s.released
}

// Pass counts a call that is blocked elsewhere.
func (s *Service) Pass() { s.held.Add(1) }
