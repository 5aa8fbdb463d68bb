// SPDX-License-Identifier: Apache-2.0

package queuetest

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"github.com/sluice-rpc/sluice/app/idcqueue"
)

// Pipe makes both ends of a session in memory. It may be used in a synctest bubble.
func Pipe() (a, b idcqueue.Session) {
	there, back, done := newStream(), newStream(), make(chan struct{})
	end := sync.OnceFunc(func() { close(done) })
	return &pipe{in: back, out: there, end: end, done: done}, &pipe{in: there, out: back, end: end, done: done}
}

type stream struct{ control, data chan []byte }

func newStream() stream {
	return stream{control: make(chan []byte, 256), data: make(chan []byte, 4)}
}

type pipe struct {
	in, out stream
	end     func()
	done    chan struct{}
}

var errEnded = errors.New("queuetest: the session has ended")

func (p *pipe) send(to chan []byte, msg []byte) error {
	select {
	case to <- bytes.Clone(msg):
		return nil
	case <-p.done:
		return errEnded
	}
}

func (p *pipe) SendControl(msg []byte) error { return p.send(p.out.control, msg) }
func (p *pipe) SendData(msg []byte) error    { return p.send(p.out.data, msg) }

func (p *pipe) ReceiveControl(ctx context.Context) ([]byte, error) {
	select {
	case b := <-p.in.control:
		return b, nil
	case <-p.done:
		return nil, errEnded
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipe) ReceiveData() ([]byte, error) {
	select {
	case b := <-p.in.data:
		return b, nil
	case <-p.done:
		return nil, errEnded
	}
}

func (p *pipe) Done() <-chan struct{} { return p.done }
func (p *pipe) End(error)             { p.end() }
