// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"bytes"
	"testing"

	"github.com/sluice-rpc/sluice/app/kv"
)

// FuzzRow: what is read of a row lies in it, and a position comes out as it went in.
func FuzzRow(f *testing.F) {
	f.Add([]byte{form, forLocal | forPeers, 7, 5, 1, 'x'})
	f.Add(Pos{Seq: 3, Number: 2, Bytes: 1}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parse(9, 4, kv.Item{Key: recordKey(4), Value: b, Ver: 1})
		if err == nil && (!bytes.Contains(b, r.Body) || b[1]&forPeers != 0 && r.Number == 0) {
			t.Errorf("%x is %+v", b, r)
		}
		if p, err := parsePos(kv.Item{Value: b, Ver: 1}); err == nil {
			if again, err := parsePos(kv.Item{Value: p.encode(), Ver: 1}); err != nil || again != p {
				t.Errorf("%+v became %+v, %v", p, again, err)
			}
		}
	})
}
