// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"fmt"
	"slices"

	"github.com/sluice-rpc/sluice/app/privacy"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// act is a comment, or else a like of somebody, on a post.
type act struct{ comment, liker string }

// witness is who has seen an act, and on whom it depends who else does.
type witness struct{ viewer, writer, replyTo string }

// actsOf gives what a thread shows, deleted comments left out.
func actsOf(viewer string, th *momentsv1.Thread) map[act]witness {
	acts := make(map[act]witness, len(th.GetComments())+len(th.GetLikeIds()))
	for _, c := range th.GetComments() {
		if !c.GetDeleted() {
			acts[act{comment: c.GetId()}] = witness{viewer, c.GetWriterId(), c.GetReplyToId()}
		}
	}
	for _, u := range th.GetLikeIds() {
		acts[act{liker: u}] = witness{viewer: viewer, writer: u}
	}
	return acts
}

// collect notes what a person sees under the posts of the timeline: all people's together are the comments and likes that
// there are.
func (a *auditing) collect(ctx context.Context, person string) error {
	entries, err := a.stored.Timeline(ctx, person)
	if err != nil {
		return fmt.Errorf("timeline: %w", err)
	}
	threads, err := a.stored.Threads(ctx, person, entries)
	if err != nil {
		return fmt.Errorf("comments: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for post, th := range threads {
		if a.acts[post] == nil {
			a.acts[post] = map[act]witness{}
		}
		for act, w := range actsOf(person, th) {
			if _, known := a.acts[post][act]; !known {
				a.acts[post][act] = w
			}
		}
	}
	return nil
}

// allowed reports whether a person who sees the post sees an act on it.
func (st *standing) allowed(w witness) bool {
	if w.replyTo == "" {
		return privacy.SeesComment(st.facts[w.writer])
	}
	return privacy.SeesReply(st.facts[w.writer], st.facts[w.replyTo])
}

// checkThreads compares what a person sees under posts, and the numbers, with the rules and what others see.
func (l *look) checkThreads(ctx context.Context, f *findings, st *standing, home []*momentsv1.TimelineItem) error {
	posts := make([]string, len(home))
	for i, it := range home {
		posts[i] = it.GetPost().GetId()
	}
	threads, err := l.a.stored.Threads(ctx, f.person, posts)
	if err != nil {
		return fmt.Errorf("comments: %w", err)
	}
	for _, it := range home {
		post, th := it.GetPost().GetId(), threads[it.GetPost().GetId()]
		seen := actsOf(f.person, th)
		f.checkCounts("the timeline", post, it.GetThread(), seen)
		f.checkCounts("the thread", post, th, seen)
		for a, w := range seen {
			if !st.allowed(w) {
				f.differ("under post %s, %s sees %s, which the rules do not allow", post, f.person, a.text())
			}
		}
		if err := l.checkUnseen(ctx, f, st, post, seen); err != nil {
			return err
		}
		if it.GetPost().GetAuthorId() != f.person || len(seen) == 0 {
			continue
		}
		pages, err := l.a.stored.ThreadPages(ctx, f.person, post)
		if err != nil {
			return fmt.Errorf("pages of comments on %s: %w", post, err)
		}
		f.checkCounts("the page", post, pages, actsOf(f.person, pages))
		f.checkCounts("the page", post, pages, seen)
	}
	return nil
}

func (a act) text() string {
	if a.comment != "" {
		return "comment " + a.comment
	}
	return "the like of " + a.liker
}

// checkCounts compares the numbers of a thread with the comments and likes there are to be seen.
func (f *findings) checkCounts(where, post string, th *momentsv1.Thread, seen map[act]witness) {
	var comments, likes uint32
	for a := range seen {
		if a.comment != "" {
			comments++
		} else {
			likes++
		}
	}
	if th.GetCommentCount() != comments || th.GetLikeCount() != likes {
		f.differ("%s of post %s tells %s of %d comments and %d likes, but there are %d and %d to be seen",
			where, post, f.person, th.GetCommentCount(), th.GetLikeCount(), comments, likes)
	}
}

// checkUnseen looks for what others see under a post and the person should.
func (l *look) checkUnseen(ctx context.Context, f *findings, st *standing, post string, seen map[act]witness) error {
	l.a.mu.Lock()
	unseen := map[act]witness{}
	for a, w := range l.a.acts[post] {
		if _, ok := seen[a]; !ok && st.allowed(w) {
			unseen[a] = w
		}
	}
	l.a.mu.Unlock()
	for a, w := range unseen { // few: it may have been deleted since
		still, err := l.a.stored.Shows(ctx, w.viewer, &momentsv1.Act{PostId: post, CommentId: a.comment, UserId: a.liker})
		if err != nil {
			return fmt.Errorf("comments that others see: %w", err)
		}
		if still {
			f.differ("under post %s, %s does not see %s, which %s sees and the rules allow", post, f.person, a.text(), w.viewer)
		}
	}
	return nil
}

// checkNotices checks that a person's notices tell of what is there, and that the unread ones are as many as counted.
func (l *look) checkNotices(ctx context.Context, f *findings) error {
	stored := l.a.stored
	faults, err := stored.NoticeFaults(ctx, f.person)
	if err != nil {
		return fmt.Errorf("stored notices: %w", err)
	}
	for _, fault := range faults {
		f.differ("the notices of %s: %s", f.person, fault)
	}
	list, unread, err := stored.Notices(ctx, f.person)
	if err != nil {
		if len(faults) > 0 {
			return nil //nolint:nilerr // that they cannot be read is told already
		}
		return fmt.Errorf("notices: %w", err)
	}
	f.notices = len(list)
	var posts, order []string
	open := uint32(0)
	for _, n := range list {
		order = append(order, n.GetNoticeId())
		if n.GetPostId() != "" {
			posts = append(posts, n.GetPostId())
		}
		if !n.GetRead() {
			open++
		}
		if n.GetActorId() == f.person {
			f.differ("notice %s tells %s of an own act", n.GetNoticeId(), f.person)
		}
	}
	if !newestFirst(order) {
		f.differ("the notices of %s are not in order, or one is there twice", f.person)
	}
	if open != unread {
		f.differ("%s is told of %d unread notices, but has %d", f.person, unread, open)
	}
	slices.Sort(posts)
	posts = slices.Compact(posts)
	bodies, err := stored.Bodies(ctx, f.person, posts)
	if err != nil {
		return fmt.Errorf("posts of notices: %w", err)
	}
	threads, err := stored.Threads(ctx, f.person, posts)
	if err != nil {
		return fmt.Errorf("comments of notices: %w", err)
	}
	asking, err := stored.Asking(ctx, f.person)
	if err != nil {
		return fmt.Errorf("friend requests: %w", err)
	}
	friends, err := l.friendsOf(ctx, f.person)
	if err != nil {
		return err
	}
	for _, n := range list {
		if n.GetPostId() == "" {
			accepted := n.GetKind() == momentsv1.NoticeKind_NOTICE_KIND_FRIEND_ACCEPTED
			if !slices.Contains(friends, n.GetActorId()) && (accepted || !slices.Contains(asking, n.GetActorId())) {
				f.differ("notice %s of %s: %s is no friend and has no request waiting", n.GetNoticeId(), f.person, n.GetActorId())
			}
			continue
		}
		if why := pointsAtNothing(n, bodies[n.GetPostId()], threads[n.GetPostId()], f.person); why != "" {
			f.differ("notice %s of %s: %s", n.GetNoticeId(), f.person, why)
		}
	}
	return nil
}

// pointsAtNothing says why what a notice tells of is not there for its reader, or nothing if it is.
func pointsAtNothing(n *momentsv1.Notice, post *momentsv1.Post, th *momentsv1.Thread, reader string) string {
	if post == nil {
		return "post " + n.GetPostId() + " is not to be seen"
	}
	switch n.GetKind() {
	case momentsv1.NoticeKind_NOTICE_KIND_LIKE:
		if !slices.Contains(th.GetLikeIds(), n.GetActorId()) {
			return "there is no like of " + n.GetActorId() + " under post " + n.GetPostId()
		}
	case momentsv1.NoticeKind_NOTICE_KIND_COMMENT, momentsv1.NoticeKind_NOTICE_KIND_REPLY:
		for _, c := range th.GetComments() {
			if c.GetId() == n.GetCommentId() && c.GetWriterId() == n.GetActorId() && c.GetText() == n.GetText() {
				return ""
			}
		}
		return "there is no such comment " + n.GetCommentId() + " of " + n.GetActorId() + " under post " + n.GetPostId()
	case momentsv1.NoticeKind_NOTICE_KIND_REMIND:
		if post.GetAuthorId() != n.GetActorId() || !slices.Contains(post.GetRemindIds(), reader) {
			return "post " + n.GetPostId() + " reminds nobody of this name"
		}
	case momentsv1.NoticeKind_NOTICE_KIND_UNSPECIFIED, momentsv1.NoticeKind_NOTICE_KIND_FRIEND_REQUEST,
		momentsv1.NoticeKind_NOTICE_KIND_FRIEND_ACCEPTED:
		return "it tells of a post, which its kind does not"
	}
	return ""
}
