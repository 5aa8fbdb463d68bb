// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"

	gengo "google.golang.org/protobuf/cmd/protoc-gen-go/internal_gengo"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/pluginpb"
)

// generated is a Go file in memory. No content means that there must be no such
// file: the contract has no service any more.
type generated struct {
	contract string // name of the contract
	suffix   string // what follows the contract's name without .proto
	content  []byte
}

// generateAll makes the Go files of every contract asked for. Its error is of
// type problems if the contracts are wrong.
func generateAll(req *pluginpb.CodeGeneratorRequest, display func(string) string) ([]generated, error) {
	req.Parameter = proto.String("paths=source_relative")
	plugin, err := protogen.Options{}.New(req)
	if err != nil {
		return nil, fmt.Errorf("read descriptors: %w", err)
	}
	if err := checkContracts(plugin, display); err != nil {
		return nil, err
	}
	type origin struct{ contract, suffix string }
	origins := map[string]origin{}
	var files []generated
	for _, f := range plugin.Files {
		if !f.Generate {
			continue
		}
		for _, suffix := range []string{messageSuffix, opaqueSuffix, rpcSuffix} {
			origins[f.GeneratedFilenamePrefix+suffix] = origin{f.Desc.Path(), suffix}
		}
		gengo.GenerateFile(plugin, f)
		if len(f.Services) == 0 {
			files = append(files, generated{contract: f.Desc.Path(), suffix: rpcSuffix})
			continue
		}
		generateRPC(plugin, f)
	}
	res := plugin.Response()
	if res.Error != nil {
		return nil, errors.New(res.GetError())
	}
	for _, f := range res.GetFile() {
		o := origins[f.GetName()]
		files = append(files, generated{o.contract, o.suffix, []byte(f.GetContent())})
	}
	return files, nil
}

const (
	messageSuffix = ".pb.go"
	opaqueSuffix  = "_protoopaque.pb.go" // protoc-gen-go's second file under the hybrid API
	rpcSuffix     = ".rpc.go"
)

// servePlugin answers one request of protoc or buf. It makes clients and servers
// only: protoc-gen-go makes the messages. Mistakes in contracts are part of the
// answer; an error means that there is none.
func servePlugin(stdin io.Reader, stdout io.Writer) error {
	data, err := io.ReadAll(stdin)
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	req := &pluginpb.CodeGeneratorRequest{}
	if err := proto.Unmarshal(data, req); err != nil {
		return fmt.Errorf("standard input is no CodeGeneratorRequest: %w", err)
	}
	if len(req.GetFileToGenerate()) == 0 {
		return errors.New("standard input names no file to generate: protoc and buf send that; see sluicegen --help for calling it yourself")
	}
	res, err := pluginResponse(req)
	if err != nil {
		return err
	}
	data, err = proto.Marshal(res)
	if err != nil {
		return fmt.Errorf("encode the response: %w", err)
	}
	if _, err := stdout.Write(data); err != nil {
		return fmt.Errorf("write the response: %w", err)
	}
	return nil
}

func pluginResponse(req *pluginpb.CodeGeneratorRequest) (*pluginpb.CodeGeneratorResponse, error) {
	plugin, err := protogen.Options{}.New(req)
	if err != nil {
		return nil, err
	}
	plugin.SupportedFeatures = gengo.SupportedFeatures
	plugin.SupportedEditionsMinimum = gengo.SupportedEditionsMinimum
	plugin.SupportedEditionsMaximum = gengo.SupportedEditionsMaximum
	if err := checkContracts(plugin, func(name string) string { return name }); err != nil {
		plugin.Error(err)
		return plugin.Response(), nil
	}
	for _, f := range plugin.Files {
		if f.Generate && len(f.Services) > 0 {
			generateRPC(plugin, f)
		}
	}
	return plugin.Response(), nil
}
