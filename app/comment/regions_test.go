// SPDX-License-Identifier: Apache-2.0

package comment_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/comment"
	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue/queuetest"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// settle has all regions do what follows from what they know of each other, and tell.
func (o *ocean) settle(t *testing.T) {
	t.Helper()
	for range 3 {
		for _, p := range o.at {
			if err := p.service.Settle(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		o.carry(t)
	}
}

// copyOf copies a store as it is now.
func copyOf(t *testing.T, from kv.Store) *memkv.Store {
	t.Helper()
	to := memkv.New()
	for slot := range kv.Slot(kv.Slots) {
		r := kv.Range{}
		for more := true; more; {
			items, rest, err := from.Scan(t.Context(), slot, r, kv.Linearizable)
			if err != nil {
				t.Fatal(err)
			}
			for _, it := range items {
				if _, err := to.Apply(t.Context(), slot, new(kv.Batch).Put(it.Key, it.Value)); err != nil {
					t.Fatal(err)
				}
				r.From = kv.Next(it.Key)
			}
			more = rest
		}
	}
	return to
}

// TestLostRegion: a region is gone that alone could tell a third one of a question. What
// answers it is shown once the region is given up, and the question, too, when those who
// have it hear that.
func TestLostRegion(t *testing.T) {
	o := newOcean(t)
	question := o.at[1].add(wang, "", "a question")
	o.line(1, 2).Carry(t)
	o.at[2].add(mia, question, "an answer")
	o.line(2, 3).Carry(t)
	o.at[3].sees(kate)
	if err := o.at[3].service.End(t.Context(), 9, causal.Lost); err == nil {
		t.Error("a region that never was is given up")
	}
	if err := o.at[3].service.End(t.Context(), 3, causal.Lost); err == nil {
		t.Error("a region gives itself up")
	}
	if err := o.at[3].service.End(t.Context(), 1, causal.Lost); err != nil {
		t.Fatal(err)
	}
	if err := o.at[3].service.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.at[3].sees(kate, "an answer")
	lost := func() bool {
		res, err := o.at[3].c.ListPage(t.Context(), &momentsv1.ListPageRequest{ViewerId: kate.String(), PostId: thePost.String()})
		if err != nil {
			t.Fatal(err)
		}
		all := res.GetComments()
		return all[len(all)-1].GetParentLost()
	}
	if !lost() {
		t.Error("an answer does not tell that its question is lost")
	}
	if c := o.at[3].service.Causality(); c.Orphans != 1 || c.Held != 0 {
		t.Errorf("region 3 is %+v, want one orphan and nothing held", c)
	}
	o.line(3, 2).Carry(t)
	if err := o.at[2].service.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.line(2, 3).Carry(t)
	o.at[3].sees(kate, "a question", "an answer")
	if lost() {
		t.Error("an answer whose question has come after all tells that it is lost")
	}
	for _, n := range []id.Region{2, 3} {
		if m, ok := o.at[n].service.Registry().Get(1); !ok || m.State != causal.Lost {
			t.Errorf("region %d thinks of region 1 as %+v", n, m)
		}
	}
	if !maps.Equal(queuetest.Rows(t, o.at[2].store, "l", here), queuetest.Rows(t, o.at[3].store, "l", here)) {
		t.Error("the logs of those that are left differ")
	}
	for _, l := range o.lines {
		if len(l.Refused) > 0 {
			t.Errorf("refused: %v", l.Refused)
		}
	}
}

// TestToldOnce: what is here of a lost region is told once, also if a damaged row keeps
// the rest from being told.
func TestToldOnce(t *testing.T) {
	o := newOcean(t)
	o.at[1].add(wang, "", "told")
	o.line(1, 2).Carry(t)
	const last = kv.Slot(kv.Slots - 1)
	if here == last {
		t.Fatal("the post is in the slot that the damaged row is to be in")
	}
	damaged := append([]byte("l"), make([]byte, 26)...)
	if _, err := o.at[2].store.Apply(t.Context(), last, new(kv.Batch).Put(damaged, []byte{0xff})); err != nil {
		t.Fatal(err)
	}
	if err := o.at[2].service.End(t.Context(), 1, causal.Lost); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := o.at[2].service.Settle(t.Context()); err == nil {
			t.Fatal("a damaged row is not told of")
		}
	}
	l := o.line(2, 3)
	l.Drop(t)
	told := 0
	for _, b := range l.Bodies() {
		m := new(momentsv1.CommentSync)
		if err := proto.Unmarshal(b, m); err != nil {
			t.Fatal(err)
		}
		if m.GetRecord() != nil {
			told++
		}
	}
	if told != 1 {
		t.Errorf("the comment is told %d times, want once", told)
	}
}

// TestGivenUpRegionComesBack: a region that was given up and is there after all goes on
// under another number, and nothing of what it has made is lost.
func TestGivenUpRegionComesBack(t *testing.T) {
	o := newOcean(t)
	o.settle(t)
	o.at[1].add(wang, "", "told nobody")
	if err := o.at[2].service.End(t.Context(), 1, causal.Lost); err != nil {
		t.Fatal(err)
	}
	o.settle(t)
	o.at[1].reopen()
	o.join()
	if n := o.at[1].service.Number(); n == 1 || n&comment.MaxRegion != 1 {
		t.Errorf("it goes on under number %d, want another one of region 1", n)
	}
	o.at[1].add(wang, "", "back again")
	o.settle(t)
	for _, p := range o.at {
		p.sees(wang, "told nobody", "back again")
	}
	o.equal(t, "in the end")
}

// TestRestoredStore: a region whose disk is set back to an old copy gives no place again:
// it goes on under another number, at once, and gets back what others have of it.
func TestRestoredStore(t *testing.T) {
	o := newOcean(t)
	o.settle(t)
	o.at[1].add(wang, "", "before the copy")
	o.carry(t)
	old := copyOf(t, o.at[1].store)
	after := o.at[1].add(wang, "", "after the copy")
	o.carry(t)
	o.at[2].add(mia, after, "an answer")
	if err := comment.Renew(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	o.at[1].store = old
	o.at[1].open()
	for _, l := range o.lines { // that log is another one: its place in the queue begins anew
		if l.From.Region == 1 {
			o.lines[[2]id.Region{1, l.To.Region}] = new(queuetest.Line)
		}
	}
	o.join()
	if n := o.at[1].service.Number(); n == 1 || n&comment.MaxRegion != 1 {
		t.Errorf("it goes on under number %d, want another one of region 1", n)
	}
	o.at[1].sees(wang, "before the copy")
	o.at[1].add(wang, "", "after the restore")
	o.settle(t)
	for _, p := range o.at {
		th := p.thread(wang)
		if n := len(th.GetComments()); n != 4 {
			t.Errorf("region %d shows %d comments, want 4: %v", p.number, n, th)
		}
		if f := p.service.Causality().Forks; f != 0 {
			t.Errorf("region %d has seen %d forks", p.number, f)
		}
	}
	o.equal(t, "in the end")
	if err := comment.Renew(t.Context(), memkv.New()); err != nil {
		t.Errorf("a store that was never joined: %v", err)
	}
}

// TestStoreSetBack: a store that was set back without anybody saying so is told by what
// comes back of it.
func TestStoreSetBack(t *testing.T) {
	o := newOcean(t)
	o.settle(t)
	old := copyOf(t, o.at[1].store)
	o.at[1].add(wang, "", "lost here")
	o.carry(t)
	o.at[1].store = old
	o.at[1].open()
	o.join()
	if err := o.at[3].service.End(t.Context(), 1, causal.Lost); err != nil {
		t.Fatal(err)
	}
	if err := o.at[3].service.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := o.line(3, 1)
	l.Carry(t)
	if len(l.Refused) != 1 || !strings.Contains(l.Refused[0].Error(), "set back") {
		t.Errorf("refused %v, want a word of a disk that was set back", l.Refused)
	}
}

// TestAskedFor: with the line from where the question was asked cut, it comes by way of
// the region that has answered it.
func TestAskedFor(t *testing.T) {
	o := newOcean(t)
	question := o.at[1].add(wang, "", "a question")
	for range 70 { // more than one answer takes
		o.at[1].add(wang, "", "one more")
	}
	o.line(1, 2).Carry(t)
	o.at[2].add(mia, question, "an answer")
	o.line(2, 3).Carry(t)
	o.at[3].sees(kate)
	for range 2 {
		if err := o.at[3].service.Ask(t.Context(), thePost); err != nil {
			t.Fatal(err)
		}
		o.line(3, 2).Carry(t)
		o.line(2, 3).Carry(t)
	}
	if th := o.at[3].thread(kate); th.GetCommentCount() != 72 {
		t.Errorf("region 3 shows %d comments, want 72", th.GetCommentCount())
	}
	o.carry(t) // what comes by the line after all is there already
	o.equal(t, "in the end")
	for _, l := range o.lines {
		if len(l.Refused) > 0 {
			t.Errorf("refused: %v", l.Refused)
		}
	}
}

// TestDueByTheSameBatch: one batch brings an answer, what it answers, and the answer once
// more, as lines do that tell of others. Nothing stays held.
func TestDueByTheSameBatch(t *testing.T) {
	o := newOcean(t)
	question := o.at[1].add(wang, "", "a question")
	o.line(1, 2).Carry(t)
	o.at[2].add(mia, question, "an answer")
	if err := o.at[3].service.Ask(t.Context(), thePost); err != nil {
		t.Fatal(err)
	}
	o.line(3, 2).Carry(t)
	o.line(2, 3).Carry(t)
	if err := o.at[3].service.ReleaseLeft(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.at[3].sees(kate, "a question", "an answer")
	if held := queuetest.Rows(t, o.at[3].store, "w", here); len(held) > 0 || o.at[3].service.Held() != 0 {
		t.Errorf("%d operations are held, and it says %d, want none", len(held), o.at[3].service.Held())
	}
	o.carry(t)
	o.equal(t, "in the end")
}

// TestMarkBeforeItsDelete: a comment comes without its text before its deletion comes.
// Whoever was shown that is not shown the text any more, in no region.
func TestMarkBeforeItsDelete(t *testing.T) {
	o := newOcean(t)
	c := o.at[1].add(wang, "", "a secret")
	o.at[1].add(kate, c, "really?")
	o.line(1, 2).Carry(t)
	if err := o.at[2].remove(wang, c); err != nil {
		t.Fatal(err)
	}
	o.line(2, 1).Carry(t)
	late := new(queuetest.Line) // what was not sent yet is sent as it is by now
	late.From, late.To = o.at[1].end(), o.at[3].end()
	o.lines[[2]id.Region{1, 3}] = late
	late.Carry(t)
	th := o.at[3].thread(kate)
	if n := len(th.GetComments()); n != 2 || !th.GetComments()[0].GetDeleted() {
		t.Fatalf("region 3 shows %v, want a mark and the answer", th)
	}
	rec := new(momentsv1.CommentSync)
	if err := proto.Unmarshal(late.Bodies()[0], rec); err != nil {
		t.Fatal(err)
	}
	if g := rec.GetRecord().GetGrave(); g.GetRegion() != 2 || g.GetSeq() != 1 {
		t.Errorf("the record says that it was deleted by %v, want 1 of region 2", g)
	}
	read := func(session string) (string, error) {
		res, err := o.at[3].c.ListPage(t.Context(), &momentsv1.ListPageRequest{ViewerId: kate.String(), PostId: thePost.String(), Session: session})
		return res.GetSession(), err
	}
	session, err := read("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read(session); rpc.CodeOf(err) != rpc.Unavailable {
		t.Errorf("a session that has seen the mark reads %v, want that the region is behind", err)
	}
	if n := o.at[3].service.Causality().Late; n != 1 {
		t.Errorf("%d posts are to be asked for, want 1", n)
	}
	if err := o.at[3].service.Ask(t.Context(), thePost); err != nil {
		t.Fatal(err)
	}
	o.line(3, 1).Carry(t)
	late.Carry(t)
	if _, err := read(session); err != nil {
		t.Errorf("once the deletion is there: %v", err)
	}
	o.carry(t)
	o.equal(t, "in the end")
}

// TestDeleteLostWithItsRegion: others have deleted a comment by an operation that was lost
// with its region; whoever has only its mark deletes it again.
func TestDeleteLostWithItsRegion(t *testing.T) {
	o := newOcean(t)
	c := o.at[1].add(wang, "", "a secret")
	o.line(1, 2).Carry(t)
	if err := o.at[2].remove(wang, c); err != nil {
		t.Fatal(err)
	}
	o.line(2, 1).Carry(t)
	body := func() []byte {
		l := &queuetest.Line{From: o.at[1].end(), To: o.at[3].end()}
		l.Drop(t)
		return l.Bodies()[0]
	}()
	three := newOcean(t) // where region 1 is gone, too, and region 2 had told nobody
	three.line(1, 3).Deliver(t, here, body)
	before := len(queuetest.Rows(t, three.at[3].store, "l", here))
	if err := three.at[3].service.End(t.Context(), 2, causal.Lost); err != nil {
		t.Fatal(err)
	}
	for range 2 { // once is enough
		if err := three.at[3].service.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(queuetest.Rows(t, three.at[3].store, "l", here)); n != before+1 {
		t.Errorf("the log has %d operations, want %d and a deletion", n, before)
	}
}

// TestTombstonesAreForgotten: once all regions have passed a deletion, nobody keeps the
// deleted comment in memory; as long as one may not have, everybody does.
func TestTombstonesAreForgotten(t *testing.T) {
	o := newOcean(t)
	c := o.at[1].add(wang, "", "gone")
	kept := o.at[1].add(wang, "", "answered")
	o.at[1].add(kate, kept, "an answer")
	for _, one := range []string{c, kept} {
		if err := o.at[1].remove(wang, one); err != nil {
			t.Fatal(err)
		}
	}
	size := func(when string, want int) {
		t.Helper()
		n, err := o.at[1].service.Snapshot(t.Context(), thePost)
		if err != nil && !errors.Is(err, kv.ErrConflict) {
			t.Fatal(err)
		}
		if n != want {
			t.Errorf("%s: %d items are kept, want %d", when, n, want)
		}
	}
	size("nobody has heard", 3)
	o.carry(t)
	o.at[2].like(mia, "")
	o.carry(t)
	size("region 3 has not said that it knows", 4)
	o.at[3].like(kate, "")
	o.carry(t)
	size("all know", 4) // two likes, the mark and its answer
	th := o.at[1].thread(wang)
	if n := len(th.GetComments()); n != 2 || !th.GetComments()[0].GetDeleted() {
		t.Errorf("it shows %v, want a mark and the answer", th)
	}
	if err := o.at[1].remove(wang, c); rpc.CodeOf(err) != rpc.NotFound {
		t.Errorf("what is forgotten is deleted again: %v", err)
	}
	o.at[1].reopen()
	o.join()
	if n := len(o.at[1].thread(wang).GetComments()); n != 2 {
		t.Errorf("after a start it shows %d comments, want 2", n)
	}
}

// TestMeet: a region that joins is known to all before anything of it comes, also after a
// crash; one that has ended does not come back under its number.
func TestMeet(t *testing.T) {
	o := newOcean(t)
	for _, n := range []id.Region{0, 1, comment.MaxRegion + 1} {
		if err := o.at[1].service.Meet(t.Context(), n); err == nil {
			t.Errorf("region %d joins", n)
		}
	}
	for _, n := range []id.Region{2, 4, 4} {
		if err := o.at[1].service.Meet(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	o.settle(t)
	o.at[1].reopen()
	o.join()
	for n, p := range o.at {
		if m, ok := p.service.Registry().Get(4); !ok || m.State != causal.Active {
			t.Errorf("region %d knows the new one as %+v, %v", n, m, ok)
		}
	}
	if err := o.at[2].service.End(t.Context(), 4, causal.Left); err != nil {
		t.Fatal(err)
	}
	o.settle(t)
	if err := o.at[3].service.Meet(t.Context(), 4); err == nil || !strings.Contains(err.Error(), "never given again") {
		t.Errorf("a number is given again: %v", err)
	}
}
