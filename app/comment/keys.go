// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Tables. Those of a post are in the post's slot, claims in the user's.
//
//	c user key          -> hash       claim: what a user's idempotency key is for
//	h post              -> head       how far the log is; every write moves it
//	i post user key     -> hash, id   what an idempotency key did
//	l post region seq   -> record     the log
const (
	tableClaim = 'c'
	tableHead  = 'h'
	tableKey   = 'i'
	tableLog   = 'l'
)

func headKey(p id.Post) []byte { return append([]byte{tableHead}, p[:]...) }

func logKey(p id.Post, region id.Region, seq uint64) []byte {
	k := append(make([]byte, 0, 27), tableLog)
	k = append(k, p[:]...)
	k = binary.BigEndian.AppendUint16(k, uint16(region))
	return binary.BigEndian.AppendUint64(k, seq)
}

func keyKey(p id.Post, user id.User, key string) []byte {
	sum := sha256.Sum256([]byte(key))
	k := append(make([]byte, 0, 49), tableKey)
	k = append(append(k, p[:]...), user[:]...)
	return append(k, sum[:16]...)
}

func claimKey(user id.User, key string) []byte {
	sum := sha256.Sum256([]byte(key))
	return append(append([]byte{tableClaim}, user[:]...), sum[:16]...)
}

// keyRecord remembers what an idempotency key did. Form: version 1, id, hash. The id
// is zero if nothing needed doing.
type keyRecord struct {
	id   id.Comment
	hash [sha256.Size]byte
}

func (r keyRecord) encode() []byte { return append(append([]byte{1}, r.id[:]...), r.hash[:]...) }

func parseKeyRecord(it kv.Item) (r keyRecord, err error) {
	if len(it.Value) != 1+16+sha256.Size || it.Value[0] != 1 {
		return r, fmt.Errorf("comment: idempotency record under %x is not of version 1", it.Key)
	}
	copy(r.id[:], it.Value[1:])
	copy(r.hash[:], it.Value[17:])
	return r, nil
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
