// Command protoc turns rpc/forward.proto into Go without a protoc binary:
// protocompile parses, the plugins pinned in this module's go.mod write.
//
//	go -C .tools/protoc run . ../..             writes rpc/forwardpb
//	go -C .tools/protoc run . -out DIR ../..    writes elsewhere, for comparing
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// source is relative to the repository, and becomes part of the output.
const source = "rpc/forward.proto"

func main() {
	out := flag.String("out", "", "directory to write to (default: rpc/forwardpb of the repository)")
	flag.Parse()
	if err := run(flag.Arg(0), *out); err != nil {
		fmt.Fprintln(os.Stderr, "generate from "+source+":", err)
		os.Exit(1)
	}
}

func run(root, out string) error {
	if root == "" {
		return fmt.Errorf("the repository's directory is missing: run with ../..")
	}
	if out == "" {
		out = filepath.Join(root, "rpc", "forwardpb")
	}
	req, err := request(root)
	if err != nil {
		return err
	}
	req.Parameter = proto.String("paths=source_relative")
	for _, plugin := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		if err := generate(plugin, req, out); err != nil {
			return fmt.Errorf("%s: %w", plugin, err)
		}
	}
	return nil
}

// request parses source and all it imports into what plugins read.
func request(root string) (*pluginpb.CodeGeneratorRequest, error) {
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{root}}),
		SourceInfoMode: protocompile.SourceInfoStandard, // comments reach the output
	}
	files, err := c.Compile(context.Background(), source)
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	req := &pluginpb.CodeGeneratorRequest{FileToGenerate: []string{source}}
	addFile(req, files[0], map[string]bool{})
	return req, nil
}

// addFile appends fd after everything it imports, as plugins expect.
func addFile(req *pluginpb.CodeGeneratorRequest, fd protoreflect.FileDescriptor, seen map[string]bool) {
	if seen[fd.Path()] {
		return
	}
	seen[fd.Path()] = true
	for i := range fd.Imports().Len() {
		addFile(req, fd.Imports().Get(i).FileDescriptor, seen)
	}
	req.ProtoFile = append(req.ProtoFile, toProto(fd))
}

func toProto(fd protoreflect.FileDescriptor) *descriptorpb.FileDescriptorProto {
	// A parsed file carries its proto with source info, an imported one need not.
	if r, ok := fd.(interface {
		FileDescriptorProto() *descriptorpb.FileDescriptorProto
	}); ok {
		return r.FileDescriptorProto()
	}
	return protodesc.ToFileDescriptorProto(fd)
}

func generate(plugin string, req *pluginpb.CodeGeneratorRequest, out string) error {
	in, err := proto.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	cmd := exec.Command("go", "tool", plugin)
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stderr = os.Stderr
	answer, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("run: %w", err)
	}
	var resp pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(answer, &resp); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	if resp.Error != nil {
		return fmt.Errorf("plugin says: %s", resp.GetError())
	}
	for _, f := range resp.File {
		path := filepath.Join(out, filepath.Base(f.GetName()))
		if err := os.WriteFile(path, []byte(f.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
