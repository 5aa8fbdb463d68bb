// SPDX-License-Identifier: Apache-2.0

// Package privacy decides who may see what. It is pure: facts in, decision out. The
// owner of each thing asks it about every single thing it is about to show, so no
// rule lives anywhere else.
package privacy

// Facts are how a viewer stands to one other person. The zero Facts are those of
// strangers.
type Facts struct {
	Self        bool // viewer and author are one person
	Friends     bool // both halves of the friendship are on
	AuthorHides bool // the author does not let the viewer see his posts
	ViewerHides bool // the viewer does not want the author's posts in his timeline
}

// knows: the viewer is the person or a friend.
func (f Facts) knows() bool { return f.Self || f.Friends }

// SeesPost reports whether a viewer may see a post of the author: the author, and
// his friends unless he hides it from them. What one wrote oneself is never hidden,
// and deny beats allow.
func SeesPost(author Facts) bool {
	if author.Self {
		return true
	}
	return author.Friends && !author.AuthorHides
}

// SeesInTimeline reports whether a post that a viewer may see belongs in his
// timeline too: unless he does not want to see the author there. The author's album
// stays readable to him.
func SeesInTimeline(author Facts) bool {
	return SeesPost(author) && (author.Self || !author.ViewerHides)
}

// SeesComment reports whether a viewer who may see a post may see a comment or like
// of the writer on it: his own, and those of his friends.
func SeesComment(writer Facts) bool { return writer.knows() }

// SeesReply reports the same of a reply, which needs that the viewer also is, or is
// a friend of, the person replied to. So whoever may see a reply may see what it
// answers.
func SeesReply(writer, repliedTo Facts) bool {
	return SeesComment(writer) && SeesComment(repliedTo)
}
