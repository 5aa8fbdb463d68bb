// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/pluginpb"
)

// pluginRequest compiles contracts into what protoc would send.
func pluginRequest(t testing.TB, parameter, root string, args ...string) []byte {
	t.Helper()
	src, err := findSources([]string{root}, args)
	if err != nil {
		t.Fatal(err)
	}
	req, _, err := src.compile()
	if err != nil {
		t.Fatal(err)
	}
	req.Parameter = proto.String(parameter)
	data, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// asPlugin runs the command as protoc does, by name, and gives its response.
func asPlugin(t *testing.T, request []byte, args ...string) *pluginpb.CodeGeneratorResponse {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(args, bytes.NewReader(request), &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	res := &pluginpb.CodeGeneratorResponse{}
	if err := proto.Unmarshal(stdout.Bytes(), res); err != nil {
		t.Fatal(err)
	}
	return res
}

func TestPlugin(t *testing.T) {
	request := pluginRequest(t, "paths=source_relative", "testdata/golden", "testdata/golden")
	for name, args := range map[string][]string{
		"by name": {"/usr/bin/protoc-gen-sluice"},
		"by flag": {"sluicegen", "--plugin"},
	} {
		t.Run(name, func(t *testing.T) {
			res := asPlugin(t, request, args...)
			if res.Error != nil {
				t.Fatal(res.GetError())
			}
			if len(res.GetFile()) != 5 {
				t.Errorf("%d files, want the 5 of contracts with services", len(res.GetFile()))
			}
			for _, f := range res.GetFile() {
				want, err := os.ReadFile("testdata/golden/" + f.GetName())
				if err != nil || !strings.HasSuffix(f.GetName(), ".rpc.go") {
					t.Errorf("unexpected file %s: %v", f.GetName(), err)
				} else if f.GetContent() != string(want) {
					t.Errorf("%s differs from what the command writes itself", f.GetName())
				}
			}
			if res.GetSupportedFeatures()&uint64(pluginpb.CodeGeneratorResponse_FEATURE_SUPPORTS_EDITIONS) == 0 {
				t.Error("editions are not announced")
			}
		})
	}
}

// TestPluginRefuses checks that mistakes in contracts come back in the response,
// which protoc and buf print.
func TestPluginRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "a.proto", "syntax = \"proto3\";\noption go_package = \"example.com/a;a\";\nmessage M {}\nservice S {\n  rpc Do(M) returns (M);\n  rpc do(M) returns (M);\n}\n")
	res := asPlugin(t, pluginRequest(t, "", ".", "a.proto"), "protoc-gen-sluice")
	want := "a.proto:6:7: method do: Do has the same Go name Do: rename one of them"
	if res.GetError() != want || len(res.GetFile()) > 0 {
		t.Errorf("error %q, want %q; %d files, want none", res.GetError(), want, len(res.GetFile()))
	}
}

func TestPluginBadInput(t *testing.T) {
	for name, row := range map[string]struct{ stdin, want string }{
		"nothing":        {"", "names no file to generate"},
		"not a request":  {"hello", "is no CodeGeneratorRequest"},
		"file not there": {string(must(proto.Marshal(&pluginpb.CodeGeneratorRequest{FileToGenerate: []string{"a.proto"}}))), "a.proto"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run([]string{"protoc-gen-sluice"}, strings.NewReader(row.stdin), &stdout, &stderr)
			if code != 1 || stdout.Len() > 0 || !strings.Contains(stderr.String(), row.want) {
				t.Errorf("exit %d, %d bytes of output, errors %q; want 1, 0 and %q", code, stdout.Len(), stderr.String(), row.want)
			}
		})
	}
}

// FuzzPlugin gives the plugin requests that no compiler has checked: it answers or
// refuses them and never panics.
func FuzzPlugin(f *testing.F) {
	f.Add(pluginRequest(f, "paths=source_relative", "testdata/golden", "testdata/golden/old"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, request []byte) {
		var stdout, stderr bytes.Buffer
		code := run([]string{"protoc-gen-sluice"}, bytes.NewReader(request), &stdout, &stderr)
		if (code == 0) == (stderr.Len() > 0) {
			t.Errorf("exit %d with errors %q", code, stderr.String())
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
