// SPDX-License-Identifier: Apache-2.0

package causal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sluice-rpc/sluice/app/id"
)

// A snapshot is a Thread in parts, each of the form: version, then items. An item is a
// tag and what belongs to it; comments ascend by id, and so do users and graves, so
// that one Thread has one form. Version 1 did not know the place of a deletion: what was
// deleted by then is never collected.
const (
	snapshotVersion = 2

	tagComment = 'c' // id, seq, writer, parent, reply to, mark, 0 or 1 for deleted or 2 for come without its text; then length of body and body, or place of the deletion
	tagGrave   = 'g' // id, place of the deletion
	tagLike    = 'l' // user, id, mark, on

	commentLen = 16 + 8 + 16 + 16 + 16 + 8 + 1
	graveLen   = 16 + headEntryLen
	likeLen    = 16 + 16 + 8 + 1
)

// Snapshot gives the thread as bytes for Restore, in parts of little more than size
// bytes.
func (t *Thread) Snapshot(size int) [][]byte {
	var parts [][]byte
	b := []byte{snapshotVersion}
	cut := func() {
		if len(b) >= size {
			parts = append(parts, b)
			b = append(make([]byte, 0, size+256), snapshotVersion)
		}
	}
	for i := range t.comments {
		c := &t.comments[i]
		b = append(append(b, tagComment), c.ID[:]...)
		b = binary.BigEndian.AppendUint64(b, c.Seq)
		b = append(append(append(b, c.Writer[:]...), c.Parent[:]...), c.ReplyTo[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(c.mark))
		b = append(b, flag(c.Deleted)+flag(c.blank))
		if c.Deleted {
			b = Vector{c.grave}.append(b)
		} else {
			b = binary.AppendUvarint(b, uint64(len(c.Body)))
			b = append(b, c.Body...)
		}
		cut()
	}
	for _, g := range slices.SortedFunc(maps.Keys(t.graves), id.Comment.Compare) {
		b = append(append(b, tagGrave), g[:]...)
		b = Vector{t.graves[g]}.append(b)
		cut()
	}
	for _, u := range slices.SortedFunc(maps.Keys(t.likes), id.User.Compare) {
		r := t.likes[u]
		b = append(append(append(b, tagLike), u[:]...), r.id[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(r.mark))
		b = append(b, flag(r.on))
		cut()
	}
	return append(parts, b)
}

func flag(on bool) byte {
	if on {
		return 1
	}
	return 0
}

var errSnapshot = errors.New("causal: the snapshot of a thread is damaged")

// Restore gives the thread that Snapshot was asked of. It accepts nothing else.
func Restore(parts [][]byte) (*Thread, error) {
	t := new(Thread)
	for _, b := range parts {
		if len(b) == 0 || b[0] == 0 || b[0] > snapshotVersion {
			return nil, fmt.Errorf("%w: no part of version 1 or %d", errSnapshot, snapshotVersion)
		}
		placed := b[0] > 1
		for b = b[1:]; len(b) > 0; {
			n, err := t.restore(b[0], b[1:], placed)
			if err != nil {
				return nil, err
			}
			b = b[1+n:]
		}
	}
	slices.SortFunc(t.approved, Approval.compare)
	return t, nil
}

// restore reads one item after its tag and tells its length. Placed says that deletions
// have their places.
func (t *Thread) restore(tag byte, b []byte, placed bool) (n int, err error) {
	switch {
	case tag == tagComment && len(b) > commentLen:
		return t.restoreComment(b, placed)
	case tag == tagGrave:
		return t.restoreGrave(b, placed)
	case tag == tagLike && len(b) >= likeLen && b[likeLen-1] <= 1:
		u, r := id.User(b), register{id: id.Comment(b[16:]), mark: mark(binary.BigEndian.Uint64(b[32:])), on: b[likeLen-1] == 1}
		if _, twice := t.likes[u]; twice {
			return 0, fmt.Errorf("%w: two likes of %v", errSnapshot, u)
		}
		if t.likes == nil {
			t.likes = make(map[id.User]register)
		}
		t.likes[u] = r
		if r.on {
			t.approved = append(t.approved, Approval{ID: r.id, User: u})
		}
		return likeLen, nil
	}
	return 0, fmt.Errorf("%w: tag %q with %d bytes", errSnapshot, tag, len(b))
}

func place(b []byte) Entry {
	return Entry{Region: id.Region(binary.BigEndian.Uint16(b)), Seq: binary.BigEndian.Uint64(b[2:])}
}

func (t *Thread) restoreGrave(b []byte, placed bool) (int, error) {
	n := graveLen
	if !placed {
		n = 16
	}
	if len(b) < n {
		return 0, fmt.Errorf("%w: a deletion with %d bytes", errSnapshot, len(b))
	}
	var by Entry
	if placed {
		by = place(b[16:])
	}
	if t.graves == nil {
		t.graves = make(map[id.Comment]Entry)
	}
	t.graves[id.Comment(b)] = by
	return n, nil
}

func (t *Thread) restoreComment(b []byte, placed bool) (int, error) {
	c := Comment{
		ID: id.Comment(b), Seq: binary.BigEndian.Uint64(b[16:]), Writer: id.User(b[24:]), Parent: id.Comment(b[40:]),
		ReplyTo: id.User(b[56:]), mark: mark(binary.BigEndian.Uint64(b[72:])), Deleted: b[80] > 0, blank: b[80] == 2,
	}
	bad := fmt.Errorf("%w: comment %v", errSnapshot, c.ID)
	if b[80] > 2 || c.blank && !placed {
		return 0, bad
	}
	if n := len(t.comments); n > 0 && t.comments[n-1].ID.Compare(c.ID) >= 0 {
		return 0, fmt.Errorf("%w: comment %v is out of order", errSnapshot, c.ID)
	}
	end := commentLen
	if c.Deleted && placed {
		if len(b) < commentLen+headEntryLen {
			return 0, bad
		}
		c.grave, end = place(b[commentLen:]), commentLen+headEntryLen
		if c.grave.Seq > 0 { // most of them are there, which does no harm
			t.ahead = t.ahead.With(c.grave.Region, c.grave.Seq)
		}
	} else {
		size, width := binary.Uvarint(b[commentLen:])
		if width <= 0 || size > uint64(len(b)-commentLen-width) || c.Deleted && size > 0 {
			return 0, bad
		}
		end = commentLen + width + int(size)
		c.Body = string(b[commentLen+width : end])
	}
	t.comments = append(t.comments, c)
	if !c.Deleted {
		t.heard(&c)
	}
	return end, nil
}
