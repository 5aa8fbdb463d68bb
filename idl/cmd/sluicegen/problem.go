// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// problem is one mistake in a contract: where it is, what is wrong and how to
// mend it.
type problem struct {
	file      string
	line, col int // from 1
	text      string
}

func (p problem) String() string {
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
// above it whose place is known, or at the start of the file.
func at(file *descriptorpb.FileDescriptorProto, display string, path protoreflect.SourcePath, format string, args ...any) problem {
	p := problem{display, 1, 1, fmt.Sprintf(format, args...)}
	for n := len(path); n > 0; n-- {
		for _, loc := range file.GetSourceCodeInfo().GetLocation() {
			if slices.Equal(loc.GetPath(), path[:n]) && len(loc.GetSpan()) >= 2 {
				p.line, p.col = int(loc.GetSpan()[0])+1, int(loc.GetSpan()[1])+1 // spans count from 0
				return p
			}
		}
	}
	return p
}

// below gives path with more steps, in memory of its own.
func below(path protoreflect.SourcePath, steps ...int32) protoreflect.SourcePath {
	return append(slices.Clip(path), steps...)
}
