// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

// RehomeOrder is what an operator asks of somebody's home.
type RehomeOrder struct {
	Do   RehomeDo `json:"do"`
	User string   `json:"user"`         // name or id
	To   string   `json:"to,omitempty"` // name or number of the new home, for RehomeMove
}

// RehomeDo is what is asked.
type RehomeDo string

// What can be asked.
const (
	RehomeShow RehomeDo = "show" // tell where he is at home
	RehomeMove RehomeDo = "move" // move him; again: nothing, it goes on by itself
	RehomeUndo RehomeDo = "undo" // have him back, if the new home has not taken him yet
)

// HomeState is where somebody is at home.
type HomeState struct {
	User   string `json:"user"`
	Region string `json:"region"`         // that takes his writes, unless there is a next
	Next   string `json:"next,omitempty"` // to which he is being moved: nobody takes his writes
	Back   bool   `json:"back,omitempty"` // an operator wants that undone
}

// followEach bounds each question of who has moved.
const followEach = 5 * time.Second

// followHomes keeps who has moved for the roles of this process that do not own it.
func (n *Node) followHomes() {
	if !n.cfg.Topology.Abroad() || n.conns[topology.Account] == nil {
		return
	}
	n.moved = homes.NewTable(n.accounts())
	call := func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithTimeout(rpc.WithCall(ctx, &rpc.Call{Header: rpc.Header{
			Entry: framework.NameEntry("job homes"), Class: qos.Background, Trace: tracing.NewTraceID(),
		}}), followEach)
	}
	n.jobs = append(n.jobs, part{name: "who has moved", run: func(ctx context.Context) error {
		n.moved.Follow(ctx, call, func(err error) { n.log.WarnContext(ctx, "who has moved is not known now", "err", err) })
		return nil
	}})
}

// rehomeDoor lets who can read the data directory move homes.
func (n *Node) rehomeDoor(r topology.Role) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		given, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
		if subtle.ConstantTimeCompare([]byte(given), []byte(n.cfg.Data.token)) != 1 {
			http.Error(w, "the token in "+tokenFile+" of the data directory is wanted", http.StatusUnauthorized)
			return
		}
		if r != topology.Account || n.people == nil {
			http.Error(w, "homes are moved at the account service", http.StatusNotFound)
			return
		}
		var order RehomeOrder
		if err := json.NewDecoder(http.MaxBytesReader(w, req.Body, maxOrder)).Decode(&order); err != nil {
			http.Error(w, fmt.Sprintf("the order cannot be read: %v", err), http.StatusBadRequest)
			return
		}
		h, err := n.rehome(req.Context(), order)
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		state := HomeState{User: h.User.String(), Region: n.nameOf(h.Region), Back: h.Back}
		if h.Next != 0 {
			state.Next = n.nameOf(h.Next)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(state) // the reader may have gone
	})
}

func (n *Node) rehome(ctx context.Context, order RehomeOrder) (h homes.Home, err error) {
	u, err := id.ParseUser(order.User)
	if err != nil {
		found, err := n.people.FindUser(ctx, &momentsv1.FindUserRequest{Name: order.User})
		if err != nil {
			return h, fmt.Errorf("nobody is found by the name or id %q: %w", order.User, err)
		}
		if u, err = id.ParseUser(found.GetProfile().GetUserId()); err != nil {
			return h, err
		}
	}
	switch order.Do {
	case RehomeShow:
		return n.people.HomeOf(u), nil
	case RehomeUndo:
		return n.people.CallBack(ctx, u)
	case RehomeMove:
		to, err := n.homeNamed(order.To)
		if err != nil {
			return h, err
		}
		return n.people.Rehome(ctx, u, to)
	}
	return h, fmt.Errorf("%q is nothing that can be done about a home", order.Do)
}

// homeNamed reads a region that somebody can be at home in: one that is joined.
func (n *Node) homeNamed(s string) (id.Region, error) {
	own := n.cfg.Topology.Region
	if strings.EqualFold(s, own.Name) {
		return own.ID(), nil
	}
	region, err := n.regionOf(s)
	if err != nil {
		return 0, err
	}
	for _, p := range n.peers() {
		if p == region {
			return region, nil
		}
	}
	if region == own.ID() {
		return region, nil
	}
	return 0, fmt.Errorf("region %d is not joined to this one", region)
}

// nameOf gives the name of a region, the own one included.
func (n *Node) nameOf(r id.Region) string {
	if own := n.cfg.Topology.Region; r == own.ID() {
		return own.Name
	}
	return n.regionName(r)
}

// OrderRehome has the account service of a running Moments do something about a home.
func OrderRehome(ctx context.Context, dataDir string, order RehomeOrder) (state HomeState, err error) {
	at, err := ReadState(dataDir)
	if err != nil {
		return state, err
	}
	token, err := ReadToken(dataDir)
	if err != nil {
		return state, err
	}
	body, err := json.Marshal(order)
	if err != nil {
		return state, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+at.Services[topology.Account].Admin+"/rehome", bytes.NewReader(body))
	if err != nil {
		return state, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	return state, askAdmin(req, &state)
}

// rehomeLook is how often it is looked how far a move is.
const rehomeLook = 100 * time.Millisecond

// ErrStillMoving means that a move goes on, and that nobody waits for it any more.
var ErrStillMoving = errors.New("it is not over, and goes on by itself")

// AwaitHome waits until somebody is not being moved any more, or ctx ends. A service that
// does not answer may be started again meanwhile.
func AwaitHome(ctx context.Context, dataDir, user string) (HomeState, error) {
	tick := time.NewTicker(rehomeLook)
	defer tick.Stop()
	var last HomeState
	var failed error
	for {
		state, err := OrderRehome(ctx, dataDir, RehomeOrder{Do: RehomeShow, User: user})
		if err == nil && state.Next == "" {
			return state, nil
		}
		if err == nil {
			last = state
		}
		if ctx.Err() == nil {
			failed = err
		}
		select {
		case <-ctx.Done():
			if failed != nil {
				return last, fmt.Errorf("%w; its old home does not say how far it is: %w", ErrStillMoving, failed)
			}
			return last, ErrStillMoving
		case <-tick.C:
		}
	}
}
