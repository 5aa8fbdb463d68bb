// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import (
	"errors"
	"os"
)

// isTerminal is only known on Linux: elsewhere the demo writes a line a second.
func isTerminal(*os.File) bool { return false }

func readKeys(*os.File) (<-chan byte, func() error, error) {
	return nil, nil, errors.ErrUnsupported
}
