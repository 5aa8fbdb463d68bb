// SPDX-License-Identifier: Apache-2.0

package grpcwire

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// A Payload is an encoded message. It passes grpc-go as it is, so that we encode and
// decode when, and where, we say. What is sent is given away.
type Payload []byte

// Codec lets payloads pass, and encodes the messages of grpc-go's own services.
var Codec encoding.CodecV2 = codec{}

type codec struct{}

// Name implements encoding.CodecV2: on the wire it is proto.
func (codec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case *Payload:
		return mem.BufferSlice{mem.SliceBuffer(*v)}, nil
	case proto.Message:
		b, err := proto.Marshal(v)
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	}
	return nil, fmt.Errorf("a %T is no message", v)
}

// Unmarshal implements encoding.CodecV2.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch v := v.(type) {
	case *Payload:
		*v = data.Materialize()
		return nil
	case proto.Message:
		return proto.Unmarshal(data.Materialize(), v)
	}
	return fmt.Errorf("a %T is no message", v)
}
