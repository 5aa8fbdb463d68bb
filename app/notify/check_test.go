// SPDX-License-Identifier: Apache-2.0

package notify_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sluice-rpc/sluice/app/kv"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// TestCheckFindsAndMends plants each fault that a reader's rows can have.
func TestCheckFindsAndMends(t *testing.T) {
	slot, state := kv.SlotOf(mary[:]), append([]byte{'u'}, mary[:]...)
	row := func(seq byte) []byte { // sequences are inverted in keys
		return append(append([]byte{'n'}, mary[:]...), 255, 255, 255, 255, 255, 255, 255, 255-seq)
	}
	places := func(last, read byte) []byte {
		return []byte{1, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, 0, 0, 0, 0, read}
	}
	for name, tc := range map[string]struct {
		plant  *kv.Batch
		fault  string
		unread int
		want   []int64
	}{
		"nothing":                  {new(kv.Batch), "", 3, []int64{3, 2, 1}},
		"the newest are forgotten": {new(kv.Batch).Put(state, places(1, 0)), "the newest notice is 3", 3, []int64{3, 2, 1}},
		"the state is gone":        {new(kv.Batch).Delete(state), "counted up to 0", 3, []int64{3, 2, 1}},
		"the state is broken":      {new(kv.Batch).Put(state, []byte("?")), "not of version 1", 3, []int64{3, 2, 1}},
		"read before it came":      {new(kv.Batch).Put(state, places(3, 9)), "read up to 9", 0, []int64{3, 2, 1}},
		"a broken notice":          {new(kv.Batch).Put(row(2), []byte("?")), "not of version 1", 2, []int64{3, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			w := build(t, 0)
			w.must(comment(1, john, mary), comment(2, john, mary), comment(3, john, mary))
			if tc.plant.Len() > 0 {
				if _, err := w.store.Apply(t.Context(), slot, tc.plant); err != nil {
					t.Fatal(err)
				}
			}
			check := func(mend bool) string {
				t.Helper()
				res, err := w.c.Check(t.Context(), &momentsv1.CheckNoticesRequest{UserId: mary.String(), Mend: mend})
				if err != nil {
					t.Fatal(err)
				}
				return strings.Join(res.GetFaults(), "; ")
			}
			for _, mend := range []bool{false, true} {
				if got := check(mend); (got == "") != (tc.fault == "") || !strings.Contains(got, tc.fault) {
					t.Errorf("mend %v finds %q, want %q", mend, got, tc.fault)
				}
			}
			if got := check(true); got != "" {
				t.Errorf("after mending: %s", got)
			}
			w.has(mary, tc.unread, tc.want...)
			w.must(comment(4, john, mary))
			w.has(mary, tc.unread+1, slices.Insert(tc.want, 0, 4)...)
		})
	}
}
