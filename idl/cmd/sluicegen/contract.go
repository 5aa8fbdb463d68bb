// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path"
	"slices"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// The field number of a name in descriptor.proto, within a service and a method.
const nameField = 1

// checkContracts refuses what cannot be generated or must not be:
// options out of range, and Go names that would be declared twice.
func checkContracts(plugin *protogen.Plugin, display func(string) string) error {
	var found problems
	names := map[protogen.GoIdent]string{} // Go name -> what declares it
	for _, f := range plugin.Files {
		declareMessages(names, f.Messages)
		declareEnums(names, f.Enums)
		for _, x := range f.Extensions {
			names[protogen.GoIdent{GoName: "E_" + x.GoName, GoImportPath: f.GoImportPath}] = "extension " + string(x.Desc.FullName())
		}
	}
	for _, f := range plugin.Files {
		if !f.Generate {
			continue
		}
		c := &checker{file: f, display: display(f.Desc.Path()), names: names}
		for _, service := range f.Services {
			c.checkService(service)
		}
		found = append(found, c.found...)
	}
	return found.orNil()
}

type checker struct {
	file    *protogen.File
	display string
	names   map[protogen.GoIdent]string
	found   problems
}

func (c *checker) report(place protoreflect.SourcePath, format string, args ...any) {
	c.found = append(c.found, at(c.file.Proto, c.display, place, format, args...))
}

func (c *checker) checkService(service *protogen.Service) {
	options, _ := service.Desc.Options().(*descriptorpb.ServiceOptions)
	defaults, faults := readService(options)
	for _, f := range faults {
		c.report(below(service.Location.Path, f.path...), "service %s: %s", service.Desc.Name(), f.text)
	}
	n := namesOf(service)
	c.declare(service.Location.Path, "service "+string(service.Desc.FullName()),
		n.server, n.client, n.register, n.unimplemented, n.newClient, n.clientImpl, n.desc)
	methods := map[string]protoreflect.Name{} // Go name -> method
	for _, m := range service.Methods {
		if other, ok := methods[m.GoName]; ok {
			c.report(below(m.Location.Path, nameField), "method %s: %s has the same Go name %s: rename one of them", m.Desc.Name(), other, m.GoName)
			continue
		}
		methods[m.GoName] = m.Desc.Name()
		c.declare(m.Location.Path, "method "+string(m.Desc.FullName()), n.method(m))
		c.checkMethod(m, defaults)
		c.checkImports(m)
	}
}

func (c *checker) checkMethod(m *protogen.Method, defaults limits) {
	options, _ := m.Desc.Options().(*descriptorpb.MethodOptions)
	_, faults := readMethod(options, defaults, streams(m))
	for _, f := range faults {
		c.report(below(m.Location.Path, f.path...), "method %s: %s", m.Desc.Name(), f.text)
	}
}

// checkImports refuses a message whose package, imported by the last part of its
// path, would be hidden by a variable of the generated functions.
func (c *checker) checkImports(m *protogen.Method) {
	for _, message := range []*protogen.Message{m.Input, m.Output} {
		from := message.GoIdent.GoImportPath
		if name := path.Base(string(from)); from != c.file.GoImportPath && slices.Contains(localNames, name) {
			c.report(below(m.Location.Path, nameField), "method %s: the Go package of %s is imported as %s, which is a variable of generated code: "+
				"let the go_package %s end otherwise", m.Desc.Name(), message.Desc.FullName(), name, from)
			return
		}
	}
}

// declare notes Go names of the file's package and reports those already taken.
func (c *checker) declare(place protoreflect.SourcePath, what string, goNames ...string) {
	for _, name := range goNames {
		ident := protogen.GoIdent{GoName: name, GoImportPath: c.file.GoImportPath}
		if other, taken := c.names[ident]; taken {
			c.report(below(place, nameField), "%s: its Go name %s is that of %s too: rename one of them", what, name, other)
			return // a service that clashes in one name does so in most
		}
		c.names[ident] = what
	}
}

func declareMessages(names map[protogen.GoIdent]string, messages []*protogen.Message) {
	for _, m := range messages {
		if m.Desc.IsMapEntry() {
			continue
		}
		names[m.GoIdent] = "message " + string(m.Desc.FullName())
		for _, field := range m.Fields {
			if field.Oneof != nil && !field.Oneof.Desc.IsSynthetic() {
				names[field.GoIdent] = "oneof field " + string(field.Desc.FullName())
			}
		}
		declareMessages(names, m.Messages)
		declareEnums(names, m.Enums)
	}
}

func declareEnums(names map[protogen.GoIdent]string, enums []*protogen.Enum) {
	for _, e := range enums {
		names[e.GoIdent] = "enum " + string(e.Desc.FullName())
		for _, suffix := range []string{"_name", "_value"} {
			ident := e.GoIdent
			ident.GoName += suffix
			names[ident] = fmt.Sprintf("the %s map of enum %s", suffix[1:], e.Desc.FullName())
		}
		for _, v := range e.Values {
			names[v.GoIdent] = "enum value " + string(v.Desc.FullName())
		}
	}
}

// serviceNames are the Go names that a service declares.
type serviceNames struct {
	prefix                                                               string
	server, unimplemented, register, client, newClient, clientImpl, desc string
}

func namesOf(s *protogen.Service) serviceNames {
	n := s.GoName
	return serviceNames{
		prefix:        n,
		server:        n + "Server",
		unimplemented: "Unimplemented" + n + "Server",
		register:      "Register" + n + "Server",
		client:        n + "Client",
		newClient:     "New" + n + "Client",
		clientImpl:    unexported(n) + "Client",
		desc:          n + "Desc",
	}
}

// method gives the name of a method's table entry.
func (n serviceNames) method(m *protogen.Method) string { return n.prefix + m.GoName + "Method" }

// unexported gives a Go name, which is ASCII, with a small first letter.
func unexported(name string) string {
	b := slices.Clone([]byte(name))
	if b[0] >= 'A' && b[0] <= 'Z' {
		b[0] += 'a' - 'A'
	}
	return string(b)
}
