// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// People are moved from one of three regions in real processes to another, one after the other, each with posts, a photo, comments,
// likes, friends, a tag and settings. All the while they post by the gateways of all regions, and at one step of the move a process
// is killed, or a whole region. In the end one region takes their posts and no other, whatever was acknowledged is everywhere once,
// and they are served wherever they are.
type rehomeConfig struct {
	regionsConfig
	only string
}

func parseRehome(args []string) (*rehomeConfig, error) {
	c := &rehomeConfig{regionsConfig: regionsConfig{delay: 40 * time.Millisecond, clock: "ca=+1h"}}
	fs := flag.NewFlagSet("bench rehome", flag.ContinueOnError)
	quick := fs.Bool("quick", false, "a few of the moves")
	fs.StringVar(&c.only, "only", "", "moves whose description contains this; others do not take place")
	fs.Uint64Var(&c.seed, "seed", 1, "of when exactly what is killed")
	fs.BoolVar(&c.split, "split", true, "each service a process of its own; else each region is one")
	fs.StringVar(&c.json, "json", "", "file for the metrics, one JSON object a line")
	fs.StringVar(&c.dir, "dir", "", "where the regions keep their data, removed at the end; on a real disk (default: build in the repository)")
	fs.StringVar(&c.moments, "moments", "", "the moments command (default: built from this repository)")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q; see rehome -help", fs.Arg(0))
	}
	if *quick && c.only == "" {
		c.only = "quick"
	}
	if len(c.moves()) == 0 {
		return nil, fmt.Errorf("-only %q: no move is described so", c.only)
	}
	return c, nil
}

func rehomeMain(ctx context.Context, args []string, out io.Writer) error {
	c, err := parseRehome(args)
	if err != nil {
		return err
	}
	metrics, err := drillRehome(ctx, c, out)
	if err != nil {
		return err
	}
	return tell(out, metrics, c.json)
}

const (
	oldHome = "sh"
	newHome = "ca"
)

// step is of a move, at which something is killed.
type step int

const (
	never     step = iota
	atOrder        // while the order is given
	fenced         // the old home takes nothing more, and the new home has not heard of it: their line is cut
	copying        // some moments after the line is whole
	opened         // as soon as the new home says that he is at home there
	calledOff      // while he is called back, the line still cut
)

var stepNames = map[step]string{
	never: "nothing is killed", atOrder: "as the order is given", fenced: "when he is fenced", copying: "while he is copied", opened: "as his home opens", calledOff: "as he is called back",
}

// move is one person's.
type move struct {
	region, service string // what is killed; no service means all of the region
	at              step
	back            bool // he is called back, while the line is cut
	quick           bool // done in the short form, too
}

func (m move) String() string {
	what := stepNames[m.at]
	if m.at != never {
		what = strings.TrimSpace(m.service+" of "+m.region) + " is killed " + what
		if m.service == "" {
			what = m.region + " is killed " + stepNames[m.at]
		}
	}
	if m.back {
		what += ", and he is called back"
	}
	return what
}

// allMoves are all that take place.
var allMoves = []move{
	{at: never, quick: true},
	{at: never, back: true},
	{oldHome, "account", atOrder, false, true},
	{oldHome, "post", atOrder, false, false},
	{oldHome, "", atOrder, false, false},
	{oldHome, "account", fenced, false, false},
	{oldHome, "post", fenced, false, false},
	{oldHome, "", fenced, false, false},
	{newHome, "account", copying, false, true},
	{oldHome, "account", copying, false, false},
	{newHome, "post", copying, false, false},
	{oldHome, "post", copying, false, false},
	{newHome, "", copying, false, false},
	{oldHome, "", copying, false, false},
	{newHome, "account", opened, false, false},
	{newHome, "post", opened, false, false},
	{newHome, "timeline", opened, false, false},
	{newHome, "", opened, false, true},
	{oldHome, "account", opened, false, false},
	{oldHome, "", opened, false, false},
	{oldHome, "account", calledOff, true, true},
	{newHome, "account", calledOff, true, false},
	{oldHome, "", calledOff, true, false},
}

func (c *rehomeConfig) moves() (all []move) {
	for _, m := range allMoves {
		if !c.split {
			m.service = "" // they are all one
		}
		wanted := c.only == "quick" && m.quick || strings.Contains(m.String(), c.only)
		known := slices.ContainsFunc(all, func(o move) bool { return o.String() == m.String() })
		if wanted && !known {
			all = append(all, m)
		}
	}
	return all
}

func drillRehome(ctx context.Context, c *rehomeConfig, out io.Writer) (metrics []metric, err error) {
	err = onSea(ctx, &c.regionsConfig, out, func(sea *seaDrill) error {
		d := &rehomeDrill{seaDrill: sea, config: c, chance: rand.New(rand.NewPCG(c.seed, 0))}
		err := d.run(ctx)
		metrics = d.metrics
		return err
	})
	return metrics, err
}

type rehomeDrill struct {
	*seaDrill
	config *rehomeConfig
	chance *rand.Rand

	moved, undone                         int
	posts, refused                        int // of those who were moved
	twoWriters, lost, duplicated, strange int
	findings                              int       // of the audit of all regions at the end
	took, killed                          []float64 // s until all regions know where he is at home
	pauses                                []float64 // s in which no region took his posts, where nothing was killed
	answers                               []float64 // s until he was told that his home cannot be reached
}

func (d *rehomeDrill) run(ctx context.Context) error {
	d.regionsConfig.people = 1 // of each region, friends of all who are moved
	if err := d.meet(ctx); err != nil {
		return err
	}
	for n, m := range d.config.moves() {
		p, err := d.prepare(ctx, n)
		if err != nil {
			return fmt.Errorf("before move %d: %w", n, err)
		}
		d.say("%6.1f s  %s is moved; %v", d.now().Seconds(), p.name, m)
		if err := d.move(ctx, p, m); err != nil {
			return fmt.Errorf("move %d, %v: %w", n, m, err)
		}
	}
	if err := d.audit(ctx); err != nil {
		return err
	}
	d.tell()
	return nil
}

// audit has each region prove that what it stores and shows is what the rules say, with who has come and gone.
func (d *rehomeDrill) audit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := d.healAll(ctx); err != nil {
		return err
	}
	for _, region := range regionNames {
		d.say("%6.1f s  audit of %s", d.now().Seconds(), region)
		out, err := exec.CommandContext(ctx, d.path, "audit", "--data", filepath.Join(d.data, region)).CombinedOutput()
		found, err := auditFindings(out, err)
		if err != nil {
			return fmt.Errorf("audit of %s: %w", region, err)
		}
		for _, f := range found {
			d.wrong(&d.findings, "%s: %s", region, f)
		}
	}
	return nil
}

// auditFindings gives the differences that moments audit has printed, and its last word if it has found any. An audit that could not be
// done is an error.
func auditFindings(out []byte, err error) (found []string, _ error) {
	for line := range strings.Lines(string(out)) {
		if what, ok := strings.CutPrefix(strings.TrimSpace(line), "difference:"); ok {
			found = append(found, strings.TrimSpace(what))
		}
	}
	clean := bytes.Contains(out, []byte("clean, in "))
	switch {
	case err == nil && clean && len(found) == 0:
		return nil, nil
	case err != nil && len(found) > 0:
		return found, nil
	case err == nil:
		err = errors.New("it does not say whether all is well")
	}
	return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
}

func (d *rehomeDrill) tell() {
	add := func(name, unit string, v float64, g *goal) {
		d.metrics = append(d.metrics, newMetric("rehome."+name, unit, []float64{v}, g))
	}
	add("two_writers", "1", float64(d.twoWriters), atMost(0))
	add("lost", "1", float64(d.lost), atMost(0))
	add("duplicated", "1", float64(d.duplicated), atMost(0))
	add("wrong_answers", "1", float64(d.strange), atMost(0))
	add("audit_findings", "1", float64(d.findings), atMost(0))
	add("moved", "1", float64(d.moved), nil)
	add("called_back", "1", float64(d.undone), nil)
	add("kills", "1", float64(d.kills), nil)
	add("posts", "1", float64(d.posts), nil)
	add("posts_refused", "1", float64(d.refused), nil)
	for _, s := range []struct {
		name string
		all  []float64
	}{{"calm_s", d.took}, {"killed_s", d.killed}, {"pause_s", d.pauses}, {"unreachable_s", d.answers}} {
		if len(s.all) > 0 {
			d.metrics = append(d.metrics, newMetric("rehome."+s.name, "s", s.all, nil))
			add(s.name+"_most", "s", slices.Max(s.all), nil)
		}
	}
}

// wrong counts what must not be, and says it.
func (d *rehomeDrill) wrong(count *int, format string, args ...any) {
	d.seaDrill.mu.Lock()
	defer d.seaDrill.mu.Unlock()
	*count++
	d.say("WRONG: "+format, args...)
}

// mover is somebody who is moved, and what he has.
type mover struct {
	*islander
	photo, post string // posts of his, in his old home
	friendPost  string // made since he was moved
	picture     []byte

	mu       sync.Mutex
	sent     []sent   // guarded by mu
	comments []string // guarded by mu; acknowledged, of his own post
}

// sent is a post that somebody tried to make.
type sent struct {
	text       string
	start, end time.Duration
	id         string // if it was acknowledged
}

// in gives somebody as he is in a region: his session there is another client's.
func (p *islander) in(region string) *islander {
	return &islander{d: p.d, home: p.home, region: region, name: p.name, id: p.id, token: p.token}
}

// prepare has somebody who has all that people have.
func (d *rehomeDrill) prepare(ctx context.Context, n int) (*mover, error) {
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	m := &mover{islander: &islander{d: d.seaDrill, home: oldHome, region: oldHome, name: fmt.Sprintf("mover-%d", n)}}
	if err := m.arrive(limit); err != nil {
		return nil, err
	}
	err := d.until(limit, 100*time.Millisecond, func() error {
		missing, err := m.befriend(limit)
		if err != nil {
			return err
		}
		for _, p := range d.people {
			// Before his account has come over it is not found, and the request is repeated.
			_ = p.ask(limit, http.MethodPost, "/friend-requests", fmt.Sprint("to ", m.name, d.now()), map[string]any{"user": m.id}, nil)
		}
		if missing > 0 {
			return fmt.Errorf("%d friends of %s are missing", missing, m.name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if m.post, err = m.islander.post(limit, "from the old home of "+m.name); err != nil {
		return nil, err
	}
	if m.photo, err = m.shoot(limit); err != nil {
		return nil, err
	}
	there := d.somebody(newHome)
	for _, do := range []struct {
		method, path string
		body         any
	}{
		{http.MethodPost, "/tags", map[string]any{"name": "family", "users": []string{there.id}}},
		{http.MethodPatch, "/me/settings", map[string]any{"album_window": "6_months", "open_to_strangers": true}},
		{http.MethodPatch, "/friends/" + d.somebody("hk").id + "/settings", map[string]any{"hide_theirs": true}},
		{http.MethodPut, "/posts/" + m.post + "/like", nil},
	} {
		if err := m.ask(limit, do.method, do.path, do.path+m.name, do.body, nil); err != nil {
			return nil, fmt.Errorf("%s %s: %w", do.method, do.path, err)
		}
	}
	return m, d.everywhere(limit, []string{m.post, m.photo})
}

// shoot posts a photo.
func (m *mover) shoot(ctx context.Context) (post string, _ error) {
	const side = 24
	picture := image.NewRGBA(image.Rect(0, 0, side, side))
	for i := range side * side {
		picture.Set(i%side, i/side, color.RGBA{R: uint8(i), G: uint8(i >> 2), A: 255})
	}
	var b bytes.Buffer
	if err := png.Encode(&b, picture); err != nil {
		return "", err
	}
	sum := sha256.Sum256(b.Bytes())
	var upload, made struct {
		ID string `json:"id"`
	}
	body := map[string]any{"kind": "photo", "size": b.Len(), "sha256": hex.EncodeToString(sum[:])}
	if err := m.ask(ctx, http.MethodPost, "/uploads", "photo of "+m.name, body, &upload); err != nil {
		return "", fmt.Errorf("upload a photo: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, m.d.door(m.region, 0)+"/uploads/"+upload.ID+"/parts/0", &b)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+m.token)
	req.Header.Set("Content-SHA256", hex.EncodeToString(sum[:]))
	res, err := m.d.client.Do(req)
	if err != nil {
		return "", err
	}
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusNoContent {
		return "", fmt.Errorf("upload a photo: %s, %w", res.Status, err)
	}
	if err := m.ask(ctx, http.MethodPost, "/uploads/"+upload.ID+"/complete", "", map[string]any{}, &made); err != nil {
		return "", fmt.Errorf("upload a photo: %w", err)
	}
	err = m.ask(ctx, http.MethodPost, "/posts", "photo post of "+m.name, map[string]any{"media": []string{upload.ID}}, &made)
	return made.ID, err
}

// traffic has him post by the gateways of all regions, and comment, until acting ends.
func (m *mover) traffic(ctx, acting context.Context, region string) error {
	p := m.in(region)
	for n := 0; wait(acting, 60*time.Millisecond); n++ {
		s := sent{text: fmt.Sprintf("%s %d by %s", m.name, n, region), start: m.d.now()}
		var err error
		s.id, err = p.post(ctx, s.text)
		s.end = m.d.now()
		m.mu.Lock()
		m.sent = append(m.sent, s)
		m.mu.Unlock()
		if err != nil {
			continue // refused, or he does not know: then it may be there, once
		}
		if text := "commented " + s.text; n%4 == 0 {
			if _, err := p.comment(ctx, m.post, text, "", text); err == nil {
				m.mu.Lock()
				m.comments = append(m.comments, text)
				m.mu.Unlock()
			}
		}
	}
	return nil
}

// order gives an order as operators do, and again until it is taken.
func (d *rehomeDrill) order(ctx context.Context, args ...string) error {
	args = append([]string{"rehome", "--wait", "0s", "--data", filepath.Join(d.data, oldHome)}, args...)
	return d.until(ctx, 100*time.Millisecond, func() error {
		b, err := exec.CommandContext(ctx, d.path, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("moments %s: %w: %s", strings.Join(args, " "), err, b)
		}
		return nil
	})
}

// kill kills what a move says and waits until it has been started again.
func (d *rehomeDrill) kill(ctx context.Context, m move) error {
	is, err := d.running(m.region)
	if err != nil {
		return err
	}
	pid := is.PID
	if m.service != "" {
		pid = is.Services[m.service].PID
	}
	if pid == 0 || !d.ours(pid) {
		return fmt.Errorf("%v: it does not run", m)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	d.kills++
	limit, cancel := context.WithTimeout(ctx, backTime)
	defer cancel()
	if err := d.until(limit, 50*time.Millisecond, func() error { return d.ready(limit, m.region, pid) }); err != nil {
		return fmt.Errorf("%v, and %s is not ready again: %w", m, m.region, err)
	}
	return nil
}

// homeState is where somebody is at home, as moments rehome is told it.
type homeState struct {
	Region string `json:"region"`
	Next   string `json:"next"`
}

// home gives where somebody is at home as a region has it.
func (d *rehomeDrill) home(ctx context.Context, region string, p *mover) (at homeState, _ error) {
	is, err := d.running(region)
	if err != nil {
		return at, err
	}
	token, err := os.ReadFile(filepath.Join(d.data, region, "admin.token"))
	if err != nil {
		return at, err
	}
	header := http.Header{"Authorization": {"Bearer " + strings.TrimSpace(string(token))}}
	_, err = d.call(ctx, http.MethodPost, "http://"+is.Services["account"].Admin+"/rehome", header, map[string]any{"do": "show", "user": p.id}, &at)
	return at, err
}

// settled waits until regions agree on where he is at home, and gives where.
func (d *rehomeDrill) settled(ctx context.Context, p *mover, regions ...string) (home string, err error) {
	err = d.until(ctx, 20*time.Millisecond, func() error {
		home = ""
		for _, region := range regions {
			at, err := d.home(ctx, region, p)
			switch {
			case err != nil:
				return err
			case at.Next != "" || home != "" && home != at.Region:
				return fmt.Errorf("%s has %s at %+v, another region at %q", region, p.name, at, home)
			}
			home = at.Region
		}
		return nil
	})
	return home, err
}

// move moves somebody, while he posts, and looks at what came of it.
func (d *rehomeDrill) move(ctx context.Context, p *mover, m move) error {
	limit, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	acting, enough := context.WithCancel(limit)
	defer enough()
	var g errgroup.Group
	for _, region := range regionNames {
		g.Go(func() error { return p.traffic(limit, acting, region) })
	}
	wait(limit, 300*time.Millisecond)
	began := time.Now()
	err := d.carryOut(limit, p, m)
	var home string
	if err == nil {
		home, err = d.settled(limit, p, regionNames...)
	}
	took := time.Since(began).Seconds()
	if err == nil {
		wait(limit, 3*time.Second) // the gateways hear of it, and he posts where he is now
	}
	enough()
	if err = errors.Join(err, g.Wait()); err != nil {
		return err
	}
	want := newHome
	if m.back {
		want = oldHome
		d.undone++
	}
	d.moved++
	if home != want {
		d.wrong(&d.strange, "%s is at home in %s, want %s", p.name, home, want)
	}
	if m.at == never {
		d.took = append(d.took, took)
	} else {
		d.killed = append(d.killed, took)
	}
	return d.judge(limit, p, m, home)
}

// carryOut gives the order and kills what is to be killed, when it is.
func (d *rehomeDrill) carryOut(ctx context.Context, p *mover, m move) error {
	to := []string{p.name, "--to", newHome}
	line := [2]string{oldHome, newHome}
	cut := m.at == fenced || m.at == copying || m.back
	if cut {
		if err := d.set(ctx, line, map[string]any{"cut": true}); err != nil {
			return err
		}
	}
	if m.at == atOrder {
		var g errgroup.Group
		g.Go(func() error { return d.order(ctx, to...) })
		wait(ctx, time.Duration(d.chance.IntN(120))*time.Millisecond)
		return errors.Join(d.kill(ctx, m), g.Wait())
	}
	if err := d.order(ctx, to...); err != nil {
		return err
	}
	if m.at == fenced {
		if err := d.kill(ctx, m); err != nil {
			return err
		}
	}
	if m.back {
		var g errgroup.Group
		g.Go(func() error { return d.order(ctx, p.name, "--undo") })
		if m.at == calledOff {
			wait(ctx, time.Duration(d.chance.IntN(120))*time.Millisecond)
			g.Go(func() error { return d.kill(ctx, m) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	if cut {
		if err := d.healAll(ctx); err != nil {
			return err
		}
	}
	switch m.at {
	case copying:
		wait(ctx, time.Duration(d.chance.IntN(1200))*time.Millisecond)
		return d.kill(ctx, m)
	case opened:
		if _, err := d.settled(ctx, p, newHome); err != nil {
			return err
		}
		return d.kill(ctx, m)
	case never, atOrder, fenced, calledOff:
	}
	return nil
}
