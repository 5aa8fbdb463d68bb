// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
)

// A part runs until its context ends.
type part struct {
	name string
	run  func(context.Context) error
}

// runParts runs all parts at once and stops them step by step.
func runParts(ctx context.Context, steps [][]part) error {
	type running struct {
		part
		stop  context.CancelFunc
		ended chan error
	}
	over := make(chan struct{}, 1) // a part has ended
	all := make([][]*running, len(steps))
	for i, step := range steps {
		for _, p := range step {
			own, stop := context.WithCancel(context.WithoutCancel(ctx))
			r := &running{part: p, stop: stop, ended: make(chan error, 1)}
			all[i] = append(all[i], r)
			go func() { // ended is waited for below
				r.ended <- p.run(own)
				select {
				case over <- struct{}{}:
				default:
				}
			}()
		}
	}
	var errs []error
	select {
	case <-ctx.Done():
	case <-over:
	}
	early := ctx.Err() == nil
	for _, step := range all {
		for _, r := range step {
			if early {
				select {
				case err := <-r.ended:
					errs = append(errs, fmt.Errorf("%s ended by itself: %w", r.name, orNothing(err)))
					r.ended <- nil
				default:
				}
			}
			r.stop()
		}
		for _, r := range step {
			if err := <-r.ended; err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", r.name, err))
			}
		}
	}
	return errors.Join(errs...)
}

var errNothing = errors.New("without an error")

func orNothing(err error) error {
	if err == nil {
		return errNothing
	}
	return err
}
