// SPDX-License-Identifier: Apache-2.0

// Command exported prints what the packages of a tree export, a line each, as their source
// says it: no package is compiled, so that two trees are compared within a second.
//
//	go run ./.ci/exported TREE
package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// public are the trees of packages that other modules import.
var public = []string{"framework", "qos", "tracing", "idl/qos"}

func main() {
	lines := map[string]bool{}
	for _, top := range public {
		if err := filepath.WalkDir(filepath.Join(os.Args[1], top), func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return err
			}
			switch e.Name() {
			case "internal", "bench", "testdata", "console", "cmd", "interop":
				return fs.SkipDir
			}
			name, err := filepath.Rel(os.Args[1], path)
			if err != nil {
				return err
			}
			return exported(path, filepath.ToSlash(name), lines)
		}); err != nil {
			fmt.Fprintln(os.Stderr, "exported:", err)
			os.Exit(1)
		}
	}
	for _, l := range slices.Sorted(maps.Keys(lines)) {
		fmt.Println(l)
	}
}

func exported(dir, name string, lines map[string]bool) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if f.Name.Name == "main" {
			return nil
		}
		for _, d := range f.Decls {
			for _, said := range declared(d) {
				lines[name+": "+said] = true
			}
		}
	}
	return nil
}

func declared(d ast.Decl) (all []string) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		on := ""
		if d.Recv != nil {
			of := text(d.Recv.List[0].Type)
			if !ast.IsExported(strings.TrimLeft(of, "*")) {
				return nil
			}
			on = "(" + of + ") "
		}
		if d.Name.IsExported() {
			all = append(all, "func "+on+d.Name.Name+signature(d.Type))
		}
	case *ast.GenDecl:
		var last ast.Expr // of constants that repeat it
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.ValueSpec:
				if s.Type != nil || len(s.Values) > 0 {
					last = s.Type
				}
				for _, n := range s.Names {
					if n.IsExported() {
						all = append(all, strings.TrimSpace(d.Tok.String()+" "+n.Name+" "+text(last)))
					}
				}
			case *ast.TypeSpec:
				if s.Name.IsExported() {
					all = append(all, typed(s)...)
				}
			}
		}
	}
	return all
}

// typed gives a type, and each exported field and method of it on a line of its own.
func typed(s *ast.TypeSpec) []string {
	head := "type " + s.Name.Name
	if s.TypeParams != nil {
		head += "[" + types(s.TypeParams) + "]"
	}
	if s.Assign.IsValid() {
		head += " ="
	}
	var members *ast.FieldList
	kind := ""
	switch t := s.Type.(type) {
	case *ast.StructType:
		kind, members = "struct", t.Fields
	case *ast.InterfaceType:
		kind, members = "interface", t.Methods
	case *ast.FuncType:
		return []string{head + " func" + signature(t)}
	default:
		return []string{head + " " + text(t)}
	}
	head += " " + kind
	all := []string{head}
	for _, m := range members.List {
		said := text(m.Type)
		if f, ok := m.Type.(*ast.FuncType); ok && kind == "interface" {
			said = signature(f)
		} else if len(m.Names) > 0 {
			said = " " + said
		}
		if len(m.Names) == 0 {
			all = append(all, head+", "+said)
		}
		for _, n := range m.Names {
			if n.IsExported() || kind == "interface" {
				all = append(all, head+", "+n.Name+said)
			}
		}
	}
	return all
}

// signature leaves out what parameters are called: callers do not say it.
func signature(f *ast.FuncType) string {
	of := ""
	if f.TypeParams != nil {
		of = "[" + types(f.TypeParams) + "]"
	}
	of += "(" + types(f.Params) + ")"
	switch n := f.Results.NumFields(); {
	case n == 1:
		of += " " + types(f.Results)
	case n > 1:
		of += " (" + types(f.Results) + ")"
	}
	return of
}

func types(l *ast.FieldList) string {
	var all []string
	for _, f := range l.List {
		for range max(1, len(f.Names)) {
			all = append(all, text(f.Type))
		}
	}
	return strings.Join(all, ", ")
}

func text(e ast.Expr) string {
	if e == nil {
		return ""
	}
	var b bytes.Buffer
	if err := printer.Fprint(&b, token.NewFileSet(), e); err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(b.String()), " ")
}
