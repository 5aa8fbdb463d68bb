// SPDX-License-Identifier: Apache-2.0

package post

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
	"github.com/sluice-rpc/sluice/tracing"
)

// Tables of a slot. All that belongs to an author is in the author's slot.
//
//	a author ^post   -> nothing       album entry, newest first
//	b post           -> PostRecord    body
//	c consumer       -> seq           cursor in the outbox
//	d ...            -> post          what an idempotency key did: see package once
//	o seq            -> record        outbox
//	q                -> seq           last sequence of the outbox
//
// ^ inverts all bits, so that an ascending scan gives the newest first.
const (
	tableAlbum  = 'a'
	tableBody   = 'b'
	tableCursor = 'c'
	tableOutbox = 'o'
	tableSeq    = 'q'
)

var seqKey = []byte{tableSeq}

// slotOf gives the slot of a post's author. The id carries it, because whoever has
// only the id must find the body: it is the 12 lowest bits of the sequence part.
func slotOf(p id.Post) kv.Slot { return kv.Slot(binary.BigEndian.Uint16(p[14:]) & (kv.Slots - 1)) }

// newID makes the id of a post in a slot. 28 bits are left for the sequence, above
// those of the slot, so that posts of one millisecond stay in order. They repeat only
// after 2^28 posts, which is a later millisecond.
func newID(g *id.Generator, slot kv.Slot) (id.Post, error) {
	p, err := id.New[id.Post](g)
	if err != nil {
		return p, err
	}
	const seqBits, slotBits = 40, 12
	low := binary.BigEndian.Uint64(p[8:])
	seq := low << slotBits & (1<<seqBits - 1)
	binary.BigEndian.PutUint64(p[8:], low>>seqBits<<seqBits|seq|uint64(slot))
	return p, nil
}

func bodyKey(p id.Post) []byte { return append([]byte{tableBody}, p[:]...) }

func albumPrefix(author id.User) []byte { return append([]byte{tableAlbum}, author[:]...) }

func albumKey(author id.User, p id.Post) []byte {
	k := append(make([]byte, 0, 33), tableAlbum)
	k = append(k, author[:]...)
	for _, b := range p {
		k = append(k, ^b)
	}
	return k
}

func albumPost(key []byte) (p id.Post) {
	for i, b := range key[len(key)-len(p):] {
		p[i] = ^b
	}
	return p
}

func outboxKey(seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{tableOutbox}, seq)
}

func cursorKey(consumer string) []byte { return append([]byte{tableCursor}, consumer...) }

func appendSeq(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// parseSeq reads a sequence; an absent one is 0.
func parseSeq(it kv.Item) (uint64, error) {
	if it.Ver == 0 {
		return 0, nil
	}
	if len(it.Value) != 8 {
		return 0, fmt.Errorf("post: sequence under %q has %d bytes, want 8", it.Key, len(it.Value))
	}
	return binary.BigEndian.Uint64(it.Value), nil
}

// What an outbox record says.
const (
	outboxPublish = 1
	outboxDelete  = 2
)

// outboxRecord tells consumers which post has changed; what it is now they read from
// its body. Form: version 1, kind, post, author, origin; the origin of a record that an
// earlier release has written is not there.
type outboxRecord struct {
	kind   byte
	post   id.Post
	author id.User
	origin tracing.Origin
}

const outboxRecordLen = 34

func (r outboxRecord) encode() []byte {
	b := append(make([]byte, 0, outboxRecordLen+tracing.OriginLen), 1, r.kind)
	return r.origin.Append(append(append(b, r.post[:]...), r.author[:]...))
}

func parseOutbox(b []byte) (r outboxRecord, err error) {
	if len(b) < outboxRecordLen || b[0] != 1 {
		return r, fmt.Errorf("post: outbox record %x is not of version 1", b)
	}
	r.kind = b[1]
	copy(r.post[:], b[2:])
	copy(r.author[:], b[18:])
	r.origin, _ = tracing.ParseOrigin(b[outboxRecordLen:])
	return r, nil
}

func parseBody(it kv.Item) (*momentsv1.PostRecord, error) {
	rec := new(momentsv1.PostRecord)
	if err := proto.Unmarshal(it.Value, rec); err != nil {
		return nil, fmt.Errorf("post: body under %x: %w", it.Key, err)
	}
	if len(rec.GetPostId()) != 16 || len(rec.GetAuthorId()) != 16 {
		return nil, fmt.Errorf("post: body under %x has no ids", it.Key)
	}
	return rec, nil
}
