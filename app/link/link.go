// SPDX-License-Identifier: Apache-2.0

// Package link makes and checks the links under which photos and videos are read.
//
// A link is a proof that a viewer was found to be allowed to see a medium, so whoever
// serves it needs to ask nobody: it names the medium and when it ends, under a key that
// entries and edges share. It holds for nine to ten minutes. All links to a medium that
// are made within one minute are the same, so that browsers find again what they have.
package link

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

const (
	// Valid is how long a link holds at most.
	Valid = 10 * time.Minute
	// step is how long a medium keeps one link.
	step = time.Minute
)

// KeySize is the length of a Key in bytes.
const KeySize = 32

// Key is the secret behind links.
type Key [KeySize]byte

// ParseKey reads a key of 64 hexadecimal digits.
func ParseKey(s string) (Key, error) {
	var k Key
	if b, err := hex.DecodeString(s); err != nil || copy(k[:], b) != KeySize || len(b) != KeySize {
		return Key{}, fmt.Errorf("want %d hexadecimal digits, for example of: openssl rand -hex %d", 2*KeySize, KeySize)
	}
	return k, nil
}

// What Check finds wrong.
var (
	// ErrForged: nobody with the key has made the link.
	ErrForged = errors.New("link: not made here")
	// ErrExpired: the link was good once.
	ErrExpired = errors.New("link: expired")
)

// tagSize is the length of a tag in bytes: 192 bits cannot be guessed.
const tagSize = 24

// Signer makes and checks links. It is safe for concurrent use.
type Signer struct {
	macs sync.Pool
}

// NewSigner makes the Signer of a key.
func NewSigner(key Key) *Signer {
	return &Signer{macs: sync.Pool{New: func() any { return hmac.New(sha256.New, key[:]) }}}
}

// tag signs a medium, in whichever form, until a time.
func (s *Signer) tag(m id.Media, expires int64) (tag [tagSize]byte) {
	mac := s.macs.Get().(hash.Hash)
	defer s.macs.Put(mac)
	var text [31]byte
	copy(text[:], "media:1")
	copy(text[7:], m[:])
	binary.BigEndian.PutUint64(text[23:], uint64(expires))
	mac.Reset()
	mac.Write(text[:])
	var sum [sha256.Size]byte
	copy(tag[:], mac.Sum(sum[:0]))
	return tag
}

// Link is a link to all forms of a medium.
type Link struct {
	media   id.Media
	expires int64 // unix seconds
	tag     [tagSize]byte
}

// New makes the link to a medium that is good now.
func (s *Signer) New(m id.Media, now time.Time) Link {
	expires := now.Truncate(step).Add(Valid).Unix()
	return Link{media: m, expires: expires, tag: s.tag(m, expires)}
}

// Append appends the path and query under which a form of the medium is read.
func (l Link) Append(b []byte, form Form) []byte {
	b, _ = l.media.AppendText(append(b, Prefix...)) // never fails
	b = append(append(append(b, '/'), form...), "?e="...)
	b = strconv.AppendInt(b, l.expires, 10)
	return base64.RawURLEncoding.AppendEncode(append(b, "&s="...), l.tag[:])
}

// Check says whether a link to a medium is good: expires and tag are its e and s. It
// fails with ErrForged or ErrExpired and else gives when the link ends.
func (s *Signer) Check(m id.Media, expires, tag string, now time.Time) (time.Time, error) {
	until, err := strconv.ParseInt(expires, 10, 64)
	if err != nil || strconv.FormatInt(until, 10) != expires {
		return time.Time{}, ErrForged
	}
	var given [tagSize]byte
	if base64.RawURLEncoding.DecodedLen(len(tag)) != tagSize {
		return time.Time{}, ErrForged
	}
	if _, err := base64.RawURLEncoding.Strict().Decode(given[:], []byte(tag)); err != nil {
		return time.Time{}, ErrForged
	}
	want := s.tag(m, until)
	if !hmac.Equal(given[:], want[:]) {
		return time.Time{}, ErrForged
	}
	end := time.Unix(until, 0)
	if now.After(end) {
		return end, ErrExpired
	}
	return end, nil
}

// Prefix is what the path of every link begins with.
const Prefix = "/media/"

// Form is the name of a form of media, as links have it.
type Form string

// The forms.
const (
	Full      Form = "full"
	Feed      Form = "feed"
	Thumbnail Form = "thumbnail"
)

var variants = map[Form]momentsv1.MediaVariant{
	Full:      momentsv1.MediaVariant_MEDIA_VARIANT_FULL,
	Feed:      momentsv1.MediaVariant_MEDIA_VARIANT_FEED,
	Thumbnail: momentsv1.MediaVariant_MEDIA_VARIANT_THUMBNAIL,
}

// Variant gives what the contract calls a form, unspecified if there is none of this
// name.
func (f Form) Variant() momentsv1.MediaVariant { return variants[f] }

// FormOf gives the name of what the contract calls a variant, "" if it has none.
func FormOf(v momentsv1.MediaVariant) Form {
	for f, of := range variants {
		if of == v {
			return f
		}
	}
	return ""
}
