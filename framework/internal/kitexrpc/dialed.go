// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"fmt"

	"github.com/cloudwego/netpoll"
)

// dialed is netpoll's connection of a socket that netpoll has not dialed. It knows no
// address of the other side then, and netpoll v0.7.2 panics where the error of a read that
// took too long should name it: in a goroutine of ours that would end the process.
type dialed struct {
	netpoll.Connection
	reader dialedReader
}

func newDialed(np netpoll.Connection) *dialed {
	return &dialed{np, dialedReader{np.Reader()}}
}

// Reader implements netpoll.Connection.
func (d *dialed) Reader() netpoll.Reader { return &d.reader }

// Read implements net.Conn.
func (d *dialed) Read(p []byte) (n int, err error) {
	defer tooLate(&err)
	return d.Connection.Read(p)
}

// dialedReader is the reader of a dialed connection, of which only Peek and Next are used to
// wait.
type dialedReader struct{ netpoll.Reader }

// Peek implements source.
func (r *dialedReader) Peek(n int) (p []byte, err error) {
	if r.Len() < n {
		defer tooLate(&err)
	}
	return r.Reader.Peek(n)
}

// Next implements source.
func (r *dialedReader) Next(n int) (p []byte, err error) {
	if r.Len() < n {
		defer tooLate(&err)
	}
	return r.Reader.Next(n)
}

// tooLate gives the error that netpoll meant.
func tooLate(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w (%v)", netpoll.ErrReadTimeout, p)
	}
}
