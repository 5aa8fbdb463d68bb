// SPDX-License-Identifier: Apache-2.0

package callgraph

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/sluice-rpc/sluice/tracing"
)

// Process is one run of one instance of a service.
type Process struct {
	Service  string `json:"service"`
	Instance string `json:"instance"` // unique within the service, for example its address
	Epoch    uint64 `json:"epoch"`    // differs with each start, for example its time in Unix nanoseconds
}

// Snapshot is all that one process has counted since it started. It is read-only.
type Snapshot struct {
	Process Process
	Time    time.Time // the process's own time of day, in milliseconds
	Period
}

// The bounds of a snapshot that is read.
const (
	MaxSnapshotBytes = 32 << 20
	MaxRows          = 1 << 16
	maxEntries       = 1 << 14
	maxMarks         = 1 << 14
	maxFields        = 1 << 10 // of the outermost object
	// maxCount is what a counter can truly reach: a thousand calls of one edge at any
	// time add up to it in nanoseconds within 106 days.
	maxCount = math.MaxInt64
	// What one row may hold as text. Fields of later versions have room.
	maxCountsText  = 2 << 10
	maxLatencyText = 4 << 10
)

// SnapshotVersion is the version of the JSON form that this package writes. Fields
// are only ever added; a reader ignores those it does not know.
const SnapshotVersion = 1

// ErrTooLarge is in the errors of a snapshot that is beyond its bounds.
var ErrTooLarge = errors.New("callgraph: snapshot too large")

type snapshotJSON struct {
	Version int         `json:"version"`
	Process Process     `json:"process"`
	Time    int64       `json:"time_ms"`
	Entries []entryJSON `json:"entries"`
	Marks   []markJSON  `json:"marks"`
	Rows    []rowJSON   `json:"rows"`
}

type entryJSON struct {
	ID   entryID `json:"id"`
	Name string  `json:"name"`
}

type markJSON struct {
	Node     string `json:"node"`
	Severity uint8  `json:"severity"`
	Text     string `json:"text"`
}

type rowJSON struct {
	Side          Side          `json:"side"`
	Entry         entryID       `json:"entry"`
	Caller        string        `json:"caller"`
	Callee        string        `json:"callee"`
	Results       countsJSON    `json:"results"`
	Attempts      countsJSON    `json:"attempts,omitzero"`
	Nanos         uint64        `json:"sum_ns"`
	RequestBytes  uint64        `json:"request_bytes"`
	ResponseBytes uint64        `json:"response_bytes"`
	Latency       histogramJSON `json:"latency"`
}

// MarshalJSON writes the snapshot in its stable form: the same counts give the same
// bytes.
func (s *Snapshot) MarshalJSON() ([]byte, error) {
	out := snapshotJSON{
		Version: SnapshotVersion, Process: s.Process, Time: s.Time.UnixMilli(),
		Entries: make([]entryJSON, len(s.Entries)),
		Marks:   make([]markJSON, len(s.Marks)),
		Rows:    make([]rowJSON, len(s.Rows)),
	}
	for i, e := range s.Entries {
		out.Entries[i] = entryJSON{ID: entryID(e.ID), Name: e.Name}
	}
	for i, m := range s.Marks {
		out.Marks[i] = markJSON{Node: m.Node, Severity: m.Mark.Severity, Text: m.Mark.Text}
	}
	for i := range s.Rows {
		r := &s.Rows[i]
		out.Rows[i] = rowJSON{
			Side: r.Side, Entry: entryID(r.Entry), Caller: r.Caller, Callee: r.Callee,
			Results: r.Results, Attempts: r.Attempts,
			Nanos: r.Nanos, RequestBytes: r.RequestBytes, ResponseBytes: r.ResponseBytes,
			Latency: histogramJSON(r.Latency),
		}
	}
	return json.Marshal(out)
}

// ReadSnapshot reads the JSON form of a snapshot from a process that is not trusted:
// size, depth and counts are bounded, names are cleaned, and what comes out is in
// order. It reads to the end of r.
func ReadSnapshot(r io.Reader) (*Snapshot, error) {
	in := &boundedReader{r: r, left: MaxSnapshotBytes}
	s, err := readSnapshot(json.NewDecoder(in))
	switch {
	case in.over:
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, MaxSnapshotBytes)
	case err != nil:
		return nil, fmt.Errorf("callgraph: read snapshot: %w", err)
	}
	return s, nil
}

func readSnapshot(dec *json.Decoder) (*Snapshot, error) {
	if err := expect(dec, json.Delim('{')); err != nil {
		return nil, err
	}
	var s Snapshot
	var version int
	for field := 0; dec.More(); field++ {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		if field >= maxFields {
			return nil, fmt.Errorf("%w: more than %d fields", ErrTooLarge, maxFields)
		}
		if err := readField(dec, name, &s, &version); err != nil {
			return nil, fmt.Errorf("field %q: %w", name, err)
		}
	}
	if err := expect(dec, json.Delim('}')); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the snapshot")
	}
	if version < 1 {
		return nil, errors.New("no version: this is not a snapshot")
	}
	s.Period = Merge(s.Period)
	for i := range s.Rows {
		if r := &s.Rows[i]; r.largest() > maxCount {
			return nil, fmt.Errorf("%s -> %s: a count of %d is absurd", r.Caller, r.Callee, r.largest())
		}
	}
	return &s, nil
}

func readField(dec *json.Decoder, name json.Token, s *Snapshot, version *int) error {
	switch name {
	case "version":
		return dec.Decode(version)
	case "process":
		err := dec.Decode(&s.Process)
		s.Process.Service, s.Process.Instance = cleanName(s.Process.Service), cleanName(s.Process.Instance)
		return err
	case "time_ms":
		var ms int64
		err := dec.Decode(&ms)
		s.Time = time.UnixMilli(ms).UTC()
		return err
	case "entries":
		return readArray(dec, maxEntries, func(e entryJSON) error {
			s.Entries = append(s.Entries, EntryName{ID: tracing.Entry(e.ID), Name: cleanName(e.Name)})
			return nil
		})
	case "marks":
		return readArray(dec, maxMarks, func(m markJSON) error {
			s.Marks = append(s.Marks, NodeMark{Node: m.Node, Mark: Mark{Severity: m.Severity, Text: m.Text}})
			return nil
		})
	case "rows":
		return readArray(dec, MaxRows, func(r rowJSON) error {
			s.Rows = append(s.Rows, Row{
				Key: Key{Side: r.Side, Entry: tracing.Entry(r.Entry), Caller: cleanName(r.Caller), Callee: cleanName(r.Callee)},
				Stats: Stats{
					Results: r.Results, Attempts: r.Attempts,
					Nanos: r.Nanos, RequestBytes: r.RequestBytes, ResponseBytes: r.ResponseBytes,
					Latency: Histogram(r.Latency),
				},
			})
			return nil
		})
	default:
		var skip json.RawMessage
		return dec.Decode(&skip)
	}
}

// readArray decodes element by element: the bound holds before memory is taken.
func readArray[T any](dec *json.Decoder, most int, take func(T) error) error {
	t, err := dec.Token()
	if err != nil || t == nil { // null is an empty list
		return err
	}
	if t != json.Delim('[') {
		return errors.New("not a list")
	}
	for n := 0; dec.More(); n++ {
		if n >= most {
			return fmt.Errorf("%w: more than %d elements", ErrTooLarge, most)
		}
		var v T
		if err := dec.Decode(&v); err != nil {
			return fmt.Errorf("element %d: %w", n, err)
		}
		if err := take(v); err != nil {
			return fmt.Errorf("element %d: %w", n, err)
		}
	}
	return expect(dec, json.Delim(']'))
}

func expect(dec *json.Decoder, want json.Delim) error {
	t, err := dec.Token()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if t != want {
		return fmt.Errorf("%v instead of %v", t, want)
	}
	return nil
}

type boundedReader struct {
	r    io.Reader
	left int64
	over bool
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		// Exactly the bound is allowed: only a further byte is too much.
		var one [1]byte
		n, err := b.r.Read(one[:])
		if n > 0 {
			b.over = true
			return 0, ErrTooLarge
		}
		return 0, err
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// entryID is written as eight hexadecimal digits, as entries stand in logs.
type entryID tracing.Entry

func (e entryID) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%08x", uint32(e)), nil }

func (e *entryID) UnmarshalText(b []byte) error {
	if len(b) != 8 {
		return errors.New("an entry is eight hexadecimal digits")
	}
	v, err := strconv.ParseUint(string(b), 16, 32)
	if err != nil {
		return errors.New("an entry is eight hexadecimal digits")
	}
	*e = entryID(v)
	return nil
}

// MarshalText gives the name of the side.
func (s Side) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the name of a side.
func (s *Side) UnmarshalText(b []byte) error {
	for i, name := range sideNames {
		if string(b) == name {
			*s = Side(i)
			return nil
		}
	}
	return errors.New("a side is client, server, producer or consumer")
}

// countsJSON is an object of class names and counts, without those that are zero.
type countsJSON [NumClasses]uint64

func (c countsJSON) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, n := range c {
		if n == 0 {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, classNames[i]...)
		b = append(b, '"', ':')
		b = strconv.AppendUint(b, n, 10)
	}
	return append(b, '}'), nil
}

// UnmarshalJSON counts a class that it does not know as Other.
func (c *countsJSON) UnmarshalJSON(b []byte) error {
	if len(b) > maxCountsText {
		return fmt.Errorf("%w: counts of more than %d bytes", ErrTooLarge, maxCountsText)
	}
	var m map[string]uint64
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	*c = countsJSON{}
	for name, n := range m {
		c[classOf(name)] = add(c[classOf(name)], n)
	}
	return nil
}

// histogramJSON is {"first": bucket, "counts": [...]}.
type histogramJSON Histogram

type histogramFields struct {
	First  int      `json:"first"`
	Counts []uint64 `json:"counts"`
}

func (h histogramJSON) MarshalJSON() ([]byte, error) {
	b := []byte(`{"first":`)
	b = strconv.AppendInt(b, int64(h.First), 10)
	b = append(b, `,"counts":[`...)
	for i, n := range h.Counts {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, n, 10)
	}
	return append(b, `]}`...), nil
}

func (h *histogramJSON) UnmarshalJSON(b []byte) error {
	if len(b) > maxLatencyText {
		return fmt.Errorf("%w: latency of more than %d bytes", ErrTooLarge, maxLatencyText)
	}
	var f histogramFields
	if err := json.Unmarshal(bytes.TrimSpace(b), &f); err != nil {
		return err
	}
	if f.First < 0 || f.First+len(f.Counts) > NumBuckets || f.First > NumBuckets {
		return fmt.Errorf("latency: buckets %d to %d of %d", f.First, f.First+len(f.Counts), NumBuckets)
	}
	*h = histogramJSON(f)
	return nil
}
