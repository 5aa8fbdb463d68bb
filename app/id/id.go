// SPDX-License-Identifier: Apache-2.0

// Package id makes and reads the identifiers of Moments: 16 bytes that sort by time,
// say in which region they were made and are never made twice, in a crash neither.
//
//	time, ms since 1970 | region | epoch | sequence
//	      6 bytes       |   2    |   3   |    5
//
// All numbers are big-endian, so that bytes, strings and keys sort alike. As a
// string an id is 26 characters of Crockford's base32 in upper case, the form of a
// ULID (https://github.com/ulid/spec). Each kind of thing has its own type, and a
// post's id does not compile where a user's is wanted.
package id

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"
)

// Region is the number of a region, the part of the world an id was made in.
type Region uint16

// Epoch numbers the starts of whoever makes ids; see NextEpoch.
type Epoch uint32

const (
	maxTime  = 1<<48 - 1 // ms: the year 10889
	maxEpoch = 1<<24 - 1
	maxSeq   = 1<<40 - 1
)

// Len is the length of an id as a string.
const Len = 26

// ID is an identifier of a thing of kind K. Use it under its names: User, Post and so
// on. IDs are comparable, and the zero ID names nothing.
type ID[K Kind] [16]byte

// Kind is what an ID names.
type Kind interface {
	user | post | comment | session | media | notice | tag
	name() string
}

type (
	user    struct{}
	post    struct{}
	comment struct{}
	session struct{}
	media   struct{}
	notice  struct{}
	tag     struct{}
)

func (user) name() string    { return "user" }
func (post) name() string    { return "post" }
func (comment) name() string { return "comment" }
func (session) name() string { return "session" }
func (media) name() string   { return "media" }
func (notice) name() string  { return "notice" }
func (tag) name() string     { return "tag" }

type (
	// User is the id of a person.
	User = ID[user]
	// Post is the id of a post.
	Post = ID[post]
	// Comment is the id of a comment or like.
	Comment = ID[comment]
	// Session is the id of a log-in.
	Session = ID[session]
	// Media is the id of a photo or video.
	Media = ID[media]
	// Notice is the id of a notice.
	Notice = ID[notice]
	// Tag is the id of a user's own list of people.
	Tag = ID[tag]
)

// ParseUser reads a User from its string. Like all the Parse functions it accepts
// what String gives and nothing else.
func ParseUser(s string) (User, error) { return parse[user](s) }

// ParsePost reads a Post from its string.
func ParsePost(s string) (Post, error) { return parse[post](s) }

// ParseComment reads a Comment from its string.
func ParseComment(s string) (Comment, error) { return parse[comment](s) }

// ParseSession reads a Session from its string.
func ParseSession(s string) (Session, error) { return parse[session](s) }

// ParseMedia reads a Media from its string.
func ParseMedia(s string) (Media, error) { return parse[media](s) }

// ParseNotice reads a Notice from its string.
func ParseNotice(s string) (Notice, error) { return parse[notice](s) }

// ParseTag reads a Tag from its string.
func ParseTag(s string) (Tag, error) { return parse[tag](s) }

// Time gives the moment that the id was made, to the millisecond.
func (id ID[K]) Time() time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16))
}

// Region gives the region that the id was made in.
func (id ID[K]) Region() Region { return Region(binary.BigEndian.Uint16(id[6:])) }

// Epoch gives the start that the id was made in.
func (id ID[K]) Epoch() Epoch { return Epoch(binary.BigEndian.Uint32(id[7:]) & maxEpoch) }

// Seq gives the number of the id within its epoch.
func (id ID[K]) Seq() uint64 { return binary.BigEndian.Uint64(id[8:]) & maxSeq }

// IsZero reports whether the id names nothing.
func (id ID[K]) IsZero() bool { return id == ID[K]{} }

// Compare orders ids by time, then region, epoch and sequence: -1, 0 or +1.
func (id ID[K]) Compare(other ID[K]) int { return bytes.Compare(id[:], other[:]) }

// alphabet is Crockford's (https://www.crockford.com/base32.html). It is in the order
// of ASCII, so strings sort as the numbers do.
const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

var digits = func() (d [256]int8) {
	for i := range d {
		d[i] = -1
	}
	for i, c := range []byte(alphabet) {
		d[c] = int8(i)
	}
	return d
}()

// String gives the id as 26 characters.
func (id ID[K]) String() string {
	var text [Len]byte
	id.encode(&text)
	return string(text[:])
}

// pairs are all pairs of digits, as they stand in memory.
var pairs = func() (p [1 << 10]uint16) {
	for i := range p {
		p[i] = binary.LittleEndian.Uint16([]byte{alphabet[i>>5], alphabet[i&31]})
	}
	return p
}()

func (id ID[K]) encode(text *[Len]byte) {
	// Six pairs of digits are of the upper 58 bits, one of those in between, pair of the
	// lower 60. None waits for another: pages have hundreds of ids.
	hi, lo := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	const pair = 1<<10 - 1
	binary.LittleEndian.PutUint16(text[0:], pairs[hi>>56])
	binary.LittleEndian.PutUint16(text[2:], pairs[hi>>46&pair])
	binary.LittleEndian.PutUint16(text[4:], pairs[hi>>36&pair])
	binary.LittleEndian.PutUint16(text[6:], pairs[hi>>26&pair])
	binary.LittleEndian.PutUint16(text[8:], pairs[hi>>16&pair])
	binary.LittleEndian.PutUint16(text[10:], pairs[hi>>6&pair])
	binary.LittleEndian.PutUint16(text[12:], pairs[hi<<4&pair|lo>>60])
	binary.LittleEndian.PutUint16(text[14:], pairs[lo>>50&pair])
	binary.LittleEndian.PutUint16(text[16:], pairs[lo>>40&pair])
	binary.LittleEndian.PutUint16(text[18:], pairs[lo>>30&pair])
	binary.LittleEndian.PutUint16(text[20:], pairs[lo>>20&pair])
	binary.LittleEndian.PutUint16(text[22:], pairs[lo>>10&pair])
	binary.LittleEndian.PutUint16(text[24:], pairs[lo&pair])
}

// Texts gives the strings of ids. They share their memory.
func Texts[K Kind](ids []ID[K]) []string {
	b := make([]byte, 0, Len*len(ids))
	for i := range ids {
		b, _ = ids[i].AppendText(b) // never fails
	}
	all, texts := string(b), make([]string, len(ids))
	for i := range texts {
		texts[i], all = all[:Len], all[Len:]
	}
	return texts
}

// AppendText adds the string of the id to b. Whoever shows many ids saves an
// allocation for each.
func (id ID[K]) AppendText(b []byte) ([]byte, error) {
	var text [Len]byte
	id.encode(&text)
	return append(b, text[:]...), nil
}

// MarshalText gives the string of the id.
func (id ID[K]) MarshalText() ([]byte, error) {
	var text [Len]byte
	id.encode(&text)
	return text[:], nil
}

// UnmarshalText reads what MarshalText gives.
func (id *ID[K]) UnmarshalText(text []byte) error {
	got, err := parse[K](string(text))
	if err != nil {
		return err
	}
	*id = got
	return nil
}

func parse[K Kind](s string) (ID[K], error) {
	var kind K
	if len(s) != Len {
		return ID[K]{}, fmt.Errorf("%s id has %d characters, want %d", kind.name(), len(s), Len)
	}
	// 26 characters hold 130 bits, two more than an id has.
	if s[0] > '7' {
		return ID[K]{}, fmt.Errorf("%s id %q starts with %q, want 0 to 7", kind.name(), s, s[:1])
	}
	var hi, lo uint64
	for i := range len(s) {
		d := digits[s[i]]
		if d < 0 {
			return ID[K]{}, fmt.Errorf("%s id %q has %q at position %d, want one of %s", kind.name(), s, s[i:i+1], i+1, alphabet)
		}
		hi = hi<<5 | lo>>59
		lo = lo<<5 | uint64(d)
	}
	var id ID[K]
	binary.BigEndian.PutUint64(id[:8], hi)
	binary.BigEndian.PutUint64(id[8:], lo)
	return id, nil
}
