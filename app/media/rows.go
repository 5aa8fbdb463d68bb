// SPDX-License-Identifier: Apache-2.0

package media

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Tables of a slot. All that belongs to an owner is in the owner's slot.
//
//	c owner                -> nothing       moved by each new upload, so that its limit is exact
//	d ...                  -> media         what an idempotency key did: see package once
//	g owner place media    -> nothing       what the profile has
//	h post media           -> nothing       what a post has
//	m media                -> StoredMedia
//	p media index          -> SHA-256       a part that has come
//	w owner media          -> size          what is not used yet
//	x deadline media       -> nothing       when a record is looked at again
const (
	tableGuard   = 'c'
	tableProfile = 'g'
	tablePost    = 'h'
	tableMedia   = 'm'
	tablePart    = 'p'
	tableWaiting = 'w'
	tableDue     = 'x'
)

// slotOf gives the slot of a medium's owner. As with posts, the id carries it: whoever
// has only the id must find the record.
func slotOf(m id.Media) kv.Slot { return kv.Slot(binary.BigEndian.Uint16(m[14:]) & (kv.Slots - 1)) }

// newID makes the id of a medium in a slot: 28 bits of the sequence stay above it.
func newID(g *id.Generator, slot kv.Slot) (id.Media, error) {
	m, err := id.New[id.Media](g)
	if err != nil {
		return m, err
	}
	const seqBits, slotBits = 40, 12
	low := binary.BigEndian.Uint64(m[8:])
	seq := low << slotBits & (1<<seqBits - 1)
	binary.BigEndian.PutUint64(m[8:], low>>seqBits<<seqBits|seq|uint64(slot))
	return m, nil
}

func key(table byte, parts ...[]byte) []byte {
	k := append(make([]byte, 0, 40), table)
	for _, p := range parts {
		k = append(k, p...)
	}
	return k
}

func mediaKey(m id.Media) []byte { return key(tableMedia, m[:]) }

func guardKey(owner id.User) []byte { return key(tableGuard, owner[:]) }

func waitingKey(owner id.User, m id.Media) []byte { return key(tableWaiting, owner[:], m[:]) }

func partKey(m id.Media, index uint32) []byte {
	return binary.BigEndian.AppendUint32(key(tablePart, m[:]), index)
}

func dueKey(ms int64, m id.Media) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{tableDue}, uint64(ms)), m[:]...)
}

// idAt reads the id that a key ends with.
func idAt(key []byte) (m id.Media) {
	copy(m[:], key[len(key)-len(m):])
	return m
}

// row is a record as it was read.
type row struct {
	id    id.Media
	owner id.User
	ver   uint64
	*momentsv1.StoredMedia
}

// get reads the record of a medium. One that is not there has ver 0.
func (s *Service) get(ctx context.Context, m id.Media, mode kv.ReadMode) (row, error) {
	it, err := s.store.Get(ctx, slotOf(m), mediaKey(m), mode)
	if err != nil {
		return row{}, problem.Store("read medium", err)
	}
	return parseRow(m, it)
}

func parseRow(m id.Media, it kv.Item) (row, error) {
	r := row{id: m, ver: it.Ver, StoredMedia: new(momentsv1.StoredMedia)}
	if it.Ver == 0 {
		return r, nil
	}
	if err := proto.Unmarshal(it.Value, r.StoredMedia); err != nil {
		return r, fmt.Errorf("media: record of %v: %w", m, err)
	}
	if len(r.GetOwnerId()) != len(r.owner) {
		return r, fmt.Errorf("media: record of %v has no owner", m)
	}
	r.owner = id.User(r.GetOwnerId())
	return r, nil
}

// own reads the record of an owner's medium out of a request. What is somebody else's is
// not there.
func (s *Service) own(ctx context.Context, owner, medium, what string) (row, error) {
	user, err := problem.User("owner_id", owner)
	if err != nil {
		return row{}, err
	}
	m, err := id.ParseMedia(medium)
	if err != nil {
		return row{}, problem.NotFound(what)
	}
	r, err := s.get(ctx, m, kv.Linearizable)
	if err != nil {
		return row{}, err
	}
	if r.ver == 0 || r.owner != user || r.GetState() == momentsv1.StoredMedia_STATE_RELEASED {
		return row{}, problem.NotFound(what)
	}
	return r, nil
}

// put adds to a batch that a record has changed from r to next; both have the same id.
// A next of nil removes it. The batch applies only if r is what is stored.
func put(b *kv.Batch, r row, next *momentsv1.StoredMedia) error {
	b.IfVer(mediaKey(r.id), r.ver)
	from, to := indexes(r.id, r.StoredMedia), indexes(r.id, next)
	for k := range from {
		if _, stays := to[k]; !stays {
			b.Delete([]byte(k))
		}
	}
	for k, v := range to {
		if _, was := from[k]; !was {
			b.Put([]byte(k), v)
		}
	}
	if next == nil {
		b.Delete(mediaKey(r.id))
		return nil
	}
	value, err := proto.Marshal(next)
	if err != nil {
		return fmt.Errorf("media: record of %v: %w", r.id, err)
	}
	b.Put(mediaKey(r.id), value)
	return nil
}

// indexes gives the rows that follow from a record.
func indexes(m id.Media, rec *momentsv1.StoredMedia) map[string][]byte {
	rows := map[string][]byte{}
	if rec == nil {
		return rows
	}
	switch rec.GetState() {
	case momentsv1.StoredMedia_STATE_UPLOADING, momentsv1.StoredMedia_STATE_READY:
		rows[string(waitingKey(id.User(rec.GetOwnerId()), m))] = binary.BigEndian.AppendUint64(nil, uint64(rec.GetSize()))
	case momentsv1.StoredMedia_STATE_ATTACHED:
		rows[string(holderKey(rec, m[:]))] = nil
	case momentsv1.StoredMedia_STATE_RELEASED, momentsv1.StoredMedia_STATE_UNSPECIFIED:
	}
	if rec.GetDeadlineMs() > 0 {
		rows[string(dueKey(rec.GetDeadlineMs(), m))] = nil
	}
	return rows
}

// holderKey gives the key of what has a medium, followed by rest.
func holderKey(rec *momentsv1.StoredMedia, rest []byte) []byte {
	if len(rec.GetPostId()) > 0 {
		return key(tablePost, rec.GetPostId(), rest)
	}
	return key(tableProfile, rec.GetOwnerId(), []byte{byte(rec.GetPlace())}, rest)
}

func (s *Service) in(d time.Duration) int64 { return s.now().Add(d).UnixMilli() }

// media gives a record as others see it.
func (r row) media() *momentsv1.Media {
	return &momentsv1.Media{
		MediaId: r.id.String(), OwnerId: r.owner.String(), Kind: r.GetKind(), Forms: r.GetForms(),
		DurationMs: r.GetDurationMs(), CreatedMs: r.GetCreatedMs(),
	}
}

// usable reports whether a medium can be shown.
func (r row) usable() bool {
	return r.GetState() == momentsv1.StoredMedia_STATE_READY || r.GetState() == momentsv1.StoredMedia_STATE_ATTACHED
}
