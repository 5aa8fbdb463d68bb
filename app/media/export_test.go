// SPDX-License-Identifier: Apache-2.0

package media

import "context"

// Put stores an object that no record names.
func (b *Blobs) Put(ctx context.Context, key string) error { return b.put(ctx, key, []byte("x")) }
