// SPDX-License-Identifier: Apache-2.0

package post

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Tables of a slot. All that belongs to an author is in the author's slot.
//
//	a author ^post   -> audience      album entry, newest first; nothing for a public post
//	b post           -> PostRecord    body
//	c, o, q ...      ->               the outbox: see package outbox
//	d ...            -> post          what an idempotency key did: see package once
//	j post kind      -> nothing       an errand that follows from a write
//	v post           -> PostRecord    one of another region whose author's relations have
//	                                  not come yet
//	M, z, Homes/ ... ->               who has moved: see package homes
//	w author key     -> post          the id that a post is going to have
//
// ^ inverts all bits, so that an ascending scan gives the newest first.
const (
	tableAlbum  = 'a'
	tableBody   = 'b'
	tableIntent = 'w' // not 'i', under which package id keeps its epoch
	tableErrand = 'j'
	tableVeil   = 'v'
)

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

// What an outbox record says.
const (
	outboxPublish = 1 // for all friends
	outboxDelete  = 2
	outboxLimited = 3 // for whom the body says
	outboxNarrow  = 4 // not for friends any more
)

// entry is what the outbox says: which post has changed. What it is now consumers read
// from its body. Form: version 1, kind, post, author.
type entry struct {
	kind   byte
	post   id.Post
	author id.User
}

const entryLen = 34

func (e entry) encode() []byte {
	b := append(make([]byte, 0, entryLen), 1, e.kind)
	return append(append(b, e.post[:]...), e.author[:]...)
}

func parseEntry(b []byte) (e entry, err error) {
	if len(b) != entryLen || b[0] != 1 {
		return e, fmt.Errorf("post: outbox entry %x is not of version 1", b)
	}
	e.kind = b[1]
	copy(e.post[:], b[2:])
	copy(e.author[:], b[18:])
	return e, nil
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
