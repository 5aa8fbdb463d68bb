// SPDX-License-Identifier: Apache-2.0

package comment_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/comment"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue/queuetest"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/app/relations/relationstest"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// citizen is somebody who is at home in a region.
func citizen(region id.Region, n int) id.User {
	return id.User{6: byte(region >> 8), 7: byte(region), 15: byte(n)}
}

// Wang of region 1 writes the post; all are friends of each other.
var wang, mia, kate = citizen(1, 1), citizen(2, 2), citizen(3, 3)

// here is where all of the post is.
var here = kv.SlotOf(thePost[:])

// wangs are posts of Wang's that his friends see.
type wangs struct {
	account *relationstest.Account
	away    *atomic.Bool // they have not come to this region yet
}

func (p wangs) GetMany(_ context.Context, req *momentsv1.GetPostsRequest) (*momentsv1.GetPostsResponse, error) {
	viewer, err := id.ParseUser(req.GetViewerId())
	if err != nil {
		return nil, err
	}
	res := new(momentsv1.GetPostsResponse)
	for _, v := range req.GetIds() {
		if p.away.Load() && req.GetMissing() {
			res.MissingIds = append(res.MissingIds, v)
		}
		if !p.away.Load() && (viewer == wang || p.account.Friends(wang, viewer)) {
			res.Posts = append(res.Posts, &momentsv1.Post{Id: v, AuthorId: wang.String()})
		}
	}
	return res, nil
}

// ocean is three regions with lines between all of them.
type ocean struct {
	at    map[id.Region]*place
	lines map[[2]id.Region]*queuetest.Line
}

// place is one region.
type place struct {
	*world
	number id.Region
	now    func() time.Time
	ahead  time.Duration
	away   atomic.Bool
}

func newOcean(t *testing.T) *ocean {
	t.Helper()
	o := &ocean{at: map[id.Region]*place{}, lines: map[[2]id.Region]*queuetest.Line{}}
	account := new(relationstest.Account)
	account.Befriend(wang, mia)
	account.Befriend(wang, kate)
	account.Befriend(mia, kate)
	for n := range id.Region(3) {
		p := &place{number: n + 1, world: &world{t: t, account: account, store: memkv.New(), notices: &notices{told: map[string]bool{}}}}
		o.at[p.number] = p
		p.open()
	}
	o.join()
	return o
}

// open starts a region's service on its store.
func (p *place) open() {
	p.t.Helper()
	peers := slices.DeleteFunc([]id.Region{1, 2, 3}, func(r id.Region) bool { return r == p.number })
	s, err := comment.New(p.t.Context(), comment.Config{
		Store: p.store, Region: p.number, Peers: peers, Account: p.account, Post: wangs{p.account, &p.away}, Notify: p.notices, CachedItems: 20, Now: p.now, Ahead: p.ahead,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.service = s
	p.c = momentsv1.NewCommentServiceClient(rpctest.Local(p.t, func(r rpc.Registrar) { momentsv1.RegisterCommentServiceServer(r, s) }))
}

// reopen crashes a region and starts it again. Its lines begin anew where they were.
func (p *place) reopen() {
	p.t.Helper()
	p.store.Crash()
	var err error
	if p.store, err = p.store.Reopen(); err != nil {
		p.t.Fatal(err)
	}
	p.open()
}

func (p *place) end() queuetest.End {
	return queuetest.End{Region: p.number, Store: p.store, Box: p.service.Outbox(), Side: p.service.Side()}
}

// join makes the lines, or gives those that there are the services of now.
func (o *ocean) join() {
	for from := range id.Region(3) {
		for to := range id.Region(3) {
			if from == to {
				continue
			}
			key := [2]id.Region{from + 1, to + 1}
			l := o.lines[key]
			if l == nil {
				l = new(queuetest.Line)
				o.lines[key] = l
			}
			l.From, l.To = o.at[key[0]].end(), o.at[key[1]].end()
		}
	}
}

func (o *ocean) line(from, to id.Region) *queuetest.Line { return o.lines[[2]id.Region{from, to}] }

// carry carries everything everywhere.
func (o *ocean) carry(t queuetest.T) {
	t.Helper()
	for _, l := range o.lines {
		l.Carry(t)
	}
	for _, p := range o.at {
		if err := p.service.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// logs compares what the regions hold: their logs, and that nothing waits.
func (o *ocean) equal(t queuetest.T, when string) {
	t.Helper()
	first := queuetest.Rows(t, o.at[1].store, "l", here)
	for n, p := range o.at {
		if rows := queuetest.Rows(t, p.store, "l", here); !maps.Equal(rows, first) {
			t.Errorf("%s: region %d has %d operations, region 1 has %d, and not the same", when, n, len(rows), len(first))
		}
		if held := queuetest.Rows(t, p.store, "w", here); len(held) != 0 {
			t.Errorf("%s: in region %d still wait %d operations", when, n, len(held))
		}
	}
}

func (p *place) run(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.service.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestBytesOfOneComment: what goes over the line for a comment does not grow with what was
// said under its post before, in any region.
func TestBytesOfOneComment(t *testing.T) {
	o := newOcean(t)
	one := func() int {
		o.at[1].add(wang, "", "always the same")
		if n := o.line(1, 3).Carry(t); n != 1 {
			t.Fatalf("%d records of one comment", n)
		}
		all := o.line(1, 3).Bodies()
		return len(all[len(all)-1])
	}
	talk := func(times int) {
		for range times {
			o.at[1].add(wang, "", "so it is")
			o.at[2].add(mia, "", "is it?")
			o.carry(t)
		}
	}
	talk(1)
	few := one()
	talk(100)
	const digits = 8 // numbers of three instead of one
	if many := one(); many > few+digits {
		t.Errorf("a comment after 200 others takes %d bytes, and took %d after two", many, few)
	}
}

// TestCommentBeforeItsCause: the talk's example. Wang asks, Mia of another region answers,
// and Kate's region gets the answer first: it shows none of the two before it has both,
// whatever happens to it meanwhile.
func TestCommentBeforeItsCause(t *testing.T) {
	o := newOcean(t)
	question := o.at[1].add(wang, "", "where was that?")
	o.line(1, 2).Carry(t)
	o.at[2].sees(mia, "where was that?")
	o.at[2].add(mia, question, "at home")
	o.at[2].like(mia, "")
	if n := o.line(2, 3).Carry(t); n != 2 {
		t.Fatalf("%d operations came, want 2", n)
	}
	o.at[3].sees(kate)
	o.at[3].likes(kate)
	if n := o.at[3].service.Held(); n != 2 {
		t.Errorf("%d operations wait, want 2", n)
	}
	o.at[3].reopen()
	o.join()
	o.at[3].sees(kate)
	o.line(2, 3).Replay(t)
	o.line(1, 3).Carry(t)
	o.at[3].sees(kate, "where was that?", "at home")
	o.at[3].likes(kate, mia)
	o.carry(t)
	o.equal(t, "in the end")
	for _, l := range o.lines {
		if len(l.Refused) > 0 {
			t.Errorf("refused: %v", l.Refused)
		}
	}
}

// TestCommentBeforeItsPost: a comment whose post has not come yet is neither shown nor
// lost.
func TestCommentBeforeItsPost(t *testing.T) {
	o := newOcean(t)
	o.at[3].away.Store(true)
	o.at[1].add(wang, "", "early")
	o.carry(t)
	o.at[3].sees(kate)
	_, err := o.at[3].c.ListPage(t.Context(), &momentsv1.ListPageRequest{ViewerId: kate.String(), PostId: thePost.String()})
	if rpc.CodeOf(err) != rpc.NotFound {
		t.Errorf("comments of a post that is not here: %v", err)
	}
	o.at[3].away.Store(false)
	o.at[3].sees(kate, "early")
}

// TestCommentsConverge does all kinds of things in three regions, carries them in any
// order and again, and wants the regions to be equal, and nobody ever to see an answer
// without what it answers.
func TestCommentsConverge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := newOcean(t)
		everybody := []id.User{wang, mia, kate}
		anyRegion := rapid.SampledFrom([]id.Region{1, 2, 3})
		for i := range rapid.IntRange(5, 40).Draw(rt, "steps") {
			p := o.at[anyRegion.Draw(rt, "region")]
			who := rapid.SampledFrom(everybody).Draw(rt, "who")
			th := p.thread(who)
			ids := map[string]bool{}
			for _, c := range th.GetComments() {
				ids[c.GetId()] = true
			}
			for _, c := range th.GetComments() {
				if c.GetParentId() == "" && strings.HasPrefix(c.GetText(), "re ") && !c.GetDeleted() {
					rt.Fatalf("region %d shows %q without what it answers", p.number, c.GetText())
				}
				if c.GetParentId() != "" && !ids[c.GetParentId()] {
					rt.Fatalf("region %d shows an answer to %v, which it does not show", p.number, c.GetParentId())
				}
			}
			var some *momentsv1.Comment
			if n := len(th.GetComments()); n > 0 {
				some = th.GetComments()[rapid.IntRange(0, n-1).Draw(rt, "comment")]
			}
			switch rapid.IntRange(0, 7).Draw(rt, "step") {
			case 0, 1:
				p.add(who, "", fmt.Sprint("c", i))
			case 2:
				if some != nil && !some.GetDeleted() {
					p.add(who, some.GetId(), fmt.Sprint("re ", i))
				}
			case 3:
				if some != nil && !some.GetDeleted() && some.GetWriterId() == who.String() {
					if err := p.remove(who, some.GetId()); err != nil {
						rt.Fatal(err)
					}
				}
			case 4:
				p.like(who, "")
			case 5:
				p.unlike(who, "")
			default:
				to := anyRegion.Draw(rt, "to")
				if l := o.line(p.number, to); l != nil {
					l.Twice = rapid.Bool().Draw(rt, "twice")
					l.Carry(rt)
				}
			}
		}
		o.carry(rt)
		o.carry(rt)
		o.equal(rt, "after all was carried")
		for _, l := range o.lines {
			l.Replay(rt)
		}
		o.equal(rt, "after all came again")
		for _, l := range o.lines {
			l.Snapshot(rt, here)
			if len(l.Refused) > 0 {
				rt.Errorf("refused: %v", l.Refused)
			}
		}
		o.equal(rt, "after snapshots")
		for _, who := range everybody {
			first := o.at[1].thread(who)
			for n, p := range o.at {
				if th := p.thread(who); !proto.Equal(th, first) {
					rt.Errorf("%v sees %v in region %d, and %v in region 1", who, th, n, first)
				}
			}
		}
	})
}

// TestNewRegionGetsAll: a region that comes later gets what the others have made, in
// whatever order, and answers sessions that began elsewhere.
func TestNewRegionGetsAll(t *testing.T) {
	o := newOcean(t)
	last := ""
	for i := range 200 { // more than fits a batch or a page
		last = o.at[id.Region(i%2)+1].add([]id.User{wang, mia}[i%2], "", fmt.Sprint("c", i))
		o.line(1, 2).Carry(t)
		o.line(2, 1).Carry(t)
	}
	if err := o.at[2].remove(mia, last); err != nil {
		t.Fatal(err)
	}
	o.line(2, 3).Snapshot(t)
	o.at[3].sees(kate)
	o.line(1, 3).Snapshot(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- o.at[3].service.Run(ctx) }() // it lets go what no batch had room for
	for end := time.Now().Add(20 * time.Second); len(queuetest.Rows(t, o.at[3].store, "w")) > 0; {
		if time.Now().After(end) {
			t.Fatal("operations still wait")
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	o.line(2, 1).Carry(t)
	o.equal(t, "after two snapshots")
	if th := o.at[3].thread(kate); th.GetCommentCount() != 199 {
		t.Errorf("%d comments, want 199", th.GetCommentCount())
	}
	if n := len(o.at[3].notices.all); n != 0 {
		t.Errorf("%d people were told of what is old", n)
	}
}

// change gives a record that was carried, changed.
func change(t *testing.T, body []byte, do func(*momentsv1.CommentSync)) []byte {
	t.Helper()
	m := new(momentsv1.CommentSync)
	if err := proto.Unmarshal(body, m); err != nil {
		t.Fatal(err)
	}
	do(m)
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestForeignOperationsAreRefused: what another region cannot have made does not get in,
// and the line goes on.
func TestForeignOperationsAreRefused(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*momentsv1.CommentSync)
		says   string
	}{
		{"of an unknown region", func(m *momentsv1.CommentSync) { m.Record.Id[7] = 9 }, "nobody has told of a region 9"},
		{"of no region", func(m *momentsv1.CommentSync) { m.Record.Id[7] = 0 }, "region 0"},
		{"as of a third region", func(m *momentsv1.CommentSync) { m.Record.Id[7] = 3 }, "hash"},
		{"as of the region it comes to", func(m *momentsv1.CommentSync) { m.Record.Id[7] = 2 }, "hash"},
		{"a question in another slot", func(m *momentsv1.CommentSync) { m.Want = &momentsv1.CommentWant{PostId: make([]byte, 16)} }, "does not belong into slot"},
		{"half a question", func(m *momentsv1.CommentSync) { m.Want = &momentsv1.CommentWant{PostId: []byte{1}} }, "post 01"},
		{"a damaged registry", func(m *momentsv1.CommentSync) { m.Regions = []byte{1, 2} }, "registry"},
		{"another slot", func(m *momentsv1.CommentSync) { m.Record.PostId[15]++ }, "does not belong into slot"},
		{"other words", func(m *momentsv1.CommentSync) { m.Record.Body = "I never said that" }, "hash"},
		{"no kind", func(m *momentsv1.CommentSync) { m.Record.Kind = 0 }, "bad id, kind"},
		{"half an author", func(m *momentsv1.CommentSync) { m.AuthorId = []byte{1} }, "author by 1 bytes"},
		{"nothing", func(m *momentsv1.CommentSync) { m.Record = nil }, "bad id"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOcean(t)
			l := o.line(1, 2)
			o.at[1].add(wang, "", "first")
			o.at[1].add(wang, "", "second")
			l.Drop(t)
			l.Deliver(t, kv.SlotOf(thePost[:]), change(t, l.Bodies()[0], test.change))
			if len(l.Refused) != 1 || !strings.Contains(l.Refused[0].Error(), test.says) {
				t.Errorf("refused %v, want one that says %q", l.Refused, test.says)
			}
			o.at[2].sees(mia)
			l.Replay(t)
			o.at[2].sees(mia, "first", "second")
		})
	}
}

// TestSameIdOtherBody: a region whose disk was set back gives a place again. Both
// operations are kept, all show the same whichever came first, and somebody is told.
func TestSameIdOtherBody(t *testing.T) {
	o := newOcean(t)
	o.at[1].add(wang, "", "as it was")
	o.line(1, 2).Carry(t)
	twin := newOcean(t) // the same region, which has forgotten everything, a moment later
	twin.at[1].now = func() time.Time { return time.Now().Add(time.Second) }
	twin.at[1].reopen()
	twin.join()
	twin.at[1].add(wang, "", "as it was not")
	twin.line(1, 2).Drop(t)
	other := twin.line(1, 2).Bodies()[0]
	o.line(1, 2).Deliver(t, here, other)
	o.line(1, 3).Deliver(t, here, other)
	o.line(1, 3).Carry(t)
	for range 2 {
		for _, p := range []*place{o.at[2], o.at[3]} {
			p.sees(mia, "as it was", "as it was not")
			if n := p.service.Causality().Forks; n != 1 {
				t.Errorf("region %d has seen %d forks, want 1", p.number, n)
			}
		}
		o.line(1, 2).Replay(t)
		o.line(1, 3).Replay(t)
		o.line(1, 2).Deliver(t, here, other)
	}
	o.at[2].reopen()
	o.at[2].sees(mia, "as it was", "as it was not")

	// Who comes later has both with the snapshot of the region whose place it is.
	o.line(2, 1).Deliver(t, here, other)
	late := newOcean(t).at[3]
	snapshot := &queuetest.Line{From: o.at[1].end(), To: late.end()}
	for range 2 {
		snapshot.Snapshot(t, here)
		late.sees(mia, "as it was", "as it was not")
	}
	if n := late.service.Causality().Forks; n != 1 || len(snapshot.Refused) != 0 {
		t.Errorf("by a snapshot: %d forks, want 1; refused %v", n, snapshot.Refused)
	}
}

// TestClockAYearAhead: what a bad clock has made stays outside, what its region makes
// afterwards waits, and everybody else goes on.
func TestClockAYearAhead(t *testing.T) {
	o := newOcean(t)
	o.at[1].now = func() time.Time { return time.Now().AddDate(1, 0, 0) }
	o.at[1].reopen()
	o.join()
	o.at[1].add(wang, "", "from next year")
	l := o.line(1, 2)
	l.Carry(t)
	if len(l.Refused) != 1 || !strings.Contains(l.Refused[0].Error(), "ahead") {
		t.Errorf("refused %v, want one that is ahead", l.Refused)
	}
	o.at[2].sees(mia)
	o.at[2].add(mia, "", "today")
	o.at[2].sees(mia, "today")
	o.at[3].add(kate, "", "today, too")
	o.line(3, 2).Carry(t)
	o.at[2].sees(mia, "today", "today, too")
}

// TestAheadIsConfigured: how far is for operators to say.
func TestAheadIsConfigured(t *testing.T) {
	o := newOcean(t)
	o.at[1].now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	o.at[1].reopen()
	o.at[2].ahead = time.Hour
	o.at[2].reopen()
	o.join()
	o.at[1].add(wang, "", "in two hours")
	o.carry(t)
	if l := o.line(1, 2); len(l.Refused) != 1 || !strings.Contains(l.Refused[0].Error(), "1h0m0s are allowed") {
		t.Errorf("refused %v, want one that is two hours ahead", l.Refused)
	}
	o.at[2].sees(mia)
	o.at[3].sees(mia, "in two hours")
}

// TestAfterAYearAhead: once an operator has let pass what a bad clock has made, people go
// on under the post, in all regions, though all that follows stands in next year, too.
func TestAfterAYearAhead(t *testing.T) {
	o := newOcean(t)
	clock := func(change func() time.Time) {
		o.at[1].now = change
		o.at[1].reopen()
		o.join()
	}
	clock(func() time.Time { return time.Now().AddDate(1, 0, 0) })
	o.at[1].add(wang, "", "one")
	clock(nil)
	o.at[1].add(wang, "", "two")
	refused := func() (all []error) {
		for _, l := range o.lines {
			all = append(all, l.Refused...)
		}
		return all
	}
	o.carry(t)
	if n := len(refused()); n != 4 {
		t.Errorf("refused %v, want both in both of the other regions", refused())
	}
	release := func(from, to id.Region) {
		l := o.line(from, to)
		l.Released = true
		l.Replay(t)
		l.Released, l.Refused = false, nil
	}
	release(1, 2)
	o.at[2].sees(mia, "one", "two")
	o.at[2].add(mia, "", "three")
	o.carry(t)
	if n := len(o.line(2, 3).Refused); n != 1 {
		t.Errorf("refused %v, want one where nobody has looked yet", o.line(2, 3).Refused)
	}
	release(1, 3)
	release(2, 3)
	for _, p := range o.at {
		p.sees(mia, "one", "two", "three")
	}

	// Nobody has to look any more.
	four := o.at[3].add(kate, "", "four")
	o.line(3, 2).Carry(t)
	o.at[2].add(mia, four, "five")
	o.line(2, 1).Carry(t)
	o.at[1].sees(mia, "one", "two", "three") // five waits for four
	o.at[1].add(wang, "", "six")
	for range 2 {
		o.carry(t)
	}
	if all := refused(); len(all) != 0 {
		t.Errorf("refused: %v", all)
	}
	o.equal(t, "in the end")
}

// TestReleasedBeforeItsCause: what an operator has let pass and waits for its cause is not
// looked at again when that has come.
func TestReleasedBeforeItsCause(t *testing.T) {
	o := newOcean(t)
	o.at[1].now = func() time.Time { return time.Now().AddDate(1, 0, 0) }
	o.at[1].reopen()
	o.join()
	one := o.at[3].add(kate, "", "one")
	o.line(3, 1).Carry(t)
	o.at[1].add(wang, one, "two")
	l := o.line(1, 2)
	l.Released = true
	l.Carry(t)
	o.at[2].sees(mia)
	o.line(3, 2).Carry(t)
	o.at[2].sees(mia, "one", "two")
}

// TestToldAtHome: each is told by his own region, when it hears of the operation.
func TestToldAtHome(t *testing.T) {
	o := newOcean(t)
	for _, p := range o.at {
		p.run(t)
	}
	told := func(p *place) []string {
		p.notices.mu.Lock()
		defer p.notices.mu.Unlock()
		var who []string
		for _, line := range p.notices.all {
			who = append(who, line[strings.LastIndexByte(line, ' ')+1:])
		}
		slices.Sort(who)
		return slices.Compact(who)
	}
	first := o.at[2].add(mia, "", "first")
	o.line(2, 1).Carry(t)
	o.line(2, 3).Carry(t)
	o.at[3].add(kate, first, "an answer")
	o.carry(t)
	for n, want := range map[id.Region][]string{1: {wang.String()}, 2: {mia.String()}, 3: nil} {
		for end := time.Now().Add(time.Minute); !slices.Equal(told(o.at[n]), want); {
			if time.Now().After(end) {
				t.Errorf("in region %d %v are told, want %v", n, told(o.at[n]), want)
				break
			}
		}
	}
}

// TestSessionMoves: whoever has seen something in one region does not see less in
// another: it waits for the rest, or says that it is behind.
func TestSessionMoves(t *testing.T) {
	o := newOcean(t)
	o.line(1, 2).Snapshot(t) // the key of region 1's tokens
	page := func(p *place, session string, in time.Duration) (*momentsv1.ListPageResponse, error) {
		ctx, cancel := context.WithTimeout(t.Context(), in)
		defer cancel()
		return p.c.ListPage(ctx, &momentsv1.ListPageRequest{ViewerId: mia.String(), PostId: thePost.String(), Session: session})
	}
	behind := func(err error) bool {
		var p momentsv1.Problem
		return rpc.CodeOf(err) == rpc.Unavailable && rpc.Detail(err, &p) && p.GetType() == "behind"
	}
	o.at[1].add(wang, "", "seen in 1")
	at1, err := page(o.at[1], "", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	session := at1.GetSession()
	if _, err := page(o.at[2], session, time.Minute); !behind(err) {
		t.Errorf("region 2 answers %v, want that it is behind", err)
	}
	req := o.at[2].request(mia, "", "written in 2")
	req.Session = session
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := o.at[2].c.Add(ctx, req); !behind(err) {
		t.Errorf("region 2 writes: %v, want that it is behind", err)
	}
	if _, err := page(o.at[3], session, time.Minute); err == nil {
		t.Error("region 3 reads a token of a region that it knows nothing of")
	}
	read := make(chan error, 1)
	go func() {
		res, err := page(o.at[2], session, time.Minute)
		if err == nil && res.GetCommentCount() != 1 {
			err = fmt.Errorf("%d comments, want 1", res.GetCommentCount())
		}
		read <- err
	}()
	o.line(1, 2).Carry(t)
	if err := <-read; err != nil {
		t.Errorf("while it came: %v", err)
	}
	res, err := o.at[2].c.Add(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := page(o.at[2], res.GetSession(), time.Minute); err != nil {
		t.Error(err)
	}
	o.at[2].sees(mia, "seen in 1", "written in 2")
}

// TestPostSeenElsewhere: a session that has seen a post in one region is not told in
// another, where it has not come yet, that there is none.
func TestPostSeenElsewhere(t *testing.T) {
	o := newOcean(t)
	o.line(1, 2).Snapshot(t) // the key of region 1's tokens
	o.at[1].add(wang, "", "seen in 1")
	at1, err := o.at[1].c.ListPage(t.Context(), &momentsv1.ListPageRequest{ViewerId: mia.String(), PostId: thePost.String()})
	if err != nil {
		t.Fatal(err)
	}
	o.line(1, 2).Carry(t) // the comments are quicker than the post
	o.at[2].away.Store(true)
	ask := func(session string, in time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), in)
		defer cancel()
		_, err := o.at[2].c.ListPage(ctx, &momentsv1.ListPageRequest{ViewerId: mia.String(), PostId: thePost.String(), Session: session})
		return err
	}
	short := 2 * time.Second
	if err := ask("", short); rpc.CodeOf(err) != rpc.NotFound {
		t.Errorf("without a session: %v, want that there is no such post", err)
	}
	if err := ask(at1.GetSession(), short); rpc.CodeOf(err) != rpc.Unavailable {
		t.Errorf("a page: %v, want that the region is behind", err)
	}
	_, err = o.at[2].c.ListMany(t.Context(), &momentsv1.ListCommentsRequest{ViewerId: mia.String(), PostIds: []string{thePost.String()}, Session: at1.GetSession()})
	if rpc.CodeOf(err) != rpc.Unavailable {
		t.Errorf("many: %v, want that the region is behind", err)
	}
	req := o.at[2].request(mia, "", "written in 2")
	req.Session = at1.GetSession()
	ctx, cancel := context.WithTimeout(t.Context(), short)
	defer cancel()
	if _, err := o.at[2].c.Add(ctx, req); rpc.CodeOf(err) != rpc.Unavailable {
		t.Errorf("a comment: %v, want that the region is behind", err)
	}
	read := make(chan error, 1)
	go func() { read <- ask(at1.GetSession(), time.Minute) }()
	o.at[2].away.Store(false)
	if err := <-read; err != nil {
		t.Errorf("while it came: %v", err)
	}
}

// TestDeletedTextIsGoneEverywhere: a text is in no region's store once its deletion has
// come.
func TestDeletedTextIsGoneEverywhere(t *testing.T) {
	o := newOcean(t)
	c := o.at[1].add(wang, "", "a secret")
	o.carry(t)
	if err := o.at[2].remove(wang, c); err != nil { // he is on a journey
		t.Fatal(err)
	}
	o.carry(t)
	for n, p := range o.at {
		for _, value := range queuetest.Rows(t, p.store, "lswg") {
			if strings.Contains(value, "secret") {
				t.Errorf("region %d still has the text", n)
			}
		}
	}
	for _, l := range o.lines {
		l.Replay(t) // of all records, as they were sent then
	}
	for n, p := range o.at {
		for _, value := range queuetest.Rows(t, p.store, "lswg") {
			if strings.Contains(value, "secret") {
				t.Errorf("region %d has the text again", n)
			}
		}
	}
	o.equal(t, "in the end")
}
