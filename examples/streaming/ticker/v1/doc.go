// SPDX-License-Identifier: Apache-2.0

// Package tickerv1 is the contract of the example in ../..: a service that streams.
package tickerv1

//go:generate go run ../../../../idl/cmd/sluicegen -I ../.. .
