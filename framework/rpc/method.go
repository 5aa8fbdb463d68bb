// SPDX-License-Identifier: Apache-2.0

// Package rpc holds the words that both ends of a call share: method, handler,
// code, error, reason, and the header that travels with every call.
package rpc

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/qos"
)

// Idempotency says whether a method may be run more than once for one call. The
// values are those of google.protobuf.MethodOptions.IdempotencyLevel.
type Idempotency uint8

// The levels of idempotency.
const (
	IdempotencyUnknown Idempotency = 0 // may not be repeated
	NoSideEffects      Idempotency = 1 // only reads
	Idempotent         Idempotency = 2 // writes, but repeating changes nothing more
)

// Service is the contract of one service as generated code describes it. It is
// read-only after start-up; its address identifies it.
type Service struct {
	Name    string // full protobuf name, for example "hello.v1.Greeter"
	File    string // path of the .proto, as registered in protoregistry.GlobalFiles
	Methods []*Method
}

// Method is the contract of one method as generated code describes it. It is
// read-only after start-up; its address identifies it within one binary.
type Method struct {
	Service     string        // full protobuf name of the service
	Name        string        // name within the service, for example "Greet"
	Class       qos.Class     // business class of an entry that stands for this method
	Timeout     time.Duration // longest a call may take, attempts included; 0 means DefaultTimeout, or DefaultStreamTimeout
	MaxAttempts int           // 0 means 1
	Idempotency Idempotency
	NewRequest  func() proto.Message
	NewResponse func() proto.Message

	ClientStreams bool // the caller sends a stream of requests
	ServerStreams bool // the server sends a stream of responses
}

// DefaultTimeout is the longest a call may take when its contract says nothing.
const DefaultTimeout = time.Second

// FullName gives "package.Service/Method", as gRPC writes it.
func (m *Method) FullName() string { return m.Service + "/" + m.Name }

// CallTimeout is the longest a call of the method may take, attempts included.
func (m *Method) CallTimeout() time.Duration {
	switch {
	case m.Timeout > 0:
		return m.Timeout
	case m.Streams():
		return DefaultStreamTimeout
	}
	return DefaultTimeout
}

// Handler runs one call of one method: a decoded request in, a response or an
// error out. The request is only lent: a handler neither changes nor keeps it.
// The response is given away: a handler does not touch it after it has returned.
// Where a side streams there is nil in its place, and the messages are had from the
// stream that ctx holds, see StreamFrom.
type Handler func(ctx context.Context, req proto.Message) (proto.Message, error)

// ServerInterceptor wraps the handler of a method, once, when the method is
// registered. It runs after the request is decoded.
type ServerInterceptor func(m *Method, next Handler) Handler

// Invoke makes one call and waits for its answer. The caller does not touch the
// request until Invoke returns; the response belongs to the caller.
type Invoke func(ctx context.Context, m *Method, req proto.Message) (proto.Message, error)

// ClientInterceptor wraps the calls of a connection, once, when it is dialled.
type ClientInterceptor func(next Invoke) Invoke

// Registrar takes the handlers of a service: a server, or a test's server.
type Registrar interface {
	// Register adds a service with one handler for each of its methods, in the
	// order of svc.Methods. Generated code calls it.
	Register(svc *Service, handlers []Handler)
}

// Invoker makes calls: a connection, or what a test puts before one.
type Invoker interface {
	Invoke(ctx context.Context, m *Method, req proto.Message) (proto.Message, error)
}

// Expect tells conn that it will be asked to call the methods of svc, if it has a method
// Expect to be told by, and gives it back. Generated code calls it when a client is made:
// what is measured of the methods is there, at zero, before the first call.
func Expect(conn Invoker, svc *Service) Invoker {
	if e, ok := conn.(interface{ Expect(svc *Service) }); ok {
		e.Expect(svc)
	}
	return conn
}
