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
//	e user other      -> the edge: both halves of a friendship as known here
//	f user other      -> index: they are friends
//	q user other      -> index: other's request is waiting; when it came
//	r user            -> relations version and number of living halves
//	m user other      -> an own half that the other's side may not have heard yet
//	b user other      -> other's posts are still to be filled into user's timeline
//	d ...             -> what an idempotency key of the user did: see package once
//	K                 -> the key of the session tokens, in the slot of that key
const (
	prefixUser     = 'u'
	prefixPending  = 'p'
	prefixName     = 'n'
	prefixSession  = 's'
	prefixEdge     = 'e'
	prefixFriend   = 'f'
	prefixInvite   = 'q'
	prefixRelation = 'r'
	prefixMirror   = 'm'
	prefixBackfill = 'b'
	prefixTokenKey = 'K'
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
}

func (s session) encode() []byte {
	return appendBytes(binary.BigEndian.AppendUint64(nil, uint64(s.expires.UnixMilli())), []byte(s.device))
}

func decodeSession(b []byte) (session, error) {
	r := rowReader{b: b}
	s := session{expires: time.UnixMilli(int64(r.uint64())), device: string(r.bytes())}
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

func decodeHalf(b []byte) (half, error) {
	r := rowReader{b: b}
	h := r.half()
	return h, r.err("half-edge")
}

func (e edge) encode() []byte {
	b := appendHalf(appendHalf(nil, e.own), e.other)
	b = binary.BigEndian.AppendUint32(b, e.met)
	if e.blocked {
		return append(b, 1)
	}
	return append(b, 0)
}

func decodeEdge(b []byte) (edge, error) {
	if len(b) == 0 {
		return edge{}, nil // two strangers have no row
	}
	r := rowReader{b: b}
	e := edge{own: r.half(), other: r.half(), met: r.uint32(), blocked: r.byte() == 1}
	return e, r.err("edge")
}

// tally is the row of counters about a user's edges.
type tally struct {
	version uint64 // grows with each change of what Relations tells
	alive   uint32 // number of living own halves
}

func (t tally) encode() []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, t.version), t.alive)
}

func decodeTally(b []byte) (tally, error) {
	if len(b) == 0 {
		return tally{version: 1}, nil // zero is what a reader says who knows no version
	}
	r := rowReader{b: b}
	t := tally{version: r.uint64(), alive: r.uint32()}
	return t, r.err("relations")
}
