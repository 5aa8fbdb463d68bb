// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// wipePosts is how many posts one call of DeleteAllOf writes to, so that it ends in time.
const wipePosts = 50

// DeleteAllOf removes what a writer has left; see the contract. It reads all logs: an
// index by writer would be one more row with every comment, for something that hardly
// ever happens and that nobody waits for. A cursor is the place in them.
func (s *Service) DeleteAllOf(ctx context.Context, req *momentsv1.DeleteAllOfRequest) (*momentsv1.DeleteAllOfResponse, error) {
	writer, err := problem.User("writer_id", req.GetWriterId())
	if err != nil {
		return nil, err
	}
	at, err := parseWipeCursor(req.GetCursor())
	if err != nil {
		return nil, err
	}
	items, next, err := kv.ScanSlots(ctx, s.store, at, kv.Prefix([]byte{tableLog}, 0), kv.Linearizable)
	if err != nil {
		return nil, problem.Store("look for a writer's comments", err)
	}
	var last id.Post // the rows of a post are together
	wiped := 0
	for _, it := range items {
		rec, err := parseRecord(it.Value)
		if err != nil {
			return nil, err
		}
		if rec.Writer != writer || rec.Kind != causal.Add && rec.Kind != causal.Like || rec.Post == last {
			continue
		}
		if wiped == wipePosts {
			next = kv.Place{Slot: it.Slot, Key: it.Key}
			break
		}
		if err := s.wipe(ctx, rec.Post, writer); err != nil {
			return nil, err
		}
		last = rec.Post
		wiped++
	}
	if next.Slot == kv.Slots {
		return &momentsv1.DeleteAllOfResponse{}, nil
	}
	return &momentsv1.DeleteAllOfResponse{NextCursor: base64.RawURLEncoding.EncodeToString(next.Encode())}, nil
}

// wipe deletes a writer's comments on a post and takes his like back. Nobody is asked
// whether he may see the post: it is his account that goes.
func (s *Service) wipe(ctx context.Context, p id.Post, writer id.User) error {
	snap, err := s.threads.read(ctx, p)
	if err != nil {
		return problem.Store("read thread", err)
	}
	var ops []*op
	for _, c := range snap.comments {
		if c.Writer == writer && !c.Deleted {
			ops = append(ops, &op{rec: causal.Record{Kind: causal.Delete, Post: p, Writer: writer, Parent: c.ID}, err: errNotRun})
		}
	}
	for _, l := range snap.likes {
		if l.User == writer {
			ops = append(ops, &op{rec: causal.Record{Kind: causal.Unlike, Post: p, Writer: writer}, err: errNotRun})
		}
	}
	for _, o := range ops {
		switch err := s.writes.Do(ctx, p, o); {
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			return err
		case err != nil:
			return problem.Store("wait for the post", fmt.Errorf("%w: %w", kv.ErrUnavailable, err))
		case o.err != nil:
			return o.err
		}
	}
	return nil
}

func parseWipeCursor(s string) (kv.Place, error) {
	if s == "" {
		return kv.Place{}, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		var at kv.Place
		if at, err = kv.ParsePlace(b); err == nil {
			return at, nil
		}
	}
	return kv.Place{}, problem.Invalid("cursor", "not from an earlier answer")
}
