// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/sluice-rpc/sluice/app/check"
)

// history is built line by line, a call each, one after the other unless told
// otherwise:
//
//	u1@SH add a            u1 writes comment a in region SH, in session u1
//	u1@SH add b under a
//	u1@SH delete a         like, unlike
//	u1@SH read a b(a) -c +u2   sees a, reply b to a, the mark of c, the like of u2
//	u1@SH final a          as read, after all has come to rest
//	u1@SH add a ?          no answer
//	SH lost
func history(t *testing.T, lines string) []check.Op {
	t.Helper()
	var ops []check.Op
	wrote := make(map[string]check.Op)
	for n, line := range strings.Split(strings.TrimSpace(lines), "\n") {
		f := strings.Fields(line)
		o := check.Op{Start: int64(10*n + 1), End: int64(10*n + 5), Post: "p"}
		if f[1] == "lost" {
			ops = append(ops, check.Op{Kind: check.Lost, Region: f[0], Start: o.Start})
			continue
		}
		if f[1] == "sees" {
			ops = append(ops, check.Op{Kind: check.Friends, User: f[0], Who: f[2:]})
			continue
		}
		o.User, o.Region, _ = strings.Cut(f[0], "@")
		o.Session = o.User
		if f[len(f)-1] == "?" {
			o.Outcome, o.End, f = check.Unknown, 0, f[:len(f)-1]
		}
		o.Kind = check.Kind(f[1])
		switch f[1] {
		case "add":
			o.ID, o.Text, o.Key = f[2], "text of "+f[2], "key of "+f[2]
			if len(f) > 4 {
				o.Parent = f[4]
			}
			wrote[f[2]] = o
			if o.Outcome == check.Unknown {
				o.ID = ""
			}
		case "delete":
			o.ID, o.Key = f[2], fmt.Sprint("delete", n)
		case "like", "unlike":
			o.Key = fmt.Sprint("like", n)
		case "final", "read":
			o.Kind, o.Final = check.Read, f[1] == "final"
			live, likes := 0, 0
			for _, s := range f[2:] {
				switch s[0] {
				case '+':
					o.Likes = append(o.Likes, s[1:])
					likes++
					continue
				case '-':
					o.Comments = append(o.Comments, check.Comment{ID: s[1:], Deleted: true, Parent: wrote[s[1:]].Parent})
					continue
				}
				live++
				name, lost := strings.CutSuffix(s, "!")
				w := wrote[name]
				o.Comments = append(o.Comments, check.Comment{ID: name, Text: w.Text, Writer: w.User, Parent: w.Parent, ParentLost: lost})
			}
			o.CommentCount, o.LikeCount = &live, &likes
		default:
			t.Fatalf("line %q", line)
		}
		ops = append(ops, o)
	}
	return ops
}

func TestRules(t *testing.T) {
	for name, c := range map[string]struct {
		lines string
		want  check.Rule // of the first violation; none for a clean history
	}{
		"nothing wrong": {`
			w@SH add a
			w@SH read a
			m@HK read
			k@CA read a
			k@CA add b under a
			m@HK read a b
			m@HK like
			w@SH read a b +m
			w@SH delete a
			m@HK read -a b +m
			m@HK unlike
			w@SH final -a b
			m@HK final -a b
			w@HK final -a b`, ""},
		"concurrent ones may come in any order, once": {`
			w@SH add a
			m@HK add b
			k@CA read b
			k@CA read a b
			w@SH read a b
			m@HK read a b`, ""},
		"nobody wrote it": {`
			w@SH add a
			m@HK read a z`, check.ThinAir},
		"deleted by nobody": {`
			w@SH add a
			m@HK read -a`, check.ThinAir},
		"seen before it was written": {`
			m@HK read
			w@SH add a`, ""},
		"twice": {`
			w@SH add a
			m@HK read a a`, check.Duplicate},
		"a retry that was done twice": {`
			w@SH add a ?
			w@SH add a
			m@HK read a`, ""},
		"the reply before the question": {`
			w@SH add a
			m@HK read a
			m@HK add b under a
			k@CA read b`, check.CausesShown},
		"the question after the reply": {`
			w@SH add a
			m@HK read a
			m@HK add b under a
			k@CA read b a`, check.CausesFirst},
		"a cause that is no parent": {`
			w@SH add a
			m@HK read a
			m@HK add b
			k@CA read b`, check.CausesShown},
		"a cause of a cause": {`
			w@SH add a
			m@HK read a
			m@HK add b
			k@CA read a b
			k@CA add c
			w@SH read a c`, check.CausesShown},
		"the question is gone without a mark": {`
			w@SH add a
			m@HK add b under a
			w@SH delete a
			k@CA read b`, check.CausesShown},
		"the question may not be for this viewer": {`
			k sees m
			w@SH add a
			m@HK read a
			m@HK add b
			k@CA read b`, ""},
		"two orders": {`
			w@SH add a
			m@HK add b
			k@CA read a b
			w@SH read b a`, check.OneOrder},
		"own comment missing": {`
			w@SH add a
			w@SH read`, check.OwnWrites},
		"seen comment missing": {`
			w@SH add a
			m@HK read a
			m@SH read`, check.MonotonicReads},
		"deleted comes back": {`
			w@SH add a
			w@SH delete a
			m@HK read
			w@SH read a`, check.DeletedStays},
		"deleted comes back for who saw the mark": {`
			w@SH add a
			m@HK add b under a
			w@SH delete a
			m@HK read -a b
			m@HK read a b`, check.DeletedStays},
		"deleted comes back beside what follows": {`
			w@SH add a
			w@SH delete a
			w@SH add b
			m@HK read a b`, check.DeletedStays},
		"like forgotten": {`
			w@SH like
			w@SH read`, check.LikesRight},
		"unlike wins": {`
			w@SH like
			w@SH unlike
			w@SH like
			w@SH read`, check.LikesRight},
		"like comes back": {`
			w@SH like
			m@HK read +w
			w@SH unlike
			w@SH add a
			m@HK read a +w`, check.LikesRight},
		"a like not yet here": {`
			w@SH like
			m@HK read`, ""},
		"regions differ at last": {`
			w@SH add a ?
			m@HK final
			m@SH final a`, check.Converged},
		"an acknowledged one is lost": {`
			w@SH add a
			m@HK final
			m@SH final`, check.Complete},
		"an acknowledged delete is lost": {`
			w@SH add a
			m@SH read a
			w@SH delete a
			m@HK final a
			m@SH final a`, check.DeletedStays},
		"lost with its region": {`
			w@SH add a
			k@CA read a
			k@CA add b under a
			SH lost
			m@HK read b!
			k@CA final b!
			m@HK final b!`, ""},
		"written after the loss": {`
			SH lost
			w@SH add a
			m@HK final`, check.Complete},
		"unavailable without a loss": {`
			w@SH add a
			m@HK add b under a
			k@CA read b!`, check.CausesShown},
	} {
		t.Run(name, func(t *testing.T) {
			v := check.History(history(t, c.lines))
			switch {
			case c.want == "" && v.Err() != nil:
				t.Fatalf("clean, and found: %v\n%s", v.Err(), v.Violations[0])
			case c.want == "":
				return
			case v.Err() == nil:
				t.Fatalf("found nothing, want %s", c.want)
			}
			for _, x := range v.Violations {
				if x.Rule != c.want {
					t.Errorf("also broken:\n%s", x)
				}
			}
			if v.Broken[c.want] == 0 {
				t.Errorf("%s is not among what is broken: %v", c.want, v.Broken)
			}
		})
	}
}

func TestTwoCommentsOfOneKey(t *testing.T) {
	ops := history(t, `
		w@SH add a
		w@SH add b`)
	ops[1].Key, ops[1].Text = ops[0].Key, ops[0].Text
	if v := check.History(ops); v.Broken[check.OneEffect] != 1 {
		t.Errorf("broken: %v", v.Broken)
	}
	ops[1].Key, ops[1].Text, ops[1].ID = "other", "other", ops[0].ID
	if v := check.History(ops); v.Broken[check.OneID] != 1 {
		t.Errorf("broken: %v", v.Broken)
	}
	ops[1].Outcome, ops[1].Error = check.Failed, check.Foreign
	if v := check.History(ops); v.Broken[check.Available] != 1 {
		t.Errorf("broken: %v", v.Broken)
	}
	n := 3
	ops = history(t, "w@SH read")
	ops[0].LikeCount = &n
	if v := check.History(ops); v.Broken[check.Counts] != 1 {
		t.Errorf("broken: %v", v.Broken)
	}
}

// TestProofIsMinimal: of a long history, the calls that matter are told, in order.
func TestProofIsMinimal(t *testing.T) {
	ops := history(t, `
		x@SH add x1
		w@SH add a
		x@SH add x2
		m@HK read x1 a x2
		m@HK like
		m@HK read x1 a x2 +m
		m@HK add b
		x@SH add x3
		k@CA read x1 a x2 b +m
		k@CA add c under b
		x@SH read x1 a x2 x3 b c +m
		n@SH read x1 x2 x3 b c +m`)
	v := check.History(ops)
	if v.Broken[check.CausesShown] == 0 {
		t.Fatalf("broken: %v", v.Broken)
	}
	got := v.Violations[0].String()
	want := `causes-shown: b is shown without a, which its writer had seen
  1  w add a "text of a"; post p, session w, SH , 11 to 15
       is shown, at place 2, by 2
  2  m read [... 1 ... a ... 1] liked by []; post p, session m, HK , 31 to 35
       comes earlier in the session than 3
  3  m add b "text of b"; post p, session m, HK , 61 to 65
       is shown by 4
  4  n read [... 3 ... b ... 1] liked by [m]; post p, session n, SH , 111 to 115
`
	if got != want {
		t.Errorf("told\n%s\nwant\n%s", got, want)
	}
	var printed bytes.Buffer
	if err := v.Print(&printed); err != nil || !strings.Contains(printed.String(), want) {
		t.Errorf("printed\n%s, %v", &printed, err)
	}
}

func TestFile(t *testing.T) {
	ops := history(t, `
		k sees m
		w@SH add a ?
		m@HK read a +w
		SH lost`)
	var file bytes.Buffer
	if err := check.WriteHistory(&file, ops); err != nil {
		t.Fatal(err)
	}
	back, err := check.ReadHistory(strings.NewReader("\n" + file.String()))
	if err != nil || !reflect.DeepEqual(back, ops) {
		t.Errorf("read back %+v, %v", back, err)
	}
	for name, line := range map[string]string{
		"no JSON":       `add`,
		"unknown field": `{"op":"like","session":"s","user":"u","post":"p","start":1,"end":2,"colour":"red"}`,
		"unknown op":    `{"op":"share","session":"s","user":"u","post":"p"}`,
		"no session":    `{"op":"like","user":"u","post":"p"}`,
		"end first":     `{"op":"like","session":"s","user":"u","post":"p","start":2,"end":1}`,
		"no id":         `{"op":"add","session":"s","user":"u","post":"p","text":"x"}`,
		"no text":       `{"op":"add","session":"s","user":"u","post":"p","id":"x"}`,
		"no outcome":    `{"op":"like","session":"s","user":"u","post":"p","outcome":"fine"}`,
		"no region":     `{"op":"lost"}`,
		"no user":       `{"op":"friends"}`,
	} {
		if _, err := check.ReadHistory(strings.NewReader(line)); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func FuzzHistory(f *testing.F) {
	f.Add([]byte(`{"op":"add","session":"s","user":"u","post":"p","text":"x","id":"a","start":1,"end":2}
{"op":"read","session":"s","user":"u","post":"p","start":3,"end":4,"comments":[{"id":"a","text":"x"}],"likes":["u"],"final":true}
{"op":"delete","session":"s","user":"u","post":"p","id":"a","start":5,"end":6}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		ops, err := check.ReadHistory(bytes.NewReader(b))
		if err != nil {
			return
		}
		v := check.History(ops)
		if err := v.Print(new(bytes.Buffer)); err != nil {
			t.Fatal(err)
		}
	})
}

// BenchmarkHistory checks 1,000 comments on one post, read by 20 people as they grow.
func BenchmarkHistory(b *testing.B) {
	var ops []check.Op
	var list []check.Comment
	for n := range 1000 {
		u := fmt.Sprint("u", n%20)
		at := int64(10 * n)
		c := check.Comment{ID: fmt.Sprint("c", n), Writer: u, Text: fmt.Sprint("t", n)}
		ops = append(ops, check.Op{Kind: check.Add, Session: u, User: u, Post: "p", ID: c.ID, Text: c.Text, Start: at, End: at + 1})
		list = append(list, c)
		ops = append(ops, check.Op{Kind: check.Read, Session: u, User: u, Post: "p", Comments: list[: n+1 : n+1], Start: at + 2, End: at + 3})
	}
	for b.Loop() {
		if err := check.History(ops).Err(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ops)), "ns/operation")
}
