// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func newPatience(conn context.Context, left time.Duration) *patience {
	return &patience{Context: conn, until: time.Now().Add(left)}
}

func TestPatience(t *testing.T) {
	t.Run("deadline without Done", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPatience(t.Context(), time.Second)
			if at, ok := p.Deadline(); !ok || at != p.until || p.Err() != nil {
				t.Fatal(at, ok, p.Err())
			}
			time.Sleep(time.Second)
			if err := p.Err(); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		})
	})
	t.Run("Done and Err agree", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPatience(t.Context(), time.Second)
			defer p.finish()
			began := time.Now()
			<-p.Done()
			if took := time.Since(began); took != time.Second || !errors.Is(p.Err(), context.DeadlineExceeded) {
				t.Fatalf("done after %v, %v", took, p.Err())
			}
		})
	})
	t.Run("an earlier deadline counts", func(t *testing.T) {
		conn, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		want, _ := conn.Deadline()
		if at, ok := newPatience(conn, time.Hour).Deadline(); !ok || at != want {
			t.Fatal(at, ok)
		}
	})
	t.Run("ends with its connection", func(t *testing.T) {
		conn, lose := context.WithCancel(t.Context())
		p, asked, open := newPatience(conn, time.Hour), newPatience(conn, time.Hour), &patience{Context: conn}
		defer asked.finish()
		done := asked.Done()
		lose()
		<-done
		<-open.Done()
		if p.Err() == nil || asked.Err() == nil || open.Err() == nil {
			t.Fatal("the connection is gone, the request goes on")
		}
	})
	t.Run("ends with its handler", func(t *testing.T) {
		p := newPatience(t.Context(), time.Hour)
		child, cancel := context.WithCancel(p)
		defer cancel()
		p.finish()
		<-child.Done()
		late := newPatience(t.Context(), time.Hour)
		late.finish()
		<-late.Done()
		if !errors.Is(p.Err(), context.Canceled) || !errors.Is(late.Err(), context.Canceled) {
			t.Fatal(p.Err(), late.Err())
		}
	})
	t.Run("a child costs no goroutine", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { // a goroutine left would deadlock the bubble
			conn, lose := context.WithCancel(t.Context())
			defer lose()
			_, cancel := context.WithCancel(newPatience(conn, time.Hour))
			cancel()
			synctest.Wait()
		})
	})
	t.Run("values are those of the connection", func(t *testing.T) {
		type key struct{}
		p := newPatience(context.WithValue(t.Context(), key{}, 1), time.Hour)
		defer p.finish()
		before := p.Value(key{})
		if _ = p.Done(); before != 1 || p.Value(key{}) != 1 {
			t.Fatal(before, p.Value(key{}))
		}
	})
}
