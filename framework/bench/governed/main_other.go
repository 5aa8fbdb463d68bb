// SPDX-License-Identifier: Apache-2.0

//go:build !governed

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "governed: built without the frameworks; build it with -tags governed,no_k8s")
	os.Exit(1)
}
