// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	mediaedge "github.com/sluice-rpc/sluice/app/edge"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/link"
	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

const (
	partPattern = "PUT /uploads/{upload}/parts/{index}"

	// maxPart is the largest part in bytes. The media service says how large parts are;
	// this bounds what is read.
	maxPart = 1 << 20
	// maxParts and maxPartsOfUser bound the parts that are under way here: with a copy
	// for the call they take 64 MB at most.
	maxParts       = 32
	maxPartsOfUser = 4

	// completeTime is how long the completion of an upload may take to be answered.
	completeTime = 70 * time.Second
)

// addMedia makes what the routes of media need.
func (g *Gateway) addMedia(cfg Config) (err error) {
	if cfg.Media == nil {
		return nil
	}
	if cfg.Links == nil {
		return errors.New("gateway: Media needs Links")
	}
	g.media, g.links = cfg.Media, cfg.Links
	g.parts.byUser = map[string]int{}
	var origin mediaedge.Origin = cfg.Media
	if cfg.Origin != nil {
		origin = cfg.Origin
	}
	g.relay, err = mediaedge.NewRelay(mediaedge.RelayConfig{
		Edges: cfg.Edges, Origin: origin, Links: cfg.Links, Region: cfg.Region,
		Transport: &edge.Transport{Service: "edge", Base: mediaedge.NewTransport()},
	})
	return err
}

// mediaRoutes is the part of the API about media.
func (g *Gateway) mediaRoutes() []route {
	if g.media == nil && g.mux != nil {
		return nil // a gateway without them
	}
	return []route{
		{"POST /uploads", momentsv1.MediaServiceStartUploadMethod, writer, g.startUpload},
		{"GET /uploads/{upload}", momentsv1.MediaServiceGetUploadMethod, member, g.getUpload},
		{"DELETE /uploads/{upload}", momentsv1.MediaServiceAbortUploadMethod, member, g.abortUpload},
		{partPattern, momentsv1.MediaServicePutPartMethod, member, g.putPart},
		{"POST /uploads/{upload}/complete", momentsv1.MediaServiceCompleteUploadMethod, member, g.completeUpload},
		// It takes as long as its reader likes, so it has no method's time.
		{mediaedge.Pattern, nil, open, g.readMedia},
	}
}

var mediaKinds = map[string]momentsv1.MediaKind{
	"photo": momentsv1.MediaKind_MEDIA_KIND_PHOTO,
	"video": momentsv1.MediaKind_MEDIA_KIND_VIDEO,
}

func (g *Gateway) startUpload(c *call) error {
	var in struct {
		Kind   string `json:"kind"`
		Size   int64  `json:"size"`
		SHA256 string `json:"sha256"`
	}
	key, err := c.ownKey()
	if err != nil {
		return err
	}
	if err := edge.DecodeBody(c.r, &in); err != nil {
		return err
	}
	kind, ok := mediaKinds[in.Kind]
	if !ok {
		return invalid("kind", "say photo or video")
	}
	sum, err := hex.DecodeString(in.SHA256)
	if err != nil {
		return invalid("sha256", "give the SHA-256 of the whole in hexadecimal")
	}
	res, err := g.media.StartUpload(c.ctx(), &momentsv1.StartUploadRequest{
		OwnerId: c.user, Kind: kind, Size: in.Size, Sha256: sum, IdempotencyKey: key,
	})
	if err != nil {
		return err
	}
	c.w.Header().Set("Location", "/uploads/"+res.GetUploadId())
	return c.reply(http.StatusCreated, func(b []byte) []byte {
		b = appendString(append(b, `{"id":`...), res.GetUploadId())
		b = strconv.AppendUint(append(b, `,"part_size":`...), uint64(res.GetPartSize()), 10)
		return append(appendTime(append(b, `,"expires_at":`...), res.GetExpiresMs()), '}')
	})
}

func (c *call) pathUpload() (string, error) {
	s := c.r.PathValue("upload")
	if _, err := id.ParseMedia(s); err != nil {
		return "", notFound("upload")
	}
	return s, nil
}

func (g *Gateway) getUpload(c *call) error {
	upload, err := c.pathUpload()
	if err != nil {
		return err
	}
	res, err := g.media.GetUpload(c.ctx(), &momentsv1.GetUploadRequest{OwnerId: c.user, UploadId: upload})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte {
		b = appendString(append(b, `{"id":`...), upload)
		b = strconv.AppendUint(append(b, `,"part_size":`...), uint64(res.GetPartSize()), 10)
		if res.GetExpiresMs() > 0 {
			b = appendTime(append(b, `,"expires_at":`...), res.GetExpiresMs())
		}
		b = appendList(append(b, `,"missing":`...), res.GetMissing(), func(b []byte, i uint32) []byte { return strconv.AppendUint(b, uint64(i), 10) })
		return append(b, '}')
	})
}

func (g *Gateway) abortUpload(c *call) error {
	upload, err := c.pathUpload()
	if err != nil {
		return err
	}
	if _, err := g.media.AbortUpload(c.ctx(), &momentsv1.AbortUploadRequest{OwnerId: c.user, UploadId: upload}); err != nil {
		return err
	}
	return c.done()
}

// putPart hands one part on. The body is read in full first: its checksum must hold
// before it is stored.
func (g *Gateway) putPart(c *call) error {
	upload, err := c.pathUpload()
	if err != nil {
		return err
	}
	index, err := strconv.ParseUint(c.r.PathValue("index"), 10, 32)
	if err != nil {
		return invalid("index", "give the number of the part, from 0")
	}
	sum, err := contentSum(c.r)
	if err != nil {
		return err
	}
	leave, err := g.parts.enter(c.user)
	if err != nil {
		return err
	}
	defer leave()
	data, err := readPart(c.r)
	if err != nil {
		return err
	}
	_, err = g.media.PutPart(c.ctx(), &momentsv1.PutPartRequest{
		OwnerId: c.user, UploadId: upload, Index: uint32(index), Data: data, Sha256: sum,
	})
	var p momentsv1.Problem
	if rpc.Detail(err, &p) && p.GetField() == "sha256" { // here it is a header
		return invalid("Content-SHA256", "it is not the SHA-256 of what has come: send the part again")
	}
	if err != nil {
		return err
	}
	return c.done()
}

// contentSum reads the SHA-256 of the body out of its header.
func contentSum(r *http.Request) ([]byte, error) {
	if v := r.Header["Content-Sha256"]; len(v) == 1 {
		if sum, err := hex.DecodeString(v[0]); err == nil && len(sum) == 32 {
			return sum, nil
		}
	}
	return nil, invalid("Content-SHA256", "give the SHA-256 of the part in hexadecimal")
}

// readPart reads a body whose length is known. What is longer than any part is refused
// by the entry.
func readPart(r *http.Request) ([]byte, error) {
	if r.ContentLength < 1 {
		return nil, &edge.StatusError{Status: http.StatusLengthRequired, Type: "invalid", Field: "Content-Length", Detail: "give the length of the part; it cannot be empty"}
	}
	data := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, data); err != nil {
		return nil, &edge.StatusError{Status: http.StatusBadRequest, Type: "invalid", Detail: "the part broke off; send it again"}
	}
	return data, nil
}

// parts counts the parts under way.
type parts struct {
	mu     sync.Mutex
	all    int            // guarded by mu
	byUser map[string]int // guarded by mu; none is zero
}

func (p *parts) enter(user string) (leave func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= maxParts || p.byUser[user] >= maxPartsOfUser {
		return nil, rpc.WithDetails(rpc.Errorf(rpc.Unavailable, "too many parts are on their way at once; try again"), &momentsv1.Problem{Type: "busy"})
	}
	p.all++
	p.byUser[user]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all--
		if p.byUser[user]--; p.byUser[user] == 0 {
			delete(p.byUser, user)
		}
	}, nil
}

func (g *Gateway) completeUpload(c *call) error {
	upload, err := c.pathUpload()
	if err != nil {
		return err
	}
	// A long video may take longer than answers usually do.
	if err := http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(completeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	res, err := g.media.CompleteUpload(c.ctx(), &momentsv1.CompleteUploadRequest{OwnerId: c.user, UploadId: upload})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte { return g.appendAttachment(b, attachment(res.GetMedia())) })
}

// attachment describes a medium as posts do.
func attachment(m *momentsv1.Media) *momentsv1.Attachment {
	a := &momentsv1.Attachment{MediaId: m.GetMediaId(), DurationMs: uint32(m.GetDurationMs())}
	for _, f := range m.GetForms() {
		if f.GetVariant() == momentsv1.MediaVariant_MEDIA_VARIANT_FULL {
			a.ContentType, a.Width, a.Height = f.GetContentType(), f.GetWidth(), f.GetHeight()
		}
	}
	return a
}

// readMedia serves a link, by an edge if one answers.
func (g *Gateway) readMedia(c *call) error { return g.relay.Serve(c.w, c.r) }

// appendAttachment appends a medium with links to its forms.
func (g *Gateway) appendAttachment(b []byte, a *momentsv1.Attachment) []byte {
	b = appendString(append(b, `{"id":`...), a.GetMediaId())
	b = appendString(append(b, `,"content_type":`...), a.GetContentType())
	b = strconv.AppendUint(append(b, `,"width":`...), uint64(a.GetWidth()), 10)
	b = strconv.AppendUint(append(b, `,"height":`...), uint64(a.GetHeight()), 10)
	if a.GetDurationMs() > 0 {
		b = strconv.AppendUint(append(b, `,"duration_ms":`...), uint64(a.GetDurationMs()), 10)
	}
	m, err := id.ParseMedia(a.GetMediaId())
	if err != nil || g.links == nil {
		return append(b, '}')
	}
	var room [128]byte
	l := g.links.New(m, time.Now())
	b = appendString(append(b, `,"urls":{"full":`...), string(l.Append(room[:0], link.Full)))
	if strings.HasPrefix(a.GetContentType(), "image/") {
		b = appendString(append(b, `,"feed":`...), string(l.Append(room[:0], link.Feed)))
		b = appendString(append(b, `,"thumbnail":`...), string(l.Append(room[:0], link.Thumbnail)))
	}
	return append(b, "}}"...)
}

// appendLink appends a member with a link that is good from now on; nothing if there is
// no medium.
func (g *Gateway) appendLink(b []byte, member, medium string, form link.Form) []byte {
	m, err := id.ParseMedia(medium)
	if err != nil || g.links == nil {
		return b
	}
	var room [128]byte
	return appendString(append(b, member...), string(g.links.New(m, time.Now()).Append(room[:0], form)))
}

// attachPicture lets the acting user's profile have a photo of his. None is fine.
func (g *Gateway) attachPicture(c *call, medium *string, place momentsv1.ProfilePlace, field string) error {
	if medium == nil || *medium == "" || g.media == nil {
		return nil
	}
	_, err := g.media.Attach(c.ctx(), &momentsv1.AttachRequest{OwnerId: c.user, Place: place, MediaIds: []string{*medium}})
	if code := rpc.CodeOf(err); code == rpc.NotFound || code == rpc.InvalidArgument {
		return invalid(field, "give the id of a photo that you have uploaded and not used")
	}
	return err
}
