package clustertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is one run of the daisi-ws binary.
type process struct {
	cmd  *exec.Cmd
	log  string // file
	done chan struct{}
	told bool // to end
}

// over says whether it has ended.
func (r *process) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// Programs are built once per test binary, without cgo, as they are shipped.
var (
	gatewayProgram = program("daisi-ws")
	benchProgram   = program("daisi-bench")
)

func program(name string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", name+"-")
		if err != nil {
			return "", err
		}
		path := filepath.Join(dir, name)
		cmd := exec.Command("go", "build", "-trimpath", "-o", path, "github.com/daisi/daisi-ws/cmd/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
		return path, nil
	})
}

// Binary is the daisi-ws binary that pods run as processes.
func Binary(t testing.TB) string {
	t.Helper()
	return built(t, gatewayProgram)
}

// Bench is the daisi-bench binary.
func Bench(t testing.TB) string {
	t.Helper()
	return built(t, benchProgram)
}

func built(t testing.TB, program func() (string, error)) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (p *Pod) launch() *process {
	t := p.c.t
	t.Helper()
	log := filepath.Join(t.TempDir(), p.ID+".log")
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(Binary(t))
	if p.c.o.Before != "" {
		cmd = exec.Command("sh", "-c", p.c.o.Before+`; exec "$0"`, Binary(t))
	}
	cmd.Stdout, cmd.Stderr = f, f
	cmd.Env = p.environment()
	// A test that is killed takes its pods along.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p.ID, err)
	}
	run := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		defer close(run.done)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		if run.over() && !run.told {
			t.Logf("%s had ended by itself: %v", p.ID, cmd.ProcessState)
		}
		run.end(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("log of %s:\n%s", p.ID, tail(log))
		}
	})
	return run
}

func (p *Pod) environment() []string {
	redis, nats := p.urls()
	env := []string{
		"PATH=" + os.Getenv("PATH"),
		"DWS_POD_ID=" + p.ID, "DWS_POD_ADDR=" + p.told(),
		"DWS_HTTP_ADDR=" + p.public, "DWS_INTERNAL_ADDR=" + p.internal, "DWS_RPC_ADDR=" + p.rpc, "DWS_RPC_INSECURE=true",
		"DWS_REDIS_URL=" + redis, "DWS_NATS_URL=" + nats, "DWS_NATS_CREATE_STREAM=true",
		"DWS_AUTH_API_KEY=" + APIKey, "DWS_AUTH_MINT_KEY=" + MintKey, "DWS_AUTH_ADMIN_KEY=" + AdminKey,
		"DWS_AUTH_TOKEN_KEYS=" + userHex, "DWS_AUTH_ADMIN_TOKEN_KEYS=" + adminHex, "DWS_REQUIRE_EXTERNAL=true",
	}
	if p.c.Cert != nil {
		env = append(env, "DWS_TLS_CERT_FILE="+p.c.Cert.CertFile, "DWS_TLS_KEY_FILE="+p.c.Cert.KeyFile)
	}
	if p.c.o.Env != nil {
		env = append(env, p.c.o.Env(p.number)...)
	}
	return env
}

// end sends a signal and waits; one that does not obey within 30 s is killed.
func (r *process) end(sig syscall.Signal) {
	r.told = true
	_ = r.cmd.Process.Signal(syscall.SIGCONT)
	_ = r.cmd.Process.Signal(sig)
	select {
	case <-r.done:
	case <-time.After(30 * time.Second):
		_ = r.cmd.Process.Kill()
		<-r.done
	}
}

func (r *process) signal(sig syscall.Signal) { _ = r.cmd.Process.Signal(sig) }

// Log is all that the process has written to standard output and error.
func (p *Pod) Log() string {
	p.c.t.Helper()
	b, err := os.ReadFile(p.process.log)
	if err != nil {
		p.c.t.Fatal(err)
	}
	return string(b)
}

// Command runs the binary with the pod's environment, to its end.
func (p *Pod) Command(args ...string) (output string, err error) {
	cmd := exec.Command(Binary(p.c.t), args...)
	cmd.Env = p.environment()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// tail is the end of a log.
func tail(path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		return []byte(err.Error())
	}
	return b[max(0, len(b)-8<<10):]
}
