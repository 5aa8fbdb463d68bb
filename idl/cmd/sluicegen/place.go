// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/pluginpb"
)

// Paths in a file's descriptor.
var (
	goPackagePath = protoreflect.SourcePath{8, 11}
	packagePath   = protoreflect.SourcePath{2}
)

// checkPlaces refuses a go_package that is not where the file is written to: the
// code would be imported by one path and lie at another.
func (src *sources) checkPlaces(req *pluginpb.CodeGeneratorRequest, out string) error {
	var found problems
	packages := map[string]string{} // Go import path -> package name, as first seen
	for _, file := range req.GetProtoFile() {
		name := file.GetName()
		report := func(path protoreflect.SourcePath, format string, args ...any) {
			found = append(found, at(file, src.display(name), path, format, args...))
		}
		have, alias, _ := strings.Cut(file.GetOptions().GetGoPackage(), ";")
		if !slices.Contains(req.GetFileToGenerate(), name) {
			if have == "" {
				report(packagePath, "option go_package is missing, so Go code cannot import it: add it")
			}
			continue
		}
		want, err := importPath(src.goDir(name, out))
		if err != nil {
			return fmt.Errorf("%s: %w", src.display(name), err)
		}
		fix := fmt.Sprintf("option go_package = %q;", want+";"+packageName(want, alias))
		switch {
		case have == "":
			report(packagePath, "option go_package is missing: add %s", fix)
			continue
		case have != want:
			report(goPackagePath, "go_package is %q but the code is written to %q: change it to %s, or move the file", have, want, fix)
			continue
		}
		first, ok := packages[have]
		if !ok {
			packages[have] = alias
		} else if first != alias {
			report(goPackagePath, "go_package names the Go package %q, another file of the directory names it %q: use one name", alias, first)
		}
	}
	return found.orNil()
}

// packageName gives the Go package name to propose: the one chosen, else the last
// two parts of the path, for a version alone says nothing.
func packageName(importPath, alias string) string {
	if alias != "" {
		return alias
	}
	base := path.Base(importPath)
	if parent := path.Base(path.Dir(importPath)); len(base) > 1 && base[0] == 'v' && base[1] >= '0' && base[1] <= '9' {
		base = parent + base
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return -1
	}, base)
}

// importPath gives the Go import path of a directory: the path of the module that
// encloses it and what lies between.
func importPath(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", dir, err)
	}
	for root := abs; ; root = filepath.Dir(root) {
		content, err := os.ReadFile(filepath.Join(root, "go.mod"))
		if err == nil {
			module := modulePath(string(content))
			if module == "" {
				rel, _ := filepath.Rel(abs, root) // for the message only
				return "", fmt.Errorf("%s has no module line: write module example.com/name in it", filepath.Join(dir, rel, "go.mod"))
			}
			rel, err := filepath.Rel(root, abs)
			if err != nil {
				return "", fmt.Errorf("find %s: %w", dir, err)
			}
			return path.Join(module, filepath.ToSlash(rel)), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("find the Go module of %s: %w", dir, err)
		}
		if root == filepath.Dir(root) {
			return "", fmt.Errorf("%s is in no Go module: run go mod init at its root first", abs)
		}
	}
}

// modulePath reads the module line of a go.mod.
func modulePath(content string) string {
	for line := range strings.Lines(content) {
		line, _, _ = strings.Cut(line, "//")
		fields := strings.Fields(line)
		if len(fields) != 2 || fields[0] != "module" {
			continue
		}
		if quoted, err := strconv.Unquote(fields[1]); err == nil {
			return quoted
		}
		return fields[1]
	}
	return ""
}
