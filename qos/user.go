// SPDX-License-Identifier: Apache-2.0

package qos

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"time"
)

// KeySize is the length of a Key in bytes, that of the hash below it.
const KeySize = sha256.Size

// rekeyEvery is how long a user keeps a level: DAGOR's hour (SoCC 2018, section
// 4.2.3). Levels that follow the session instead teach users to log in again
// until they have a good one.
const rekeyEvery = int64(time.Hour / time.Second)

// Key is the secret behind user levels. The entries of a system share one: then a
// user has the same level at each of them, and nobody outside can look for a user
// id that ranks well. Two keys in one system do no harm beyond two levels for one
// user. The zero Key works and is no secret.
//
// A Key never prints what it holds.
type Key [KeySize]byte

// ParseKey reads a key of 64 hexadecimal digits.
func ParseKey(s string) (Key, error) {
	var k Key
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != KeySize {
		// The text is a secret, nearly right or not: it is not shown.
		return k, fmt.Errorf("qos: key of %d characters: want %d hexadecimal digits (openssl rand -hex %d makes them)", len(s), 2*KeySize, KeySize)
	}
	copy(k[:], b)
	return k, nil
}

// Format hides the key from every verb.
func (Key) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "qos.Key(hidden)") // fmt has no way to fail here
}

// UserLevel gives the level of a user in the hour of now: 0, the best, to
// UserLevels-1. Inside an hour it stays, so that one task, and one visit, is
// served whole or not at all; the next hour draws it anew, so that nobody is last
// for long. All entries change at the same instant, the full hour of UTC.
//
// Nobody's request (user is empty) has the last level: pass what is known of
// someone who is not logged in, such as an address.
func (k *Key) UserLevel(user string, now time.Time) uint8 {
	if user == "" {
		return UserLevels - 1
	}
	s := now.Unix()
	hour := s / rekeyEvery
	if s%rekeyEvery < 0 {
		hour-- // before 1970: down, not towards zero
	}
	// HMAC-SHA256 (RFC 2104) by hand: every request asks, and crypto/hmac takes four
	// allocations and ten times as long. A key shorter than a block is padded with zeros.
	var inner [sha256.BlockSize + 8 + 96]byte // room for any user id, on the stack
	b := append(inner[:0], k[:]...)
	b = b[:sha256.BlockSize]
	for i := range b {
		b[i] ^= 0x36
	}
	b = append(binary.BigEndian.AppendUint64(b, uint64(hour)), user...)
	sum := sha256.Sum256(b)
	var outer [sha256.BlockSize + sha256.Size]byte
	copy(outer[:], k[:])
	for i := range sha256.BlockSize {
		outer[i] ^= 0x5c
	}
	copy(outer[sha256.BlockSize:], sum[:])
	return sha256.Sum256(outer[:])[0] % UserLevels
}
