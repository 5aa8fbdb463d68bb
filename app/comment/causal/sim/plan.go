// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Action is what a Step does.
type Action uint8

// The actions. The first six are a client's.
const (
	Comment Action = iota // Target odd: a reply to something seen
	Delete                // of something seen
	Like
	Unlike
	Read
	Move        // of the session, to Region
	CrashServer // Server of Region, for For; Target not divisible by 3: in the middle of its next batch
	PowerCut    // all servers of Region, for For
	Cut         // the line from Region to Peer, for For
	Part        // all lines of Region, both ways, for For
	Line        // the lines between Region and Peer get another nature
	Clock       // of Region jumps by For
	Backup      // of Region's disk
	Restore     // of Region's disk from its last backup
	Join        // of one more region
	Leave       // of Region
	Lose        // of Region, for ever
	actions
)

var actionNames = [actions]string{
	"comment", "delete", "like", "unlike", "read", "move", "crash-server", "power-cut", "cut", "part", "line", "clock",
	"backup", "restore", "join", "leave", "lose",
}

func (a Action) String() string { return actionNames[a] }

// Step is one thing that happens.
type Step struct {
	At      time.Duration // since the beginning
	Action  Action
	Session int
	Post    int
	Target  uint64 // chooses among what there is then
	Region  int    // by place, modulo those there are
	Peer    int
	Server  int
	For     time.Duration
}

func (s Step) String() string {
	return fmt.Sprintf("%v %v session %d post %d target %d region %d peer %d server %d for %v",
		s.At, s.Action, s.Session, s.Post, s.Target%1000, s.Region, s.Peer, s.Server, s.For)
}

// Plan is all that a run is made of. The same plan runs the same, to the bit.
type Plan struct {
	Seed    uint64
	Regions []int // servers of each
	Posts   int
	Users   int
	Filter  bool // not everybody is everybody's friend
	Hold    int  // records that a region holds of a post
	Steps   []Step
	Quiet   time.Duration // when the steps are over
}

// users is how many people there are; some have two sessions.
const (
	users    = 20
	sessions = 24
)

// NewPlan makes the plan of a seed.
func NewPlan(seed uint64) Plan {
	c := chance(seed * 0x9e3779b97f4a7c15)
	p := Plan{Seed: seed, Posts: 1 + c.below(3), Users: users, Filter: c.percent(20), Hold: []int{2, 5, 100}[c.below(3)]}
	for range 2 + c.below(4) {
		p.Regions = append(p.Regions, 1+c.below(3))
	}
	p.Quiet = time.Duration(c.between(20, 90)) * time.Second
	at := func() time.Duration {
		return time.Duration(c.between(0, int64(p.Quiet/time.Millisecond))) * time.Millisecond
	}
	ops := 50 + c.below(60)
	if c.percent(20) {
		ops = 50 + c.below(251)
	}
	talkers := 3 + c.below(sessions-2) // few who talk much, or many
	for range ops {
		s := Step{At: at(), Session: c.below(talkers), Post: c.below(p.Posts), Target: c.next()}
		switch n := c.below(100); {
		case n < 30:
			s.Action = Comment
		case n < 37:
			s.Action = Delete
		case n < 45:
			s.Action = Like
		case n < 51:
			s.Action = Unlike
		case n < 97:
			s.Action = Read
		default:
			s.Action, s.Region = Move, c.below(8)
		}
		p.Steps = append(p.Steps, s)
	}
	p.trouble(&c, at)
	slices.SortStableFunc(p.Steps, func(a, b Step) int { return cmp.Compare(a.At, b.At) })
	return p
}

// trouble adds what goes wrong.
func (p *Plan) trouble(c *chance, at func() time.Duration) {
	few := func(most int, a Action, low, high time.Duration) {
		for range c.below(most + 1) {
			p.Steps = append(p.Steps, Step{
				At: at(), Action: a, Region: c.below(8), Peer: c.below(8), Server: c.below(3), Target: c.next(),
				For: time.Duration(c.between(int64(low), int64(high))),
			})
		}
	}
	few(6, CrashServer, 100*time.Millisecond, 10*time.Second)
	few(3, PowerCut, 100*time.Millisecond, 10*time.Second)
	few(3, Cut, time.Second, 60*time.Second)
	few(2, Part, time.Second, 60*time.Second)
	few(6, Line, 0, 0)
	few(4, Clock, -time.Hour, time.Hour)
	if c.percent(5) {
		few(1, Clock, 365*24*time.Hour, 365*24*time.Hour)
	}
	if c.percent(25) {
		few(2, Backup, 0, 0)
		few(1, Restore, time.Second, 5*time.Second)
	}
	if c.percent(30) {
		few(2, Join, 0, 0)
	}
	if c.percent(20) {
		few(1, Leave, 0, 0)
	}
	if c.percent(15) {
		few(1, Lose, time.Second, 20*time.Second)
	}
}
