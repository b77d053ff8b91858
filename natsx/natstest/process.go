package natstest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const startTimeout = 20 * time.Second

// Process is a nats-server process. Its methods are called by the test's
// goroutine.
type Process struct {
	Host

	// Static after StartProcess.
	t      testing.TB
	binary string
	dir    string // config, log and store
	port   int

	// Owned by the test's goroutine; nil while it doesn't run.
	run *run
}

// run is one life of the process.
type run struct {
	pid   int
	ended chan struct{}
}

// StartProcess starts a nats-server process, which ends with the test. Each
// of config is appended to its configuration file.
func StartProcess(t testing.TB, config ...string) *Process {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("cannot find a free port: %s", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close() // only its number was wanted
	p := &Process{
		Host:   Host{URL: "nats://127.0.0.1:" + strconv.Itoa(port)},
		t:      t,
		binary: Binary(t),
		dir:    t.TempDir(),
		port:   port,
	}
	conf := fmt.Appendf(nil, "max_payload: 8MB\njetstream { store_dir: %q }\n%s\n", p.store(), strings.Join(config, "\n"))
	if err := os.WriteFile(p.file("nats.conf"), conf, 0o600); err != nil {
		t.Fatalf("cannot write config: %s", err)
	}
	t.Cleanup(p.end)
	p.start()
	return p
}

// Pid of the running process, 0 when it doesn't run.
func (p *Process) Pid() int {
	if p.run == nil {
		return 0
	}
	return p.run.pid
}

// Kill ends the process with SIGKILL and waits for its end.
func (p *Process) Kill() {
	if p.run == nil {
		return
	}
	p.signal(syscall.SIGKILL)
	<-p.run.ended
	p.run = nil
}

// Stop freezes the process with SIGSTOP, and returns when all of its threads
// stand still.
func (p *Process) Stop() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	for until := time.Now().Add(10 * time.Second); !stopped(p.run.pid); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			p.t.Fatal("nats-server does not stop")
		}
	}
}

func stopped(pid int) bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, path := range stats {
		// "tid (name) state …"
		stat, err := os.ReadFile(path)
		if i := bytes.LastIndexByte(stat, ')'); err == nil && !bytes.HasPrefix(stat[i+1:], []byte(" T")) {
			return false
		}
	}
	return err == nil && len(stats) > 0
}

// Cont lets a stopped process go on.
func (p *Process) Cont() { p.signal(syscall.SIGCONT) }

// Restart kills the process if it runs, and starts it again on the same port,
// with its store or with an empty one.
func (p *Process) Restart(keepStore bool) {
	p.t.Helper()
	p.Kill()
	if !keepStore {
		if err := os.RemoveAll(p.store()); err != nil {
			p.t.Fatalf("cannot remove the store: %s", err)
		}
	}
	p.start()
}

// Save restarts the process and keeps a copy of its store.
func (p *Process) Save() {
	p.t.Helper()
	p.Kill()
	p.copyStore(p.store(), p.file("saved"))
	p.start()
}

// Rewind restarts the process with the store as it was when saved.
func (p *Process) Rewind() {
	p.t.Helper()
	p.Kill()
	p.copyStore(p.file("saved"), p.store())
	p.start()
}

func (p *Process) copyStore(from, to string) {
	p.t.Helper()
	err := os.RemoveAll(to)
	if err == nil {
		err = os.CopyFS(to, os.DirFS(from))
	}
	if err != nil {
		p.t.Fatalf("cannot copy the store: %s", err)
	}
}

func (p *Process) file(name string) string { return filepath.Join(p.dir, name) }
func (p *Process) store() string           { return p.file("store") }

func (p *Process) signal(s syscall.Signal) {
	p.t.Helper()
	if p.run == nil {
		p.t.Fatalf("cannot send %s: nats-server does not run", s)
	}
	if err := syscall.Kill(p.run.pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		p.t.Fatalf("cannot send %s: %s", s, err)
	}
}

func (p *Process) start() {
	p.t.Helper()
	r, err := launch(p.binary, "-a", "127.0.0.1", "-p", strconv.Itoa(p.port), "-c", p.file("nats.conf"), "-l", p.file("nats.log"))
	if err != nil {
		p.t.Fatalf("cannot start nats-server: %s", err)
	}
	p.run = r
	addr, timeout := net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)), time.After(startTimeout)
	for err = probe(addr); err != nil; err = probe(addr) {
		select {
		case <-r.ended:
			p.t.Fatalf("nats-server ended at start:\n%s", p.log())
		case <-timeout:
			p.t.Fatalf("nats-server is not ready after %s: %s\n%s", startTimeout, err, p.log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *Process) end() {
	p.Kill()
	if p.t.Failed() {
		p.t.Logf("nats-server's log ends with:\n%s", p.log())
	}
}

func (p *Process) log() []byte {
	b, _ := os.ReadFile(p.file("nats.log")) // no log, nothing to show
	return b[max(0, len(b)-4096):]
}

// launch starts the process from a thread that lives as long as it does:
// Pdeathsig, which keeps no server behind a killed test, is the death of the
// thread that started it.
func launch(binary string, args ...string) (*run, error) {
	r := &run{ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer close(r.ended)
		cmd := exec.Command(binary, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err := cmd.Start()
		if err == nil {
			r.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // it was killed, as a rule
		}
	}()
	return r, <-started
}

// probe says whether the server accepts clients, whatever it asks of them; by
// then JetStream has recovered its streams.
func probe(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.Contains(line, `"jetstream":true`) {
		return fmt.Errorf("no JetStream in %q", line)
	}
	return nil
}
