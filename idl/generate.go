// SPDX-License-Identifier: Apache-2.0

// Package idl holds the contracts: .proto files with their generated Go beside
// them. After a change to a contract run go generate ./idl and commit both.
package idl

//go:generate go run ./cmd/sluicegen -I . .
