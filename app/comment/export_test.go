// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"context"

	"github.com/sluice-rpc/sluice/app/id"
)

// Release lets go what is held and due, as Run does.
func (s *Service) Release(ctx context.Context) error { return s.releaseAll(ctx) }

// ReleaseLeft lets go what batches have left to be looked for, as Run does.
func (s *Service) ReleaseLeft(ctx context.Context) error {
	for {
		select {
		case p := <-s.releases.due:
			if err := s.releaseHeld(ctx, p); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// Settle does what follows from what is known of regions, as Run does.
func (s *Service) Settle(ctx context.Context) error { return s.SettleRegions(ctx) }

// Snapshot makes the snapshot of a post, as Run does, and gives how many items the thread
// has in memory then.
func (s *Service) Snapshot(ctx context.Context, p id.Post) (int, error) {
	err := s.threads.snapshot(ctx, p)
	t := s.threads.get(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fold.Size(), err
}
