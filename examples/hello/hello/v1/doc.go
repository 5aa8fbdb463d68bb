// SPDX-License-Identifier: Apache-2.0

// Package hellov1 is the contract of the greeter and the code generated from it.
package hellov1

//go:generate go run ../../../../idl/cmd/sluicegen -I ../.. .
