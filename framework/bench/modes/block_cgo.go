// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package main

// #include <unistd.h>
import "C"

import "time"

// blockIn says what block blocks in.
const blockIn = "C"

// block keeps its thread for d.
func block(d time.Duration) { C.usleep(C.useconds_t(d / time.Microsecond)) }
