// SPDX-License-Identifier: Apache-2.0

package account

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// What is stored, and where. All keys of a user are in the slot of the user's id,
// so that whatever changes together changes in one batch; a name is in its own slot.
//
//	u user            -> the account: profile and password hash
//	p user            -> a mark that the account was made but perhaps not its name
//	n folded name     -> whose the name is, in the slot of the folded name
//	s user session    -> a session
//	x user            -> the account is deleted: when, and whether all it left is removed
//	e user other      -> the edge: both halves of a friendship as known here
//	f user other      -> index: they are friends; how user sees other's posts
//	v user other      -> index: other's request is waiting; when it came
//	h user other      -> index: user has chosen something about other, or blocks him
//	a user            -> the user's settings
//	w user            -> a mark that friends' relations may not have noticed the settings
//	t user            -> nothing; written with each change of which tags there are
//	t user tag        -> a tag and who bears it
//	r user            -> relations version and number of living halves
//	m user other      -> a word that the other's side may not have heard yet
//	b user other      -> other's posts are still to be filled into user's timeline
//	d ...             -> what an idempotency key of the user did: see package once
//	c, o, q ...       the outbox: see package outbox
//	K                 -> the key of the session tokens, in the slot of that key
//	K region          -> another region's, in the same slot
//	k user            -> a user of another region is to be found by this name
//	N folded name user -> a user of another region, in the slot of the folded name
//	M, z, Homes/ ...  where users are at home who have moved: see package homes
//	O user            -> a mark that something is left to do for one who has moved
const (
	prefixUser     = 'u'
	prefixPending  = 'p'
	prefixName     = 'n'
	prefixSession  = 's'
	prefixLeaving  = 'x'
	prefixEdge     = 'e'
	prefixFriend   = 'f'
	prefixInvite   = 'v'
	prefixChosen   = 'h'
	prefixSettings = 'a'
	prefixSpread   = 'w'
	prefixTag      = 't'
	prefixRelation = 'r'
	prefixMirror   = 'm'
	prefixBackfill = 'b'
	prefixTokenKey = 'K'
	prefixNaming   = 'k'
	prefixAway     = 'N'
	prefixArrived  = 'O'
)

// errDamaged is the root of all errors about rows that cannot be read.
var errDamaged = errors.New("account: damaged row")

func userKey(prefix byte, u id.User) []byte { return append([]byte{prefix}, u[:]...) }

func pairKey[T ~[16]byte](prefix byte, u id.User, other T) []byte {
	k := make([]byte, 0, 33)
	k = append(k, prefix)
	k = append(k, u[:]...)
	b := [16]byte(other)
	return append(k, b[:]...)
}

// secondOf gives the second id of a pairKey.
func secondOf[T ~[16]byte](key []byte) (T, error) {
	if len(key) != 33 {
		return T{}, fmt.Errorf("%w: a pair's key has %d bytes, want 33", errDamaged, len(key))
	}
	return T(key[17:]), nil
}

func nameKey(folded string) []byte { return append([]byte{prefixName}, folded...) }

func slotOfUser(u id.User) kv.Slot { return kv.SlotOf(u[:]) }

func slotOfName(folded string) kv.Slot { return kv.SlotOf([]byte(folded)) }

// A rowReader takes fixed parts from the front of a row and remembers the first
// failure. Rows may grow at their end: what is left over belongs to a later
// version and is ignored.
type rowReader struct {
	b   []byte
	bad bool
}

func (r *rowReader) take(n int) []byte {
	if r.bad || len(r.b) < n {
		r.bad = true
		return make([]byte, n)
	}
	part := r.b[:n]
	r.b = r.b[n:]
	return part
}

func (r *rowReader) byte() byte     { return r.take(1)[0] }
func (r *rowReader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *rowReader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

// bytes takes a part that is preceded by its length.
func (r *rowReader) bytes() []byte {
	n := r.uint32()
	if uint64(n) > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	return r.take(int(n))
}

func (r *rowReader) err(what string) error {
	if r.bad {
		return fmt.Errorf("%w: %s", errDamaged, what)
	}
	return nil
}

func appendBytes(b, part []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
	return append(b, part...)
}

// user is the row of an account.
type user struct {
	profile *momentsv1.Profile
	hash    string // of the password, in PHC form
}

func (u user) encode() ([]byte, error) {
	profile, err := proto.Marshal(u.profile)
	if err != nil {
		return nil, fmt.Errorf("account: encode profile: %w", err)
	}
	return appendBytes(appendBytes(nil, []byte(u.hash)), profile), nil
}

func decodeUser(b []byte) (user, error) {
	r := rowReader{b: b}
	u := user{hash: string(r.bytes()), profile: &momentsv1.Profile{}}
	profile := r.bytes()
	if err := r.err("user"); err != nil {
		return user{}, err
	}
	if err := proto.Unmarshal(profile, u.profile); err != nil {
		return user{}, fmt.Errorf("%w: user: %w", errDamaged, err)
	}
	return u, nil
}

// claim is the row of a name.
type claim struct {
	user id.User
	done [sha256.Size]byte // of the idempotency key of the registration; zero without one
}

func (c claim) encode() []byte { return append(append([]byte(nil), c.user[:]...), c.done[:]...) }

func decodeClaim(b []byte) (claim, error) {
	r := rowReader{b: b}
	c := claim{user: id.User(r.take(16)), done: [sha256.Size]byte(r.take(sha256.Size))}
	return c, r.err("name")
}

// session is the row of a session.
type session struct {
	expires time.Time // to the millisecond
	device  string
	used    time.Time // last use, to about usedEvery; zero in rows of earlier releases
}

func (s session) encode() []byte {
	b := appendBytes(binary.BigEndian.AppendUint64(nil, uint64(s.expires.UnixMilli())), []byte(s.device))
	return binary.BigEndian.AppendUint64(b, uint64(s.used.UnixMilli()))
}

func decodeSession(b []byte) (session, error) {
	r := rowReader{b: b}
	s := session{expires: time.UnixMilli(int64(r.uint64())), device: string(r.bytes())}
	if len(r.b) > 0 {
		s.used = time.UnixMilli(int64(r.uint64()))
	}
	return s, r.err("session")
}

func appendHalf(b []byte, h half) []byte {
	on := byte(0)
	if h.on {
		on = 1
	}
	return binary.BigEndian.AppendUint32(append(b, on), h.round)
}

func (r *rowReader) half() half { return half{on: r.byte() == 1, round: r.uint32()} }

// bits gives flags as a byte, the first as its lowest bit.
func bits(flags ...bool) (b byte) {
	for i, on := range flags {
		if on {
			b |= 1 << i
		}
	}
	return b
}

func appendStance(b []byte, s stance) []byte {
	return append(binary.BigEndian.AppendUint32(b, s.number), bits(s.hides, s.off))
}

func (r *rowReader) stance() stance {
	s := stance{number: r.uint32()}
	b := r.byte()
	s.hides, s.off = b&1 != 0, b&2 != 0
	return s
}

func (w word) encode() []byte { return appendStance(appendHalf(nil, w.half), w.stance) }

func decodeWord(b []byte) (word, error) {
	r := rowReader{b: b}
	w := word{half: r.half()}
	if len(r.b) > 0 { // not in rows of earlier releases
		w.stance = r.stance()
	}
	return w, r.err("word")
}

func (e edge) encode() []byte {
	b := appendHalf(appendHalf(nil, e.own), e.other)
	b = binary.BigEndian.AppendUint32(b, e.met)
	b = append(b, bits(e.blocked), bits(e.chosen.chatOnly, e.chosen.hideMine, e.chosen.hideTheirs))
	return appendStance(appendStance(b, e.stance), e.heard)
}

func decodeEdge(b []byte) (edge, error) {
	if len(b) == 0 {
		return edge{}, nil // two strangers have no row
	}
	r := rowReader{b: b}
	e := edge{own: r.half(), other: r.half(), met: r.uint32(), blocked: r.byte() == 1}
	if len(r.b) > 0 { // not in rows of earlier releases
		b := r.byte()
		e.chosen = choices{chatOnly: b&1 != 0, hideMine: b&2 != 0, hideTheirs: b&4 != 0}
		e.stance, e.heard = r.stance(), r.stance()
	}
	return e, r.err("edge")
}

// encode gives the row of a friend; that of one about whom nothing is to be said is
// empty.
func (v view) encode() []byte {
	if b := bits(v.authorHides, v.viewerHides, v.off); b != 0 {
		return []byte{b}
	}
	return nil
}

// decodeFriend reads the row of a friend.
func decodeFriend(b []byte) view {
	v := view{friends: true}
	if len(b) > 0 {
		v.authorHides, v.viewerHides, v.off = b[0]&1 != 0, b[0]&2 != 0, b[0]&4 != 0
	}
	return v
}

// tally is the row of counters about a user's edges.
type tally struct {
	version uint64 // grows with each change of what Relations tells
	alive   uint32 // number of living own halves
	home    uint64 // in a copy, the version that it is a copy of
}

// known gives how far these counters are by the count of the user's home.
func (t tally) known() uint64 {
	if t.home != 0 {
		return t.home
	}
	return t.version
}

func (t tally) encode() []byte {
	b := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, t.version), t.alive)
	if t.home != 0 {
		b = binary.BigEndian.AppendUint64(b, t.home)
	}
	return b
}

func decodeTally(b []byte) (tally, error) {
	if len(b) == 0 {
		return tally{version: 1}, nil // zero is what a reader says who knows no version
	}
	r := rowReader{b: b}
	t := tally{version: r.uint64(), alive: r.uint32()}
	if len(r.b) > 0 {
		t.home = r.uint64()
	}
	return t, r.err("relations")
}
