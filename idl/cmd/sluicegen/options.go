// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	qosv1 "github.com/sluice-rpc/sluice/idl/qos/v1"
)

// The limits of the options, as qos.proto documents them.
const (
	maxTimeoutMS = 600_000
	maxStreamMS  = 3_600_000
	maxAttempts  = 5
)

// limits is what the options of a contract say of one method.
type limits struct {
	business    qosv1.Business
	timeoutMS   uint32 // 0 means the framework's default
	attempts    uint32 // 0 means once
	idempotency descriptorpb.MethodOptions_IdempotencyLevel
}

// fault is an option that cannot stand, at a path below its descriptor.
type fault struct {
	path protoreflect.SourcePath
	text string
}

// Field numbers of descriptor.proto: where options stand below their descriptor.
const (
	serviceOptions    = 3
	methodOptions     = 4
	idempotencyOption = 34
)

// Field numbers of qos.proto.
const (
	qosOption     = 52015
	businessField = 1
	timeoutField  = 2
	attemptsField = 3
)

// readService reads the options of a service, which hold for the methods that do
// not say otherwise.
func readService(options *descriptorpb.ServiceOptions) (limits, []fault) {
	o, _ := proto.GetExtension(options, qosv1.E_Service).(*qosv1.ServiceOptions)
	at := protoreflect.SourcePath{serviceOptions, qosOption}
	faults := checkBusiness(at, o.GetBusiness())
	faults = append(faults, checkTimeout(at, o.GetTimeoutMs(), maxTimeoutMS)...)
	return limits{business: o.GetBusiness(), timeoutMS: o.GetTimeoutMs()}, faults
}

// readMethod reads the options of a method of a service. The service's timeout is one for
// calls that are answered at once: a stream has its own, or the framework's.
func readMethod(options *descriptorpb.MethodOptions, service limits, streams bool) (limits, []fault) {
	o, _ := proto.GetExtension(options, qosv1.E_Method).(*qosv1.MethodOptions)
	at := protoreflect.SourcePath{methodOptions, qosOption}
	l := service
	longest := uint32(maxTimeoutMS)
	if streams {
		l.timeoutMS, longest = 0, maxStreamMS
	}
	if b := o.GetBusiness(); b != qosv1.Business_BUSINESS_UNSPECIFIED {
		l.business = b
	}
	if ms := o.GetTimeoutMs(); ms != 0 {
		l.timeoutMS = ms
	}
	l.attempts = o.GetMaxAttempts()
	l.idempotency = options.GetIdempotencyLevel()

	faults := checkBusiness(at, o.GetBusiness())
	faults = append(faults, checkTimeout(at, o.GetTimeoutMs(), longest)...)
	_, repeatable := idempotencyNames[l.idempotency]
	switch {
	case !repeatable && l.idempotency != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN:
		faults = append(faults, fault{
			protoreflect.SourcePath{methodOptions, idempotencyOption},
			fmt.Sprintf("idempotency_level %d is unknown: give NO_SIDE_EFFECTS or IDEMPOTENT", l.idempotency),
		})
	case l.attempts > 1 && streams:
		faults = append(faults, fault{below(at, attemptsField), fmt.Sprintf("max_attempts is %d but a stream is never made again: leave max_attempts out", l.attempts)})
	case l.attempts > maxAttempts:
		faults = append(faults, fault{below(at, attemptsField), fmt.Sprintf("max_attempts is %d: give 1 to %d", l.attempts, maxAttempts)})
	case l.attempts > 1 && !repeatable:
		faults = append(faults, fault{
			below(at, attemptsField),
			fmt.Sprintf("max_attempts is %d but the method may not be repeated: add option idempotency_level = NO_SIDE_EFFECTS; (it only reads) "+
				"or IDEMPOTENT; (repeating changes nothing more), or leave max_attempts out", l.attempts),
		})
	}
	return l, faults
}

func checkBusiness(at protoreflect.SourcePath, b qosv1.Business) []fault {
	if _, known := classNames[b]; known {
		return nil
	}
	return []fault{{below(at, businessField), fmt.Sprintf("business %d has no name yet: give one of qos.v1.Business", b)}}
}

func checkTimeout(at protoreflect.SourcePath, ms, longest uint32) []fault {
	if ms <= longest {
		return nil
	}
	words := "ten minutes"
	if longest == maxStreamMS {
		words = "an hour"
	}
	return []fault{{below(at, timeoutField), fmt.Sprintf("timeout_ms is %d: give 1 to %d milliseconds (%s)", ms, longest, words)}}
}

// classNames holds the name in package qos of each business class.
var classNames = map[qosv1.Business]string{
	qosv1.Business_BUSINESS_UNSPECIFIED: "Unspecified",
	qosv1.Business_BUSINESS_CRITICAL:    "Critical",
	qosv1.Business_BUSINESS_BROWSE:      "Browse",
	qosv1.Business_BUSINESS_POST:        "Post",
	qosv1.Business_BUSINESS_INTERACTIVE: "Interactive",
	qosv1.Business_BUSINESS_EXTRA:       "Extra",
	qosv1.Business_BUSINESS_BACKGROUND:  "Background",
}

// idempotencyNames holds the name in package rpc of each level of idempotency.
var idempotencyNames = map[descriptorpb.MethodOptions_IdempotencyLevel]string{
	descriptorpb.MethodOptions_NO_SIDE_EFFECTS: "NoSideEffects",
	descriptorpb.MethodOptions_IDEMPOTENT:      "Idempotent",
}
