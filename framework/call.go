// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluice-rpc/sluice/framework/internal/admin"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// callable lists the methods that the page /admin/call can call, with the request of each
// as JSON with all its fields. Those that stream are not among them.
func (s *Server) callable() []admin.Callable {
	var all []admin.Callable
	for _, service := range slices.Sorted(maps.Keys(s.byName)) {
		for _, name := range slices.Sorted(maps.Keys(s.byName[service])) {
			m := s.byName[service][name].Contract()
			if m.Streams() {
				continue
			}
			req := m.NewRequest()
			one := admin.Callable{
				Method: m.FullName(), Class: m.Class.String(), TimeoutMS: int(m.CallTimeout() / time.Millisecond),
				Reads:   m.Idempotency == rpc.NoSideEffects,
				Message: string(req.ProtoReflect().Descriptor().FullName()), Response: string(m.NewResponse().ProtoReflect().Descriptor().FullName()),
				Fields: fieldsOf(nil, "", req.ProtoReflect().Descriptor(), 0),
			}
			if empty, err := (protojson.MarshalOptions{EmitUnpopulated: true}).Marshal(req); err == nil {
				one.Request = string(empty)
			}
			all = append(all, one)
		}
	}
	return all
}

// The bounds of what is told of a request: messages may hold themselves.
const (
	maxDepth  = 4
	maxFields = 200
)

// fieldsOf adds the fields of a message, with those of the messages in it after each.
func fieldsOf(all []admin.Field, path string, message protoreflect.MessageDescriptor, depth int) []admin.Field {
	fields := message.Fields()
	for i := range fields.Len() {
		if len(all) == maxFields {
			return all
		}
		f := fields.Get(i)
		name := path + f.JSONName()
		all = append(all, admin.Field{Name: name, Type: typeOf(f)})
		inner := f.Message()
		if f.IsMap() {
			inner = f.MapValue().Message()
		}
		// Of google's own messages JSON has a form of its own.
		if inner != nil && depth+1 < maxDepth && !strings.HasPrefix(string(inner.FullName()), "google.protobuf.") {
			all = fieldsOf(all, name+".", inner, depth+1)
		}
	}
	return all
}

// typeOf gives the type of a field as a contract writes it; of an enum its values.
func typeOf(f protoreflect.FieldDescriptor) string {
	var text string
	switch {
	case f.IsMap():
		return "map<" + typeOf(f.MapKey()) + ", " + typeOf(f.MapValue()) + ">"
	case f.Message() != nil:
		text = string(f.Message().FullName())
	case f.Enum() != nil:
		var names []string
		for i := range f.Enum().Values().Len() {
			names = append(names, string(f.Enum().Values().Get(i).Name()))
		}
		text = strings.Join(names, " | ")
	default:
		text = f.Kind().String()
	}
	if one := f.ContainingOneof(); one != nil && !one.IsSynthetic() {
		text += ", one of " + string(one.Name())
	}
	if f.IsList() {
		return "repeated " + text
	}
	return text
}

// tries is the entry of calls that operators make on the page /admin/call.
const tries = "/admin/call"

// try makes a call of a method of this server with a request in JSON, as a caller in
// this process would: no allow-list is asked. It is always traced.
func (s *Server) try(ctx context.Context, t admin.Try) (tried admin.Tried, err error) {
	service, name, _ := strings.Cut(t.Method, "/")
	have := s.byName[service][name]
	if have == nil {
		return tried, fmt.Errorf("this server has no method %q", t.Method)
	}
	m := have.Contract()
	if m.Streams() {
		return tried, fmt.Errorf("%s streams: it can be called over gRPC, not here", t.Method)
	}
	req := m.NewRequest()
	if len(t.Request) > 0 {
		if err := protojson.Unmarshal(t.Request, req); err != nil {
			return tried, fmt.Errorf("request is no %s: %w", req.ProtoReflect().Descriptor().FullName(), err)
		}
	}
	class := t.Class
	if class == 0 {
		class = m.Class
	}
	conn := DialLocal(s)
	defer func() { _ = conn.Close() }()
	err = NewJob(tries, class).run(ctx, true, func(ctx context.Context) error {
		tried.Trace = rpc.CallFrom(ctx).Trace.String()
		res, err := conn.Invoke(ctx, m, req)
		if err != nil {
			return err
		}
		tried.Response, err = protojson.Marshal(res)
		return err
	})
	return tried, err
}
