// SPDX-License-Identifier: Apache-2.0

//go:build !etcd

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "away: built without etcd; build it with -tags etcd")
	os.Exit(1)
}
