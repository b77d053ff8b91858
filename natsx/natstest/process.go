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
	p := &Process{t: t, binary: Binary(t), dir: t.TempDir()}
	// Storage is given, for what a server takes by itself depends on the machine's disk.
	conf := fmt.Appendf(nil, "max_payload: 8MB\njetstream { store_dir: %q, max_file_store: 8GB }\n%s\n", p.store(), strings.Join(config, "\n"))
	if err := os.WriteFile(p.file("nats.conf"), conf, 0o600); err != nil {
		t.Fatalf("cannot write config: %s", err)
	}
	t.Cleanup(p.end)
	for range startTries {
		p.port = freePort(t)
		p.URL = "nats://127.0.0.1:" + strconv.Itoa(p.port)
		if err := p.tryStart(); err == nil {
			return p
		} else if !errors.Is(err, errEnded) {
			t.Fatal(err)
		}
	}
	t.Fatalf("nats-server ended %d times at its start:\n%s", startTries, p.log())
	return nil
}

// startTries is how many ports are tried: another process may be quicker.
const startTries = 5

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("cannot find a free port: %s", err)
	}
	defer l.Close() // only its number is wanted
	return l.Addr().(*net.TCPAddr).Port
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
	if err := p.tryStart(); err != nil {
		p.t.Fatalf("%s:\n%s", err, p.log())
	}
}

var errEnded = errors.New("nats-server ended at its start")

func (p *Process) tryStart() error {
	// By its name it is known that this very process answers.
	name := "test-" + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(p.port)
	r, err := launch(p.binary, "-a", "127.0.0.1", "-p", strconv.Itoa(p.port), "-n", name, "-c", p.file("nats.conf"), "-l", p.file("nats.log"))
	if err != nil {
		return fmt.Errorf("start nats-server: %w", err)
	}
	p.run = r
	addr, timeout := net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)), time.After(startTimeout)
	for err = probe(addr, name); err != nil; err = probe(addr, name) {
		select {
		case <-r.ended:
			p.run = nil
			return errEnded
		case <-timeout:
			return fmt.Errorf("nats-server is not ready after %s: %w", startTimeout, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func (p *Process) end() {
	if p.run != nil && p.run.over() {
		p.t.Errorf("nats-server %d had ended before the test did", p.run.pid)
	}
	p.Kill()
	if p.t.Failed() {
		p.t.Logf("nats-server's log ends with:\n%s", p.log())
	}
}

func (p *Process) log() []byte {
	b, _ := os.ReadFile(p.file("nats.log")) // no log, nothing to show
	return b[max(0, len(b)-4096):]
}

// launch starts the process. Pdeathsig keeps no server behind a killed test: it
// is the death of the THREAD that started it, so nothing in a test binary may
// end a thread (a goroutine that ends locked to one does), or it takes along
// what others started from it.
func launch(binary string, args ...string) (*run, error) {
	cmd := exec.Command(binary, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &run{pid: cmd.Process.Pid, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		_ = cmd.Wait() // it was killed, as a rule
	}()
	return r, nil
}

// over says whether it has ended.
func (r *run) over() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// probe says whether the server of that name accepts clients, whatever it asks of them; by
// then JetStream has recovered its streams.
func probe(addr, name string) error {
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
	if !strings.Contains(line, `"server_name":"`+name+`"`) {
		return fmt.Errorf("another server answers: %q", line)
	}
	return nil
}
