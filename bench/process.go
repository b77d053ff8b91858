package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// child is a process that a run started and ends.
type child struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

// startChild starts a program; what it prints goes to a file of its name in
// dir. It ends with this process, however that ends. env nil: ours.
func startChild(dir, name string, env []string, program string, args ...string) (*child, error) {
	c := &child{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
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

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) signal(s os.Signal) error { return c.cmd.Process.Signal(s) }

// running says whether it has not ended.
func (c *child) running() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// end sends sig and waits for at most patience, then kills it.
func (c *child) end(sig syscall.Signal, patience time.Duration) {
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

// await polls ok until it holds; an error says what did not come, and why.
func await(ctx context.Context, limit time.Duration, what string, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		if Wait(ctx, time.Now().Add(50*time.Millisecond)) != nil {
			return fmt.Errorf("await %s: %w", what, errors.Join(err, ctx.Err()))
		}
	}
}
