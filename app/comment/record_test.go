// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"bytes"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
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

// FuzzDecode: what another region says, a session token and what is stored do no harm, and what
// is accepted comes out again.
func FuzzDecode(f *testing.F) {
	upTo := causal.Vector{{Region: 1, Seq: 2}, {Region: 7, Seq: 1}}
	f.Add(entry{kind: causal.Like, again: true, post: id.Post{1}, author: id.User{2}, region: 3, seq: 4}.encode())
	f.Add(pointer{parts: 2, head: causal.Head{Seen: upTo}}.encode())
	f.Add((&session{floors: []floor{{1, 2}}, posts: []seen{{post: id.Post{1}, upTo: upTo}}}).encode())
	for _, m := range []*momentsv1.CommentSync{
		{Record: &momentsv1.CommentRecord{}, AuthorId: make([]byte, 16), Again: true},
		{Want: &momentsv1.CommentWant{PostId: make([]byte, 16), Seen: entriesOf(upTo)}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	s := &Service{region: 1}
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := s.parseEntry(b); err == nil {
			if again, err := s.parseEntry(e.encode()); err != nil || again != e {
				t.Errorf("%+v became %+v, %v", e, again, err)
			}
		}
		if p, err := parsePointer(b); err == nil { // of an older version, too
			if again, err := parsePointer(p.encode()); err != nil || !bytes.Equal(again.encode(), p.encode()) {
				t.Errorf("%+v became %+v, %v", p, again, err)
			}
		}
		if v, err := decodeSession(b); err == nil {
			if again, err := decodeSession(v.encode()); err != nil || !bytes.Equal(again.encode(), v.encode()) {
				t.Errorf("%+v became %+v, %v", v, again, err)
			}
		}
		_, _ = parseSync(b)
	})
}
