// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): (.*)$`)

// parseFile reads one YAML document. It walks the nodes itself: decoding into the
// struct would neither keep lines nor ask for units.
func (p *parser) parseFile(text []byte, root reflect.Value) {
	var doc yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		return
	} else if err != nil {
		where, problem := p.file, strings.TrimPrefix(err.Error(), "yaml: ")
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			where, problem = p.file+":"+m[1], m[2]
		}
		p.wrong(where, "", "%s", problem)
		return
	}
	var second yaml.Node
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		p.wrong(p.file, "", "more than one document: everything stands before the first ---")
		return
	}
	if top := doc.Content[0]; top.Tag != "!!null" { // a file of comments alone
		p.node(top, "", field{}, root)
	}
}

func (p *parser) node(n *yaml.Node, path string, f field, v reflect.Value) {
	where := fmt.Sprintf("%s:%d", p.file, n.Line)
	p.origin[path] = where
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		p.wrong(where, path, "anchors and aliases are not read: write the value out")
		return
	}
	want := "a single value"
	switch {
	case isScalar(v.Type()):
		if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
			p.setScalar(where, path, f, v, n.Value)
			return
		}
	case v.Kind() == reflect.Slice:
		if n.Kind == yaml.SequenceNode {
			list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
			for i, item := range n.Content {
				p.node(item, fmt.Sprintf("%s[%d]", path, i), f, list.Index(i))
			}
			v.Set(list)
			return
		}
		want = `a list, as in [a, b]`
	case v.Kind() == reflect.Map:
		if n.Kind == yaml.MappingNode {
			p.names(n, path, f, v)
			return
		}
		want = "names with values"
	default:
		if n.Kind == yaml.MappingNode {
			p.mapping(n, path, v)
			return
		}
		want = "names with values"
	}
	p.wrong(where, path, "want %s; write one or remove the line", want)
}

// names reads the values of a map, whose names are the operator's own.
func (p *parser) names(n *yaml.Node, path string, f field, v reflect.Value) {
	values := reflect.MakeMapWithSize(v.Type(), len(n.Content)/2)
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, item := n.Content[i], reflect.New(v.Type().Elem()).Elem()
		name := join(path, key.Value)
		if line, ok := seen[key.Value]; ok {
			p.wrong(fmt.Sprintf("%s:%d", p.file, key.Line), name, "set twice, first in line %d: remove one", line)
			continue
		}
		seen[key.Value] = key.Line
		p.node(n.Content[i+1], name, f, item)
		values.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), item)
	}
	v.Set(values)
}

func (p *parser) mapping(n *yaml.Node, path string, v reflect.Value) {
	fields := fieldsOf(v.Type())
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		where, name := fmt.Sprintf("%s:%d", p.file, key.Line), join(path, key.Value)
		if line, ok := seen[key.Value]; ok {
			p.wrong(where, name, "set twice, first in line %d: remove one", line)
			continue
		}
		seen[key.Value] = key.Line
		at := slices.IndexFunc(fields, func(f field) bool { return f.name == key.Value })
		if at < 0 {
			var known []string
			for _, f := range fields {
				known = append(known, f.name)
			}
			p.wrong(where, name, "no such setting; known here are %s", strings.Join(known, ", "))
			continue
		}
		p.node(value, name, fields[at], v.FieldByIndex(fields[at].index))
	}
}
