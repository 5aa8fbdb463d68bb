// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// readKeys gives each key as it is typed, unseen, until restore is called. Ctrl-C
// stays a signal.
func readKeys(f *os.File) (keys <-chan byte, restore func() error, err error) {
	fd := int(f.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, nil, err
	}
	mode := *before
	mode.Lflag &^= unix.ICANON | unix.ECHO
	mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 0, 1 // a read takes a tenth of a second at most, so that it can be ended
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &mode); err != nil {
		return nil, nil, err
	}
	typed, done, ended := make(chan byte), make(chan struct{}), make(chan struct{})
	go func() { // restore waits for it
		defer close(ended)
		var b [1]byte
		for {
			n, err := unix.Read(fd, b[:])
			if err != nil && err != unix.EINTR {
				n = 0
				<-done // the terminal is gone; nobody types any more
			}
			if n == 1 {
				select {
				case typed <- b[0]:
				case <-done:
				}
			}
			select {
			case <-done:
				return
			default:
			}
		}
	}()
	return typed, func() error {
		close(done)
		<-ended
		return unix.IoctlSetTermios(fd, unix.TCSETS, before)
	}, nil
}
