// SPDX-License-Identifier: Apache-2.0

package inflight

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"unsafe"
)

const (
	// maxGoroutines is how many there may be for one to be looked for: the process
	// stands still meanwhile, some 10 µs for each.
	maxGoroutines = 20_000
	maxDump       = 64 << 20
	maxShown      = 8
)

// The errors of Stack.
var (
	ErrTooMany = errors.New("there are too many goroutines to look for one: the process would stand still for it")
	ErrEnded   = errors.New("the request has ended, or works in no goroutine of its own")
)

// Stack gives where the goroutine that works on c stands, as the runtime prints it, and
// then up to seven others that c was handed to. The process stands still while it is
// looked for, for some milliseconds in 1,000 goroutines.
//
// Nothing is noted for it beforehand, so that a call costs nothing: the runtime prints
// the arguments of what is on a stack, and c's address is among them.
func Stack(c *Call) ([]byte, error) {
	if n := runtime.NumGoroutine(); n > maxGoroutines {
		return nil, fmt.Errorf("%w: %d, at most %d", ErrTooMany, n, maxGoroutines)
	}
	size := 1 << 20
	dump := make([]byte, size)
	for n := runtime.Stack(dump, true); ; n = runtime.Stack(dump, true) {
		if n < len(dump) || size >= maxDump {
			dump = dump[:n]
			break
		}
		size *= 4
		dump = make([]byte, size)
	}
	at := fmt.Appendf(nil, "0x%x", uintptr(unsafe.Pointer(c)))
	method := append([]byte("("), at...) // the first argument: c's own method is on the stack
	var serving, others []byte
	shown := 0
	_, rest, _ := bytes.Cut(dump, []byte("\n\n")) // the first is the one that asks
	for g := range bytes.SplitSeq(rest, []byte("\n\n")) {
		switch {
		case shown == maxShown:
		case serving == nil && hasNumber(g, method):
			serving, shown = append(bytes.TrimSpace(g), '\n'), shown+1
		case hasNumber(g, at):
			others, shown = append(append(append(others, '\n'), bytes.TrimSpace(g)...), '\n'), shown+1
		}
	}
	runtime.KeepAlive(c)
	if serving == nil {
		return nil, ErrEnded
	}
	return append(serving, others...), nil
}

// hasNumber looks for a text that ends with a hexadecimal number.
func hasNumber(b, text []byte) bool {
	for {
		i := bytes.Index(b, text)
		if i < 0 {
			return false
		}
		b = b[i+len(text):]
		if len(b) == 0 || !isHex(b[0]) {
			return true
		}
	}
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }
