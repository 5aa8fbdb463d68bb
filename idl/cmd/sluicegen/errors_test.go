// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestErrors gives bad contracts and bad command lines. Every row has the whole of
// what is printed; nothing is written for any of them.
func TestErrors(t *testing.T) {
	const (
		head    = "syntax = \"proto3\";\npackage a.v1;\noption go_package = \"example.com/t/api/a/v1;av1\";\n"
		headQoS = head + "import \"qos/v1/qos.proto\";\n"
		message = "message M {}\n"
	)
	service := func(body string) map[string]string {
		start := headQoS
		if !strings.Contains(body, "qos.v1") {
			start = head + "// no import\n"
		}
		return map[string]string{"api/a/v1/a.proto": start + message + "service S {\n" + body + "\n}\n"}
	}
	file := func(content string) map[string]string { return map[string]string{"api/a/v1/a.proto": content} }
	for _, row := range []struct {
		name  string
		files map[string]string
		args  []string // default -I api api
		want  string
		code  int // default 1
	}{
		// The language.
		{
			name: "syntax", files: file(head + "message M {\n  string a = 1\n}\n"),
			want: "api/a/v1/a.proto:6:1: syntax error: expecting ';'",
		},
		{
			name: "every mistake at once", files: file(head + "message M {\n  A a = 1;\n  B b = 2;\n}\n"),
			want: "api/a/v1/a.proto:5:3: field a.v1.M.a: unknown type A: define it, or import the file that does\n" +
				"api/a/v1/a.proto:6:3: field a.v1.M.b: unknown type B: define it, or import the file that does",
		},
		{
			name: "field number twice", files: file(head + "message M {\n  string a = 1;\n  string b = 1;\n}\n"),
			want: "api/a/v1/a.proto:6:14: message a.v1.M: fields a and b both have the same tag 1",
		},
		{
			name: "import not found", files: file(head + "import \"b/v1/b.proto\";\n"),
			want: `api/a/v1/a.proto:4:8: could not resolve path "b/v1/b.proto": file does not exist: give the directory that the import is written from with -I`,
		},
		{
			name: "import climbs", files: file(head + "import \"../b.proto\";\n"),
			want: `api/a/v1/a.proto:4:8: could not resolve path "../b.proto": an import is a slash path below an import root, without . and .. parts`,
		},
		{
			name: "import of itself", files: file(head + "import \"a/v1/a.proto\";\n"),
			want: `api/a/v1/a.proto:4:8: cycle found in imports: "a/v1/a.proto" -> "a/v1/a.proto"`,
		},
		{
			name: "mistake in an import", files: map[string]string{
				"api/a/v1/a.proto": head + "import \"b.proto\";\n", "lib/b.proto": "syntax = \"proto3\";\nmessage {}\n",
			}, args: []string{"-I", "api", "-I", "lib", "api"},
			want: "lib/b.proto:2:9: syntax error: unexpected '{'",
		},

		// Where the code belongs.
		{
			name: "empty file", files: file("syntax = \"proto3\";\n"),
			want: `api/a/v1/a.proto:1:1: option go_package is missing: add option go_package = "example.com/t/api/a/v1;av1";`,
		},
		{
			name: "no go_package", files: file("syntax = \"proto3\";\n\npackage a.v1;\n"),
			want: `api/a/v1/a.proto:3:1: option go_package is missing: add option go_package = "example.com/t/api/a/v1;av1";`,
		},
		{
			name: "go_package of another place", files: file("syntax = \"proto3\";\noption go_package = \"example.com/t/a/v1;shop\";\n"),
			want: `api/a/v1/a.proto:2:1: go_package is "example.com/t/a/v1" but the code is written to "example.com/t/api/a/v1": ` +
				`change it to option go_package = "example.com/t/api/a/v1;shop";, or move the file`,
		},
		{
			name: "go_package and --out", files: file(head), args: []string{"-I", "api", "--out", "gen", "api"},
			want: `api/a/v1/a.proto:3:1: go_package is "example.com/t/api/a/v1" but the code is written to "example.com/t/gen/a/v1": ` +
				`change it to option go_package = "example.com/t/gen/a/v1;av1";, or move the file`,
		},
		{name: "two package names in a directory", files: map[string]string{
			"api/a/v1/a.proto": head, "api/a/v1/b.proto": "syntax = \"proto3\";\noption go_package = \"example.com/t/api/a/v1;bv1\";\n",
		}, want: `api/a/v1/b.proto:2:1: go_package names the Go package "bv1", another file of the directory names it "av1": use one name`},
		{
			name: "import without go_package", files: map[string]string{
				"api/a/v1/a.proto": head + "import \"b.proto\";\nmessage M { B b = 1; }\n", "lib/b.proto": "syntax = \"proto3\";\npackage a.v1;\nmessage B {}\n",
			}, args: []string{"-I", "api", "-I", "lib", "api"},
			want: "lib/b.proto:2:1: option go_package is missing, so Go code cannot import it: add it",
		},

		// Options.
		{
			name: "options not imported", files: file(head + message + "service S {\n  rpc Do(M) returns (M) {\n    option (qos.v1.method) = {timeout_ms: 5};\n  }\n}\n"),
			want: `api/a/v1/a.proto:7:12: method a.v1.S.Do: unknown extension qos.v1.method: add import "qos/v1/qos.proto";`,
		},
		{
			name: "misspelt option", files: service("  rpc Do(M) returns (M) {\n    option (qos.v1.method) = {timout_ms: 5};\n  }"),
			want: "api/a/v1/a.proto:8:31: method a.v1.S.Do: option (qos.v1.method): field timout_ms not found: give business, timeout_ms or max_attempts",
		},
		{
			name: "unknown class", files: service("  option (qos.v1.service).business = BUSINESS_VIP;"),
			want: "api/a/v1/a.proto:7:38: service a.v1.S: option (qos.v1.service).business: enum qos.v1.Business has no value named BUSINESS_VIP: " +
				"give BUSINESS_CRITICAL, _BROWSE, _POST, _INTERACTIVE, _EXTRA or _BACKGROUND",
		},
		{
			name: "negative time", files: service("  option (qos.v1.service) = {timeout_ms: -1};"),
			want: "api/a/v1/a.proto:7:42: service a.v1.S: option (qos.v1.service): value -1 is out of range for uint32",
		},
		{
			name: "time of a service", files: service("  option (qos.v1.service) = {\n    business: BUSINESS_POST\n    timeout_ms: 600001\n  };"),
			want: "api/a/v1/a.proto:9:5: service S: timeout_ms is 600001: give 1 to 600000 milliseconds (ten minutes)",
		},
		{
			name: "time of a method", files: service("  rpc Do(M) returns (M) {\n    option (qos.v1.method).timeout_ms = 600001;\n  }"),
			want: "api/a/v1/a.proto:8:5: method Do: timeout_ms is 600001: give 1 to 600000 milliseconds (ten minutes)",
		},
		{
			name: "too many attempts", files: service("  rpc Do(M) returns (M) {\n    option idempotency_level = IDEMPOTENT;\n    option (qos.v1.method) = {max_attempts: 6};\n  }"),
			want: "api/a/v1/a.proto:9:31: method Do: max_attempts is 6: give 1 to 5",
		},
		{
			name: "attempts without idempotency", files: service("  rpc Do(M) returns (M) {\n    option (qos.v1.method) = {max_attempts: 2};\n  }"),
			want: "api/a/v1/a.proto:8:31: method Do: max_attempts is 2 but the method may not be repeated: add option idempotency_level = NO_SIDE_EFFECTS; " +
				"(it only reads) or IDEMPOTENT; (repeating changes nothing more), or leave max_attempts out",
		},

		// What cannot be generated.
		{
			name: "a stream that is made again", files: service("  rpc Do(M) returns (stream M) {\n    option idempotency_level = IDEMPOTENT;\n    option (qos.v1.method) = {max_attempts: 2};\n  }"),
			want: "api/a/v1/a.proto:9:31: method Do: max_attempts is 2 but a stream is never made again: leave max_attempts out",
		},
		{
			name: "a stream without end", files: service("  rpc Do(stream M) returns (M) {\n    option (qos.v1.method) = {timeout_ms: 3600001};\n  }"),
			want: "api/a/v1/a.proto:8:31: method Do: timeout_ms is 3600001: give 1 to 3600000 milliseconds (an hour)",
		},
		{
			name: "message named as a server", files: service("}\nmessage SServer {"),
			want: "api/a/v1/a.proto:6:9: service a.v1.S: its Go name SServer is that of message a.v1.SServer too: rename one of them",
		},
		{
			name: "message named as a method", files: service("  rpc Do(M) returns (M);\n}\nmessage SDoMethod {"),
			want: "api/a/v1/a.proto:7:7: method a.v1.S.Do: its Go name SDoMethod is that of message a.v1.SDoMethod too: rename one of them",
		},
		{
			name: "services that meet", files: service("}\nservice SS {}\nservice s_s {"),
			want: "api/a/v1/a.proto:9:9: service a.v1.s_s: its Go name SSServer is that of service a.v1.SS too: rename one of them",
		},
		{
			name: "methods that meet", files: service("  rpc do_it(M) returns (M);\n  rpc DoIt(M) returns (M);"),
			want: "api/a/v1/a.proto:8:7: method DoIt: do_it has the same Go name DoIt: rename one of them",
		},
		{name: "names of two files", files: map[string]string{
			"api/a/v1/a.proto": head + message + "service S {}\n", "api/a/v1/b.proto": head + "enum SDesc { ZERO = 0; }\n",
		}, want: "api/a/v1/a.proto:5:9: service a.v1.S: its Go name SDesc is that of enum a.v1.SDesc too: rename one of them"},
		{name: "package named as a variable", files: map[string]string{
			"api/a/v1/a.proto": head + "import \"req/b.proto\";\nservice S { rpc Do(b.B) returns (b.B); }\n",
			"api/req/b.proto":  "syntax = \"proto3\";\npackage b;\noption go_package = \"example.com/t/api/req;b\";\nmessage B {}\n",
		}, want: "api/a/v1/a.proto:5:17: method Do: the Go package of b.B is imported as req, which is a variable of generated code: " +
			`let the go_package "example.com/t/api/req" end otherwise`},

		// The command line.
		{
			name: "nothing to do", args: []string{}, code: 2,
			want: "sluicegen: no contract given: name .proto files or directories, for example: sluicegen -I api api; see sluicegen --help",
		},
		{
			name: "unknown flag", args: []string{"--grpc", "api"}, code: 2,
			want: "sluicegen: flag provided but not defined: -grpc; see sluicegen --help",
		},
		{
			name: "flag after file", files: file(head), args: []string{"api", "-I", "api"}, code: 2,
			want: "sluicegen: flag -I stands after a file: put flags first; see sluicegen --help",
		},
		{name: "no such file", args: []string{"api/b.proto"}, want: "sluicegen: read contract: stat api/b.proto: no such file or directory"},
		{name: "not a contract", args: []string{"go.mod"}, want: "sluicegen: go.mod is not a contract: name .proto files or directories"},
		{name: "directory without contracts", files: map[string]string{"api/a.txt": ""}, want: "sluicegen: api: no .proto file is below it"},
		{
			name: "outside the roots", files: file(head), args: []string{"-I", "lib", "api"},
			want: "sluicegen: api/a/v1/a.proto is below none of the import roots lib: add -I with the directory its imports are written from",
		},
		{
			name: "hidden by an earlier root", files: map[string]string{"api/a.proto": head, "lib/a.proto": head}, args: []string{"-I", "lib", "-I", "api", "api"},
			want: "sluicegen: api/a.proto is hidden by lib/a.proto, which an earlier -I finds under the same name: change the order of -I",
		},
		{
			name: "go.mod without module", files: map[string]string{"api/a/v1/a.proto": head, "api/go.mod": "go 1.26\n"}, args: []string{"-I", "api", "api/a"},
			want: "sluicegen: api/a/v1/a.proto: api/go.mod has no module line: write module example.com/name in it",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			write(t, "go.mod", "module example.com/t // the test's\n")
			for name, content := range row.files {
				write(t, filepath.FromSlash(name), content)
			}
			before := len(goFiles(t, "."))
			if row.args == nil {
				row.args = []string{"-I", "api", "api"}
			}
			if row.code == 0 {
				row.code = 1
			}
			code, stdout, stderr := sluicegen(row.args...)
			if code != row.code || stdout != "" || stderr != row.want+"\n" {
				t.Errorf("exit %d, want %d; printed %q\n got: %swant: %s", code, row.code, stdout, stderr, row.want)
			}
			if found := goFiles(t, "."); len(found) != before {
				t.Errorf("there are files after an error: %v", found)
			}
		})
	}
}

// TestKeepsForeignFile has a file in the way that nobody generated.
func TestKeepsForeignFile(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "go.mod", "module example.com/t\n")
	write(t, "a.proto", "syntax = \"proto3\";\noption go_package = \"example.com/t;t\";\n")
	write(t, "a.pb.go", "package t // by hand\n")
	code, _, stderr := sluicegen("a.proto")
	want := "sluicegen: a.pb.go was not generated and would be overwritten: move it away, or rename the contract\n"
	if code != 1 || stderr != want {
		t.Errorf("exit %d: %s want 1: %s", code, stderr, want)
	}
}
