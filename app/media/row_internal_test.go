// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// FuzzRow: a record that is accepted has an owner.
func FuzzRow(f *testing.F) {
	owner := id.User{1}
	b, err := proto.Marshal(&momentsv1.StoredMedia{OwnerId: owner[:]})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRow(id.Media{2}, kv.Item{Value: b, Ver: 1}); err == nil && !bytes.Equal(r.owner[:], r.GetOwnerId()) {
			t.Errorf("%x is of %v", b, r.owner)
		}
	})
}
