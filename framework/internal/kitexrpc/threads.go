// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"runtime"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
)

// threads are a fixed number of goroutines that serve calls, each alone on a thread of the
// operating system, and a bounded queue before them. A nil *threads gives each call a
// goroutine of its own.
type threads struct {
	queue  chan waiting
	behind func(ms uint8)
	quit   chan struct{}
	all    sync.WaitGroup
	full   overflow
}

// waiting is a call that waits for a thread.
type waiting struct {
	conn  *serverConn
	call  *interceptor.ServerCall
	since time.Time
}

// startThreads starts n threads before which so many calls may wait. Behind is told how
// long calls do, in ms: a queue that admission does not see would hide an overload from it.
func startThreads(n, queue int, behind func(ms uint8)) *threads {
	if n == 0 {
		return nil
	}
	t := &threads{queue: make(chan waiting, queue), behind: behind, quit: make(chan struct{})}
	t.full.refuse = waiting.refuse
	for range n {
		t.all.Go(t.run)
	}
	return t
}

// stop ends the threads, when no more calls come. One that is still serving ends with its
// call, and is not waited for if there are calls that the drain timeout has left.
func (t *threads) stop(idle bool) {
	if t == nil {
		return
	}
	close(t.quit)
	if idle {
		t.all.Wait()
	}
}

func (t *threads) run() {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	for {
		select {
		case <-t.quit:
			return
		case w := <-t.queue:
			if t.behind != nil {
				t.behind(uint8(min(time.Since(w.since)/time.Millisecond, 255)))
			}
			w.conn.serve(w.call)
		}
	}
}

// serves hands a call over; false if there is no room.
func (t *threads) serves(c *serverConn, call *interceptor.ServerCall) bool {
	if t == nil {
		go c.serve(call) // drain waits for inFlight to be zero
		return true
	}
	select {
	case t.queue <- waiting{c, call, time.Now()}:
		return true
	default:
		return false
	}
}

// start begins to serve a call that has been let in.
func (c *serverConn) start(call *interceptor.ServerCall) {
	if t := c.server.threads; !t.serves(c, call) {
		t.full.add(waiting{conn: c, call: call})
	}
}

// refuse turns away a call that had been let in. Leaving, it lets others in.
func (w waiting) refuse() admit.Flusher {
	w.call.End(admit.Overloaded, 0)
	w.conn.refuse(w.call.Seq, admit.Overloaded, nil)
	w.call.Leave()
	w.conn.server.release()
	return w.conn
}

// overflow refuses calls for which there is no room before the threads, one after the
// other. The slot of each goes to a call that waits to be let in, for which there is no
// room either: were it refused there and then, the stack would grow with all that wait.
type overflow struct {
	refuse func(waiting) admit.Flusher

	mu   sync.Mutex
	left []waiting // guarded by mu
	busy bool      // somebody refuses them; guarded by mu
}

// flushEvery is how many are refused, about, before their answers are sent.
const flushEvery = 64

// add refuses a call, and all that come to be refused meanwhile, or leaves that to who is
// at it already.
func (o *overflow) add(w waiting) {
	o.mu.Lock()
	o.left = append(o.left, w)
	busy := o.busy
	o.busy = true
	o.mu.Unlock()
	if busy {
		return
	}
	var now []waiting
	var b admit.Batch
	unsent := 0
	for {
		clear(now)
		o.mu.Lock()
		now, o.left = o.left, now[:0]
		if len(now) == 0 && unsent == 0 {
			o.left, o.busy = nil, false
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
		for _, w := range now {
			b.Add(o.refuse(w))
		}
		unsent += len(now)
		if unsent >= flushEvery || len(now) == 0 {
			b.Flush()
			unsent = 0
		}
	}
}
