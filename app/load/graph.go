// SPDX-License-Identifier: Apache-2.0

// Package load fills a running Moments with people, drives it over its public API, and proves afterwards that nothing was lost.
package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

const (
	// MaxPeople bounds the numbers in a graph file, so that one mistyped number does not allocate the machine's memory.
	MaxPeople = 10_000_000
	// MaxFriends is the most friends one person may have.
	MaxFriends = 5_000

	maxLine = 4096
)

// Graph is who is friends with whom: mutual, without loops, people numbered from 0.
type Graph struct {
	// Friends holds each person's friends in ascending order; b is in Friends[a] exactly if a is in Friends[b].
	Friends [][]int32
}

// People returns the number of people, those without a friend included.
func (g *Graph) People() int { return len(g.Friends) }

// Directed returns the number of directed friendships: twice the number of pairs.
func (g *Graph) Directed() int {
	n := 0
	for _, f := range g.Friends {
		n += len(f)
	}
	return n
}

// Edges calls yield with each pair once, the smaller number first, in ascending order, until yield returns false.
func (g *Graph) Edges(yield func(a, b int) bool) {
	for a, friends := range g.Friends {
		for _, b := range friends {
			if int(b) > a && !yield(a, int(b)) {
				return
			}
		}
	}
}

// Shape returns the mean number of friends and its quantiles, for people to compare graphs by.
func (g *Graph) Shape() (mean float64, p50, p90, p99, largest int) {
	if len(g.Friends) == 0 {
		return 0, 0, 0, 0, 0
	}
	degrees := make([]int, len(g.Friends))
	for i, f := range g.Friends {
		degrees[i] = len(f)
	}
	slices.Sort(degrees)
	at := func(q float64) int { return degrees[int(q*float64(len(degrees)-1))] }
	return float64(g.Directed()) / float64(len(degrees)), at(0.50), at(0.90), at(0.99), degrees[len(degrees)-1]
}

// ReadGraph reads an edge list: one "a b" a line, a and b people's numbers, each line one mutual friendship. Blank lines and
// lines starting with # or % are skipped; an edge named twice, in either direction, counts once. Errors name the line.
func ReadGraph(r io.Reader) (*Graph, error) {
	var g Graph
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, maxLine), maxLine)
	n := 0
	for lines.Scan() {
		n++
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == '%' {
			continue
		}
		a, b, err := parseEdge(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if top := max(a, b); top >= len(g.Friends) {
			g.Friends = append(g.Friends, make([][]int32, top+1-len(g.Friends))...)
		}
		g.Friends[a] = append(g.Friends[a], int32(b))
		g.Friends[b] = append(g.Friends[b], int32(a))
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return nil, fmt.Errorf("line %d: longer than %d bytes; an edge list has two numbers a line", n+1, maxLine)
		}
		return nil, fmt.Errorf("after line %d: %w", n, err)
	}
	if len(g.Friends) == 0 {
		return nil, errors.New("no edges; an edge list has two numbers a line, such as \"0 1\"")
	}
	for a := range g.Friends {
		slices.Sort(g.Friends[a])
		g.Friends[a] = slices.Compact(g.Friends[a])
		if len(g.Friends[a]) > MaxFriends {
			return nil, fmt.Errorf("person %d has %d friends; the most is %d", a, len(g.Friends[a]), MaxFriends)
		}
	}
	return &g, nil
}

func parseEdge(line string) (a, b int, err error) {
	fields := strings.Fields(line)
	if len(fields) != 2 {
		return 0, 0, fmt.Errorf("%d fields, want two people's numbers", len(fields))
	}
	var ends [2]int
	for i, field := range fields {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("%.40q is not a person's number", field)
		}
		if n >= MaxPeople {
			return 0, 0, fmt.Errorf("person %d; numbers must be below %d", n, MaxPeople)
		}
		ends[i] = int(n)
	}
	if ends[0] == ends[1] {
		return 0, 0, fmt.Errorf("person %d is a friend of themselves", ends[0])
	}
	return ends[0], ends[1], nil
}

// WriteTo writes g as an edge list that ReadGraph reads back. People above the last one with a friend are not written.
func (g *Graph) WriteTo(w io.Writer) (int64, error) {
	out := bufio.NewWriter(w)
	var written int64
	g.Edges(func(a, b int) bool {
		n, err := fmt.Fprintf(out, "%d %d\n", a, b)
		written += int64(n)
		return err == nil
	})
	return written, out.Flush()
}

// Shape of a generated graph: that of college networks of a thousand people, where the number of friends is close to log-normal
// with mean 39 and median 29; so the spread of its logarithm is sqrt(2 ln(39.1/29)).
const (
	generatedMean  = 39.1
	generatedSigma = 0.77
)

// Generate makes a graph of the given number of people; the same people and seed give the same graph. The number of friends has a
// long tail: mean 39, a hub of several hundred in a thousand people, nobody above MaxFriends. Few people have fewer friends each.
func Generate(people int, seed uint64) (*Graph, error) {
	if people < 2 || people > MaxPeople {
		return nil, fmt.Errorf("a graph of %d people; want 2 to %d", people, MaxPeople)
	}
	rng := rand.New(rand.NewPCG(seed, 0x6d6f6d656e7473)) // #nosec G404 -- a graph, not a secret
	weights := make([]float64, people)                   // running sums: a draw is a binary search
	sum := 0.0
	for i := range weights {
		sum += math.Exp(generatedSigma * rng.NormFloat64())
		weights[i] = sum
	}
	draw := func() int {
		i, _ := slices.BinarySearch(weights, rng.Float64()*sum)
		return min(i, people-1)
	}
	g := &Graph{Friends: make([][]int32, people)}
	pairs := max(1, int(float64(people)*min(generatedMean, float64(people-1)/2)/2))
	seen := make(map[[2]int32]struct{}, pairs)
	// Popular pairs are drawn again and again in a small graph, so the number of draws is bounded, not the number of pairs assured.
	for draws := 0; len(seen) < pairs && draws < 20*pairs; draws++ {
		a, b := int32(draw()), int32(draw())
		if a == b || len(g.Friends[a]) >= MaxFriends || len(g.Friends[b]) >= MaxFriends {
			continue
		}
		key := [2]int32{min(a, b), max(a, b)}
		if _, ok := seen[key]; ok {
			continue
		}
		seen[key] = struct{}{}
		g.Friends[a] = append(g.Friends[a], b)
		g.Friends[b] = append(g.Friends[b], a)
	}
	for a := range g.Friends {
		slices.Sort(g.Friends[a])
	}
	return g, nil
}
