// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	qosv1 "github.com/sluice-rpc/sluice/idl/qos/v1"
)

// FuzzOptions reads options from any bytes that protobuf takes: what is accepted
// keeps the limits that the framework relies on.
func FuzzOptions(f *testing.F) {
	for _, seed := range []struct {
		service *qosv1.ServiceOptions
		method  *qosv1.MethodOptions
		level   descriptorpb.MethodOptions_IdempotencyLevel
	}{
		{nil, nil, 0},
		{&qosv1.ServiceOptions{Business: 6, TimeoutMs: 600_000}, &qosv1.MethodOptions{MaxAttempts: 5}, 1},
		{&qosv1.ServiceOptions{Business: 15}, &qosv1.MethodOptions{MaxAttempts: 2}, 0},
		{&qosv1.ServiceOptions{TimeoutMs: 600_001}, &qosv1.MethodOptions{Business: -1, TimeoutMs: 1<<32 - 1, MaxAttempts: 6}, 2},
		{&qosv1.ServiceOptions{TimeoutMs: 1}, &qosv1.MethodOptions{MaxAttempts: 1}, 9},
	} {
		service, method := &descriptorpb.ServiceOptions{}, &descriptorpb.MethodOptions{IdempotencyLevel: seed.level.Enum()}
		if seed.service != nil {
			proto.SetExtension(service, qosv1.E_Service, seed.service)
			proto.SetExtension(method, qosv1.E_Method, seed.method)
		}
		f.Add(must(proto.Marshal(service)), must(proto.Marshal(method)))
	}
	f.Fuzz(func(t *testing.T, serviceBytes, methodBytes []byte) {
		service, method := &descriptorpb.ServiceOptions{}, &descriptorpb.MethodOptions{}
		if proto.Unmarshal(serviceBytes, service) != nil || proto.Unmarshal(methodBytes, method) != nil {
			return
		}
		defaults, serviceFaults := readService(service)
		l, methodFaults := readMethod(method, defaults, false)
		for _, fault := range append(serviceFaults, methodFaults...) {
			if len(fault.path) < 2 || fault.text == "" {
				t.Errorf("fault without place or text: %+v", fault)
			}
		}
		if len(serviceFaults)+len(methodFaults) > 0 {
			return
		}
		if _, named := classNames[l.business]; !named {
			t.Errorf("business %d was accepted", l.business)
		}
		if l.timeoutMS > maxTimeoutMS || l.attempts > maxAttempts {
			t.Errorf("limits out of range were accepted: %+v", l)
		}
		if _, repeatable := idempotencyNames[l.idempotency]; l.attempts > 1 && !repeatable {
			t.Errorf("attempts of a method that may not be repeated were accepted: %+v", l)
		}
	})
}
