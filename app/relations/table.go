// SPDX-License-Identifier: Apache-2.0

package relations

import (
	"encoding/binary"
	"math/bits"

	"github.com/sluice-rpc/sluice/app/id"
)

// table says something of people, each of whom is at his own place or, if others are there,
// at the next free one; the last place is followed by the first. At most half of the places
// are taken. A page asks it a hundred times, and mostly looks at one line of memory for each.
type table[V any] []place[V]

// place has a person and what is said of him, nobody if it is free.
type place[V any] struct {
	of   V // first, so that nothing takes no room
	user id.User
}

// newTable makes a table for so many people.
func newTable[V any](people int) table[V] { return make(table[V], 2*people) }

// find gives where a person is, or would be.
func (t table[V]) find(u id.User) int {
	// Ids are made by the servers, and differ in their last bytes most (Knuth, TAOCP 3,
	// 6.4: multiplicative hashing).
	const golden = 0x9e3779b97f4a7c15
	h := (binary.BigEndian.Uint64(u[8:]) ^ binary.BigEndian.Uint64(u[:8])*golden) * golden
	first, _ := bits.Mul64(h, uint64(len(t)))
	at := int(first)
	for t[at].user != u && !t[at].user.IsZero() {
		if at++; at == len(t) {
			at = 0
		}
	}
	return at
}

// get gives what is said of somebody, and whether anything is.
func (t table[V]) get(u id.User) (of V, ok bool) {
	if len(t) == 0 || u.IsZero() {
		return of, false
	}
	p := &t[t.find(u)]
	return p.of, p.user == u
}

// put says something of somebody, for whom there must be room.
func (t table[V]) put(u id.User, of V) {
	if !u.IsZero() {
		t[t.find(u)] = place[V]{of: of, user: u}
	}
}

// add says all that another table does.
func (t table[V]) add(other table[V]) {
	for i := range other {
		t.put(other[i].user, other[i].of)
	}
}

// people is a set of people.
type people = table[struct{}]

func newPeople(all []id.User) people {
	p := newTable[struct{}](len(all))
	for _, u := range all {
		p.put(u, struct{}{})
	}
	return p
}
