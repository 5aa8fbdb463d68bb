// SPDX-License-Identifier: Apache-2.0

package id

import (
	"errors"
	"testing"
)

func TestSequenceEndsAndDoesNotWrap(t *testing.T) {
	gen, err := NewGenerator(1, maxEpoch, nil)
	if err != nil {
		t.Fatal(err)
	}
	gen.seq = maxSeq
	last, err := New[Post](gen)
	if err != nil || last.Seq() != maxSeq || last.Epoch() != maxEpoch {
		t.Fatalf("the last id is %v, %v", last, err)
	}
	for range 2 {
		if p, err := New[Post](gen); !errors.Is(err, ErrExhausted) {
			t.Fatalf("after the last id comes %v, %v; want ErrExhausted", p, err)
		}
	}
}
