// SPDX-License-Identifier: Apache-2.0

package account

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestTwoSidesAgree lets two sides act and hear of each other late, twice and out of
// order. Once each has heard the other's latest half they agree, and neither has ever
// been a friend of one who had not asked or answered in that round.
func TestTwoSidesAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var sides [2]edge
		said := [2][]word{{{}}, {{}}} // all that each side has ever said
		note := func(i int) {
			if last := said[i][len(said[i])-1]; sides[i].word() != last {
				if sides[i].own != last.half && !sides[i].own.newer(last.half) {
					t.Fatalf("the half of side %d went back from %+v to %+v", i, last, sides[i].own)
				}
				if sides[i].stance != last.stance && sides[i].stance.number <= last.stance.number {
					t.Fatalf("the stance of side %d went back from %+v to %+v", i, last, sides[i].stance)
				}
				said[i] = append(said[i], sides[i].word())
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
			switch rapid.IntRange(0, 7).Draw(t, "step") {
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
			case 7:
				chosen := rapid.IntRange(0, 7).Draw(t, "chosen")
				*e = e.choose(choices{chatOnly: chosen&1 != 0, hideMine: chosen&2 != 0, hideTheirs: chosen&4 != 0})
			}
			note(i)
			alive(i, was, false)
		}
		// Hear the latest until nobody has more to say: being blocked answers once.
		for range 4 {
			for i := range sides {
				sides[i] = sides[i].hear(sides[1-i].word())
				note(i)
			}
		}
		if sides[0].friends() != sides[1].friends() {
			t.Fatalf("the sides do not agree: %+v and %+v", sides[0], sides[1])
		}
		for i, e := range sides {
			other := sides[1-i]
			if e.view().authorHides != other.chosen.hideMine || e.view().off != (e.chosen.chatOnly || e.blocked || other.chosen.chatOnly || other.blocked) {
				t.Fatalf("side %d sees %+v, which does not follow from %+v and %+v", i, e.view(), e, other)
			}
		}
		if sides[0].invited() && sides[1].invited() {
			t.Fatalf("each waits for the other's answer: %+v and %+v", sides[0], sides[1])
		}
	})
}

func FuzzDecode(f *testing.F) {
	e := edge{own: half{on: true, round: 7}, other: half{round: 6}, met: 5, blocked: true, chosen: choices{hideMine: true}, stance: stance{number: 3, hides: true, off: true}, heard: stance{number: 2, off: true}}
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
		if got, err := decodeWord(b); err == nil {
			if again, err := decodeWord(got.encode()); err != nil || again != got {
				t.Errorf("%+v became %+v, %v", got, again, err)
			}
		}
		if got, err := decodeSettings(b); err == nil {
			if again, err := decodeSettings(got.encode()); err != nil || again != got {
				t.Errorf("%+v became %+v, %v", got, again, err)
			}
		}
		if got, err := decodeTag(b); err == nil {
			if again, err := decodeTag(got.encode()); err != nil || again.name != got.name || !slices.Equal(again.bearers, got.bearers) {
				t.Errorf("%+v became %+v, %v", got, again, err)
			}
		}
		_ = decodeFriend(b)
		_, _, _, _ = decodeHash(string(b))
		_, _ = cutToken(string(b))
		_, _ = parseUserCursor(prefixName, string(b))
	})
}
