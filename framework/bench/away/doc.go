// SPDX-License-Identifier: Apache-2.0

// Command away kills etcd, by which the instances of a service are found, and looks at what
// their callers see of it: command faults builds and runs it.
//
// It is a module of its own for the versions that etcd asks for, and is built only with the
// tag etcd, by who asks for it.
//
//	go build -C ../discovery/etcd -o /tmp/etcd go.etcd.io/etcd/server/v3
//	go run -tags etcd . -etcd /tmp/etcd -lasts 5m
package main
