// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/grpcclient"
	"github.com/sluice-rpc/sluice/framework/grpcserver"
)

var update = flag.Bool("update", false, "write docs/config.md anew")

// TestConfigDocs holds docs/config.md to the structs: every setting is on the page, with
// its default as a server or client that was given nothing has it.
func TestConfigDocs(t *testing.T) {
	const path, begin, end = "../docs/config.md", "<!-- settings -->\n", "<!-- end -->\n"
	server, err := framework.DefaultServerConfig("hello")
	if err != nil {
		t.Fatal(err)
	}
	client, err := framework.DefaultClientConfig("hello", "127.0.0.1:7000")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	table(t, &b, "A server", server)
	table(t, &b, "A rule of a server's `allow`", framework.Allow{})
	table(t, &b, "A client", client)
	table(t, &b, "A gRPC listener (`grpcserver.Config`)", grpcserver.DefaultConfig())
	table(t, &b, "A client over gRPC, beside those of a client (`grpcclient.Config`)", grpcclient.DefaultConfig())
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(page), begin)
	old, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no %s ... %s", path, begin, end)
	}
	switch {
	case old == b.String():
	case *update:
		if err := os.WriteFile(path, []byte(head+begin+b.String()+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not up to date: go test ./framework -run TestConfigDocs -update", path)
	}
}

func table[T any](t *testing.T, b *strings.Builder, title string, defaults T) {
	t.Helper()
	all, err := config.Describe(defaults, "")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(b, "\n## %s\n\n| setting | type | default | what it is |\n|---|---|---|---|\n", title)
	for _, s := range all {
		if s.Doc == "" {
			t.Errorf("setting %s has no text", s.Name)
		}
		kind, standard := s.Type, ""
		if s.Unit != "" {
			kind += ", " + s.Unit
		}
		if s.Default != "" {
			standard = "`" + s.Default + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", s.Name, kind, standard, strings.ReplaceAll(s.Doc, "|", `\|`))
	}
	b.WriteString("\n")
}
