// SPDX-License-Identifier: Apache-2.0

// Package ocean is the page of several regions on one machine: the regions, the lines
// between them, which a visitor cuts and heals, and one post's comments side by side as
// a person in each region sees them.
//
// It knows regions as everybody does, by their HTTP API, and their lines by their admin
// pages. It listens on loopback alone and believes nobody who comes from another site.
package ocean

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/ocean/emulator"
)

const (
	askTime   = 700 * time.Millisecond // for one process to say how it is
	freshTime = 250 * time.Millisecond // for which what was found is good enough
	maxAnswer = 1 << 20
)

// Config is what a Server is made of.
type Config struct {
	Regions []Region // at first: see SetSea; the people of the scene live in these
	Lines   []Line
	// Change lets a region join or leave, and tells what there is then to SetSea; nil means
	// that none may.
	Change func(ctx context.Context, region string, join bool) error
	// Dir keeps the log-ins of the people of the scene.
	Dir string
	Log *slog.Logger // nil means slog.Default
}

// Region is a region that is shown.
type Region struct {
	Name  string
	URL   string        // of its page and API
	Clock time.Duration // by which its clock is wrong
	// Admins gives the admin addresses of the services that are joined to other regions,
	// by name. It fails while the region does not run.
	Admins func() (map[string]string, error)
}

// Line is a line that is shown.
type Line struct {
	A, B string
	*emulator.Line
}

// Server answers the page and what it asks for.
type Server struct {
	cfg    Config
	log    *slog.Logger
	client *http.Client
	scene  *scene

	sea     sync.Mutex
	regions []Region // guarded by sea; replaced, never changed
	wires   []Line   // guarded by sea; likewise

	asking sync.Mutex // one asks, the others take what it has found
	found  State      // guarded by asking
	at     time.Time  // guarded by asking
}

// New makes a Server. Run works in the background.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, regions: cfg.Regions, wires: cfg.Lines, log: cfg.Log, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute}}}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.scene = newScene(cfg, s.client, s.log)
	return s
}

// SetSea has the page show these regions and lines, and no others. In a region that joins
// somebody of the scene is a visitor.
func (s *Server) SetSea(regions []Region, lines []Line) {
	s.sea.Lock()
	s.regions, s.wires = regions, lines
	s.scene.sea(regions)
	s.sea.Unlock()
	s.forget()
}

// Sea gives what the page shows now. The slices are not to be changed.
func (s *Server) Sea() ([]Region, []Line) {
	s.sea.Lock()
	defer s.sea.Unlock()
	return s.regions, s.wires
}

// Run sets the scene and keeps it, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	defer s.client.CloseIdleConnections()
	s.scene.run(ctx)
	return nil
}

// State is all that the page shows.
type State struct {
	Regions []RegionState `json:"regions"`
	Lines   []LineState   `json:"lines"`
	Scene   SceneState    `json:"scene"`
}

// RegionState is how a region is.
type RegionState struct {
	Name    string      `json:"name"`
	URL     string      `json:"url"`
	Up      bool        `json:"up"`
	ClockMS int64       `json:"clock_ms"`
	Queues  []QueueInfo `json:"queues"` // to each other region
}

// QueueInfo is what waits in one region for another one, over all services.
type QueueInfo struct {
	To    string  `json:"to"`
	State string  `json:"state"` // up, suspect or down: the worst of the services
	RTTMs float64 `json:"rtt_ms"`
	Depth uint64  `json:"depth"`  // records
	LagMS int64   `json:"lag_ms"` // age of the oldest
	Sent  uint64  `json:"sent_bytes"`
	Alarm string  `json:"alarm,omitempty"`
}

// LineState is how a line is.
type LineState struct {
	A     string    `json:"a"`
	B     string    `json:"b"`
	There Direction `json:"there"` // from A to B
	Back  Direction `json:"back"`
}

// Direction is one way of a line.
type Direction struct {
	DelayMS int64  `json:"delay_ms"`
	Rate    int64  `json:"rate"` // bytes a second, 0 for no limit
	Cut     bool   `json:"cut"`
	Bytes   uint64 `json:"bytes"`
}

func direction(s emulator.Setting, carried uint64) Direction {
	return Direction{DelayMS: s.Delay.Milliseconds(), Rate: s.Rate, Cut: s.Cut, Bytes: carried}
}

// State asks all regions how they are.
func (s *Server) State(ctx context.Context) State {
	s.asking.Lock()
	defer s.asking.Unlock()
	if time.Since(s.at) < freshTime {
		s.found.Lines = s.lines() // these are at hand
		return s.found
	}
	regions, _ := s.Sea()
	st := State{Regions: make([]RegionState, len(regions)), Lines: s.lines()}
	var all errgroup.Group
	for i, r := range regions {
		all.Go(func() error {
			st.Regions[i] = s.region(ctx, r, regions)
			return nil
		})
	}
	all.Go(func() error {
		st.Scene = s.scene.state(ctx)
		return nil
	})
	_ = all.Wait()                                                         // they fail by what they say
	st.Scene.Views = slices.DeleteFunc(st.Scene.Views, func(v View) bool { // of who lives where there is nothing any more
		return !slices.ContainsFunc(regions, func(r Region) bool { return r.Name == v.Region })
	})
	s.found, s.at = st, time.Now()
	return st
}

func (s *Server) lines() []LineState {
	_, lines := s.Sea()
	all := make([]LineState, len(lines))
	for i, l := range lines {
		there, back, thereBytes, backBytes := l.Is()
		all[i] = LineState{A: l.A, B: l.B, There: direction(there, thereBytes), Back: direction(back, backBytes)}
	}
	return all
}

// region asks the services of a region.
func (s *Server) region(ctx context.Context, r Region, regions []Region) RegionState {
	st := RegionState{Name: r.Name, URL: r.URL, ClockMS: r.Clock.Milliseconds(), Queues: []QueueInfo{}}
	admins, err := r.Admins()
	if err != nil {
		return st // it is down
	}
	var mu sync.Mutex
	worst := map[string]QueueInfo{}
	answered := 0
	var all errgroup.Group
	for service, admin := range admins {
		all.Go(func() error {
			queues, err := s.queues(ctx, admin)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				s.log.DebugContext(ctx, "a service does not say how it is joined", "region", r.Name, "service", service, "err", err)
				return nil
			}
			answered++
			for _, q := range queues {
				worst[q.To] = merge(worst[q.To], q)
			}
			return nil
		})
	}
	_ = all.Wait() // as above
	st.Up = answered == len(admins)
	for _, other := range regions { // in this order
		if q, ok := worst[other.Name]; ok {
			st.Queues = append(st.Queues, q)
		}
	}
	return st
}

var badness = map[string]int{"": 0, "up": 1, "suspect": 2, "down": 3}

// merge adds what waits in another service.
func merge(a, b QueueInfo) QueueInfo {
	if badness[a.State] > badness[b.State] {
		b.State = a.State
	}
	b.RTTMs, b.LagMS = max(a.RTTMs, b.RTTMs), max(a.LagMS, b.LagMS)
	b.Depth += a.Depth
	b.Sent += a.Sent
	if b.Alarm == "" {
		b.Alarm = a.Alarm
	}
	return b
}

// queues reads GET /regions of a service.
func (s *Server) queues(ctx context.Context, admin string) ([]QueueInfo, error) {
	var said struct {
		Line struct {
			Peers []struct {
				Region  uint32 `json:"region"`
				Name    string `json:"name"`
				State   string `json:"state"`
				Dialled *struct {
					RTTMs float64 `json:"rtt_ms"`
					Sent  uint64  `json:"sent_bytes"`
				} `json:"dialled"`
			} `json:"peers"`
		} `json:"line"`
		Queue struct {
			Peers []struct {
				Region uint32 `json:"region"`
				Send   struct {
					Alarm string `json:"alarm"`
					Depth uint64 `json:"depth"`
					LagMS int64  `json:"lag_ms"`
				} `json:"send"`
				Receive struct {
					Alarm string `json:"alarm"`
				} `json:"receive"`
			} `json:"peers"`
		} `json:"queue"`
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if err := s.get(ctx, "http://"+admin+"/regions", &said); err != nil {
		return nil, err
	}
	all := make([]QueueInfo, 0, len(said.Line.Peers))
	for _, p := range said.Line.Peers {
		q := QueueInfo{To: p.Name, State: p.State}
		if p.Dialled != nil {
			q.RTTMs, q.Sent = p.Dialled.RTTMs, p.Dialled.Sent
		}
		for _, k := range said.Queue.Peers {
			if k.Region == p.Region {
				q.Depth, q.LagMS, q.Alarm = k.Send.Depth, k.Send.LagMS, k.Send.Alarm
				if q.Alarm == "" {
					q.Alarm = k.Receive.Alarm
				}
			}
		}
		all = append(all, q)
	}
	return all, nil
}

func (s *Server) get(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, res.Status)
	}
	return json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(into)
}

// ErrNoLine means that there is no line between two regions.
var ErrNoLine = errors.New("there is no such line")

// Change is what a line is set to; what is nil stays.
type Change struct {
	From    string `json:"from"` // the region whose side is changed; empty for both
	Cut     *bool  `json:"cut"`
	DelayMS *int64 `json:"delay_ms"`
	Rate    *int64 `json:"rate"` // bytes a second, 0 for no limit
}

// Set changes the line between two regions.
func (s *Server) Set(a, b string, c Change) error {
	_, lines := s.Sea()
	for _, l := range lines {
		if (l.A != a || l.B != b) && (l.A != b || l.B != a) {
			continue
		}
		ends := emulator.Both
		switch c.From {
		case "":
		case l.A:
			ends = emulator.There
		case l.B:
			ends = emulator.Back
		default:
			return fmt.Errorf("region %q is at neither end of the line", c.From)
		}
		return l.Set(ends, func(is *emulator.Setting) {
			if c.Cut != nil {
				is.Cut = *c.Cut
			}
			if c.DelayMS != nil {
				is.Delay = time.Duration(*c.DelayMS) * time.Millisecond
			}
			if c.Rate != nil {
				is.Rate = *c.Rate
			}
		})
	}
	return fmt.Errorf("%w between %q and %q", ErrNoLine, a, b)
}
