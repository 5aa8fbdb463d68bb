// SPDX-License-Identifier: Apache-2.0

// Package interop runs the interoperability tests of grpc-go, which are those of all gRPC
// implementations, against our listener, and our client against grpc-go's server of them.
// It is a module of its own: grpc-go's tests need what nobody else here does.
package interop

//go:generate go run github.com/sluice-rpc/sluice/idl/cmd/sluicegen -I . -I ../../../idl testpb
