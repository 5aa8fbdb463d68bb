// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/inflight"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

func newContext(conn context.Context, left time.Duration) *callContext {
	return &callContext{conn: conn, call: inflight.Call{Deadline: time.Now().Add(left)}}
}

func TestCallContext(t *testing.T) {
	t.Run("deadline without Done", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newContext(t.Context(), time.Second)
			if err := c.Err(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if err := c.Err(); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		})
	})
	t.Run("Done and Err agree", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newContext(t.Context(), time.Second)
			began := time.Now()
			<-c.Done()
			if took := time.Since(began); took != time.Second || c.Err() == nil {
				t.Fatalf("done after %v, %v", took, c.Err())
			}
		})
	})
	t.Run("ends with its connection", func(t *testing.T) {
		conn, lose := context.WithCancel(t.Context())
		c, asked := newContext(conn, time.Hour), newContext(conn, time.Hour)
		done := asked.Done()
		lose()
		<-done
		if c.Err() == nil || asked.Err() == nil {
			t.Fatal("the connection is gone, the call goes on")
		}
		asked.finish()
	})
	t.Run("ends with its handler", func(t *testing.T) {
		c := newContext(t.Context(), time.Hour)
		child, cancel := context.WithCancel(c)
		defer cancel()
		c.finish()
		<-child.Done()
		<-c.Done()
		if !errors.Is(c.Err(), context.Canceled) {
			t.Fatal(c.Err())
		}
	})
	t.Run("holds no values but the call", func(t *testing.T) {
		type key struct{}
		c := newContext(cancelOnly{context.WithValue(t.Context(), key{}, "secret")}, time.Hour)
		defer c.finish()
		_ = c.Done() // makes the inner context, which must hide them too
		if c.Value(key{}) != nil {
			t.Fatal("a value crossed")
		}
		if rpc.CallFrom(c) != &c.call.Call {
			t.Fatal("the call is not there")
		}
	})
	t.Run("a child costs no goroutine", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { // a goroutine left would deadlock the bubble
			conn, lose := context.WithCancel(t.Context())
			c := newContext(conn, time.Hour)
			child, cancel := context.WithCancel(c)
			lose()
			<-child.Done()
			cancel()
			c.finish()
		})
	})
}
