// SPDX-License-Identifier: Apache-2.0

package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob" // file: a directory
	_ "gocloud.dev/blob/s3blob"   // s3: anything that speaks S3
	"gocloud.dev/gcerrors"

	"github.com/sluice-rpc/sluice/framework/rpc"
)

// Blobs is a bucket of objects. It is safe for concurrent use.
type Blobs struct {
	bucket *blob.Bucket
	dir    string // of a bucket that is a directory
}

// OpenBlobs opens the bucket at a URL of the Go CDK, for example
//
//	file:///var/lib/moments/blobs
//	s3://bucket?region=eu-central-1
//	s3://bucket?endpoint=https://s3.example.org&use_path_style=true&region=us-east-1
//
// A directory is made if it is not there. The credentials of S3 come from where the AWS
// SDK looks for them: the environment, files, the machine's role.
func OpenBlobs(ctx context.Context, address string) (*Blobs, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("media: %q is no URL of a bucket: %w", address, err)
	}
	b := new(Blobs)
	if u.Scheme == "file" {
		b.dir = filepath.FromSlash(u.Path)
		q := u.Query()
		q.Set("create_dir", "true")
		q.Set("dir_file_mode", "448") // 0700: what is not for everybody is not for the machine's other users
		q.Set("metadata", "skip")     // types are in the records
		q.Set("no_tmp_dir", "true")   // so that a file is renamed within its file system
		u.RawQuery = q.Encode()
	}
	if b.bucket, err = blob.OpenBucket(ctx, u.String()); err != nil {
		return nil, fmt.Errorf("media: open the bucket %s: %w; see gocloud.dev/blob for its URL", u.Redacted(), err)
	}
	return b, nil
}

// Close gives the bucket back.
func (b *Blobs) Close() error { return b.bucket.Close() }

// Dir gives the directory of a bucket that is one, else "".
func (b *Blobs) Dir() string { return b.dir }

// put stores an object whole.
func (b *Blobs) put(ctx context.Context, key string, data []byte) error {
	if err := b.bucket.WriteAll(ctx, key, data, &blob.WriterOptions{ContentType: octets, DisableContentTypeDetection: true}); err != nil {
		return blobError("write", err)
	}
	return nil
}

const octets = "application/octet-stream"

// sync has an object survive a loss of power. S3 has promised so already; a directory has
// not.
func (b *Blobs) sync(key string) error {
	if b.dir == "" {
		return nil
	}
	path := filepath.Join(b.dir, filepath.FromSlash(key))
	for {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("media: sync an object: %w", err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("media: sync an object: %w", err)
		}
		if path == filepath.Clean(b.dir) {
			return nil
		}
		path = filepath.Dir(path) // which names it
	}
}

// copyBuffer is the memory that a stream to S3 takes for each of its requests.
const copyBuffer = 5 << 20

// create begins an object that is written piece by piece. It is there when Close returns
// nil, and never if ctx ends before.
func (b *Blobs) create(ctx context.Context, key string) (io.WriteCloser, error) {
	w, err := b.bucket.NewWriter(ctx, key, &blob.WriterOptions{
		ContentType: octets, DisableContentTypeDetection: true, BufferSize: copyBuffer, MaxConcurrency: 2,
	})
	if err != nil {
		return nil, blobError("write", err)
	}
	return w, nil
}

// get reads some bytes of an object, fewer if it ends.
func (b *Blobs) get(ctx context.Context, key string, at, length int64) ([]byte, error) {
	r, err := b.bucket.NewRangeReader(ctx, key, at, length, nil)
	if err != nil {
		return nil, blobError("read", err)
	}
	p := make([]byte, length)
	n, err := io.ReadFull(r, p)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, blobError("read", errors.Join(err, r.Close()))
	}
	return p[:n], r.Close()
}

// has reports whether an object is there.
func (b *Blobs) has(ctx context.Context, key string) (bool, error) {
	ok, err := b.bucket.Exists(ctx, key)
	if err != nil {
		return false, blobError("look for", err)
	}
	return ok, nil
}

// remove removes an object; one that is not there is removed already.
func (b *Blobs) remove(ctx context.Context, key string) error {
	if err := b.bucket.Delete(ctx, key); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return blobError("remove", err)
	}
	return nil
}

// errMissing says that an object is not there.
var errMissing = errors.New("media: the object is not there")

// blobError gives the error of a call whose bucket failed. Who waits for the bucket may
// try again; what it says is for operators.
func blobError(doing string, err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case gcerrors.Code(err) == gcerrors.NotFound:
		return fmt.Errorf("%w: %s: %w", errMissing, doing, err)
	}
	return &bucketError{doing: doing, err: err}
}

// bucketError is shown to callers as unavailable, and in full to operators.
type bucketError struct {
	doing string
	err   error
}

func (e *bucketError) Error() string { return "media: " + e.doing + " an object: " + e.err.Error() }
func (e *bucketError) Unwrap() error { return e.err }

// shown gives the error that a caller gets of what the bucket, or anything else, said.
func (s *Service) shown(ctx context.Context, err error) error {
	if _, ok := errors.AsType[*bucketError](err); ok {
		s.log.ErrorContext(ctx, "the bucket of media fails", "error", err)
		return rpc.Errorf(rpc.Unavailable, "the store of photos and videos cannot answer now; try again")
	}
	return err
}
