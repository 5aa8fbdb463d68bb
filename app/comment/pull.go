// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
	"github.com/sluice-rpc/sluice/tracing"
)

// What lacks is asked for: a region says of a post how far it is, and the others put what
// it has not into their queues, whoever made it. So a post goes on whose causes are on a
// line that is cut, as long as they come by another way; and what was lost on the way, or
// dropped from a quarantine, is not lost for ever. Nothing is asked for before it is
// late: mostly it is on its way.

const (
	// pullEvery is how often it is looked for what is late, and pullAfter when it is.
	pullEvery = time.Second
	pullAfter = 3 * time.Second
	// maxPulls bounds the posts that are waited for; maxAsked those asked for at a time.
	maxPulls, maxAsked = 10_000, 64
	// maxPause bounds the time between two questions about one post, which doubles.
	maxPause = time.Minute
	// maxBlind is how often it is asked for what nobody can see lacking here: the next of
	// a log that ends.
	maxBlind = 4
	// answered is how many operations one answer has: a batch takes no more.
	answered = 64
)

// pulls is the posts of which something lacks.
type pulls struct {
	mu    sync.Mutex
	posts map[id.Post]*pull // guarded by mu
}

type pull struct {
	at    time.Time // when to ask
	pause time.Duration
	mark  int // of the last round that has found it lacking
	asked int // how often
}

// late notes that something of a post lacks.
func (p *pulls) late(post id.Post, now time.Time, round int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if have := p.posts[post]; have != nil {
		have.mark = max(have.mark, round)
		return
	}
	if len(p.posts) < maxPulls { // others are found again when there is room
		if p.posts == nil {
			p.posts = make(map[id.Post]*pull)
		}
		p.posts[post] = &pull{at: now.Add(pullAfter), pause: pullAfter, mark: round}
	}
}

// due gives what is to be asked for now, and forgets what no round finds lacking any more
// after some questions.
func (p *pulls) due(now time.Time, round int) (posts []id.Post) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for post, one := range p.posts {
		switch {
		case one.mark < round && one.asked >= maxBlind:
			delete(p.posts, post)
		case !now.Before(one.at) && len(posts) < maxAsked:
			posts = append(posts, post)
			one.asked++
			one.pause = min(2*one.pause, maxPause)
			one.at = now.Add(one.pause)
		}
	}
	return posts
}

// keepPulling asks for what is late until ctx ends.
func (s *Service) keepPulling(ctx context.Context) {
	tick := time.NewTicker(pullEvery)
	defer tick.Stop()
	for round := 1; ; round++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.pull(ctx, round); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "what lacks of other regions cannot be asked for", "error", err)
		}
	}
}

// pull looks for what is late, and asks for it.
func (s *Service) pull(ctx context.Context, round int) error {
	if s.held.Load() > 0 {
		_, err := s.eachHeld(ctx, func(p id.Post) error {
			s.pulls.late(p, s.now(), round)
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, p := range s.pulls.due(s.now(), round) {
		if err := s.Ask(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// Ask asks the other regions for what they have of a post and this one has not. Run does
// it for what is late.
func (s *Service) Ask(ctx context.Context, p id.Post) error {
	slot := kv.SlotOf(p[:])
	it, err := s.store.Get(ctx, slot, headKey(p), kv.Linearizable)
	if err != nil {
		return err
	}
	var head causal.Head
	if it.Ver != 0 {
		if head, err = causal.ParseHead(it.Value); err != nil {
			return fmt.Errorf("comment: head of %v: %w", p, err)
		}
	}
	body, err := proto.Marshal(&momentsv1.CommentSync{Want: &momentsv1.CommentWant{PostId: p[:], Seen: entriesOf(head.Seen)}})
	if err != nil {
		return err
	}
	return s.putPeers(ctx, slot, func(put func([]byte)) { put(append([]byte{entryWant}, body...)) })
}

// answer puts what another region lacks into the queues: of all regions together, least
// ids first, so that it can be taken in at once.
func (s *Service) answer(ctx context.Context, in *idcqueue.In, want *momentsv1.CommentWant) error {
	var p id.Post
	if !fill(p[:], want.GetPostId()) || kv.SlotOf(p[:]) != in.Slot {
		return idcqueue.Refuse("a question about post %x does not belong into slot %d", want.GetPostId(), in.Slot)
	}
	seen, err := vectorOf(want.GetSeen())
	if err != nil {
		return idcqueue.Refuse("%v", err)
	}
	it, err := s.store.Get(ctx, in.Slot, headKey(p), kv.Linearizable)
	if err != nil || it.Ver == 0 {
		return err
	}
	head, err := causal.ParseHead(it.Value)
	if err != nil {
		return fmt.Errorf("comment: head of %v: %w", p, err)
	}
	var stretches [][]causal.Record
	for _, gap := range seen.Gaps(head.Seen) {
		r := kv.Range{From: logKey(p, gap.Region, gap.From), To: kv.Next(logKey(p, gap.Region, gap.To)), Limit: answered}
		items, _, err := s.store.Scan(ctx, in.Slot, r, kv.Linearizable)
		if err != nil {
			return err
		}
		var stretch []causal.Record
		for _, it := range items {
			rec, err := parseRecord(it.Value)
			if err != nil {
				return err
			}
			stretch = append(stretch, rec)
		}
		stretches = append(stretches, stretch)
	}
	for _, rec := range causal.Answer(answered, stretches...) {
		e := entry{kind: rec.Kind, post: p, region: rec.ID.Region(), seq: rec.Seq}
		in.Out.PutPeers(in.Batch, e.encode(), tracing.Origin{})
	}
	return nil
}
