// SPDX-License-Identifier: Apache-2.0

package account

import "context"

// Hear does what follows from copies, as Run does.
func (s *Service) Hear(ctx context.Context) error {
	for {
		select {
		case h := <-s.arrivals:
			if err := s.hear(ctx, h); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// Move looks after those who are being moved once, as Run does.
func (s *Service) Move(ctx context.Context) error {
	for _, u := range s.moves.all() {
		if _, err := s.advance(ctx, s.homes.Of(u)); err != nil {
			return err
		}
	}
	return nil
}
