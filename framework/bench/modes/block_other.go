// SPDX-License-Identifier: Apache-2.0

//go:build !cgo

package main

import (
	"syscall"
	"time"
)

// blockIn says what block blocks in.
const blockIn = "a system call, for want of a C compiler"

// block keeps its thread for d.
func block(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // an interrupted sleep is a short one
}
