package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// startPatience is how long a process may take to answer its first PING, on a
// machine that may be busy with other tests.
const startPatience = 20 * time.Second

// process is one redis-server process, of whatever role.
type process struct {
	tb   testing.TB
	bin  string
	dir  string
	port int
	args []string // all but the port

	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// newProcess finds the binary; start starts it.
func newProcess(tb testing.TB, args ...string) *process {
	tb.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		tb.Fatal("redis-server is not on PATH: run `make test`, which installs it (Debian: apt-get install redis-server)")
	}
	p := &process{tb: tb, bin: bin, dir: tb.TempDir(), args: args}
	tb.Cleanup(p.kill)
	return p
}

func (p *process) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)) }

// start picks a port on the first start, and tries others when somebody else
// was quicker; later starts keep the port, for clients know it.
func (p *process) start() {
	p.tb.Helper()
	fixed := p.port != 0
	for range 5 {
		if !fixed {
			p.port = FreePort(p.tb)
		}
		if p.launch() {
			return
		}
	}
	log, _ := os.ReadFile(filepath.Join(p.dir, "log"))
	p.tb.Fatalf("start redis-server on %s: it ended or never answered; its log:\n%s", p.addr(), log)
}

func (p *process) launch() bool {
	args := append([]string{}, p.args...)
	args = append(args, "--port", strconv.Itoa(p.port), "--dir", p.dir, "--logfile", filepath.Join(p.dir, "log"))
	cmd := exec.Command(p.bin, args...)
	// A test binary that is killed must not leave servers behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.tb.Fatalf("start %s: %v", p.bin, err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	return p.answers()
}

// answers waits for PONG, and gives up early when the process has ended.
func (p *process) answers() bool {
	deadline := time.Now().Add(startPatience)
	for time.Now().Before(deadline) {
		select {
		case <-p.done:
			return false
		case <-time.After(5 * time.Millisecond):
		}
		if p.isMe() {
			return true
		}
	}
	return false
}

// isMe says whether the port is answered, and by this very process: on a busy
// machine another test's server may have been quicker.
func (p *process) isMe() bool {
	// Knocking first keeps go-redis from logging each refused connection.
	c, err := net.DialTimeout("tcp", p.addr(), time.Second)
	if err != nil {
		return false
	}
	_ = c.Close()
	if v, err := p.try("PING"); err != nil || v != "PONG" {
		return false
	}
	v, err := p.try("INFO", "server")
	return err == nil && field(v, "process_id") == strconv.Itoa(p.cmd.Process.Pid)
}

func (p *process) signal(sig syscall.Signal) {
	p.tb.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.tb.Fatalf("signal %v to redis-server: %v", sig, err)
	}
}

// kill is kill -9, also of a stopped or ended process; it waits for the end.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// try runs one command on a connection of its own.
func (p *process) try(args ...any) (any, error) {
	c := redis.NewClient(&redis.Options{
		Addr: p.addr(), Protocol: 2, MaxRetries: -1, DialerRetries: 1, DisableIdentity: true,
		DialTimeout: 2 * time.Second, ReadTimeout: 10 * time.Second,
	})
	defer c.Close()
	v, err := c.Do(context.Background(), args...).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return v, err
}

// must is try that fails the test.
func (p *process) must(args ...any) any {
	p.tb.Helper()
	v, err := p.try(args...)
	if err != nil {
		p.tb.Fatalf("%v on %s: %v", args, p.addr(), err)
	}
	return v
}

// waitFor polls a condition; what names it when it never came true.
func waitFor(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(startPatience)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("waited %v for %s", startPatience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ports are handed out in turn, and each test binary begins elsewhere: who looks
// for a free one at random finds one that somebody else has just found, and is
// about to use.
var ports atomic.Uint32

const firstPort, portSpan = 10000, 22000

// FreePort is one of 127.0.0.1 that nobody listens on, given once. It is below
// the range the kernel takes local ports of outgoing connections from: those
// would steal the port of a server while it is killed.
func FreePort(tb testing.TB) int {
	tb.Helper()
	var last error
	for range 1000 {
		port := firstPort + int(uint32(os.Getpid())*211+ports.Add(1))%portSpan
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = l.Close()
			return port
		}
		last = err
	}
	tb.Fatalf("find a free port: %v", last)
	return 0
}

// field reads one "name:value" line of an INFO-like reply.
func field(reply any, name string) string {
	text := fmt.Sprint(reply)
	for line := range lines(text) {
		if len(line) > len(name) && line[:len(name)] == name && line[len(name)] == ':' {
			return line[len(name)+1:]
		}
	}
	return ""
}
