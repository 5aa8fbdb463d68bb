// SPDX-License-Identifier: Apache-2.0

package main

import "google.golang.org/protobuf/compiler/protogen"

// streams says whether either side of a method is a stream.
func streams(m *protogen.Method) bool {
	return m.Desc.IsStreamingClient() || m.Desc.IsStreamingServer()
}

// unarySignature gives parameters and results of a method without a stream.
func (w *serviceWriter) unarySignature(m *protogen.Method) string {
	return "(" + w.context() + ", " + w.pointer(m.Input) + ") (" + w.pointer(m.Output) + ", error)"
}

// serverSignature gives parameters and results of a method as its server sees it.
func (w *serviceWriter) serverSignature(m *protogen.Method) string {
	in, out := w.QualifiedGoIdent(m.Input.GoIdent), w.QualifiedGoIdent(m.Output.GoIdent)
	switch client, server := m.Desc.IsStreamingClient(), m.Desc.IsStreamingServer(); {
	case client && server:
		return "(" + w.context() + ", " + w.rpc("BidiStreamingServer") + "[" + in + ", " + out + "]) error"
	case client:
		return "(" + w.context() + ", " + w.rpc("ClientStreamingServer") + "[" + in + "]) (*" + out + ", error)"
	case server:
		return "(" + w.context() + ", *" + in + ", " + w.rpc("ServerStreamingServer") + "[" + out + "]) error"
	}
	return w.unarySignature(m)
}

// clientSignature gives them as its client does.
func (w *serviceWriter) clientSignature(m *protogen.Method) string {
	if !streams(m) {
		return w.unarySignature(m)
	}
	if m.Desc.IsStreamingClient() {
		return "(" + w.context() + ") (" + w.clientStream(m) + ", error)"
	}
	return "(" + w.context() + ", " + w.pointer(m.Input) + ") (" + w.clientStream(m) + ", error)"
}

// clientStream gives the type of the stream that a client gets.
func (w *serviceWriter) clientStream(m *protogen.Method) string {
	in, out := w.QualifiedGoIdent(m.Input.GoIdent), w.QualifiedGoIdent(m.Output.GoIdent)
	switch client, server := m.Desc.IsStreamingClient(), m.Desc.IsStreamingServer(); {
	case client && server:
		return w.rpc("BidiStreamingClient") + "[" + in + ", " + out + "]"
	case client:
		return w.rpc("ClientStreamingClient") + "[" + in + ", " + out + "]"
	}
	return w.rpc("ServerStreamingClient") + "[" + out + "]"
}

// streamHandler writes the rest of the handler of a method with a stream.
func (w *serviceWriter) streamHandler(m *protogen.Method) {
	types := "[" + w.QualifiedGoIdent(m.Input.GoIdent) + ", " + w.QualifiedGoIdent(m.Output.GoIdent) + "]"
	w.P("stream, err := ", w.rpc("StreamFrom"), types, "(ctx, ", w.names.method(m), ")")
	w.P("if err != nil {")
	w.P("return nil, err")
	w.P("}")
	switch client, server := m.Desc.IsStreamingClient(), m.Desc.IsStreamingServer(); {
	case client && server:
		w.P("return nil, srv.", m.GoName, "(ctx, stream)")
	case client:
		w.P("res, err := srv.", m.GoName, "(ctx, stream)")
		w.P("if err != nil || res == nil {")
		w.P("return nil, err") // as for a method without a stream
		w.P("}")
		w.P("return res, nil")
	default:
		w.P("return nil, srv.", m.GoName, "(ctx, req.(", w.pointer(m.Input), "), stream)")
	}
	w.P("},")
}

// openStream writes the client's method.
func (w *serviceWriter) openStream(m *protogen.Method) {
	types := "[" + w.QualifiedGoIdent(m.Input.GoIdent) + ", " + w.QualifiedGoIdent(m.Output.GoIdent) + "]"
	client, server := m.Desc.IsStreamingClient(), m.Desc.IsStreamingServer()
	params, req := "(ctx "+w.context(), "nil"
	if !client {
		params, req = params+", req "+w.pointer(m.Input), "req"
	}
	w.P("func (c *", w.names.clientImpl, ") ", m.GoName, params, ") (", w.clientStream(m), ", error) {")
	if client && !server {
		w.P("return ", w.rpc("OpenClientStream"), types, "(ctx, c.conn, ", w.names.method(m), ")")
	} else {
		w.P("return ", w.rpc("OpenStream"), types, "(ctx, c.conn, ", w.names.method(m), ", ", req, ")")
	}
	w.P("}")
}

func (w *serviceWriter) context() string { return w.QualifiedGoIdent(contextPackage.Ident("Context")) }

func (w *serviceWriter) rpc(name string) string { return w.QualifiedGoIdent(rpcPackage.Ident(name)) }

func (w *serviceWriter) pointer(m *protogen.Message) string {
	return "*" + w.QualifiedGoIdent(m.GoIdent)
}
