// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
)

// FuzzRecord: what is accepted is understood whole, so it comes out again.
func FuzzRecord(f *testing.F) {
	r := causal.Record{
		Post: id.Post{1}, ID: id.Comment{2}, Seq: 3, Kind: causal.Add, Writer: id.User{4}, Parent: id.Comment{5}, ReplyTo: id.User{6},
		Deps: causal.Vector{{Region: 1, Seq: 2}, {Region: 7, Seq: 1}}, Key: "k", Body: "text",
	}
	r.Hash = r.Sum()
	b, err := encodeRecord(&r)
	if err != nil {
		f.Fatal(err)
	}
	if got, err := parseRecord(b); err != nil || !reflect.DeepEqual(got, r) {
		f.Fatalf("%+v came out as %+v, %v", r, got, err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err != nil {
			return
		}
		once, err := encodeRecord(&r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseRecord(once)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := encodeRecord(&again); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%x, then %x, %v", once, twice, err)
		}
	})
}
