// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"github.com/bufbuild/protocompile/protoutil"
	"github.com/bufbuild/protocompile/reporter"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/pluginpb"

	qosv1 "github.com/sluice-rpc/sluice/idl/qos/v1"
)

// sources are the contracts of one run. A contract has a name, its slash path
// below one of the roots, by which others import it, and a path on disk.
type sources struct {
	roots  []string
	inputs map[string]string // name -> path, as the user would write it

	mu   sync.Mutex        // guards read: the compiler opens files side by side
	read map[string]string // name -> path, of every file the compiler opened
}

// findSources finds the contracts that args name: files, and for a directory
// every .proto below it that the go tool would not skip.
func findSources(roots, args []string) (*sources, error) {
	src := &sources{roots: roots, inputs: map[string]string{}, read: map[string]string{}}
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, fmt.Errorf("read contract: %w", err)
		}
		if !info.IsDir() {
			if filepath.Ext(arg) != ".proto" {
				return nil, fmt.Errorf("%s is not a contract: name .proto files or directories", arg)
			}
			if err := src.add(arg); err != nil {
				return nil, err
			}
			continue
		}
		n, err := src.addTree(arg)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, fmt.Errorf("%s: no .proto file is below it", arg)
		}
	}
	return src, nil
}

// addTree adds the contracts below dir and gives their number.
func (src *sources) addTree(dir string) (n int, err error) {
	err = filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			if file != dir && skipped(file, entry.Name()) {
				return fs.SkipDir
			}
		case filepath.Ext(file) == ".proto":
			n++
			return src.add(file)
		}
		return nil
	})
	return n, err
}

// skipped says whether a directory is one that the go tool would not look into
// either, another module among them.
func skipped(dir, base string) bool {
	if base == "testdata" || base == "vendor" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// add names a file by the first root that holds it. A file that an earlier root
// hides would be compiled in the other's stead, so it is refused.
func (src *sources) add(file string) error {
	abs, err := filepath.Abs(file)
	if err != nil {
		return fmt.Errorf("find %s: %w", file, err)
	}
	for _, root := range src.roots {
		absRoot, err := filepath.Abs(root)
		if err != nil {
			return fmt.Errorf("find -I %s: %w", root, err)
		}
		rel, err := filepath.Rel(absRoot, abs)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		name := filepath.ToSlash(rel)
		for _, earlier := range src.roots {
			if earlier == root {
				break
			}
			hidden := filepath.Join(earlier, rel)
			if _, err := os.Stat(hidden); err == nil {
				return fmt.Errorf("%s is hidden by %s, which an earlier -I finds under the same name: change the order of -I", file, hidden)
			}
		}
		src.inputs[name] = filepath.Clean(file)
		return nil
	}
	return fmt.Errorf("%s is below none of the import roots %s: add -I with the directory its imports are written from",
		file, strings.Join(src.roots, ", "))
}

// display gives the path of a contract as errors show it.
func (src *sources) display(name string) string {
	if file, ok := src.inputs[name]; ok {
		return file
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	if file, ok := src.read[name]; ok {
		return file
	}
	return name
}

const qosName = "qos/v1/qos.proto"

// FindFileByPath opens a contract for the compiler. The framework's own options
// come from this binary, so that they are those that it understands, unless they
// are what is being generated.
func (src *sources) FindFileByPath(name string) (protocompile.SearchResult, error) {
	_, input := src.inputs[name]
	if name == qosName && !input {
		return protocompile.SearchResult{Desc: qosv1.File_qos_v1_qos_proto}, nil
	}
	if !fs.ValidPath(name) {
		return protocompile.SearchResult{}, errors.New("an import is a slash path below an import root, without . and .. parts")
	}
	for _, root := range src.roots {
		file := filepath.Join(root, filepath.FromSlash(name))
		content, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return protocompile.SearchResult{}, err
		}
		src.mu.Lock()
		src.read[name] = file
		src.mu.Unlock()
		return protocompile.SearchResult{Source: content}, nil // the compiler closes it
	}
	return protocompile.SearchResult{}, fs.ErrNotExist
}

// compile gives the contracts as protoc would give them to a plugin, with every
// import before its user, and the warnings of the compiler. Its error is of type
// problems if the contracts are wrong.
func (src *sources) compile() (*pluginpb.CodeGeneratorRequest, []problem, error) {
	var found, warned problems
	place := func(err reporter.ErrorWithPos) problem {
		pos := err.GetPosition()
		return problem{src.display(pos.Filename), pos.Line, pos.Col, mend(err.Unwrap())}
	}
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(src),
		SourceInfoMode: protocompile.SourceInfoStandard | protocompile.SourceInfoExtraOptionLocations,
		MaxParallelism: 1, // errors come in one order, and contracts are small
		Reporter: reporter.NewReporter(
			func(err reporter.ErrorWithPos) error { found = append(found, place(err)); return nil },
			func(err reporter.ErrorWithPos) {
				if _, input := src.inputs[err.GetPosition().Filename]; input {
					warned = append(warned, place(err))
				}
			},
		),
	}
	names := slices.Sorted(maps.Keys(src.inputs))
	files, err := compiler.Compile(context.Background(), names...)
	if e, ok := errors.AsType[reporter.ErrorWithPos](err); ok {
		found = append(found, place(e)) // an import that cannot be read is not reported but returned
	}
	if len(found) > 0 {
		return nil, nil, found.orNil()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("compile: %w", err)
	}
	_ = warned.orNil() // sorts
	req, err := request(names, files)
	return req, warned, err
}

// mend adds to a compiler's message what to do about it, where it does not say.
func mend(err error) string {
	text := err.Error()
	for _, hint := range []struct{ part, mend string }{
		{"unknown extension qos.v1.", `add import "` + qosName + `";`},
		{"option (qos.v1.service): field", "give business or timeout_ms"},
		{"option (qos.v1.method): field", "give business, timeout_ms or max_attempts"},
		{"enum qos.v1.Business has no value", "give BUSINESS_CRITICAL, _BROWSE, _POST, _INTERACTIVE, _EXTRA or _BACKGROUND"},
		{": file does not exist", "give the directory that the import is written from with -I"},
		{": unknown type ", "define it, or import the file that does"},
		{" not used", "remove it"},
	} {
		if strings.Contains(text, hint.part) {
			return text + ": " + hint.mend
		}
	}
	return text
}

// request makes the message that protoc would send to a plugin. It goes through
// bytes once so that options are of this binary's types and not of the compiler's.
func request(names []string, files linker.Files) (*pluginpb.CodeGeneratorRequest, error) {
	req := &pluginpb.CodeGeneratorRequest{FileToGenerate: names}
	seen := map[string]bool{}
	var visit func(fd protoreflect.FileDescriptor)
	visit = func(fd protoreflect.FileDescriptor) {
		if seen[fd.Path()] {
			return
		}
		seen[fd.Path()] = true
		for i := range fd.Imports().Len() {
			visit(fd.Imports().Get(i).FileDescriptor)
		}
		req.ProtoFile = append(req.ProtoFile, protoutil.ProtoFromFileDescriptor(fd))
	}
	for _, fd := range files {
		visit(fd)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("encode descriptors: %w", err)
	}
	out := &pluginpb.CodeGeneratorRequest{}
	if err := proto.Unmarshal(data, out); err != nil {
		return nil, fmt.Errorf("decode descriptors: %w", err)
	}
	return out, nil
}

// goDir gives the directory that the Go files of a contract are written to.
func (src *sources) goDir(name, out string) string {
	if out != "" {
		return filepath.Join(out, filepath.FromSlash(path.Dir(name)))
	}
	return filepath.Dir(src.inputs[name])
}
