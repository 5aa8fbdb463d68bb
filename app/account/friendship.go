// SPDX-License-Identifier: Apache-2.0

package account

import momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"

// A half is one person's side of a friendship: on or off, in a round. Only its
// owner's account service writes it. A request opens the next round with the half
// on; an answer puts the other's half on in the same round; whoever takes back,
// declines or blocks turns the own half off in that round. So the states of one
// half only ever grow in the order of newer, and whoever hears of them late, twice
// or out of order ends at the same one by keeping the newest.
type half struct {
	on    bool
	round uint32
}

// newer reports whether h comes after old among the states of one half.
func (h half) newer(old half) bool {
	if h.round != old.round {
		return h.round > old.round
	}
	return !h.on && old.on
}

// An edge is all that one person's side knows of another.
type edge struct {
	own   half // written here
	other half // heard from the other's side
	// met is the last round in which both were friends: it tells a request that is
	// waiting from a friendship that the other has ended.
	met     uint32
	blocked bool // the owner wants to hear nothing from the other
}

// friends: both halves are on, in the same round.
func (e edge) friends() bool {
	return e.own.on && e.other.on && e.own.round == e.other.round
}

// invited: the other has opened a round that the owner has not answered.
func (e edge) invited() bool {
	return e.other.on && e.other.round > e.own.round && !e.blocked
}

// alive: the own half is part of a friendship or may become part of one by the
// other's doing alone. Counting the living halves, not the friends, against the
// limit is what keeps it exact without asking the other's side.
func (e edge) alive() bool {
	if !e.own.on {
		return false
	}
	return e.own.round > e.other.round || e.friends()
}

// state is what the owner is shown. A declined request looks like a waiting one.
func (e edge) state() momentsv1.FriendState {
	switch {
	case e.friends():
		return momentsv1.FriendState_FRIEND_STATE_FRIENDS
	case e.invited():
		return momentsv1.FriendState_FRIEND_STATE_INVITED
	case e.own.on && e.own.round > e.met:
		return momentsv1.FriendState_FRIEND_STATE_REQUESTED
	}
	return momentsv1.FriendState_FRIEND_STATE_NONE
}

// request opens a round, or answers the other's.
func (e edge) request() edge {
	switch {
	case e.friends() || e.alive():
		return e
	case e.invited():
		return e.accept()
	}
	e.own = half{on: true, round: max(e.own.round, e.other.round) + 1}
	return e
}

// accept answers the round that the other has opened; the caller has seen that
// the owner is invited.
func (e edge) accept() edge {
	e.own = half{on: true, round: e.other.round}
	return e.noted()
}

// decline answers the other's open round with no. Without one nothing changes.
func (e edge) decline() edge {
	if e.other.on && e.other.round > e.own.round {
		e.own = half{round: e.other.round}
	}
	return e
}

// takeBack turns the own half off and declines what is open.
func (e edge) takeBack() edge {
	if e.own.on {
		e.own.on = false
	}
	return e.decline()
}

// block takes back and refuses from now on.
func (e edge) block() edge {
	e.blocked = true
	return e.takeBack()
}

// unblock lets the other ask again.
func (e edge) unblock() edge {
	e.blocked = false
	return e
}

// hear takes what the other's side says of its half. Whoever is blocked is
// declined on arrival.
func (e edge) hear(other half) edge {
	if other.newer(e.other) {
		e.other = other
	}
	if e.blocked {
		e = e.decline()
	}
	return e.noted()
}

// noted remembers that the two have been friends in this round.
func (e edge) noted() edge {
	if e.friends() {
		e.met = e.own.round
	}
	return e
}
