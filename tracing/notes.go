// SPDX-License-Identifier: Apache-2.0

package tracing

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Notes are what user code says of the call that it serves: the attributes it gives
// to the current span. The zero value is empty and one word long, so that every call
// can have one. It is safe for concurrent use.
type Notes struct {
	made atomic.Pointer[notes] // by the first note
}

type notes struct {
	mu   sync.Mutex
	list []Note // guarded by mu
}

// Set notes a value; a later one of the same key takes its place. What exceeds the
// bounds of a record is not noted.
func (n *Notes) Set(key, value string) {
	l := n.made.Load()
	if l == nil {
		n.made.CompareAndSwap(nil, &notes{})
		l = n.made.Load()
	}
	key, value = cut(key, maxNoteKey), cut(value, maxNoteValue)
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.list {
		if l.list[i].Key == key {
			l.list[i].Value = value
			return
		}
	}
	if len(l.list) < maxNotes {
		l.list = append(l.list, Note{Key: key, Value: value})
	}
}

// All gives the notes in the order in which they were first made.
func (n *Notes) All() []Note {
	l := n.made.Load()
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}
