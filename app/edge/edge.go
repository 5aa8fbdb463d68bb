// SPDX-License-Identifier: Apache-2.0

// Package edge serves photos and videos near to those who look at them.
//
// An [Edge] keeps pieces of them on its disk and fetches each piece from the origin, the
// media service, once, however many readers wait for it. A [Relay] leads the requests of
// an entry to edges, to the next one if one fails, and past all of them to the origin.
// Both ask nobody who may see what: that is what the link in the request says.
package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/link"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Pattern is the route of links, as in http.ServeMux.
const Pattern = "GET " + link.Prefix + "{media}/{form}"

// Origin is the part of the media service's client that is used here.
type Origin interface {
	ReadRange(context.Context, *momentsv1.ReadRangeRequest) (*momentsv1.ReadRangeResponse, error)
}

// pieceSize is the bytes of a piece: what one ReadRange gives.
const pieceSize = 1 << 20

// fetchTime bounds a fetch, whoever waits for it.
const fetchTime = 5 * time.Second

// Config is what an Edge is made of.
type Config struct {
	// Origin has what is not here.
	Origin Origin
	// Region is the own region: fetches from others, which may hang, take no place of its
	// own, and peers get no others'. Zero without other regions.
	Region id.Region
	// Links checks links.
	Links *link.Signer
	// Dir is where pieces are kept. Pieces of an earlier run are removed.
	Dir string
	// MaxBytes bounds what is kept; 0 means 1 GiB.
	MaxBytes int64
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
}

// Edge serves media from its cache. It is safe for concurrent use.
type Edge struct {
	door
	cache  *cache
	region id.Region
}

// New makes an Edge with an empty cache.
func New(cfg Config) (*Edge, error) {
	if cfg.Origin == nil || cfg.Links == nil || cfg.Dir == "" {
		return nil, errors.New("edge: Config needs Origin, Links and Dir")
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 1 << 30
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c, err := newCache(cfg.Dir, cfg.MaxBytes, cfg.Origin, cfg.Region)
	if err != nil {
		return nil, err
	}
	return &Edge{door: newDoor(cfg.Links, cfg.Now), cache: c, region: cfg.Region}, nil
}

// Serve answers one request of Pattern. An error is of the request, for a problem
// document; nothing has been written then.
func (e *Edge) Serve(w http.ResponseWriter, r *http.Request) error {
	o, until, err := e.check(r)
	if err != nil {
		return err
	}
	leave, err := e.enter()
	if err != nil {
		return err
	}
	defer leave()
	return e.serve(w, r, o, until, e.cache)
}

// maxReaders bounds the answers under way, which take as long as their readers like.
const maxReaders = 1024

// errNotFound is one answer for what is not there and for what the link does not open.
var errNotFound = problem.NotFound("photo or video")

// door checks links and counts readers.
type door struct {
	links   *link.Signer
	now     func() time.Time
	readers chan struct{}
}

func newDoor(links *link.Signer, now func() time.Time) door {
	return door{links: links, now: now, readers: make(chan struct{}, maxReaders)}
}

func (d *door) enter() (leave func(), err error) {
	select {
	case d.readers <- struct{}{}:
		return func() { <-d.readers }, nil
	default:
		return nil, problem.New(rpc.Unavailable, "busy", "", "too many photos and videos are being read; try again")
	}
}

// object is a form of a medium.
type object struct {
	media id.Media
	form  link.Form
}

// check reads the link of a request. Whatever is wrong with it answers like what never
// existed, but that a link which was good may say that its time is over.
func (d *door) check(r *http.Request) (object, time.Time, error) {
	o, err := parse(r)
	if err != nil {
		return o, time.Time{}, err
	}
	q := r.URL.Query()
	until, err := d.links.Check(o.media, q.Get("e"), q.Get("s"), d.now())
	if errors.Is(err, link.ErrExpired) {
		return o, until, problem.New(rpc.PermissionDenied, "link-expired", "e", "the link has ended: read the post again for a new one")
	}
	if err != nil {
		return o, until, errNotFound
	}
	return o, until, nil
}

// parse reads which object a request is about.
func parse(r *http.Request) (object, error) {
	o := object{form: link.Form(r.PathValue("form"))}
	var err error
	if o.media, err = id.ParseMedia(r.PathValue("media")); err != nil || o.form.Variant() == 0 {
		return o, errNotFound
	}
	return o, nil
}

// piece is a part of an object. It is read with ReadAt and then closed.
type piece struct {
	io.ReaderAt
	io.Closer
	length int64
	whole  int64  // of the object
	kind   string // content type
}

// source gives pieces.
type source interface {
	piece(ctx context.Context, o object, index int64) (piece, error)
}

// serve answers with an object, or the part of it that is asked for.
func (d *door) serve(w http.ResponseWriter, r *http.Request, o object, until time.Time, from source) error {
	first, err := from.piece(r.Context(), o, 0)
	if err != nil {
		return err
	}
	c := &content{ctx: r.Context(), from: from, object: o, size: first.whole, index: 0, at: first}
	defer c.Close()
	h := w.Header()
	h.Set("Content-Type", first.kind)
	h.Set("Etag", etag(o))
	h.Set("Cache-Control", "private, max-age="+strconv.Itoa(max(0, int(until.Sub(d.now())/time.Second)))+", immutable")
	harden(h)
	http.ServeContent(&patient{ResponseWriter: w}, r, "", time.Time{}, c)
	return nil
}

// etag names what never changes.
func etag(o object) string { return `"` + o.media.String() + "-" + string(o.form) + `"` }

// harden keeps a browser from taking a file for anything else than it is said to be,
// should it be opened by itself.
func harden(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("Cross-Origin-Resource-Policy", "same-site")
	h.Set("Content-Disposition", "inline")
}

// content reads an object piece by piece, for http.ServeContent.
type content struct {
	ctx    context.Context // of the request
	from   source
	object object
	size   int64

	offset int64
	index  int64
	at     piece // of index; nil ReaderAt for none
}

func (c *content) Read(p []byte) (int, error) {
	if c.offset >= c.size {
		return 0, io.EOF
	}
	if index := c.offset / pieceSize; c.at.ReaderAt == nil || index != c.index {
		c.Close()
		next, err := c.from.piece(c.ctx, c.object, index)
		if err != nil {
			return 0, err
		}
		c.index, c.at = index, next
	}
	within := c.offset - c.index*pieceSize
	if within >= c.at.length {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.at.ReadAt(p[:min(int64(len(p)), c.at.length-within, c.size-c.offset)], within)
	c.offset += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (c *content) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += c.offset
	case io.SeekEnd:
		offset += c.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("edge: seek to %d", offset)
	}
	c.offset = offset
	return offset, nil
}

// Close lets go of the piece at hand.
func (c *content) Close() {
	if c.at.Closer != nil {
		_ = c.at.Close() // it was only read
	}
	c.at = piece{}
}

// patience is how long a reader may take for a few KiB. A long video is not cut off as
// long as it goes on.
const patience = 30 * time.Second

// patient moves the deadline of an answer on with what is written.
type patient struct {
	http.ResponseWriter
}

func (w *patient) Write(p []byte) (int, error) {
	// Where it cannot be set there is none.
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(patience))
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *patient) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// fetch reads a piece from the origin.
func fetch(ctx context.Context, origin Origin, o object, index int64) (*momentsv1.ReadRangeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	res, err := origin.ReadRange(ctx, &momentsv1.ReadRangeRequest{
		MediaId: o.media.String(), Variant: o.form.Variant(), Offset: index * pieceSize, Length: pieceSize,
	})
	if rpc.CodeOf(err) == rpc.NotFound {
		return nil, errNotFound
	}
	if err != nil {
		return nil, err
	}
	if want := min(pieceSize, res.GetSize()-index*pieceSize); int64(len(res.GetData())) != want {
		return nil, fmt.Errorf("edge: the origin gave %d bytes of %v, want %d", len(res.GetData()), o.media, want)
	}
	return res, nil
}
