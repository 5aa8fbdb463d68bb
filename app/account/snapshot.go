// SPDX-License-Identifier: Apache-2.0

package account

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv"
)

// kindsOut gives what another region gets of a slot, ascending: private rows only if
// somebody is being moved there.
func (s *Service) kindsOut(to id.Region) []byte {
	all := append([]byte{homes.TableHome}, copied...)
	for _, h := range s.homes.Moving() {
		if h.Region == s.ids.Region() && h.Next == to {
			all = append(all, private...)
			break
		}
	}
	slices.Sort(all)
	return append(all, homes.TableWhole)
}

// outRow gives a row as another region gets it, and reports false if it does not. It goes
// by what was known of homes when the page began.
func (s *Service) outRow(known map[id.User]homes.Home, to id.Region, kind byte, it kv.Item) (row idcqueue.Row, ok bool, err error) {
	if it.Key[0] == homes.TableHome {
		h, err := homes.Parse(it.Value)
		mine := h.Region == s.ids.Region()
		switch {
		case err != nil:
			return row, false, err
		case h.Next != 0 && known[h.User].Epoch < h.Epoch: // a fence that is just being made; its record stands for all rows
			return row, false, nil
		case kind == homes.TableWhole: // his rows were before it
			return idcqueue.Row{Key: homes.WholeKey(h.User), Value: homes.WholeValue(h.Epoch)}, h.Next == to && mine, nil
		}
		return idcqueue.Row{Key: it.Key, Value: it.Value}, h.Next == 0 || mine, nil
	}
	u, private, ok := isOwned(it.Key)
	h, moved := known[u]
	if !moved {
		h = homes.Of(u)
	}
	if !ok || h.Region != s.ids.Region() || private && h.Next != to {
		return row, false, nil
	}
	row = idcqueue.Row{Key: it.Key, Value: it.Value}
	if h.Next != to {
		row.Value, err = shared(it.Key, it.Value)
	}
	return row, true, err
}

// copiedRows gives the rows of this region's users in a slot that another region gets, page
// by page, and its key of session tokens in the slot of that.
func (s *Service) copiedRows(ctx context.Context, to id.Region, slot kv.Slot, from []byte) (rows []idcqueue.Row, next []byte, err error) {
	const most, enough = 64, 128 << 10
	known := s.homes.All()
	kinds := s.kindsOut(to) // of at least those
	if from == nil {
		if slot == kv.SlotOf(tokenKeyRow) {
			it, err := s.store.Get(ctx, slot, tokenKeyRow, kv.Linearizable)
			if err != nil {
				return nil, nil, err
			}
			rows = append(rows, idcqueue.Row{Key: tokenKeyRow, Value: it.Value})
		}
		from = kinds[:1]
	}
	size := 0
	for _, kind := range kinds {
		in := kind
		if kind == homes.TableWhole {
			in = homes.TableHome
		}
		r := kv.Prefix([]byte{in}, kv.MaxScan)
		if from[0] > kind {
			continue
		}
		if from[0] == kind {
			r.From = append([]byte{in}, from[1:]...)
		}
		for more := true; more; {
			var items []kv.Item
			if items, more, err = s.store.Scan(ctx, slot, r, kv.Linearizable); err != nil {
				return nil, nil, fmt.Errorf("account: read slot %d for another region: %w", slot, err)
			}
			for _, it := range items {
				if len(rows) >= most || size >= enough {
					return rows, append([]byte{kind}, it.Key[1:]...), nil
				}
				r.From = kv.Next(it.Key)
				row, ok, err := s.outRow(known, to, kind, it)
				if err != nil {
					return nil, nil, err
				}
				if ok {
					rows, size = append(rows, row), size+len(row.Key)+len(row.Value)
				}
			}
			more = more && len(items) > 0
		}
	}
	return rows, nil, nil
}

// mergePart makes the copies in a part what they are in their home region. If a row is
// refused all others are taken, and the part goes into quarantine.
func (s *Service) mergePart(ctx context.Context, part *idcqueue.Part) (more bool, err error) {
	a := s.newArrival(part.From, part.Slot, part.Batch)
	part.After(func(uint64) { a.applied() })
	var refused error
	there := make(map[string]bool, len(part.Rows))
	for _, row := range part.Rows {
		there[string(row.Key)] = true
	}
	for _, row := range part.Rows {
		if a.ops()+6 > batchOps {
			return true, a.flush(nil)
		}
		switch err := a.copiedRow(ctx, row); {
		case errors.Is(err, idcqueue.ErrRefused):
			refused = cmp.Or(refused, err)
		case err != nil:
			return false, err
		}
	}
	if more, err = a.dropOthers(ctx, part, there); err != nil || more {
		return more, a.flush(err)
	}
	if refused != nil {
		if err := a.flush(nil); err != nil || a.batch.Len() > 0 {
			return err == nil, err // it is refused again when the others are here
		}
		return false, refused
	}
	for _, row := range part.Rows {
		if len(row.Key) > 0 && row.Key[0] == homes.TableWhole {
			if a.ops()+6 > batchOps {
				return true, a.flush(nil)
			}
			if err := a.whole(row.Key, row.Value); err != nil {
				return false, err
			}
		}
	}
	return false, a.flush(nil)
}

// copiedRow adds one row of a part.
func (a *arrival) copiedRow(ctx context.Context, row idcqueue.Row) error {
	switch {
	case bytes.Equal(row.Key, tokenKeyRow):
		return a.learnKey(ctx, row.Value)
	case len(row.Key) == 17 && row.Key[0] == homes.TableHome:
		return a.home(ctx, row.Key, row.Value)
	case len(row.Key) == 17 && row.Key[0] == homes.TableWhole:
		return nil // after all others
	}
	u, private, ok := isOwned(row.Key)
	if !ok || len(row.Key) != 17 && len(row.Key) != 33 {
		return idcqueue.Refuse("row %x is none that regions have copies of", row.Key)
	}
	takes, err := a.owns(u)
	switch {
	case err != nil || !takes:
		return err
	case !private:
		return a.row(ctx, u, row.Key, row.Value, false)
	case a.homeOf(u).Next == a.s.ids.Region():
		return a.secret(ctx, row.Key, row.Value, false)
	}
	return nil
}

func (a *arrival) learnKey(ctx context.Context, key []byte) error {
	if len(key) != 32 {
		return idcqueue.Refuse("the key of session tokens of region %d has %d bytes, want 32", a.from, len(key))
	}
	row := peerTokenKey(a.from)
	have, err := a.s.store.Get(ctx, kv.SlotOf(tokenKeyRow), row, kv.Linearizable)
	if err == nil && !bytes.Equal(have.Value, key) {
		a.batch.Put(row, key)
	}
	return err
}

// dropOthers removes the copies in a part whose rows are not there any more. It reports
// true if there are more than fit the batch.
func (a *arrival) dropOthers(ctx context.Context, part *idcqueue.Part, there map[string]bool) (more bool, err error) {
	r := kv.Range{From: part.Start, To: part.End}
	for {
		items, rest, err := a.s.store.Scan(ctx, a.slot, r, kv.Linearizable)
		if err != nil {
			return false, err
		}
		for _, it := range items {
			r.From = kv.Next(it.Key)
			u, private, ok := isOwned(it.Key)
			h := a.homeOf(u)
			if !ok || h.Region != a.from || there[string(it.Key)] || private && h.Next != a.s.ids.Region() {
				continue
			}
			if a.ops()+4 > batchOps {
				return true, nil
			}
			if private {
				if err := a.secret(ctx, it.Key, nil, true); err != nil {
					return false, err
				}
				continue
			}
			if err := a.row(ctx, u, it.Key, nil, true); err != nil {
				return false, err
			}
		}
		if !rest || len(items) == 0 {
			return false, nil
		}
	}
}
