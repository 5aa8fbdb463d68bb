// SPDX-License-Identifier: Apache-2.0

package qos_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/qos"
)

func TestPriorityOf(t *testing.T) {
	for _, tc := range []struct {
		name  string
		class qos.Class
		level uint8
		want  qos.Priority
		text  string
	}{
		{"best of critical", qos.Critical, 0, 1 << 7, "critical/0"},
		{"last of critical", qos.Critical, 127, 1<<7 | 127, "critical/127"},
		{"first of browse follows", qos.Browse, 0, 2 << 7, "browse/0"},
		{"nobody said: interactive", qos.Unspecified, 5, 4<<7 | 5, "interactive/5"},
		{"class and level out of range", 200, 255, qos.LastPriority, "class-15/127"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := qos.PriorityOf(tc.class, tc.level)
			if got != tc.want || got.String() != tc.text {
				t.Errorf("got %d %v, want %d %s", got, got, tc.want, tc.text)
			}
		})
	}
}

func TestParseClass(t *testing.T) {
	for c := qos.Critical; c <= qos.Background; c++ {
		var text qos.Class
		if got, err := qos.ParseClass(c.String()); err != nil || got != c || text.UnmarshalText([]byte(c.String())) != nil || text != c {
			t.Errorf("%v: got %v, %v, %v", c, got, text, err)
		}
	}
	for _, bad := range []string{"", "unspecified", "Browse", "class-7", "browse "} {
		if got, err := qos.ParseClass(bad); err == nil || !strings.Contains(err.Error(), "critical, browse") {
			t.Errorf("%q: got %v, %v", bad, got, err)
		}
	}
}

func TestPriorityIsClassThenLevel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		class := rapid.Map(rapid.Uint8Range(1, 15), func(b uint8) qos.Class { return qos.Class(b) })
		level := rapid.Uint8Range(0, qos.UserLevels-1)
		c1, c2, l1, l2 := class.Draw(t, "c1"), class.Draw(t, "c2"), level.Draw(t, "l1"), level.Draw(t, "l2")
		p1, p2 := qos.PriorityOf(c1, l1), qos.PriorityOf(c2, l2)
		if p1.Class() != c1 || p1.UserLevel() != l1 {
			t.Fatalf("%v was made of %v and %d", p1, c1, l1)
		}
		if want := c1 < c2 || c1 == c2 && l1 < l2; (p1 < p2) != want {
			t.Fatalf("%v before %v: %t, want %t", p1, p2, p1 < p2, want)
		}
	})
}

func TestTicketSaturates(t *testing.T) {
	if tk := qos.Ticket(0); !tk.Fresh() || tk.Next().Fresh() {
		t.Error("the first call is fresh, the second is not")
	}
	if tk := ^qos.Ticket(0); tk.Next() != tk {
		t.Errorf("%d follows %d: a long task would count as fresh again", tk.Next(), tk)
	}
}

func TestKey(t *testing.T) {
	k, err := qos.ParseKey(strings.Repeat("0a", qos.KeySize))
	if err != nil || k[0] != 10 || k[qos.KeySize-1] != 10 {
		t.Errorf("got %v, %v", k[0], err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if s := fmt.Sprintf(verb, k); strings.Contains(s, "0a") || strings.Contains(s, "10") {
			t.Errorf("%s prints the secret: %s", verb, s)
		}
	}
	for _, bad := range []string{"", "0a", strings.Repeat("0g", qos.KeySize), strings.Repeat("0a", qos.KeySize+1)} {
		if _, err := qos.ParseKey(bad); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("ParseKey(%q) = %v", bad, err)
		}
	}
}

func TestUserLevelStaysInsideTheHour(t *testing.T) {
	key := qos.Key{1, 2, 3}
	rapid.Check(t, func(t *rapid.T) {
		user := rapid.StringN(1, 40, 80).Draw(t, "user")
		hour := rapid.Int64Range(-1000, 1<<20).Draw(t, "hour")
		sec := rapid.Int64Range(0, 3599).Draw(t, "second")
		first := key.UserLevel(user, time.Unix(hour*3600, 0))
		later := key.UserLevel(user, time.Unix(hour*3600+sec, 999))
		if first != later || first >= qos.UserLevels {
			t.Fatalf("level %d at the full hour, %d after %d s", first, later, sec)
		}
	})
}

// Nobody starves: whoever has a bad level now has a fresh draw in an hour, and
// within a day of draws nobody misses the better half (chance: 2^-24 a user).
func TestNoStarvationOverRekeying(t *testing.T) {
	key := qos.Key{7}
	rapid.Check(t, func(t *rapid.T) {
		user := rapid.StringN(1, 40, 80).Draw(t, "user")
		start := time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "start"), 0)
		for h := range 24 {
			if key.UserLevel(user, start.Add(time.Duration(h)*time.Hour)) < qos.UserLevels/2 {
				return
			}
		}
		t.Fatalf("user %q is in the worse half for a whole day from %v", user, start)
	})
}

// Two hours are independent draws: of the users in the last quarter about a
// quarter stays there. The bounds are 5 standard deviations.
func TestRekeyingForgetsTheLastHour(t *testing.T) {
	key := qos.Key{9}
	now := time.Unix(1_700_000_000, 0)
	last, again := 0, 0
	for i := range 40_000 {
		user := fmt.Sprint("user-", i)
		if key.UserLevel(user, now) < qos.UserLevels*3/4 {
			continue
		}
		last++
		if key.UserLevel(user, now.Add(time.Hour)) >= qos.UserLevels*3/4 {
			again++
		}
	}
	if last < 9_560 || last > 10_440 {
		t.Errorf("%d of 40,000 users in the last quarter of the levels", last)
	}
	if share := float64(again) / float64(last); share < .228 || share > .272 {
		t.Errorf("%.3f of them stay there, want a quarter", share)
	}
}

func TestNobodyIsLast(t *testing.T) {
	if l := new(qos.Key).UserLevel("", time.Unix(0, 0)); l != qos.UserLevels-1 {
		t.Errorf("level %d", l)
	}
}

// TestUserLevelIsOfAnHMAC: entries of another version give a user the same level.
func TestUserLevelIsOfAnHMAC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var key qos.Key
		copy(key[:], rapid.SliceOfN(rapid.Byte(), qos.KeySize, qos.KeySize).Draw(t, "key"))
		user := rapid.StringN(1, 300, -1).Draw(t, "user")
		hour := rapid.Int64Range(-1000, 1<<30).Draw(t, "hour")
		mac := hmac.New(sha256.New, key[:])
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(hour)))
		mac.Write([]byte(user))
		want := mac.Sum(nil)[0] % qos.UserLevels
		if got := key.UserLevel(user, time.Unix(hour*3600+59, 0)); got != want {
			t.Fatalf("level %d, want %d", got, want)
		}
	})
}

func BenchmarkUserLevel(b *testing.B) {
	key, now := qos.Key{1, 2, 3}, time.Unix(1_700_000_000, 0)
	b.ReportAllocs()
	for b.Loop() {
		key.UserLevel("01jd2v5m3q8r0w7x6y5z4a3b2c", now)
	}
}

func ExampleKey_UserLevel() {
	var key qos.Key // a real one comes from the configuration, by ParseKey
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	level := key.UserLevel("mary", noon)
	same := key.UserLevel("mary", noon.Add(59*time.Minute))
	fmt.Println(level == same, qos.PriorityOf(qos.Post, level) < qos.PriorityOf(qos.Extra, 0))
	// Output: true true
}
