// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"strconv"
	"time"
	"unicode/utf8"

	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// The answers are appended by hand: a page of ten posts with their threads takes a
// few microseconds this way, a fifth of encoding/json's reflection, and reading a
// timeline is ten times as frequent as all writes together.

func appendProfile(b []byte, p *momentsv1.Profile) []byte {
	b = appendString(append(b, `{"id":`...), p.GetUserId())
	b = appendString(append(b, `,"name":`...), p.GetName())
	b = appendString(append(b, `,"display_name":`...), p.GetDisplayName())
	b = appendTime(append(b, `,"created_at":`...), p.GetCreatedMs())
	return append(b, '}')
}

// audiences are the API's words.
var audiences = map[momentsv1.Audience]string{
	momentsv1.Audience_AUDIENCE_FRIENDS: "friends",
	momentsv1.Audience_AUDIENCE_ONLY_ME: "only_me",
	momentsv1.Audience_AUDIENCE_ALLOW:   "allow",
	momentsv1.Audience_AUDIENCE_DENY:    "deny",
}

// appendPost appends a post with what the viewer sees under it; t may be nil. The
// object is one: a post without its thread is of no use to a page.
func appendPost(b []byte, p *momentsv1.Post, t *momentsv1.Thread) []byte {
	b = appendString(append(b, `{"id":`...), p.GetId())
	b = appendString(append(b, `,"author_id":`...), p.GetAuthorId())
	b = appendTime(append(b, `,"created_at":`...), p.GetTimeMs())
	b = appendString(append(b, `,"text":`...), p.GetText())
	if a, ok := audiences[p.GetAudience()]; ok {
		b = appendString(append(b, `,"audience":`...), a)
	}
	b = append(b, `,"liked":`...)
	b = strconv.AppendBool(b, t.GetLiked())
	b = append(b, `,"like_count":`...)
	b = strconv.AppendUint(b, uint64(t.GetLikeCount()), 10)
	b = append(b, `,"like_ids":`...)
	b = appendList(b, t.GetLikeIds(), appendString)
	b = append(b, `,"comment_count":`...)
	b = strconv.AppendUint(b, uint64(t.GetCommentCount()), 10)
	b = append(b, `,"comments":`...)
	b = appendList(b, t.GetComments(), appendComment)
	return append(b, '}')
}

func appendComment(b []byte, c *momentsv1.Comment) []byte {
	b = appendString(append(b, `{"id":`...), c.GetId())
	b = appendTime(append(b, `,"created_at":`...), c.GetTimeMs())
	if c.GetDeleted() {
		return append(b, `,"deleted":true}`...)
	}
	b = appendString(append(b, `,"writer_id":`...), c.GetWriterId())
	b = appendString(append(b, `,"text":`...), c.GetText())
	if c.GetParentId() != "" {
		b = appendString(append(b, `,"reply_to":`...), c.GetParentId())
	}
	if c.GetReplyToId() != "" {
		b = appendString(append(b, `,"reply_to_user_id":`...), c.GetReplyToId())
	}
	return append(b, '}')
}

func appendItem(b []byte, i *momentsv1.TimelineItem) []byte {
	return appendPost(b, i.GetPost(), i.GetThread())
}

// appendItems begins an object with its list of items; the caller closes it.
func appendItems[T any](b []byte, items []T, one func([]byte, T) []byte) []byte {
	return appendList(append(b, `{"items":`...), items, one)
}

// appendCursor appends a member if the cursor is there.
func appendCursor(b []byte, member, cursor string) []byte {
	if cursor == "" {
		return b
	}
	return appendString(append(b, member...), cursor)
}

func appendList[T any](b []byte, list []T, one func([]byte, T) []byte) []byte {
	b = append(b, '[')
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = one(b, v)
	}
	return append(b, ']')
}

// appendTime appends an RFC 3339 time in UTC to the millisecond. The milliseconds
// are put in by hand: package time is quick at RFC3339 alone, and a page has sixty
// times.
func appendTime(b []byte, ms int64) []byte {
	t := time.UnixMilli(ms).UTC()
	b = t.AppendFormat(append(b, '"'), time.RFC3339)
	milli := t.Nanosecond() / 1e6
	b[len(b)-1] = '.' // was Z
	return append(b, byte('0'+milli/100), byte('0'+milli/10%10), byte('0'+milli%10), 'Z', '"')
}

const hexDigits = "0123456789abcdef"

// plain says which bytes stand for themselves in a JSON string.
var plain = func() (t [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return t
}()

// appendString appends s as encoding/json would write it, byte for byte.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(append(b, s[start:i]...), `\ufffd`...)
				start = i + size
			} else if r == '\u2028' || r == '\u2029' { // line ends in JavaScript
				b = append(append(b, s[start:i]...), `\u202`...)
				b = append(b, hexDigits[r&0xf])
				start = i + size
			}
			i += size
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}
