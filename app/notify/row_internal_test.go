// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"bytes"
	"testing"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// FuzzRow: what is accepted is understood whole, so it comes out again.
func FuzzRow(f *testing.F) {
	for _, n := range []notice{
		{kind: momentsv1.NoticeKind_NOTICE_KIND_FRIEND_REQUEST, actor: id.User{1}, round: 3},
		{kind: momentsv1.NoticeKind_NOTICE_KIND_LIKE, actor: id.User{1}, post: id.Post{2}, comment: id.Comment{3}, happened: 4},
	} {
		f.Add(n.encode())
	}
	f.Add(state{last: 2, read: 1}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := parseNotice(kv.Item{Key: make([]byte, 25), Value: b, Ver: 1}); err == nil && !bytes.Equal(n.encode(), b) {
			t.Errorf("%x became %x", b, n.encode())
		}
		if s, err := parseState(kv.Item{Value: b, Ver: 1}); err == nil && !bytes.Equal(s.encode(), b) {
			t.Errorf("%x became %x", b, s.encode())
		}
	})
}
