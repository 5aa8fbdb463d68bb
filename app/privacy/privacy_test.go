// SPDX-License-Identifier: Apache-2.0

package privacy_test

import (
	"testing"

	"github.com/sluice-rpc/sluice/app/privacy"
)

var (
	self     = privacy.Facts{Self: true}
	friend   = privacy.Facts{Friends: true}
	stranger = privacy.Facts{}
	denied   = privacy.Facts{Friends: true, AuthorHides: true}
	unwanted = privacy.Facts{Friends: true, ViewerHides: true}
)

func TestPosts(t *testing.T) {
	for _, c := range []struct {
		name           string
		author         privacy.Facts
		post, timeline bool
	}{
		{"own", self, true, true},
		{"a friend's", friend, true, true},
		{"a stranger's", stranger, false, false},
		{"of a friend who hides them", denied, false, false},
		{"of a friend whose posts are unwanted", unwanted, true, false},
		{"of a stranger who hides them", privacy.Facts{AuthorHides: true}, false, false},
		{"hiding oneself from oneself does nothing", privacy.Facts{Self: true, AuthorHides: true, ViewerHides: true}, true, true},
		{"deny beats allow", privacy.Facts{Friends: true, AuthorHides: true, ViewerHides: true}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := privacy.SeesPost(c.author); got != c.post {
				t.Errorf("SeesPost(%+v) = %v, want %v", c.author, got, c.post)
			}
			if got := privacy.SeesInTimeline(c.author); got != c.timeline {
				t.Errorf("SeesInTimeline(%+v) = %v, want %v", c.author, got, c.timeline)
			}
		})
	}
}

func TestComments(t *testing.T) {
	for _, c := range []struct {
		name           string
		writer, to     privacy.Facts
		comment, reply bool
	}{
		{"own, to oneself", self, self, true, true},
		{"own, to a friend", self, friend, true, true},
		{"own, to one who was a friend", self, stranger, true, false},
		{"a friend's, to oneself", friend, self, true, true},
		{"a friend's, to a friend", friend, friend, true, true},
		{"a friend's, to a stranger", friend, stranger, true, false},
		{"a stranger's, to oneself", stranger, self, false, false},
		{"a stranger's, to a friend", stranger, friend, false, false},
		{"hiding posts does not hide comments", denied, unwanted, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := privacy.SeesComment(c.writer); got != c.comment {
				t.Errorf("SeesComment(%+v) = %v, want %v", c.writer, got, c.comment)
			}
			if got := privacy.SeesReply(c.writer, c.to); got != c.reply {
				t.Errorf("SeesReply(%+v, %+v) = %v, want %v", c.writer, c.to, got, c.reply)
			}
		})
	}
}

// TestWhoSeesAReplySeesItsCause is what keeps every filtered view causally closed.
func TestWhoSeesAReplySeesItsCause(t *testing.T) {
	all := make([]privacy.Facts, 0, 16)
	for bits := range 16 {
		all = append(all, privacy.Facts{Self: bits&1 != 0, Friends: bits&2 != 0, AuthorHides: bits&4 != 0, ViewerHides: bits&8 != 0})
	}
	for _, writer := range all {
		for _, to := range all {
			if privacy.SeesReply(writer, to) && !privacy.SeesComment(to) {
				t.Errorf("sees the reply of %+v but not the comment of %+v", writer, to)
			}
			if privacy.SeesInTimeline(to) && !privacy.SeesPost(to) {
				t.Errorf("has in the timeline what he may not see: %+v", to)
			}
		}
	}
}
