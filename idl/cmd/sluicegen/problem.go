// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// problem is one mistake in a contract: where it is, what is wrong and how to
// mend it.
type problem struct {
	file      string
	line, col int // from 1; 0 when the place is not known
	text      string
}

func (p problem) String() string {
	if p.line == 0 {
		return fmt.Sprintf("%s: %s", p.file, p.text)
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.file, p.line, p.col, p.text)
}

// problems is every mistake of a run, so that they can be mended in one go.
type problems []problem

func (ps problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// orNil gives the problems in the order of files and lines, or nil if there are none.
func (ps problems) orNil() error {
	if len(ps) == 0 {
		return nil
	}
	slices.SortStableFunc(ps, func(a, b problem) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.line, b.line), cmp.Compare(a.col, b.col))
	})
	return slices.Compact(ps)
}

// at gives the problem at a descriptor path of a file, or at the nearest path
// above it whose place is known.
func at(fd protoreflect.FileDescriptor, file string, path protoreflect.SourcePath, format string, args ...any) problem {
	p := problem{file: file, text: fmt.Sprintf(format, args...)}
	for n := len(path); n > 0; n-- {
		if loc := fd.SourceLocations().ByPath(path[:n]); loc.Path != nil {
			p.line, p.col = loc.StartLine+1, loc.StartColumn+1
			break
		}
	}
	return p
}

// below gives path with more steps, in memory of its own.
func below(path protoreflect.SourcePath, steps ...int32) protoreflect.SourcePath {
	return append(slices.Clip(path), steps...)
}
