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
//	d ...               -> comment    what a key did: nothing of a claim, and a zero id
//	                                  where no comment was made
const (
	tableHead = 'h'
	tableLog  = 'l'
)

func headKey(p id.Post) []byte { return append([]byte{tableHead}, p[:]...) }

func logKey(p id.Post, region id.Region, seq uint64) []byte {
	k := append(make([]byte, 0, 27), tableLog)
	k = append(k, p[:]...)
	k = binary.BigEndian.AppendUint16(k, uint16(region))
	return binary.BigEndian.AppendUint64(k, seq)
}

// encodeRecord gives the bytes of a record as they are stored and sent.
func encodeRecord(r *causal.Record) ([]byte, error) {
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
	for _, e := range r.Deps {
		m.Deps = append(m.Deps, &momentsv1.VectorEntry{Region: uint32(e.Region), Seq: e.Seq})
	}
	return proto.Marshal(m)
}

// parseRecord reads what encodeRecord gives. It refuses what no encodeRecord gave.
func parseRecord(b []byte) (r causal.Record, err error) {
	m := new(momentsv1.CommentRecord)
	if err := proto.Unmarshal(b, m); err != nil {
		return r, fmt.Errorf("comment: record of the log: %w", err)
	}
	ok := fill(r.Post[:], m.GetPostId()) && fill(r.ID[:], m.GetId()) && fill(r.Writer[:], m.GetWriterId()) && fill(r.Hash[:], m.GetHash()) &&
		(len(m.GetParentId()) == 0 || fill(r.Parent[:], m.GetParentId())) &&
		(len(m.GetReplyToId()) == 0 || fill(r.ReplyTo[:], m.GetReplyToId()))
	if !ok || m.GetSeq() == 0 || m.GetKind() < momentsv1.CommentKind_COMMENT_KIND_ADD || m.GetKind() > momentsv1.CommentKind_COMMENT_KIND_UNLIKE {
		return r, fmt.Errorf("comment: record of the log has a bad id, kind or sequence: %x", b)
	}
	r.Seq, r.Kind, r.Key, r.Body = m.GetSeq(), causal.Kind(m.GetKind()), m.GetIdempotencyKey(), m.GetBody()
	for _, e := range m.GetDeps() {
		if e.GetRegion() > 1<<16-1 {
			return r, fmt.Errorf("comment: record of the log depends on region %d, past 65,535", e.GetRegion())
		}
		r.Deps = r.Deps.With(id.Region(e.GetRegion()), e.GetSeq())
	}
	return r, nil
}

func fill(dst, src []byte) bool { return copy(dst, src) == len(dst) && len(src) == len(dst) }
