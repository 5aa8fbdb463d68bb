// SPDX-License-Identifier: Apache-2.0

package flow_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/idcqueue/flow"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/tracing"
)

func newCodec(t testing.TB) *flow.Codec {
	t.Helper()
	c, err := flow.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var messages = []flow.Message{
	&flow.Hello{Service: "post", Region: 3, Incarnation: flow.Incarnation{1, 2}, Granted: 1 << 24, Again: true, Cursors: []flow.Cursor{{Slot: 0, Number: 1}, {Slot: 4095, Number: 1 << 40}}},
	&flow.Batch{Lane: 5, Records: []flow.Record{
		{Slot: 5, Number: 7, At: time.UnixMilli(1_800_000_000_000), Body: []byte("body")},
		{Slot: 69, Number: 1, At: time.UnixMilli(0), Origin: tracing.Origin{Entry: 1, Caller: 2, Identity: tracing.Identity{Trace: tracing.TraceID{1}, Span: tracing.SpanID{2}, Sampled: true}}},
	}},
	&flow.Batch{Lane: 1, Records: []flow.Record{{Slot: 1, Number: 1, At: time.UnixMilli(0), Body: bytes.Repeat([]byte("text "), 1000)}}},
	&flow.Part{Slot: 9, Number: 12, First: true, End: []byte{4}, Rows: []flow.Row{{Key: []byte{1}, Value: []byte("v")}, {Key: []byte{3}}}},
	&flow.Part{Slot: 9, Number: 12, Last: true, Start: []byte{4}},
	&flow.Ack{Granted: 5, Clock: time.UnixMilli(77), Applied: []flow.Cursor{{Slot: 1, Number: 2}}},
	&flow.Resume{Slot: 8, From: 3},
	&flow.Bye{Text: "no"},
	&flow.Mark{At: time.UnixMilli(78), Now: time.UnixMilli(5078)},
}

func TestCodec(t *testing.T) {
	c := newCodec(t)
	for _, m := range messages {
		b, raw, err := c.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		got, n, err := c.Decode(b)
		if err != nil || n != raw || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v became %+v (%d and %d bytes), %v", m, got, raw, n, err)
		}
		for i := range b { // what is flipped on the way is seen
			bad := bytes.Clone(b)
			bad[i] ^= 0x10
			if got, _, err := c.Decode(bad); !errors.Is(err, flow.ErrCorrupt) {
				t.Fatalf("byte %d of %T flipped: %+v, %v", i, m, got, err)
			}
		}
		if _, _, err := c.Decode(b[:len(b)-1]); !errors.Is(err, flow.ErrCorrupt) {
			t.Errorf("%T cut off: %v", m, err)
		}
	}
	if b, _, _ := c.Encode(messages[2]); len(b) > 1000 {
		t.Errorf("5,000 bytes of the same text are sent as %d", len(b))
	}
}

func TestOnlyTracedRequestsAreNamed(t *testing.T) {
	c := newCodec(t)
	from := tracing.Origin{Entry: 1, Caller: 2, Identity: tracing.Identity{Trace: tracing.TraceID{7: 1}, Span: tracing.SpanID{2}}}
	b, _, err := c.Encode(&flow.Batch{Lane: 1, Records: []flow.Record{{Slot: 1, Number: 1, At: time.UnixMilli(0), Origin: from}}})
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := c.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	from.Identity = tracing.Identity{}
	if got := m.(*flow.Batch).Records[0].Origin; got != from {
		t.Errorf("%+v has come, want %+v", got, from)
	}
}

func FuzzDecode(f *testing.F) {
	c := newCodec(f)
	for _, m := range messages {
		b, _, err := c.Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[0], b[1], b[10:])
	}
	f.Fuzz(func(t *testing.T, kind, flags byte, content []byte) {
		m, raw, err := c.Decode(flow.Seal(kind, flags, content))
		if err != nil {
			if !errors.Is(err, flow.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		b, again, err := c.Encode(m)
		if err != nil || again > raw { // an origin that says nothing is left out
			t.Fatalf("%+v has %d bytes, then %d: %v", m, raw, again, err)
		}
		if back, _, err := c.Decode(b); err != nil || !reflect.DeepEqual(back, m) {
			t.Fatalf("%+v became %+v: %v", m, back, err)
		}
	})
}

// world is two regions with a line between them, in one thread: the log of one, the
// machines, what is on its way, and what has had its effect in the other.
type world struct {
	t   *rapid.T
	now time.Time
	own flow.Incarnation

	log     map[kv.Slot][]string // every record there ever was; number i+1 is at i
	trimmed map[kv.Slot]uint64   // up to which they were removed
	cursor  map[kv.Slot]uint64   // that the sender knows
	known   map[kv.Slot]bool
	send    *flow.Sender
	holding map[kv.Slot]uint64
	floor   map[kv.Slot]uint64 // what is sent as a whole is there from this number on

	take    *flow.Receiver
	stored  map[kv.Slot]uint64 // durable cursors
	effects map[kv.Slot][]string
	line    []flow.Message // data under way
	back    []flow.Message // control under way
}

func newWorld(t *rapid.T) *world {
	return &world{
		t: t, now: time.UnixMilli(1_800_000_000_000), own: flow.Incarnation{1},
		log: map[kv.Slot][]string{}, trimmed: map[kv.Slot]uint64{}, cursor: map[kv.Slot]uint64{}, known: map[kv.Slot]bool{}, holding: map[kv.Slot]uint64{},
		stored: map[kv.Slot]uint64{}, effects: map[kv.Slot][]string{},
		take: flow.NewReceiver(flow.ReceiverConfig{Service: "test", Region: 2, Turn: 3}, nil),
	}
}

// session begins a session, when nobody works on anything.
func (w *world) session() {
	w.line, w.back, w.holding, w.floor = nil, nil, map[kv.Slot]uint64{}, map[kv.Slot]uint64{}
	w.send = flow.NewSender(flow.SenderConfig{Service: "test", BatchBytes: 300})
	answer, err := w.take.Join(&flow.Hello{Service: "test", Region: 1, Incarnation: w.own}, w.own, false)
	if err != nil {
		w.t.Fatal(err)
	}
	err = w.send.Join(w.now, answer, w.own, func(slot kv.Slot) flow.Log {
		return flow.Log{Head: uint64(len(w.log[slot])), Cursor: w.cursor[slot], Known: w.known[slot] || len(w.log[slot]) == 0}
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range answer.Cursors {
		// Before the end of the log a cursor says nothing: what is sent as a whole moves it
		// with its last part only.
		if c.Number == uint64(len(w.log[c.Slot])) && !w.send.Whole(c.Slot) {
			w.acked(c)
		}
	}
}

func (w *world) acked(c flow.Cursor) {
	if c.Number < w.floor[c.Slot] {
		return
	}
	if !w.known[c.Slot] || c.Number > w.cursor[c.Slot] {
		w.known[c.Slot], w.cursor[c.Slot] = true, c.Number
	}
}

func (w *world) write(slot kv.Slot) {
	if len(w.log[slot]) == 0 {
		w.known[slot] = true // the peer has had nothing, as all
	}
	w.log[slot] = append(w.log[slot], fmt.Sprint(slot, "/", len(w.log[slot])+1))
	w.send.Grow(w.now, slot, uint64(len(w.log[slot])))
}

// alone has the sender's region run as the only one for a while: it changes a row, and no
// record has a number or is kept for anybody.
func (w *world) alone(slot kv.Slot) {
	if n := len(w.log[slot]); n > 0 {
		w.log[slot][n-1] += "'"
		w.known[slot], w.trimmed[slot] = false, uint64(n)
	}
	w.session()
}

// sender does the machine's next steps.
func (w *world) sender(steps int) {
	for range steps {
		switch do := w.send.Next(w.now); do.Step {
		case flow.Idle:
			return
		case flow.Wait:
			w.now = do.Until
		case flow.Read:
			if do.From < w.trimmed[do.Slot] {
				w.send.SendWhole(do.Slot)
				continue
			}
			var recs []flow.Record
			for n := do.From; n < uint64(len(w.log[do.Slot])) && len(recs) < 2; n++ {
				recs = append(recs, flow.Record{Slot: do.Slot, Number: n + 1, At: w.now, Body: []byte(w.log[do.Slot][n])})
			}
			if err := w.send.Take(w.now, do.Slot, recs); err != nil {
				w.t.Fatal(err)
			}
		case flow.Send:
			b := w.send.TakeBatch()
			w.send.Used(300)
			w.line = append(w.line, b)
		case flow.Rows: // one row for each record, in pages of two
			hold, under := w.holding[do.Slot]
			p := &flow.Part{Slot: do.Slot, First: !under}
			var start uint64
			if !under {
				hold = uint64(len(w.log[do.Slot])) << 32
				w.floor[do.Slot], w.known[do.Slot] = hold>>32, false
			}
			start = hold & 0xffffffff
			p.Number = hold >> 32
			if start > 0 {
				p.Start = []byte{byte(start)}
			}
			end := min(start+2, p.Number)
			for n := start; n < end; n++ {
				p.Rows = append(p.Rows, flow.Row{Key: []byte{byte(n)}, Value: []byte(w.log[do.Slot][n])})
			}
			if p.Last = end == p.Number; p.Last {
				delete(w.holding, do.Slot)
			} else {
				p.End = []byte{byte(end)}
				w.holding[do.Slot] = p.Number<<32 | end
			}
			w.send.PartSent(w.now, do.Slot, p.Number, p.Last)
			w.send.Used(100)
			w.line = append(w.line, p)
		}
	}
}

// arrive takes data off the line.
func (w *world) arrive(i int) {
	m := w.line[i]
	w.line = slices.Delete(w.line, i, i+1)
	var err error
	switch m := m.(type) {
	case *flow.Batch:
		err = w.take.Batch(w.now, m, 300)
	case *flow.Part:
		err = w.take.Part(w.now, m, 100)
	}
	if err != nil {
		if !errors.Is(err, flow.ErrCorrupt) {
			w.t.Fatal(err)
		}
		w.session() // parts out of order: the line is not one
	}
}

// work applies one thing, or as much of it.
func (w *world) work(part int) bool {
	work, ok := w.take.Next()
	if !ok {
		return false
	}
	slot := work.Slot
	if p := work.Part; p != nil {
		at, present := w.stored[slot]
		if !present || at <= p.Number { // else it is older than what is here
			have := w.effects[slot]
			for _, row := range p.Rows { // each in its place, over what is there
				if n := int(row.Key[0]); n < len(have) {
					have[n] = string(row.Value)
				} else {
					have = append(have, string(row.Value))
				}
			}
			if w.effects[slot] = have; p.Last {
				w.stored[slot], at, present = p.Number, p.Number, true
			}
		}
		w.take.Done(w.now, slot, 1, at, present)
		return true
	}
	n := min(part, len(work.Records))
	for _, r := range work.Records[:n] {
		if want := w.stored[slot] + 1; r.Number != want {
			w.t.Fatalf("slot %d applies %d, want %d", slot, r.Number, want)
		}
		if have := uint64(len(w.effects[slot])); have != w.stored[slot] {
			w.t.Fatalf("slot %d applies %d over half a whole of %d", slot, r.Number, have)
		}
		w.stored[slot] = r.Number
		w.effects[slot] = append(w.effects[slot], string(r.Body))
	}
	w.take.Done(w.now, slot, n, w.stored[slot], w.stored[slot] > 0)
	return true
}

// talk carries the receiver's words.
func (w *world) talk() {
	for {
		m, at := w.take.Control(w.now)
		if m != nil {
			w.back = append(w.back, m)
		} else if !at.IsZero() {
			w.now = at
		} else {
			return
		}
	}
}

func (w *world) hear() {
	for _, m := range w.back {
		var err error
		switch m := m.(type) {
		case *flow.Ack:
			for _, c := range m.Applied {
				w.acked(c)
			}
			err = w.send.Ack(m)
		case *flow.Resume:
			err = w.send.Resume(w.now, m, m.From >= w.trimmed[m.Slot])
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	w.back = nil
}

// crash restarts the receiver from what is durable.
func (w *world) crash() {
	var cursors []flow.Cursor
	for slot, n := range w.stored {
		cursors = append(cursors, flow.Cursor{Slot: slot, Number: n})
	}
	w.take = flow.NewReceiver(flow.ReceiverConfig{Service: "test", Region: 2, Turn: 3}, cursors)
	w.session()
}

// TestExactlyOnceInOrder is the law: whatever is lost, repeated, late, cut and restarted,
// each record has its effect once, in the order of its slot, and in the end all have.
func TestExactlyOnceInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.session()
		slots := []kv.Slot{1, 65, 2, 4000}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch step := rapid.SampledFrom([]string{
				"write", "write", "send", "send", "arrive", "arrive", "work", "talk", "hear",
				"lose", "twice", "late", "cut", "crash", "trim", "forget", "alone",
			}).Draw(t, "step"); step {
			case "write":
				slot := rapid.SampledFrom(slots).Draw(t, "slot")
				for range rapid.IntRange(1, 5).Draw(t, "records") {
					w.write(slot)
				}
			case "send":
				w.sender(rapid.IntRange(1, 20).Draw(t, "n"))
			case "arrive", "late":
				if len(w.line) > 0 {
					i := 0
					if step == "late" {
						i = rapid.IntRange(0, len(w.line)-1).Draw(t, "which")
					}
					w.arrive(i)
				}
			case "lose":
				if len(w.line) > 0 {
					w.line = w.line[1:]
				}
			case "twice":
				if len(w.line) > 0 {
					w.line = append(w.line, w.line[rapid.IntRange(0, len(w.line)-1).Draw(t, "which")])
				}
			case "work":
				w.work(rapid.IntRange(1, 3).Draw(t, "part"))
			case "talk":
				w.talk()
			case "hear":
				w.hear()
			case "cut":
				w.session()
			case "crash":
				w.crash()
			case "trim": // up to what is known to be there, and never more
				slot := rapid.SampledFrom(slots).Draw(t, "slot")
				w.trimmed[slot] = max(w.trimmed[slot], w.cursor[slot])
			case "forget": // the peer is dropped
				slot := rapid.SampledFrom(slots).Draw(t, "slot")
				w.known[slot], w.trimmed[slot] = false, uint64(len(w.log[slot]))
			case "alone":
				w.alone(rapid.SampledFrom(slots).Draw(t, "slot"))
			}
		}
		for range 3 { // and then it is quiet
			w.session()
			for idle := 0; idle < 3; idle++ {
				w.sender(50)
				if len(w.line) > 0 {
					idle = 0
				}
				for len(w.line) > 0 {
					w.arrive(0)
				}
				for w.work(3) {
					continue
				}
				w.talk()
				w.hear()
			}
		}
		for _, slot := range slots {
			if got, want := strings.Join(w.effects[slot], " "), strings.Join(w.log[slot], " "); got != want {
				t.Fatalf("slot %d has %q, want %q", slot, got, want)
			}
			if len(w.log[slot]) > 0 && !w.known[slot] {
				t.Fatalf("slot %d is there, and the sender never hears of it", slot)
			}
		}
		if w.take.Backlog() != 0 {
			t.Fatalf("%d bytes are left over", w.take.Backlog())
		}
	})
}

// TestJoinUnknown: a peer that has the last record gets the slot as a whole nevertheless if
// how far it was is not known, as after a time in which this region was alone: its writes
// had no numbers then. In a slot without a record, too.
func TestJoinUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		log   flow.Log
		has   bool
		whole bool
	}{
		"known, and has all":       {log: flow.Log{Head: 5, Cursor: 5, Known: true}, has: true},
		"not known, and has all":   {log: flow.Log{Head: 5}, has: true, whole: true},
		"not known, never met":     {log: flow.Log{Head: 5}, whole: true},
		"known, no record":         {log: flow.Log{Known: true}, has: true},
		"not known, no record":     {has: true, whole: true},
		"never met, and no record": {whole: true},
	} {
		s := flow.NewSender(flow.SenderConfig{Service: "test"})
		h := &flow.Hello{Service: "test", Granted: 1}
		if c.has {
			h.Cursors = []flow.Cursor{{Slot: 3, Number: c.log.Head}}
		}
		err := s.Join(time.UnixMilli(0), h, flow.Incarnation{1}, func(slot kv.Slot) flow.Log {
			if slot == 3 {
				return c.log
			}
			return flow.Log{Known: true}
		})
		if err != nil || s.Whole(3) != c.whole || s.Wholes() > 1 {
			t.Errorf("%s: %d as a whole, %v, want %v, %v", name, s.Wholes(), s.Whole(3), c.whole, err)
		}
	}
}

func TestJoinStops(t *testing.T) {
	now := time.UnixMilli(0)
	own, other := flow.Incarnation{1}, flow.Incarnation{2}
	log := func(kv.Slot) flow.Log { return flow.Log{Head: 5, Cursor: 5, Known: true} }
	var stop *flow.ErrStop
	for name, h := range map[string]*flow.Hello{
		"another service":       {Service: "post"},
		"foreign incarnation":   {Service: "test", Incarnation: other},
		"cursor ahead of log":   {Service: "test", Incarnation: own, Cursors: []flow.Cursor{{Slot: 3, Number: 6}}},
		"ahead and first met":   {Service: "test", Cursors: []flow.Cursor{{Slot: 3, Number: 6}}},
		"ahead in the last one": {Service: "test", Incarnation: own, Cursors: []flow.Cursor{{Slot: 4095, Number: 1 << 62}}},
	} {
		s := flow.NewSender(flow.SenderConfig{Service: "test"})
		if err := s.Join(now, h, own, log); !errors.As(err, &stop) {
			t.Errorf("sender, %s: %v, want a stop", name, err)
		}
		if do := s.Next(now); do.Step != flow.Idle {
			t.Errorf("sender, %s: goes on with %+v", name, do)
		}
	}
	for name, h := range map[string]*flow.Hello{
		"another service":     {Service: "post", Incarnation: own},
		"foreign incarnation": {Service: "test", Incarnation: other},
	} {
		r := flow.NewReceiver(flow.ReceiverConfig{Service: "test"}, nil)
		if _, err := r.Join(h, own, false); !errors.As(err, &stop) {
			t.Errorf("receiver, %s: %v, want a stop", name, err)
		}
	}
	s := flow.NewSender(flow.SenderConfig{Service: "test"})
	if err := s.Join(now, &flow.Hello{Service: "test"}, own, log); err != nil {
		t.Fatal(err)
	}
	if err := s.Ack(&flow.Ack{Applied: []flow.Cursor{{Slot: 1, Number: 6}}}); !errors.As(err, &stop) {
		t.Errorf("an acknowledgement ahead of the log: %v, want a stop", err)
	}
	if err := s.Resume(now, &flow.Resume{Slot: 1, From: 6}, true); !errors.As(err, &stop) {
		t.Errorf("a place ahead of the log: %v, want a stop", err)
	}
}

// TestRecordTooLarge: what no message can hold stops the line, and is not skipped.
func TestRecordTooLarge(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bytes int
		stops bool
	}{
		{"the largest", flow.MaxRecord, false},
		{"a byte more", flow.MaxRecord + 1, true},
	} {
		s := flow.NewSender(flow.SenderConfig{Service: "test"})
		h := &flow.Hello{Service: "test", Incarnation: flow.Incarnation{1}, Cursors: []flow.Cursor{{Slot: 7}}, Granted: 1 << 30}
		err := s.Join(time.UnixMilli(0), h, flow.Incarnation{1}, func(slot kv.Slot) flow.Log {
			return flow.Log{Head: uint64(slot / 7 % 2), Known: true}
		})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Take(time.UnixMilli(0), 7, []flow.Record{{Slot: 7, Number: 1, Body: make([]byte, tt.bytes)}})
		if _, stops := errors.AsType[*flow.ErrStop](err); stops != tt.stops || s.Sent(7) != map[bool]uint64{true: 0, false: 1}[tt.stops] {
			t.Errorf("%s: %v, %d records are taken", tt.name, err, s.Sent(7))
		}
	}
}

// TestCredit: a sender whose receiver does not get on stops reading the log.
func TestCredit(t *testing.T) {
	now := time.UnixMilli(0)
	s := flow.NewSender(flow.SenderConfig{Service: "test", BatchBytes: 1000})
	h := &flow.Hello{Service: "test", Granted: 5000}
	if err := s.Join(now, h, flow.Incarnation{1}, func(slot kv.Slot) flow.Log {
		if slot == 7 {
			return flow.Log{Head: 1 << 30, Known: true}
		}
		return flow.Log{Known: true}
	}); err != nil {
		t.Fatal(err)
	}
	run := func() (sent int) {
		for {
			switch do := s.Next(now); do.Step {
			case flow.Wait:
				now = do.Until
			case flow.Read:
				if err := s.Take(now, 7, []flow.Record{{Slot: 7, Number: do.From + 1, Body: make([]byte, 900)}}); err != nil {
					t.Fatal(err)
				}
			case flow.Send:
				s.TakeBatch()
				s.Used(1000)
				sent++
			case flow.Idle:
				return sent
			}
		}
	}
	if n := run(); n < 5 || n > 6 {
		t.Errorf("%d batches of 1,000 bytes under 5,000 of credit", n)
	}
	if err := s.Ack(&flow.Ack{Granted: 8000}); err != nil {
		t.Fatal(err)
	}
	if n := run(); n < 2 || n > 3 {
		t.Errorf("%d batches more under 3,000 more", n)
	}
	if st := s.Stats(); st.Stalls != 2 {
		t.Errorf("%d stalls, want 2", st.Stalls)
	}
}

// TestFair: a busy lane does not keep the others waiting, nor a slot those of its lane,
// nor a snapshot the records.
func TestFair(t *testing.T) {
	now := time.UnixMilli(0)
	s := flow.NewSender(flow.SenderConfig{Service: "test", BatchBytes: 1000})
	h := &flow.Hello{Service: "test", Granted: 1 << 30}
	if err := s.Join(now, h, flow.Incarnation{1}, func(slot kv.Slot) flow.Log {
		switch slot {
		case 7, 71:
			return flow.Log{Head: 1 << 30, Known: true}
		case 9:
			return flow.Log{Head: 1, Known: true}
		case 100:
			return flow.Log{Head: 1 << 30}
		}
		return flow.Log{Known: true}
	}); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for range 200 {
		switch do := s.Next(now); do.Step {
		case flow.Wait:
			now = do.Until
		case flow.Read:
			got[fmt.Sprint("slot ", do.Slot)]++
			if err := s.Take(now, do.Slot, []flow.Record{{Slot: do.Slot, Number: do.From + 1, Body: make([]byte, 600)}}); err != nil {
				t.Fatal(err)
			}
		case flow.Send:
			got["batch"]++
			if got["batch"] == 3 && got["slot 9"] == 0 {
				t.Error("lane 9 has to wait")
			}
			s.TakeBatch()
		case flow.Rows:
			got["part"]++
			s.PartSent(now, do.Slot, 0, false)
		case flow.Idle:
			t.Fatal("idle")
		}
	}
	if d := got["slot 7"] - got["slot 71"]; d < -2 || d > 2 || got["part"] < got["batch"]/2 {
		t.Errorf("%v", got)
	}
}

func TestRate(t *testing.T) {
	now := time.UnixMilli(0)
	s := flow.NewSender(flow.SenderConfig{Service: "test", BatchBytes: 1000, Rate: 10_000})
	if err := s.Join(now, &flow.Hello{Service: "test", Granted: 1 << 40}, flow.Incarnation{1}, func(slot kv.Slot) flow.Log {
		return flow.Log{Head: uint64(slot) / 4095 << 40, Known: true}
	}); err != nil {
		t.Fatal(err)
	}
	sent := 0
	for now.Before(time.UnixMilli(10_000)) {
		switch do := s.Next(now); do.Step {
		case flow.Wait:
			now = do.Until
		case flow.Read:
			if err := s.Take(now, do.Slot, []flow.Record{{Slot: do.Slot, Number: do.From + 1, Body: make([]byte, 1000)}}); err != nil {
				t.Fatal(err)
			}
		case flow.Send:
			s.TakeBatch()
			s.Used(1000)
			sent += 1000
		}
	}
	if sent < 95_000 || sent > 110_000 {
		t.Errorf("%d bytes in 10 s at 10,000 a second", sent)
	}
}
