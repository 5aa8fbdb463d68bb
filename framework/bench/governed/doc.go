// SPDX-License-Identifier: Apache-2.0

// Command governed is go-zero and Kratos for the bench of calls, each with its own
// governance on, as servers and clients of a run. Without arguments it says what they are.
//
// It is a module of its own for what these link, two hundred packages that nothing else
// here needs: it is built only with the tag governed, by who asks for it, and with no_k8s,
// or go-zero brings Kubernetes along.
//
//	go build -tags governed,no_k8s .
package main
