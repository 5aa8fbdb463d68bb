// SPDX-License-Identifier: Apache-2.0

package versions_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/versions"
)

// TestCache: what is there is the latest version that was put, the largest of it, and
// all together is within the limit.
func TestCache(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 40).Draw(t, "limit")
		c := versions.New[int, string](limit)
		for range 100 {
			k := rapid.IntRange(0, 9).Draw(t, "key")
			e := versions.Entry[string]{
				Value: rapid.StringN(1, 3, -1).Draw(t, "value"),
				Ver:   rapid.Uint64Range(0, 5).Draw(t, "version"), Size: rapid.IntRange(1, 10).Draw(t, "size"),
			}
			had := c.Get(k)
			c.Put(k, e)
			switch got := c.Get(k); {
			case e.Ver == 0 || had.Ver > e.Ver || had.Ver == e.Ver && had.Size > e.Size:
				if got != had {
					t.Fatalf("%+v made %+v of %+v", e, got, had)
				}
			case got != e:
				t.Fatalf("%+v was put and %+v is there", e, got)
			}
			total, count := 0, 0
			for k := range 10 {
				if e := c.Get(k); e.Ver != 0 {
					total, count = total+e.Size, count+1
				}
			}
			if total > limit && count > 1 {
				t.Fatalf("%d are kept, of %d at most", total, limit)
			}
		}
	})
}
