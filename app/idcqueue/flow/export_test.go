// SPDX-License-Identifier: Apache-2.0

package flow

import "encoding/binary"

// Seal makes a message of any content, with its sum right.
func Seal(kind, flags byte, content []byte) []byte {
	b := append([]byte{kind, flags, 0, 0, 0, 0, 0, 0, 0, 0}, content...)
	raw := len(content)
	if flags&flagZstd != 0 && len(content) >= 4 { // it says itself how much it is
		raw, b = int(binary.BigEndian.Uint32(content)), append(b[:headLen], content[4:]...)
	}
	binary.BigEndian.PutUint32(b[6:], uint32(raw))
	binary.BigEndian.PutUint32(b[2:], sum(b))
	return b
}
