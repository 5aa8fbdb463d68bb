// SPDX-License-Identifier: Apache-2.0

// Package shopv1 is the contract of the demo's services and the code generated from it.
package shopv1

//go:generate go run ../../../../idl/cmd/sluicegen -I ../.. .
