// SPDX-License-Identifier: Apache-2.0

// Package homes knows who is at home in another region than the one that his id names.
//
// Somebody's home takes his writes. It is part of his id, and an operator may move it:
//
//   - fence: the old home takes no more of his writes;
//   - copy: its log brings all that it has of him to the new home, in order;
//   - open: the new home takes his writes, and says so in its own log.
//
// So there are three epochs to a move, each of which one region alone can begin: the old
// home fences, and may ask for it back; the new home decides, once it has all. Of what one
// hears of a person the greatest epoch counts, whatever way it comes. At no epoch do two
// regions take writes, and nobody has to be asked who cannot be reached.
package homes

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Max is how many people may have moved, in all regions together: all services keep all
// of them in memory. It bounds orders; what another region has decided is heard even so.
const Max = 10_000

// Home is where somebody is at home. It is immutable.
type Home struct {
	User  id.User
	Epoch uint32 // grows with each step of a move; 0 if he never moved
	// Region takes his writes, unless Next is set: then none does.
	Region id.Region
	Next   id.Region // to where he is being moved; 0 if he is not
	Back   bool      // an operator wants the move undone, which Next decides
}

// steps is how many epochs a move has: fenced, called back, decided.
const steps = 3

// Of gives the home of somebody who never moved.
func Of(u id.User) Home { return Home{User: u, Region: u.Region()} }

// ErrMove is the root of errors about moves that cannot be.
var ErrMove = errors.New("homes: this cannot be moved")

// Fence gives the first step of a move, which the old home makes.
func (h Home) Fence(own, next id.Region) (Home, error) {
	switch {
	case h.Next != 0 && (h.Next != next || h.Back):
		return h, fmt.Errorf("%w: %v is being moved to region %d already; wait, or undo that", ErrMove, h.User, h.Next)
	case h.Next == next, h.Region == next && h.Next == 0:
		return h, nil // it is under way, or done
	case h.Region != own:
		return h, fmt.Errorf("%w: %v is at home in region %d: give the order there", ErrMove, h.User, h.Region)
	}
	return Home{User: h.User, Epoch: h.Epoch/steps*steps + 1, Region: own, Next: next}, nil
}

// CallBack gives the step by which the old home asks for somebody back who is being moved.
func (h Home) CallBack(own id.Region) (Home, error) {
	switch {
	case h.Next == 0:
		return h, nil // it is decided
	case h.Region != own:
		return h, fmt.Errorf("%w: %v was at home in region %d: give the order there", ErrMove, h.User, h.Region)
	case h.Back:
		return h, nil
	}
	h.Epoch, h.Back = h.Epoch+1, true
	return h, nil
}

// Decide gives the last step, which the new home makes: it takes him, or gives him back.
func (h Home) Decide() Home {
	to := h.Next
	if h.Back {
		to = h.Region
	}
	return Home{User: h.User, Epoch: h.Epoch/steps*steps + steps, Region: to}
}

// Takes reports whether a region takes his writes.
func (h Home) Takes(own id.Region) bool { return h.Region == own && h.Next == 0 }

// Keeps reports whether a region keeps what is kept at home alone, his timeline and what
// he is told: who comes has it from the first moment.
func (h Home) Keeps(own id.Region) bool { return h.Region == own || h.Next == own }

const encodedLen = 1 + 16 + 4 + 2 + 2 + 1

// Encode gives a home as stores and other regions get it. Form: version 1, user, epoch,
// region, next, back.
func (h Home) Encode() []byte {
	b := append(append(make([]byte, 0, encodedLen), 1), h.User[:]...)
	b = binary.BigEndian.AppendUint32(b, h.Epoch)
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, uint16(h.Region)), uint16(h.Next))
	if h.Back {
		return append(b, 1)
	}
	return append(b, 0)
}

// Parse reads what Encode gives.
func Parse(b []byte) (h Home, err error) {
	if len(b) != encodedLen || b[0] != 1 || b[encodedLen-1] > 1 {
		return h, fmt.Errorf("homes: %x is no home of version 1", b)
	}
	h.User = id.User(b[1:])
	h.Epoch = binary.BigEndian.Uint32(b[17:])
	h.Region, h.Next = id.Region(binary.BigEndian.Uint16(b[21:])), id.Region(binary.BigEndian.Uint16(b[23:]))
	h.Back = b[25] == 1
	if h.Region == 0 || h.Epoch == 0 || h.Back && h.Next == 0 {
		return h, fmt.Errorf("homes: %x says what no move can lead to", b)
	}
	return h, nil
}

// Show gives a home as other services of the region get it.
func (h Home) Show() *momentsv1.UserHome {
	return &momentsv1.UserHome{
		UserId: h.User.String(), Epoch: h.Epoch, Region: uint32(h.Region), Next: uint32(h.Next), Back: h.Back,
	}
}

// Read reads what Show gives.
func Read(m *momentsv1.UserHome) (h Home, err error) {
	if h.User, err = id.ParseUser(m.GetUserId()); err != nil {
		return h, fmt.Errorf("homes: %w", err)
	}
	h.Epoch, h.Region, h.Next, h.Back = m.GetEpoch(), id.Region(m.GetRegion()), id.Region(m.GetNext()), m.GetBack()
	return Parse(h.Encode())
}

// Table is who has moved, as far as it is known here. The zero Table knows nobody. It may
// be used concurrently; to ask it costs next to nothing as long as nobody has moved.
type Table struct {
	from Source // of what Refresh takes in
	now  atomic.Pointer[map[id.User]Home]

	mu      sync.Mutex
	version uint64 // guarded by mu; of the list that Refresh has got
}

// NewTable makes a Table of what the account service knows. It knows nobody before Refresh.
func NewTable(from Source) *Table { return &Table{from: from} }

func (t *Table) all() map[id.User]Home {
	if t == nil {
		return nil
	}
	if m := t.now.Load(); m != nil {
		return *m
	}
	return nil
}

// Of gives where somebody is at home. A nil Table knows nobody.
func (t *Table) Of(u id.User) Home {
	if h, moved := t.all()[u]; moved {
		return h
	}
	return Of(u)
}

// Len is how many people have moved.
func (t *Table) Len() int { return len(t.all()) }

// All gives all who have moved. The map is not to be changed.
func (t *Table) All() map[id.User]Home { return t.all() }

// Learn takes in what one has heard. It reports false if it is nothing new.
func (t *Table) Learn(heard ...Home) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.learn(heard)
}

func (t *Table) learn(heard []Home) bool {
	var next map[id.User]Home
	for _, h := range heard {
		if h.Epoch <= t.Of(h.User).Epoch {
			continue
		}
		if next == nil {
			if next = maps.Clone(t.all()); next == nil {
				next = make(map[id.User]Home)
			}
		}
		next[h.User] = h
	}
	if next == nil {
		return false
	}
	t.now.Store(&next)
	return true
}

// Source is the part of the account service's client that is used here.
type Source interface {
	ListHomes(context.Context, *momentsv1.ListHomesRequest) (*momentsv1.ListHomesResponse, error)
}

// Refresh takes in all that the account service knows now. It is for who has NewTable.
func (t *Table) Refresh(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	res, err := t.from.ListHomes(ctx, &momentsv1.ListHomesRequest{KnownVersion: t.version})
	if err != nil {
		return fmt.Errorf("homes: ask who has moved: %w", err)
	}
	heard := make([]Home, 0, len(res.GetHomes()))
	for _, m := range res.GetHomes() {
		h, err := Read(m)
		if err != nil {
			return err
		}
		heard = append(heard, h)
	}
	t.learn(heard)
	t.version = res.GetVersion()
	return nil
}

// FollowEvery is how old what a process knows may be. Until it knows better it sends to
// the old home, which refuses.
const FollowEvery = time.Second

// Follow keeps the table up to date until ctx ends. Call gives the context of a call, with
// its deadline; failed is told when one failed.
func (t *Table) Follow(ctx context.Context, call func(context.Context) (context.Context, context.CancelFunc), failed func(error)) {
	tick := time.NewTicker(FollowEvery)
	defer tick.Stop()
	for {
		asked, cancel := call(ctx)
		err := t.Refresh(asked)
		if cancel(); err != nil && ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Retry is what a client is to wait whose writes are refused meanwhile.
const Retry = 2 * time.Second

// ErrMoving is what somebody sees who writes while he is being moved, or where he is at
// home no more. Nothing was written.
func ErrMoving() error {
	err := rpc.WithDetails(rpc.Errorf(rpc.Unavailable, "your home is being moved to another region; try again in a moment"),
		&momentsv1.Problem{Type: "moving"})
	if e, ok := errors.AsType[*rpc.Error](err); ok {
		e.Retry, e.Reason = Retry, rpc.ReasonHandler
	}
	return err
}
