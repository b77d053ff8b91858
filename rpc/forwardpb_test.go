package rpc

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The committed code is what forward.proto and the pinned plugins give.
func TestForwardpbIsGenerated(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("go", "-C", filepath.Join("..", ".tools", "protoc"), "run", ".", "-out", dir, filepath.Join("..", ".."))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	made, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadDir("forwardpb")
	if err != nil {
		t.Fatal(err)
	}
	if len(made) != len(committed) {
		t.Errorf("%d files are made, %d are there", len(made), len(committed))
	}
	for _, f := range made {
		want, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("forwardpb", f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("forwardpb/%s is not what forward.proto gives: go -C .tools/protoc run . ../..", f.Name())
		}
	}
}
