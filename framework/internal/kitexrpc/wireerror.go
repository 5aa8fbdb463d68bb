// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-rpc/sluice/framework/rpc"
)

// An error reply is the message that kitex sends for an exception, with our own
// fields behind kitex's two, so that a stock kitex client reads type and text:
//
//	1 int32 type   2 string message
//	16 uint32 code  17 uint32 reason  18 uint64 retry in ms  19 bool not run  20 repeated Any details
const (
	fieldType    = 1
	fieldMessage = 2
	fieldCode    = 16
	fieldReason  = 17
	fieldRetry   = 18
	fieldNotRun  = 19
	fieldDetail  = 20
)

// The exception types of kitex (pkg/remote/trans_errors.go) that say that the
// method has not run.
const (
	kitexUnknownMethod  = 1
	kitexInternalError  = 6
	kitexUnknownService = 20
)

const (
	maxErrorMessage = 4 << 10 // a longer text is cut: an error must fit where its reply would
	maxDetailBytes  = 64 << 10
)

// appendError appends e in the form of an error reply.
func appendError(b []byte, e *rpc.Error) []byte {
	kitexType := uint64(kitexInternalError)
	if e.Code == rpc.Unimplemented {
		kitexType = kitexUnknownMethod
	}
	msg := e.Message
	if len(msg) > maxErrorMessage {
		msg = msg[:maxErrorMessage]
	}
	b = protowire.AppendTag(b, fieldType, protowire.VarintType)
	b = protowire.AppendVarint(b, kitexType)
	b = protowire.AppendTag(b, fieldMessage, protowire.BytesType)
	b = protowire.AppendString(b, msg)
	b = protowire.AppendTag(b, fieldCode, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(e.Code))
	b = appendNonZero(b, fieldReason, uint64(e.Reason))
	b = appendNonZero(b, fieldRetry, uint64(max(e.Retry, 0)/time.Millisecond))
	b = appendNonZero(b, fieldNotRun, protowire.EncodeBool(e.NotRun))
	room := maxDetailBytes
	for _, d := range e.Details {
		raw, err := proto.Marshal(d)
		if err != nil || len(raw) > room {
			continue // a detail is an aid: the error itself must get through
		}
		room -= len(raw)
		b = protowire.AppendTag(b, fieldDetail, protowire.BytesType)
		b = protowire.AppendBytes(b, raw)
	}
	return b
}

func appendNonZero(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

// parseError reads an error reply of ours or of a stock kitex server.
func parseError(p []byte) *rpc.Error {
	e := &rpc.Error{}
	kitexType := int32(0)
	for len(p) > 0 {
		field, wire, n := protowire.ConsumeTag(p)
		if n < 0 {
			return errMalformed
		}
		p = p[n:]
		var v uint64
		var raw []byte
		switch wire {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(p)
		case protowire.BytesType:
			raw, n = protowire.ConsumeBytes(p)
		default:
			n = protowire.ConsumeFieldValue(field, wire, p)
		}
		if n < 0 {
			return errMalformed
		}
		p = p[n:]
		switch field {
		case fieldType:
			kitexType = int32(v)
		case fieldMessage:
			e.Message = string(raw)
		case fieldCode:
			e.Code = rpc.Code(min(v, 1<<32-1))
		case fieldReason:
			e.Reason = rpc.Reason(min(v, 255))
		case fieldRetry:
			e.Retry = time.Duration(min(v, 1<<31)) * time.Millisecond
		case fieldNotRun:
			e.NotRun = protowire.DecodeBool(v)
		case fieldDetail:
			d := new(anypb.Any)
			if proto.Unmarshal(raw, d) == nil {
				e.Details = append(e.Details, d)
			}
		}
	}
	if e.Code != 0 {
		return e
	}
	// A stock kitex server: only the type tells.
	e.Code = rpc.Unknown
	switch kitexType {
	case kitexUnknownMethod, kitexUnknownService:
		e.Code, e.Reason, e.NotRun = rpc.Unimplemented, rpc.ReasonUnknown, true
	case kitexInternalError:
		e.Code = rpc.Internal
	}
	return e
}

// errMalformed is shared: nobody changes it.
var errMalformed = &rpc.Error{Code: rpc.Internal, Reason: rpc.ReasonDecode, Message: "the server's error reply is malformed"}

// parseBizStatus reads the error of a kitex handler that travels in the header of
// a reply; nil if there is none.
func parseBizStatus(f *frame) *rpc.Error {
	if f.bizStatus == nil || string(f.bizStatus) == "0" {
		return nil
	}
	e := &rpc.Error{Code: rpc.Unknown, Message: string(f.bizMessage)}
	if code, err := strconv.ParseUint(string(f.bizStatus), 10, 32); err == nil && code <= uint64(rpc.Unauthenticated) {
		e.Code = rpc.Code(code)
	}
	return e
}
