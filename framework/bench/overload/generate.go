// SPDX-License-Identifier: Apache-2.0

package main

//go:generate go run github.com/sluice-rpc/sluice/idl/cmd/sluicegen -I idl idl/leaf/v1/leaf.proto
