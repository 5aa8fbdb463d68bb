// SPDX-License-Identifier: Apache-2.0

package account

import (
	"testing"

	"pgregory.net/rapid"
)

// TestTwoSidesAgree lets two sides act and hear of each other late, twice and out of
// order. Once each has heard the other's latest half they agree, and neither has ever
// been a friend of one who had not asked or answered in that round.
func TestTwoSidesAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var sides [2]edge
		said := [2][]half{{{}}, {{}}} // all that each side has ever said
		note := func(i int) {
			if last := said[i][len(said[i])-1]; sides[i].own != last {
				if !sides[i].own.newer(last) {
					t.Fatalf("the half of side %d went back from %+v to %+v", i, last, sides[i].own)
				}
				said[i] = append(said[i], sides[i].own)
			}
		}
		alive := func(i int, was edge, hearing bool) {
			if hearing && sides[i].alive() && !was.alive() {
				t.Fatalf("hearing brought a half to life: %+v to %+v", was, sides[i])
			}
			if sides[i].friends() && !sides[i].alive() {
				t.Fatalf("friends by a dead half: %+v", sides[i])
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			i := rapid.IntRange(0, 1).Draw(t, "side")
			was := sides[i]
			e := &sides[i]
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0:
				if !e.blocked {
					*e = e.request()
				}
			case 1:
				if e.invited() {
					*e = e.accept()
				}
			case 2:
				*e = e.decline()
			case 3:
				*e = e.takeBack()
			case 4:
				*e = e.block()
			case 5:
				*e = e.unblock()
			case 6:
				heard := rapid.SampledFrom(said[1-i]).Draw(t, "heard")
				*e = e.hear(heard)
				alive(i, was, true)
			}
			note(i)
			alive(i, was, false)
		}
		// Hear the latest until nobody has more to say: being blocked answers once.
		for range 4 {
			for i := range sides {
				sides[i] = sides[i].hear(sides[1-i].own)
				note(i)
			}
		}
		if sides[0].friends() != sides[1].friends() {
			t.Fatalf("the sides do not agree: %+v and %+v", sides[0], sides[1])
		}
		if sides[0].invited() && sides[1].invited() {
			t.Fatalf("each waits for the other's answer: %+v and %+v", sides[0], sides[1])
		}
	})
}

func FuzzDecode(f *testing.F) {
	e := edge{own: half{on: true, round: 7}, other: half{round: 6}, met: 5, blocked: true}
	f.Add(e.encode())
	f.Add([]byte{})
	f.Add([]byte("$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := decodeEdge(b); err == nil && len(b) > 0 {
			if again, err := decodeEdge(got.encode()); err != nil || again != got {
				t.Errorf("%+v became %+v, %v", got, again, err)
			}
		}
		if got, err := decodeTally(b); err == nil && len(b) > 0 {
			if again, err := decodeTally(got.encode()); err != nil || again != got {
				t.Errorf("%+v became %+v, %v", got, again, err)
			}
		}
		if got, err := decodeSession(b); err == nil {
			if _, err := decodeSession(got.encode()); err != nil {
				t.Error(err)
			}
		}
		_, _ = decodeUser(b)
		_, _ = decodeClaim(b)
		_, _ = decodeHalf(b)
		_, _, _, _ = decodeHash(string(b))
		_, _, _ = newSigner([]byte("key")).open(string(b))
		_, _, _ = parseUserCursor(string(b))
	})
}
