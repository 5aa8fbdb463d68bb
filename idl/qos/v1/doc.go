// SPDX-License-Identifier: Apache-2.0

// Package qosv1 holds the options a contract may carry: how important its
// methods are, how long a call may take and how often it may be tried. The code
// generator reads them; a running program sees them only as [rpc.Method] fields
// and in descriptors.
//
// [rpc.Method]: https://pkg.go.dev/github.com/sluice-rpc/sluice/framework/rpc#Method
package qosv1
