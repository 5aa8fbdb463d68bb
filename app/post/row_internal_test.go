// SPDX-License-Identifier: Apache-2.0

package post

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// FuzzRow: an entry that is accepted comes out again, and a body has its ids.
func FuzzRow(f *testing.F) {
	post, author := id.Post{1}, id.User{2}
	b, err := proto.Marshal(&momentsv1.PostRecord{PostId: post[:], AuthorId: author[:], Text: "text"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(entry{kind: 1, post: post, author: author}.encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := parseEntry(b); err == nil && !bytes.Equal(e.encode(), b) {
			t.Errorf("%x became %x", b, e.encode())
		}
		if rec, err := parseBody(kv.Item{Value: b, Ver: 1}); err == nil && (len(rec.GetPostId()) != len(post) || len(rec.GetAuthorId()) != len(author)) {
			t.Errorf("%x has no ids", b)
		}
	})
}
