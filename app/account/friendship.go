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

	chosen choices
	stance stance // what the owner's choices and his block mean for the other
	heard  stance // the same, heard from the other's side
}

// choices are what a person has chosen about another: see FriendSettings.
type choices struct{ chatOnly, hideMine, hideTheirs bool }

// A stance is what one person's choices mean for another. Choices may be taken back
// and made again, so each change has the next number, and whoever hears of them late,
// twice or out of order keeps the one with the highest.
type stance struct {
	number uint32
	hides  bool // the other does not see this one's posts
	off    bool // neither sees the other's
}

// word is all that one side tells the other.
type word struct {
	half   half
	stance stance
}

func (e edge) word() word { return word{half: e.own, stance: e.stance} }

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

// A view is what an edge says of how its owner sees the other's posts.
type view struct{ friends, authorHides, viewerHides, off bool }

func (e edge) view() view {
	return view{
		friends: e.friends(), authorHides: e.heard.hides, viewerHides: e.chosen.hideTheirs,
		off: e.stance.off || e.heard.off,
	}
}

// choose takes other choices.
func (e edge) choose(c choices) edge {
	e.chosen = c
	return e.restanced()
}

// restanced gives the stance that follows from choices and block.
func (e edge) restanced() edge {
	hides, off := e.chosen.hideMine, e.chosen.chatOnly || e.blocked
	if e.stance.hides != hides || e.stance.off != off {
		e.stance = stance{number: e.stance.number + 1, hides: hides, off: off}
	}
	return e
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
	return e.takeBack().restanced()
}

// unblock lets the other ask again.
func (e edge) unblock() edge {
	e.blocked = false
	return e.restanced()
}

// hear takes what the other's side says. Whoever is blocked is declined on arrival.
func (e edge) hear(said word) edge {
	if said.half.newer(e.other) {
		e.other = said.half
	}
	if said.stance.number > e.heard.number {
		e.heard = said.stance
	}
	if e.blocked {
		e = e.decline()
	}
	return e.noted()
}

// heardOf is what the owner is to be told after a step from was: that the other asks, or
// that he has accepted, and in which round. Of his own steps he is told nothing.
func (e edge) heardOf(was edge) (momentsv1.NoticeKind, uint32) {
	switch {
	case e.own != was.own:
	case e.invited() && (!was.invited() || e.other.round != was.other.round):
		return momentsv1.NoticeKind_NOTICE_KIND_FRIEND_REQUEST, e.other.round
	case e.friends() && !was.friends():
		return momentsv1.NoticeKind_NOTICE_KIND_FRIEND_ACCEPTED, e.own.round
	}
	return momentsv1.NoticeKind_NOTICE_KIND_UNSPECIFIED, 0
}

// stands reports whether what the other did in a round, and the owner was told of, is
// still so: it would be strange to be told of a request that was taken back.
func (e edge) stands(accepted bool, round uint32) bool {
	if e.friends() {
		return e.own.round == round
	}
	return !accepted && e.invited() && e.other.round == round
}

// noted remembers that the two have been friends in this round.
func (e edge) noted() edge {
	if e.friends() {
		e.met = e.own.round
	}
	return e
}
