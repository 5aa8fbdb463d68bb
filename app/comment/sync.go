// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/outbox"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
	"github.com/sluice-rpc/sluice/tracing"
)

// Comments and likes go both ways: every region sends the operations that were made in
// it, and takes those of the others into the same logs. An operation that comes before
// its causes is held, in a row of its own, until they are here: what it waits for is
// the next of some region, so of each region only the first that is held is looked at.
// That a post itself is not here yet changes nothing: its log grows, and nobody sees it.

const (
	// maxHeld is how far operations of one region on one post may be ahead of what is
	// missing. Those beyond are not taken from the line before there is room, so nothing
	// is ever skipped.
	maxHeld = 10_000
	// arriveOps is how many operations of a batch one arrived operation needs at most: its
	// record, a deleted comment's, its row among those held, and one for the outbox. All
	// of them together need headOps more: the head and a snapshot to be dropped.
	arriveOps, headOps = 4, 4
	// maxAhead lets any time pass.
	maxAhead = time.Duration(1<<63 - 1)
	// batchOps is how many operations a batch may have here; the queue needs the rest.
	batchOps = 90
)

func heldPrefix(p id.Post) []byte { return append([]byte{tableHeld}, p[:]...) }

func heldKey(p id.Post, region id.Region, seq uint64) []byte {
	k := binary.BigEndian.AppendUint16(heldPrefix(p), uint16(region))
	return binary.BigEndian.AppendUint64(k, seq)
}

// home reports whether a person is at home in this region.
func (s *Service) home(u id.User) bool {
	return !s.joined || s.homes.Of(u).Keeps(s.region)
}

// Side gives what the queue between regions needs of this service.
func (s *Service) Side() idcqueue.Side {
	return idcqueue.Side{Expand: s.expand, Apply: s.arrive, Rows: s.rows, Merge: s.mergePart}
}

// Held gives how many operations of other regions wait here for their causes.
func (s *Service) Held() int { return int(s.held.Load()) }

// Outbox gives the service's outbox, for the queue between regions.
func (s *Service) Outbox() *outbox.Box { return s.outbox }

// expand gives the operations that records are about, with what only their writing knew.
// The text of a comment that has been deleted since is gone, there as here.
func (s *Service) expand(ctx context.Context, slot kv.Slot, records []outbox.Record) ([][]byte, error) {
	bodies := make([][]byte, len(records))
	for i := range records {
		switch b := records[i].Body; {
		case len(b) == 1 && b[0] == entryRegions:
			var err error
			if bodies[i], err = proto.Marshal(&momentsv1.CommentSync{Regions: s.Registry().Encode()}); err != nil {
				return nil, err
			}
			continue
		case len(b) > 0 && b[0] == entryWant:
			bodies[i] = b[1:]
			continue
		}
		e, err := s.parseEntry(records[i].Body)
		if err != nil {
			return nil, err
		}
		it, err := s.store.Get(ctx, slot, logKey(e.post, e.region, e.seq), kv.Linearizable)
		if err != nil {
			return nil, fmt.Errorf("comment: read an operation on %v for other regions: %w", e.post, err)
		}
		if it.Ver == 0 {
			return nil, fmt.Errorf("comment: the log of %v lacks %d of region %d, which the outbox names", e.post, e.seq, e.region)
		}
		m := &momentsv1.CommentSync{Record: new(momentsv1.CommentRecord), Again: e.again}
		if !e.author.IsZero() {
			m.AuthorId = e.author[:]
		}
		if err := proto.Unmarshal(it.Value, m.GetRecord()); err != nil {
			return nil, fmt.Errorf("comment: record of the log: %w", err)
		}
		if bodies[i], err = proto.Marshal(m); err != nil {
			return nil, err
		}
	}
	return bodies, nil
}

// came is an operation of another region, or what it says or asks instead.
type came struct {
	causal.Record
	regions []byte
	want    *momentsv1.CommentWant

	author id.User // of the post; zero if nobody knows
	again  bool
	origin tracing.Origin
}

// parseSync reads what expand gives.
func parseSync(b []byte) (came, error) {
	m := new(momentsv1.CommentSync)
	if err := proto.Unmarshal(b, m); err != nil {
		return came{}, fmt.Errorf("comment: operation of another region: %w", err)
	}
	c := came{again: m.GetAgain(), regions: m.GetRegions(), want: m.GetWant()}
	if c.isWord() {
		return c, nil
	}
	if a := m.GetAuthorId(); len(a) > 0 && !fill(c.author[:], a) {
		return came{}, fmt.Errorf("comment: operation of another region names an author by %d bytes", len(a))
	}
	var err error
	c.Record, err = recordOf(m.GetRecord())
	return c, err
}

// isWord reports whether it is no operation.
func (c *came) isWord() bool { return c.want != nil || len(c.regions) > 0 }

// arrive takes operations of another region in.
func (s *Service) arrive(ctx context.Context, in *idcqueue.In) (int, error) {
	all := make([]came, 0, len(in.Records))
	var bad error // of the record after all
	for i := range in.Records {
		c, err := parseSync(in.Records[i].Body)
		if err == nil && c.isWord() {
			if len(all) > 0 {
				break
			}
			if err := s.hear(ctx, in, &c); err != nil {
				return 0, err
			}
			return 1, nil
		}
		if err == nil {
			err = s.belongs(&c.Record, in.From, in.Slot)
		}
		if err != nil {
			bad = idcqueue.Refuse("%v", err)
			break
		}
		if i > 0 && c.Post != all[0].Post {
			break // a batch is about one post
		}
		c.origin = in.Records[i].Origin
		all = append(all, c)
	}
	if len(all) == 0 {
		return 0, bad
	}
	m := merging{s: s, slot: in.Slot, batch: in.Batch, out: in.Out, tell: true, rules: s.members.rules()}
	m.trust(in.Released)
	in.After(m.applied)
	n, err := m.merge(ctx, all)
	if err == nil && n == len(all) {
		err = bad
	}
	return n, err
}

// hear takes what another region says or asks.
func (s *Service) hear(ctx context.Context, in *idcqueue.In, c *came) error {
	if c.want != nil {
		return s.answer(ctx, in, c.want)
	}
	return s.hearRegions(ctx, in, c.regions)
}

// belongs refuses an operation that cannot come by way of a region, or is not of a post of
// slot. A region also tells what others have made that it was asked for, or that were
// given up.
func (s *Service) belongs(r *causal.Record, from id.Region, slot kv.Slot) error {
	if kv.SlotOf(r.Post[:]) != slot {
		return fmt.Errorf("operation %v on %v does not belong into slot %d", r.ID, r.Post, slot)
	}
	return s.knows(r.ID.Region(), from)
}

// merging is one batch of operations on one post that were made in other regions.
type merging struct {
	s     *Service
	slot  kv.Slot
	batch *kv.Batch
	out   *outbox.Turn
	tell  bool // people hear of what arrives
	rules causal.Rules

	post    id.Post
	thread  *thread
	head    causal.Head // after the batch
	ver     uint64      // of the head's row, before the batch
	records []causal.Record
	deletes bool         // a text has to go
	left    bool         // more of what is held is due
	held    int          // how many more are held
	early   []id.Comment // that this batch holds

	orphans uint64 // of records, those of which a cause was lost with its region
	forks   uint64 // of records, those whose place another one has
}

// trust has the time of what comes let pass, if an operator has looked at its clock.
func (m *merging) trust(released bool) {
	if released {
		m.rules.Ahead = maxAhead
	}
}

// merge puts operations of one post into the batch, at least the first, and what is held
// and becomes due by them. It tells how many of them it took.
func (m *merging) merge(ctx context.Context, all []came) (n int, err error) {
	if len(all) > 0 {
		m.post = all[0].Post
	}
	item, err := m.s.store.Get(ctx, m.slot, headKey(m.post), kv.Linearizable)
	if err != nil {
		return 0, err
	}
	err = m.s.threads.with(ctx, m.post, item, func(t *thread) error {
		if t.ver > item.Ver { // another process has written since
			return kv.ErrConflict
		}
		m.thread, m.head, m.ver = t, t.head, t.ver
		for n < len(all) && m.room() {
			taken, err := m.take(ctx, &all[n])
			if err != nil {
				m.left = len(m.records) > 0 // what is due by these is not looked for now
				return err
			}
			if !taken {
				break
			}
			n++
		}
		m.left = len(m.early) > 0 && len(m.records) > 0 // one may be due by another of this batch
		return m.release(ctx)
	})
	if len(m.records) > 0 {
		key := headKey(m.post)
		m.batch.IfVer(key, m.ver).Put(key, m.head.Encode())
		if m.deletes {
			dropSnapshot(m.batch, m.post)
		}
	}
	return n, err
}

// room reports whether one more operation fits the batch.
func (m *merging) room() bool { return m.batch.Len()+arriveOps+headOps <= batchOps }

// take puts one operation where it belongs: into the log, or among those held. It
// reports false if that is for the next batch.
func (m *merging) take(ctx context.Context, c *came) (bool, error) {
	verdict, err := m.rules.Judge(m.head, &c.Record, m.s.now())
	if c.ID.Region() == m.s.number && (verdict == causal.Due || verdict == causal.Early) {
		return false, idcqueue.Refuse("operation %v is number %d of this region, which has made only %d: its disk was set back; "+
			"stop it and bring it back by moments restore, which gives it a new number", c.ID, c.Seq, m.head.Seen.Of(m.s.number))
	}
	switch verdict {
	case causal.Due:
		if m.deletesNew(&c.Record) {
			return false, nil
		}
		return true, m.add(ctx, c)
	case causal.Known:
		return true, m.known(ctx, c)
	case causal.Early:
		return true, m.hold(ctx, c)
	case causal.Refused:
	}
	return false, idcqueue.Refuse("%v", err)
}

// deletesNew reports whether an operation deletes a comment of this batch, or one that it
// deletes already: a row is not written twice by one batch.
func (m *merging) deletesNew(r *causal.Record) bool {
	return r.Kind == causal.Delete && slices.ContainsFunc(m.records, func(have causal.Record) bool {
		return have.ID == r.Parent || have.Kind == causal.Delete && have.Parent == r.Parent
	})
}

// add puts an operation that is due into the log.
func (m *merging) add(ctx context.Context, c *came) error {
	r := &c.Record
	value, err := encodeRecord(r)
	if err != nil {
		return err
	}
	m.batch.Put(logKey(m.post, r.ID.Region(), r.Seq), value)
	if m.tell && (r.Kind == causal.Add || r.Kind == causal.Like && !c.again) {
		e := entry{kind: r.Kind, post: m.post, author: c.author, region: r.ID.Region(), seq: r.Seq}
		m.out.PutLocal(m.batch, e.encode(), c.origin)
	}
	if r.Kind == causal.Delete {
		if err := m.s.blank(ctx, m.batch, m.slot, m.thread, r); err != nil {
			return err
		}
		m.deletes = true
	}
	if !m.head.Seen.Covers(r.Deps) {
		m.orphans++
	}
	if r.Grave.Seq > m.head.Seen.Of(r.Grave.Region) { // shown as deleted before its delete is here
		m.s.pulls.late(m.post, m.s.now(), 0)
	}
	m.head = m.head.After(r)
	m.records = append(m.records, *r)
	return nil
}

// known looks at an operation that is here already: one that is not the same is a fork,
// and is kept beside the log. So all regions that hear of both show the same.
func (m *merging) known(ctx context.Context, c *came) error {
	r := &c.Record
	it, err := m.s.store.Get(ctx, m.slot, logKey(m.post, r.ID.Region(), r.Seq), kv.Linearizable)
	if err != nil {
		return err
	}
	var have causal.Record
	if it.Ver != 0 {
		if have, err = parseRecord(it.Value); err != nil {
			return err
		}
	}
	for _, one := range m.records { // the store has none of these yet
		if one.ID == r.ID && one.Hash == r.Hash {
			return nil
		}
		if it.Ver == 0 && one.Fork(r) {
			have = one
		}
	}
	if !have.Fork(r) {
		return nil
	}
	key := besideKey(r)
	if it, err = m.s.store.Get(ctx, m.slot, key, kv.Linearizable); err != nil || it.Ver != 0 {
		return err
	}
	value, err := encodeRecord(r)
	if err != nil {
		return err
	}
	m.batch.Put(key, value)
	m.head = m.head.Beside(r)
	m.records = append(m.records, *r)
	m.forks++
	m.s.log.ErrorContext(ctx, "two operations have one place: a disk was set back or an id given twice; both are kept",
		"post", m.post, "region", r.ID.Region(), "number", r.Seq, "here", have.ID, "came", r.ID)
	return nil
}

// errHeld means that an operation is too far ahead of what is missing.
func errHeld(r *causal.Record, have uint64) error {
	return fmt.Errorf("comment: operation %d of region %d on %v waits on the line: of that region only %d are here, and %d wait already",
		r.Seq, r.ID.Region(), r.Post, have, maxHeld)
}

// hold keeps an operation that came before its causes.
func (m *merging) hold(ctx context.Context, c *came) error {
	r := &c.Record
	if have := m.head.Seen.Of(r.ID.Region()); r.Seq > have+maxHeld {
		return errHeld(r, have)
	}
	if slices.Contains(m.early, r.ID) {
		return nil
	}
	key := heldKey(m.post, r.ID.Region(), r.Seq)
	it, err := m.s.store.Get(ctx, m.slot, key, kv.Linearizable)
	if err != nil {
		return err
	}
	if it.Ver != 0 {
		have, err := parseSync(it.Value)
		if err != nil {
			return err
		}
		if have.Fork(r) {
			return idcqueue.Refuse("%v is number %d of region %d on %v, and so is %v, which is held: a disk was set back or an id given twice",
				r.ID, r.Seq, r.ID.Region(), m.post, have.ID)
		}
		return nil
	}
	value, err := c.encode()
	if err != nil {
		return err
	}
	m.batch.Put(key, value)
	m.held++
	m.early = append(m.early, r.ID)
	return nil
}

// release adds what is held and has become due, until nothing is.
func (m *merging) release(ctx context.Context) error {
	firsts, err := m.firstHeld(ctx)
	if err != nil || len(firsts) == 0 {
		return err
	}
	rules := m.rules
	rules.Ahead = maxAhead // its time was looked at when it came, or let pass
	for more := true; more; {
		more = false
		for i := range firsts {
			for firsts[i] != nil {
				c := firsts[i]
				verdict, _ := rules.Judge(m.head, &c.Record, m.s.now())
				if verdict != causal.Due && verdict != causal.Known {
					break
				}
				if !m.room() || m.deletesNew(&c.Record) {
					m.left = true
					return nil
				}
				put := m.known
				if verdict == causal.Due {
					put = m.add
				}
				if err := put(ctx, c); err != nil {
					return err
				}
				m.batch.Delete(heldKey(m.post, c.ID.Region(), c.Seq))
				m.held--
				more = true
				if firsts[i], err = m.heldAt(ctx, c.ID.Region(), c.Seq+1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// firstHeld gives the first operation that is held of each region. Those of this batch
// are not among them: merge has them looked for when it is applied.
func (m *merging) firstHeld(ctx context.Context) (firsts []*came, err error) {
	r := kv.Prefix(heldPrefix(m.post), 1)
	for {
		items, _, err := m.s.store.Scan(ctx, m.slot, r, kv.Linearizable)
		if err != nil || len(items) == 0 {
			return firsts, err
		}
		c, err := parseSync(items[0].Value)
		if err != nil {
			return nil, err
		}
		firsts = append(firsts, &c)
		if c.ID.Region() == 1<<16-1 {
			return firsts, nil
		}
		r.From = heldKey(m.post, c.ID.Region()+1, 0)
	}
}

func (m *merging) heldAt(ctx context.Context, region id.Region, seq uint64) (*came, error) {
	it, err := m.s.store.Get(ctx, m.slot, heldKey(m.post, region, seq), kv.Linearizable)
	if err != nil || it.Ver == 0 {
		return nil, err
	}
	c, err := parseSync(it.Value)
	return &c, err
}

// encode gives what parseSync reads.
func (c *came) encode() ([]byte, error) {
	m := &momentsv1.CommentSync{Record: messageOf(&c.Record), Again: c.again}
	if !c.author.IsZero() {
		m.AuthorId = c.author[:]
	}
	return proto.Marshal(m)
}

// applied folds a batch that is durable, and lets those go on who wait for it.
func (m *merging) applied(ver uint64) {
	m.s.held.Add(int64(m.held))
	m.s.orphans.Add(m.orphans)
	m.s.forks.Add(m.forks)
	if len(m.records) > 0 {
		t := m.thread
		t.mu.Lock()
		if t.ver == m.ver { // else a reader was quicker to fold it
			for i := range m.records {
				if t.add(&m.records[i], m.s.number) {
					m.s.log.Error("two operations have one id: a disk was set back; both are in the log", "post", m.post, "id", m.records[i].ID)
				}
			}
			t.head, t.ver = m.head, ver
			if t.collected && t.fold.Torn() {
				t.forget() // somebody answered what had been forgotten: who reads folds anew
			}
		}
		if m.deletes {
			t.snapped = 0
		}
		t.mu.Unlock()
		m.s.arrivals.tell()
	}
	if m.left {
		m.s.releases.add(m.post)
	}
}

// sends reports whether a region that lacks operations gets those of a number from here:
// the own ones, and of regions that have ended those that this one has.
func (s *Service) sends(n id.Region) bool {
	if n == s.number {
		return true
	}
	m, known := s.Registry().Get(n)
	return known && m.State != causal.Active
}

// rows gives what another region gets of a slot, page by page: operations, then those that
// claim a place of another one; before them the registry where there are some, and the key
// of session tokens in its slot.
func (s *Service) rows(ctx context.Context, _ id.Region, slot kv.Slot, from []byte) (rows []idcqueue.Row, next []byte, err error) {
	const most, enough = 64, 128 << 10
	if from == nil && slot == kv.SlotOf(sessionKey) {
		key, err := s.store.Get(ctx, slot, sessionKey, kv.Linearizable)
		if err != nil {
			return nil, nil, fmt.Errorf("comment: read the key of session tokens for another region: %w", err)
		}
		rows = append(rows, idcqueue.Row{Key: sessionKey, Value: key.Value})
	}
	table := byte(tableLog)
	r := kv.Prefix([]byte{tableLog}, kv.MaxScan)
	switch {
	case from != nil && from[0] == besideOut:
		table, r = besideOut, kv.Prefix([]byte{tableBeside}, kv.MaxScan)
		r.From = append([]byte{tableBeside}, from[1:]...)
	case from != nil:
		r.From = from
	}
	items, more, err := s.store.Scan(ctx, slot, r, kv.Linearizable)
	if err != nil {
		return nil, nil, fmt.Errorf("comment: read slot %d for another region: %w", slot, err)
	}
	if from == nil && len(items) > 0 {
		rows = slices.Insert(rows, 0, idcqueue.Row{Key: regionsKey, Value: s.Registry().Encode()}) // keys ascend
	}
	size := 0
	for _, it := range items {
		key := append([]byte{table}, it.Key[1:]...)
		if len(rows) >= most || size >= enough {
			return rows, key, nil
		}
		if len(it.Key) >= logKeyLen && s.sends(id.Region(binary.BigEndian.Uint16(it.Key[17:]))) {
			rows, size = append(rows, idcqueue.Row{Key: key, Value: it.Value}), size+len(it.Value)
		}
	}
	switch {
	case more && len(items) > 0:
		next = append([]byte{table}, kv.Next(items[len(items)-1].Key)[1:]...)
	case table == tableLog && (len(items) > 0 || from != nil): // without a log nothing is beside it
		beside, _, err := s.store.Scan(ctx, slot, kv.Prefix([]byte{tableBeside}, 1), kv.Linearizable)
		if err != nil {
			return nil, nil, fmt.Errorf("comment: read slot %d for another region: %w", slot, err)
		}
		if len(beside) > 0 {
			next = []byte{besideOut}
		}
	}
	return rows, next, nil
}

// besideOut begins the keys of what stands beside the log as other regions get it: after
// the log, so that it is known which of two has the place.
const besideOut = tableLog + 1

// mergePart takes a part of another region's operations in. Nothing is removed: an
// operation that is here and not there is one that the other region has lost. Nobody is
// told of what comes this way: it is old. If one is refused, all others are taken, and
// the part goes into quarantine.
func (s *Service) mergePart(ctx context.Context, part *idcqueue.Part) (more bool, err error) {
	var refused error
	for at := 0; at < len(part.Rows); {
		if slices.Equal(part.Rows[at].Key, regionsKey) {
			reg, err := causal.ParseRegistry(part.Rows[at].Value)
			if err != nil {
				return false, idcqueue.Refuse("%v", err)
			}
			s.members.learn(reg)
			at++
			continue
		}
		if slices.Equal(part.Rows[at].Key, sessionKey) {
			if err := s.learnKey(ctx, part.Batch, part.From, part.Rows[at].Value); err != nil {
				return false, err
			}
			at++
			continue
		}
		run, bad := s.runOf(part, at)
		if len(run) == 0 {
			refused = cmp.Or(refused, bad)
			at++
			continue
		}
		m := merging{s: s, slot: part.Slot, batch: part.Batch, out: part.Out, rules: s.members.rules()}
		m.trust(part.Released)
		before := part.Batch.Len()
		n, err := m.merge(ctx, run)
		switch {
		case errors.Is(err, idcqueue.ErrRefused):
			refused = cmp.Or(refused, err)
			n++
		case err != nil:
			return false, err
		}
		at += n
		if part.Batch.Len() > before {
			part.After(m.applied)
			return at < len(part.Rows) || refused != nil, nil
		}
	}
	if refused != nil { // the others are here by now
		return false, idcqueue.Refuse("%v", refused)
	}
	return false, nil
}

// runOf gives the operations on one post that begin at a row of a part, and what is wrong
// with the row after them.
func (s *Service) runOf(part *idcqueue.Part, at int) (run []came, bad error) {
	for _, row := range part.Rows[at:] {
		rec, err := parseRecord(row.Value)
		if err == nil {
			err = s.belongs(&rec, part.From, part.Slot)
		}
		if err != nil {
			return run, err
		}
		if len(run) > 0 && rec.Post != run[0].Post {
			break
		}
		run = append(run, came{Record: rec})
	}
	return run, nil
}

// releases lets operations go that are held and have become due, where the batch that
// made them due had no room for them. The store knows them, too.
type releases struct {
	due  chan id.Post
	look chan struct{} // holds a token when the store is to be looked through
}

func newReleases() *releases {
	return &releases{due: make(chan id.Post, 1024), look: make(chan struct{}, 1)}
}

func (r *releases) add(p id.Post) {
	select {
	case r.due <- p:
	default:
		r.lookAgain()
	}
}

func (r *releases) lookAgain() {
	select {
	case r.look <- struct{}{}:
	default: // it is going to look anyway
	}
}

// keepReleasing works until ctx ends. It begins with what an earlier process has left.
func (s *Service) keepReleasing(ctx context.Context) {
	s.releases.lookAgain()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case p := <-s.releases.due:
			err = s.releaseHeld(ctx, p)
		case <-s.releases.look:
			err = s.releaseAll(ctx)
		}
		if err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "operations of other regions wait longer than they need", "error", err)
			s.releases.lookAgain()
			t := time.NewTimer(releaseAgain)
			select {
			case <-ctx.Done():
			case <-t.C:
			}
			t.Stop()
		}
	}
}

// releaseAgain is how long to wait after a failure.
const releaseAgain = time.Second

// releaseAll looks for held operations in all slots and lets go what is due.
func (s *Service) releaseAll(ctx context.Context) error {
	held, err := s.eachHeld(ctx, func(id.Post) error { return nil })
	if err != nil {
		return err
	}
	s.held.Store(held)
	if held == 0 {
		return nil
	}
	_, err = s.eachHeld(ctx, func(p id.Post) error { return s.releaseHeld(ctx, p) })
	return err
}

// eachHeld calls do for each post of which operations are held, and gives how many there
// were.
func (s *Service) eachHeld(ctx context.Context, do func(id.Post) error) (held int64, err error) {
	var last id.Post
	err = kv.Sweep(ctx, s.store, kv.Prefix([]byte{tableHeld}, 0), kv.Local, func(slot kv.Slot, it kv.Item) error {
		if len(it.Key) != logKeyLen {
			return fmt.Errorf("comment: row %x of slot %d is damaged", it.Key, slot)
		}
		held++
		if p := id.Post(it.Key[1:]); p != last {
			last = p
			return do(p)
		}
		return nil
	})
	return held, err
}

// releaseHeld lets go what is due of one post.
func (s *Service) releaseHeld(ctx context.Context, p id.Post) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	slot := kv.SlotOf(p[:])
	out, err := s.outbox.Open(ctx, slot)
	if err != nil {
		return err
	}
	defer out.Close()
	m := merging{s: s, post: p, slot: slot, batch: new(kv.Batch), out: out, tell: true, rules: s.members.rules()}
	if _, err := m.merge(ctx, nil); err != nil || m.batch.Len() == 0 {
		return err
	}
	if err := out.Seal(m.batch); err != nil {
		return err
	}
	ver, err := s.store.Apply(ctx, slot, m.batch)
	if err != nil {
		return err
	}
	out.Applied(ver)
	m.applied(ver)
	return nil
}

// arrivals tells whoever waits that something has come from another region.
type arrivals struct {
	mu   sync.Mutex
	came chan struct{} // guarded by mu; closed by the next arrival; nil while nobody waits
}

// next gives what is closed by the next arrival.
func (a *arrivals) next() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.came == nil {
		a.came = make(chan struct{})
	}
	return a.came
}

func (a *arrivals) tell() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.came != nil {
		close(a.came)
		a.came = nil
	}
}

// maxBehind bounds how long a call waits for what its session has seen elsewhere; it
// keeps a fourth of its own time for the rest.
const maxBehind = 2 * time.Second

func patience(ctx context.Context) time.Duration {
	if d, ok := ctx.Deadline(); ok {
		return min(maxBehind, time.Until(d)*3/4)
	}
	return maxBehind
}

// await waits for ready to hold, which is looked at whenever something has come from
// another region, and fails with errBehind if that takes too long. Where there are no
// other regions nothing will come.
func (s *Service) await(ctx context.Context, ready func() (bool, error)) error {
	if !s.joined {
		return errBehind
	}
	timer := time.NewTimer(patience(ctx))
	defer timer.Stop()
	for {
		came := s.arrivals.next() // before looking, so that nothing slips through
		if ok, err := ready(); ok || err != nil {
			return err
		}
		select {
		case <-came:
		case <-timer.C:
			return errBehind
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// awaitPost waits until what is here of a post has all that a session has seen of it.
func (s *Service) awaitPost(ctx context.Context, p id.Post, seen causal.Vector) (snap snapshot, err error) {
	err = s.await(ctx, func() (bool, error) {
		if snap, err = s.threads.read(ctx, p); err != nil {
			return false, problem.Store("read thread", err)
		}
		return snap.seen.Covers(s.members.needed(seen)), nil
	})
	if errors.Is(err, errBehind) {
		s.pulls.late(p, s.now().Add(-pullAfter), 0) // the session is asked to come again: fetch it
	}
	return snap, err
}
