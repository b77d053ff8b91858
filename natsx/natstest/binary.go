package natstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/nats-io/nats-server/v2"

// build is done once a process, however many tests ask.
var build = sync.OnceValues(buildBinary)

// Binary is the path of a nats-server built from the module, in the version
// go.mod names; it is kept in the user's cache directory.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatalf("cannot build nats-server: %s", err)
	}
	return path
}

func buildBinary() (string, error) {
	version, err := goTool("list", "-m", "-f", "{{.Version}}", module)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "daisi-ws-test")
	path := filepath.Join(dir, "nats-server-"+version)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	// Packages are tested at the same time: build aside, then rename.
	tmp, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	made := filepath.Join(tmp, "nats-server")
	if _, err := goTool("build", "-o", made, module); err != nil {
		return "", err
	}
	return path, os.Rename(made, path)
}

func goTool(args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}
