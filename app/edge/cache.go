// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"bytes"
	"container/list"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/sluice-rpc/sluice/app/id"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

const (
	suffix = ".piece"
	// maxFetches bounds the memory of fetches under way, of the own region's media and of
	// others' each: each fetch holds one piece.
	maxFetches = 32
)

// cache keeps pieces as files, those used last. A file is never changed: it is read by
// whoever has opened it, also after it was removed.
type cache struct {
	dir     string
	max     int64
	origin  Origin
	region  id.Region
	fetches *semaphore.Weighted
	far     *semaphore.Weighted // likewise, from other regions

	mu      sync.Mutex
	kept    map[pieceKey]*list.Element // of *kept; guarded by mu
	used    *list.List                 // the latest first; guarded by mu
	bytes   int64                      // guarded by mu
	flights map[pieceKey]*flight       // guarded by mu
}

type pieceKey struct {
	object
	index int64
}

// kept is a piece on the disk.
type kept struct {
	key           pieceKey
	length, whole int64
	kind          string
}

// flight is a fetch under way. Its results are there when done is closed.
type flight struct {
	done chan struct{}
	res  *momentsv1.ReadRangeResponse
	err  error
}

func newCache(dir string, most int64, origin Origin, region id.Region) (*cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("edge: make the directory of the cache: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("edge: read the directory of the cache: %w", err)
	}
	for _, e := range entries { // what is in them is not known any more
		if strings.HasSuffix(e.Name(), suffix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("edge: empty the cache: %w", err)
			}
		}
	}
	return &cache{
		dir: dir, max: most, origin: origin, region: region, fetches: semaphore.NewWeighted(maxFetches), far: semaphore.NewWeighted(maxFetches),
		kept: map[pieceKey]*list.Element{}, used: list.New(), flights: map[pieceKey]*flight{},
	}, nil
}

func (c *cache) path(k pieceKey) string {
	return filepath.Join(c.dir, fmt.Sprintf("%v-%s-%d%s", k.media, k.form, k.index, suffix))
}

// piece implements source.
func (c *cache) piece(ctx context.Context, o object, index int64) (piece, error) {
	k := pieceKey{object: o, index: index}
	c.mu.Lock()
	if at, ok := c.kept[k]; ok {
		c.used.MoveToFront(at)
		found := *at.Value.(*kept)
		f, err := os.Open(c.path(k)) // under the lock: nobody removes it meanwhile
		if err == nil {
			c.mu.Unlock()
			return piece{ReaderAt: f, Closer: f, length: found.length, whole: found.whole, kind: found.kind}, nil
		}
		c.drop(at) // somebody has removed the file
	}
	fl, under := c.flights[k]
	if !under {
		fl = &flight{done: make(chan struct{})}
		c.flights[k] = fl
	}
	c.mu.Unlock()
	if !under {
		c.fly(ctx, k, fl)
	}
	select {
	case <-fl.done:
	case <-ctx.Done():
		return piece{}, ctx.Err()
	}
	if fl.err != nil {
		return piece{}, fl.err
	}
	return memory(fl.res), nil
}

// memory gives a piece that has just come.
func memory(res *momentsv1.ReadRangeResponse) piece {
	return piece{
		ReaderAt: bytes.NewReader(res.GetData()), Closer: io.NopCloser(nil),
		length: int64(len(res.GetData())), whole: res.GetSize(), kind: res.GetContentType(),
	}
}

// fly fetches a piece for all who wait for it. That the first of them leaves is nothing to
// the others.
func (c *cache) fly(ctx context.Context, k pieceKey, fl *flight) {
	defer close(fl.done)
	ctx = context.WithoutCancel(ctx)
	fetches := c.fetches
	if k.media.Region() != c.region {
		fetches = c.far
	}
	if fl.err = fetches.Acquire(ctx, 1); fl.err == nil {
		fl.res, fl.err = fetch(ctx, c.origin, k.object, k.index)
		fetches.Release(1)
	}
	stored := fl.err == nil && c.store(k, fl.res.GetData()) == nil // a full disk costs speed, nothing else
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.flights, k)
	if stored {
		c.keep(&kept{key: k, length: int64(len(fl.res.GetData())), whole: fl.res.GetSize(), kind: fl.res.GetContentType()})
	}
}

// store writes the file of a piece, which is there whole or not at all.
func (c *cache) store(k pieceKey, data []byte) error {
	path := c.path(k)
	part := path + ".part" + suffix
	if err := os.WriteFile(part, data, 0o600); err != nil {
		_ = os.Remove(part)
		return err
	}
	return os.Rename(part, path)
}

// keep notes a piece, and removes what was not used for longest. c.mu is held.
func (c *cache) keep(k *kept) {
	c.kept[k.key] = c.used.PushFront(k)
	c.bytes += k.length
	for c.bytes > c.max {
		c.drop(c.used.Back())
	}
}

// drop removes a piece. c.mu is held.
func (c *cache) drop(at *list.Element) {
	k := c.used.Remove(at).(*kept)
	delete(c.kept, k.key)
	c.bytes -= k.length
	_ = os.Remove(c.path(k.key)) // gone already if somebody has removed it
}

// direct is the origin without a cache.
type direct struct{ origin Origin }

func (d direct) piece(ctx context.Context, o object, index int64) (piece, error) {
	res, err := fetch(ctx, d.origin, o, index)
	if err != nil {
		return piece{}, err
	}
	return memory(res), nil
}
