package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Child is a process that a run started and ends.
type Child struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

// StartChild starts a program in dir; what it prints goes to a file of its name
// there. It ends with this process, however that ends. env nil: ours.
func StartChild(dir, name string, env []string, program string, args ...string) (*Child, error) {
	c := &Child{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	f, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer f.Close()
	c.cmd = exec.Command(program, args...)
	c.cmd.Stdout, c.cmd.Stderr, c.cmd.Env, c.cmd.Dir = f, f, env, dir
	// A group of its own: Ctrl-C is for us, who end it in its turn.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(c.done)
		_ = c.cmd.Wait() // how it ended is asked of who wanted it to live
	}()
	return c, nil
}

// PID of the process, also after its end.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// prefer gives it the processor before others, where that is permitted: stores
// that share a machine with all pods and clients would be starved by them, one
// process among a hundred, where elsewhere they have a machine of their own.
func (c *Child) prefer() {
	const priority = -10
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", c.PID())) // none: it has ended, which its user will notice
	for _, t := range tasks {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, id, priority) // not permitted: it goes on as it was
		}
	}
}

func (c *Child) signal(s os.Signal) error { return c.cmd.Process.Signal(s) }

// running says whether it has not ended.
func (c *Child) running() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// End sends sig and waits for at most patience, then kills it.
func (c *Child) End(sig syscall.Signal, patience time.Duration) {
	_ = c.signal(syscall.SIGCONT) // it may stand still; an error: it has ended
	_ = c.signal(sig)
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-c.done:
	case <-t.C:
		_ = c.cmd.Process.Kill()
		<-c.done
	}
}

// AwaitListening waits, at most 30 s, until the process takes connections at
// addr, host:port.
func (c *Child) AwaitListening(ctx context.Context, addr string) error {
	return await(ctx, 30*time.Second, c.name, func() error {
		if err := c.lives(); err != nil {
			return err
		}
		nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return nc.Close()
	})
}

// lives is errEnded, with its last words, once the process has ended.
func (c *Child) lives() error {
	if c.running() {
		return nil
	}
	return fmt.Errorf("%w: %s", errEnded, c.tail())
}

// tail is the end of what it printed, for errors.
func (c *Child) tail() string {
	b, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	const most = 2 << 10
	return string(b[max(0, len(b)-most):])
}

// errEnded is why nothing more is waited for.
var errEnded = errors.New("its process has ended")

// await polls ok until it holds, or says errEnded; an error says what did not
// come, and why.
func await(ctx context.Context, limit time.Duration, what string, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		if errors.Is(err, errEnded) {
			return fmt.Errorf("await %s: %w", what, err)
		}
		if Wait(ctx, time.Now().Add(50*time.Millisecond)) != nil {
			return fmt.Errorf("await %s: %w", what, errors.Join(err, ctx.Err()))
		}
	}
}
