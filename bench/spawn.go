package bench

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Spawned are worker processes on this machine. Close ends those that have not
// ended by themselves.
type Spawned struct {
	dir      string
	children []*Child
}

// Spawn starts n worker processes by command, with env added to ours; what they
// say goes to files in a temporary directory, removed by Close.
func Spawn(n int, command, env []string) (*Spawned, error) {
	dir, err := os.MkdirTemp("", "daisi-bench-workers-")
	if err != nil {
		return nil, fmt.Errorf("spawn workers: %w", err)
	}
	s := &Spawned{dir: dir}
	for i := range n {
		c, err := StartChild(dir, "worker-"+strconv.Itoa(i), env, command[0], command[1:]...)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("spawn workers: %w", err)
		}
		s.children = append(s.children, c)
	}
	return s, nil
}

// PIDs of the workers.
func (s *Spawned) PIDs() (list []int) {
	for _, c := range s.children {
		list = append(list, c.PID())
	}
	return list
}

// Close ends all workers.
func (s *Spawned) Close() {
	var wait sync.WaitGroup
	for _, c := range s.children {
		wait.Go(func() { c.End(syscall.SIGTERM, 15*time.Second) })
	}
	wait.Wait()
	_ = os.RemoveAll(s.dir) // what is left is in the system's temporary directory
}
