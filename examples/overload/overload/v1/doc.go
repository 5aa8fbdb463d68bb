// SPDX-License-Identifier: Apache-2.0

// Package overloadv1 is the contract of the demo's tiers and the code generated from it.
package overloadv1

//go:generate go run ../../../../idl/cmd/sluicegen -I ../.. .
