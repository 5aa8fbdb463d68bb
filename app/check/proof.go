// SPDX-License-Identifier: Apache-2.0

package check

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// broken tells of a violation that the operations themselves prove.
func (c *checker) broken(rule Rule, ops []int, format string, args ...any) {
	c.tell(rule, ops, nil, fmt.Sprintf(format, args...))
}

func (c *checker) tell(rule Rule, ops []int, edges []Edge, what string) {
	c.verdict.Broken[rule]++
	if c.verdict.Broken[rule] > maxPerRule {
		return
	}
	v := Violation{Rule: rule, What: what, Edges: edges}
	var order []int
	for _, i := range ops {
		if !slices.Contains(order, i) {
			order = append(order, i)
		}
	}
	if edges == nil {
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(c.ops[a].Start, c.ops[b].Start) })
	}
	for _, i := range order {
		v.Ops = append(v.Ops, c.ops[i])
	}
	c.verdict.Violations = append(c.verdict.Violations, v)
}

// proof tells of a read that misses or misplaces a cause, with the shortest way on which
// the cause came to be one: to the call that wrote the effect, or to the read itself if
// there is none.
func (c *checker) proof(rule Rule, cause *write, read int, effect []int, format string, args ...any) {
	if c.verdict.Broken[rule] >= maxPerRule {
		c.verdict.Broken[rule]++
		return
	}
	target := read
	if len(effect) > 0 {
		target = effect[0]
	}
	ops, edges := c.path(cause, target)
	if target != read {
		ops = append(ops, read)
		edges = append(edges, Edge{From: len(ops) - 2, To: len(ops) - 1, Why: "is shown by"})
	}
	c.tell(rule, ops, edges, fmt.Sprintf(format, args...))
}

// path gives the shortest way by which a call knew of a write: from a session's call to
// a later one, from a write to a read that shows it, from a comment to a reply to it.
// It goes backwards, and looks at each call once.
func (c *checker) path(cause *write, target int) (ops []int, edges []Edge) {
	type step struct {
		to  int // the call that this one leads to
		why string
	}
	post := c.ops[target].Post
	steps := map[int]step{target: {to: -1}}
	queue := []int{target}
	visit := func(from, to int, why string) {
		if _, ok := steps[from]; !ok {
			steps[from] = step{to, why}
			queue = append(queue, from)
		}
	}
	end := -1
	for len(queue) > 0 && end < 0 {
		i := queue[0]
		queue = queue[1:]
		o := &c.ops[i]
		if w := c.byOp[i]; w == cause {
			end = i
			break
		} else if w != nil && w.parent >= 0 {
			for _, j := range w.post.writes[w.parent].ops {
				visit(j, i, "is answered by")
			}
		}
		for k, at := range c.shown[i] {
			if at >= 0 && i != target {
				for _, j := range c.posts[o.Post].writes[at].ops {
					visit(j, i, fmt.Sprintf("is shown, at place %d, by", k+1))
				}
			}
		}
		for _, j := range c.sessions[o.Session].ops {
			before := &c.ops[j]
			if before.Post == post && before.ok() && before.End <= o.Start && j != i {
				visit(j, i, "comes earlier in the session than")
			}
		}
	}
	if end < 0 { // only its absence tells
		return append(slices.Clone(cause.ops), target), []Edge{}
	}
	for i := end; ; i = steps[i].to {
		ops = append(ops, i)
		if steps[i].to < 0 {
			return ops, edges
		}
		edges = append(edges, Edge{From: len(ops) - 1, To: len(ops), Why: steps[i].why})
	}
}

// oneOrder checks that what stood after what, over all reads, is one order.
func (c *checker) oneOrder(p *post) {
	const (
		fresh = iota
		open
		done
	)
	state := make([]int, len(p.writes))
	var stack []int
	var walk func(int) []int
	walk = func(at int) []int { // gives a circle
		state[at] = open
		stack = append(stack, at)
		for _, next := range sorted(p.next[at]) {
			switch state[next] {
			case open:
				return slices.Clone(stack[slices.Index(stack, next):])
			case fresh:
				if circle := walk(next); circle != nil {
					return circle
				}
			}
		}
		state[at] = done
		stack = stack[:len(stack)-1]
		return nil
	}
	for at := range p.writes {
		if state[at] != fresh {
			continue
		}
		if circle := walk(at); circle != nil {
			c.circle(p, circle)
			return
		}
	}
}

func sorted(m map[int]int) []int {
	keys := make([]int, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// circle tells of comments that stand in a circle, by two reads that show two of them
// in either order if there are such.
func (c *checker) circle(p *post, circle []int) {
	var reads []int
	for k, at := range circle {
		reads = append(reads, p.next[at][circle[(k+1)%len(circle)]])
	}
	slices.Sort(reads)
	reads = slices.Compact(reads)
	for _, x := range reads {
		for _, y := range reads {
			if a, b, ok := c.turned(x, y); ok {
				c.broken(OneOrder, []int{x, y}, "one read shows %s before %s, another the other way round", p.writes[a].id, p.writes[b].id)
				return
			}
		}
	}
	ids := make([]string, len(circle))
	for k, at := range circle {
		ids[k] = p.writes[at].id
	}
	c.broken(OneOrder, reads, "together these reads show %s in a circle", strings.Join(ids, ", "))
}

// turned gives two comments that x and y show in another order.
func (c *checker) turned(x, y int) (a, b int, ok bool) {
	place := make(map[int]int)
	for k, at := range c.shown[x] {
		place[at] = k
	}
	last := -1
	for _, at := range c.shown[y] {
		if _, both := place[at]; at < 0 || !both {
			continue
		}
		if last >= 0 && place[last] > place[at] {
			return at, last, true
		}
		last = at
	}
	return 0, 0, false
}

// Print writes the verdict for people.
func (v *Verdict) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d writes and %d reads of %d posts by %d sessions", v.Writes, v.Reads, v.Posts, v.Sessions)
	if v.Excused > 0 {
		fmt.Fprintf(&b, "; %d writes may be lost with their region", v.Excused)
	}
	b.WriteByte('\n')
	for _, x := range v.Violations {
		b.WriteString(x.String())
	}
	if len(v.Violations) == 0 {
		b.WriteString("no violation\n")
	}
	for _, rule := range slices.Sorted(func(yield func(Rule) bool) {
		for r := range v.Broken {
			if !yield(r) {
				return
			}
		}
	}) {
		fmt.Fprintf(&b, "%-16s broken %d times\n", rule, v.Broken[rule])
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// String gives the proof: each operation on a line, and what leads from it to the next.
func (v Violation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", v.Rule, v.What)
	concerns := make(map[string]bool)
	for i := range v.Ops {
		if o := &v.Ops[i]; o.Kind != Read {
			concerns[o.ID], concerns[o.Parent] = true, true
		}
	}
	for i := range v.Ops {
		fmt.Fprintf(&b, "  %d  %s\n", i+1, v.Ops[i].line(concerns))
		for _, e := range v.Edges {
			if e.From == i {
				fmt.Fprintf(&b, "       %s %d\n", e.Why, e.To+1)
			}
		}
	}
	return b.String()
}

// line tells of an operation; of what a read shows, only what concerns somebody.
func (o *Op) line(concerns map[string]bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", o.User, o.Kind)
	if o.ID != "" {
		fmt.Fprintf(&b, " %s", o.ID)
	}
	if o.Parent != "" {
		fmt.Fprintf(&b, " answering %s", o.Parent)
	}
	if o.Text != "" {
		fmt.Fprintf(&b, " %q", o.Text)
	}
	if o.Kind == Read {
		b.WriteString(" [")
		left := 0
		for k := range o.Comments {
			s := &o.Comments[k]
			if len(concerns) > 1 && !concerns[s.ID] {
				left++
				continue
			}
			if left > 0 {
				fmt.Fprintf(&b, "... %d ... ", left)
				left = 0
			}
			b.WriteString(s.ID)
			if s.Deleted {
				b.WriteString(" (deleted)")
			}
			b.WriteByte(' ')
		}
		if left > 0 {
			fmt.Fprintf(&b, "... %d", left)
		}
		fmt.Fprintf(&b, "] liked by %v", o.Likes)
	}
	fmt.Fprintf(&b, "; post %s, session %s, %s %s, %d to %d", o.Post, o.Session, o.Region, o.Server, o.Start, o.End)
	switch o.Outcome {
	case Unknown:
		b.WriteString(", no answer")
	case Failed:
		fmt.Fprintf(&b, ", failed: %s", o.Error)
	default:
	}
	return b.String()
}
