// SPDX-License-Identifier: Apache-2.0

package tracing

import "encoding/binary"

// Origin is where a message of a queue came from. It travels with the message, so that
// what is done about it later can be put together with the request that caused it.
type Origin struct {
	Entry    Entry    // by which the request came in
	Caller   uint32   // EntryOf of the name of the method that put the message in; 0 at an entry
	Identity Identity // of the span that put it in
}

// OriginLen is the length in bytes of an encoded Origin.
const OriginLen = 34

const originVersion = 1

// Append appends the encoded form of the origin to b: version, flags, entry, caller,
// trace and span, numbers big-endian.
func (o Origin) Append(b []byte) []byte {
	flags := byte(0)
	if o.Identity.Sampled {
		flags = 1
	}
	b = append(b, originVersion, flags)
	b = binary.BigEndian.AppendUint32(b, uint32(o.Entry))
	b = binary.BigEndian.AppendUint32(b, o.Caller)
	b = append(b, o.Identity.Trace[:]...)
	return append(b, o.Identity.Span[:]...)
}

// ParseOrigin reads an origin. It reports false for what is too short or of another
// version: where the message came from is then not known, which is not an error. What
// follows is ignored.
func ParseOrigin(b []byte) (o Origin, ok bool) {
	if len(b) < OriginLen || b[0] != originVersion {
		return Origin{}, false
	}
	o.Entry, o.Caller = Entry(binary.BigEndian.Uint32(b[2:])), binary.BigEndian.Uint32(b[6:])
	o.Identity.Sampled = b[1]&1 != 0
	copy(o.Identity.Trace[:], b[10:26])
	copy(o.Identity.Span[:], b[26:34])
	return o, true
}
