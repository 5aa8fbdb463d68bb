// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Tables. All of a post is in the post's slot. What an idempotency key did there is
// kept by package once with the scope post, user; the claim that ties it to one
// request over all posts is in the user's slot, with the scope user.
//
//	h post              -> head       how far the log is; every write moves it
//	l post region seq   -> record     the log
//	b post region seq   -> record     that claims a place of the log too; the key goes on
//	                                  with the beginning of its hash
//	w post region seq   -> operation  of another region, that came before its causes
//	g post              -> pointer    to the snapshot of the log
//	s post number part  -> part       of that snapshot
//	c, o, q ...         ->            the outbox: see package outbox
//	d ...               -> comment    what an idempotency key did: nothing of a claim, and
//	                                  a zero id where no comment was made
//	k/session           -> key        of session tokens, in its own slot
//	k/session/region    -> key        of another region's, in the same slot
//	k/regions, k/number -> registry   of regions, and the number comments are made under
//	k/relay/number      -> slot       from which on the operations of a lost region are to
//	                                  be told to others; empty for all
const (
	tableHead    = 'h'
	tableLog     = 'l'
	tablePointer = 'g'
	tableParts   = 's'
	tableHeld    = 'w'
	tableBeside  = 'b'
)

// logKeyLen is the length of a logKey, and of a heldKey.
const logKeyLen = 1 + 16 + 2 + 8

func headKey(p id.Post) []byte { return append([]byte{tableHead}, p[:]...) }

const headKeyLen = 1 + len(id.Post{})

func logKey(p id.Post, region id.Region, seq uint64) []byte {
	k := append(make([]byte, 0, logKeyLen), tableLog)
	k = append(k, p[:]...)
	k = binary.BigEndian.AppendUint16(k, uint16(region))
	return binary.BigEndian.AppendUint64(k, seq)
}

func besidePrefix(p id.Post) []byte { return append([]byte{tableBeside}, p[:]...) }

// besideKey is of a record whose place in the log another one has.
func besideKey(r *causal.Record) []byte {
	k := logKey(r.Post, r.ID.Region(), r.Seq)
	k[0] = tableBeside
	return append(k, r.Hash[:8]...)
}

// encodeRecord gives the bytes of a record as they are stored.
func encodeRecord(r *causal.Record) ([]byte, error) { return proto.Marshal(messageOf(r)) }

func messageOf(r *causal.Record) *momentsv1.CommentRecord {
	m := &momentsv1.CommentRecord{
		PostId: r.Post[:], Id: r.ID[:], Seq: r.Seq, Kind: momentsv1.CommentKind(r.Kind), WriterId: r.Writer[:],
		IdempotencyKey: r.Key, Body: r.Body, Hash: r.Hash[:],
	}
	if !r.Parent.IsZero() {
		m.ParentId = r.Parent[:]
	}
	if !r.ReplyTo.IsZero() {
		m.ReplyToId = r.ReplyTo[:]
	}
	m.Deps = entriesOf(r.Deps)
	if r.Grave.Seq > 0 {
		m.Grave = &momentsv1.VectorEntry{Region: uint32(r.Grave.Region), Seq: r.Grave.Seq}
	}
	return m
}

func entriesOf(v causal.Vector) []*momentsv1.VectorEntry {
	var all []*momentsv1.VectorEntry
	for _, e := range v {
		all = append(all, &momentsv1.VectorEntry{Region: uint32(e.Region), Seq: e.Seq})
	}
	return all
}

func vectorOf(entries []*momentsv1.VectorEntry) (v causal.Vector, err error) {
	for _, e := range entries {
		if e.GetRegion() > 1<<16-1 {
			return nil, fmt.Errorf("comment: a version vector names region %d, past 65,535", e.GetRegion())
		}
		v = v.With(id.Region(e.GetRegion()), e.GetSeq())
	}
	return v, nil
}

// parseRecord reads what encodeRecord gives. It refuses what no encodeRecord gave.
func parseRecord(b []byte) (r causal.Record, err error) {
	m := new(momentsv1.CommentRecord)
	if err := proto.Unmarshal(b, m); err != nil {
		return r, fmt.Errorf("comment: record of the log: %w", err)
	}
	return recordOf(m)
}

func recordOf(m *momentsv1.CommentRecord) (r causal.Record, err error) {
	ok := fill(r.Post[:], m.GetPostId()) && fill(r.ID[:], m.GetId()) && fill(r.Writer[:], m.GetWriterId()) && fill(r.Hash[:], m.GetHash()) &&
		(len(m.GetParentId()) == 0 || fill(r.Parent[:], m.GetParentId())) &&
		(len(m.GetReplyToId()) == 0 || fill(r.ReplyTo[:], m.GetReplyToId()))
	if !ok || m.GetSeq() == 0 || m.GetKind() < momentsv1.CommentKind_COMMENT_KIND_ADD || m.GetKind() > momentsv1.CommentKind_COMMENT_KIND_UNLIKE {
		return r, fmt.Errorf("comment: record of the log has a bad id, kind or sequence: %v", m)
	}
	r.Seq, r.Kind, r.Key, r.Body = m.GetSeq(), causal.Kind(m.GetKind()), m.GetIdempotencyKey(), m.GetBody()
	if r.Deps, err = vectorOf(m.GetDeps()); err != nil {
		return r, err
	}
	if g := m.GetGrave(); g != nil {
		if g.GetRegion() > 1<<16-1 || r.Body != "" || r.Kind != causal.Add {
			return r, fmt.Errorf("comment: record of the log has a grave and is none that was deleted: %v", m)
		}
		r.Grave = causal.Entry{Region: id.Region(g.GetRegion()), Seq: g.GetSeq()}
	}
	return r, nil
}

func fill(dst, src []byte) bool { return copy(dst, src) == len(dst) && len(src) == len(dst) }
