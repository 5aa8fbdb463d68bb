// SPDX-License-Identifier: Apache-2.0

// Package cursor makes and reads the opaque texts that name a place in a list. A place
// is a post, or another item of the list, and not a number, so pages neither repeat nor
// skip anything when the list changes.
//
// A cursor is no secret and grants nothing: it names a place in a list whose every
// item is checked again. Its check sum catches one that was mangled, or that came
// from another list.
package cursor

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/sluice-rpc/sluice/app/id"
)

// errInvalid says the same whatever is wrong: there is one mend.
var errInvalid = errors.New("is not one of this list; start again without a cursor")

const (
	version = 1
	rawLen  = 1 + 16 + 4 // version, post, check sum
)

var table = crc32.MakeTable(crc32.Castagnoli)

// Make gives the cursor that stands at a post, in the list of a kind that belongs to
// owner.
func Make(kind byte, owner id.User, at id.Post) string {
	var raw [rawLen]byte
	raw[0] = version
	copy(raw[1:], at[:])
	binary.BigEndian.PutUint32(raw[17:], sum(kind, owner, raw[:17]))
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// Parse reads what Make gave for the same list. It accepts nothing else.
func Parse(kind byte, owner id.User, text string) (at id.Post, err error) {
	var raw [rawLen]byte
	if len(text) != base64.RawURLEncoding.EncodedLen(rawLen) {
		return at, errInvalid
	}
	n, err := base64.RawURLEncoding.Strict().Decode(raw[:], []byte(text))
	if err != nil || n != rawLen || raw[0] != version ||
		binary.BigEndian.Uint32(raw[17:]) != sum(kind, owner, raw[:17]) {
		return at, errInvalid
	}
	copy(at[:], raw[1:])
	return at, nil
}

// MakeLong is Make for a place that has another form than an id, of maxPlace bytes at most.
func MakeLong(kind byte, owner id.User, place []byte) string {
	raw := append(append(make([]byte, 0, 1+len(place)+4), version), place...)
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(raw, sum(kind, owner, raw)))
}

// maxPlace is more than any place has.
const maxPlace = 2 << 10

// ParseLong reads what MakeLong gave for the same list. It accepts nothing else.
func ParseLong(kind byte, owner id.User, text string) (place []byte, err error) {
	if len(text) > base64.RawURLEncoding.EncodedLen(1+maxPlace+4) {
		return nil, errInvalid
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) < 1+4 || raw[0] != version || base64.RawURLEncoding.EncodeToString(raw) != text {
		return nil, errInvalid
	}
	signed := raw[:len(raw)-4]
	if binary.BigEndian.Uint32(raw[len(signed):]) != sum(kind, owner, signed) {
		return nil, errInvalid
	}
	return signed[1:], nil
}

func sum(kind byte, owner id.User, place []byte) uint32 {
	s := crc32.Update(uint32(kind), table, owner[:])
	return crc32.Update(s, table, place)
}
