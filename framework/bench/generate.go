// SPDX-License-Identifier: Apache-2.0

package main

// One contract three times, each with its framework's own generator; the code is
// committed beside it.
//
//go:generate go run github.com/sluice-rpc/sluice/idl/cmd/sluicegen -I idl idl/sluice/v1/echo.proto
//go:generate go run ./idl/gengrpc grpc/v1/echo.proto
//go:generate go tool kitex -module github.com/sluice-rpc/sluice/framework/bench -I idl/kitex idl/kitex/echo.proto
