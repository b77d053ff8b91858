package loop

import (
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A descriptor that is moved while a program is being started would be that
// program's too: moving waits until it was started, and what was moved is not
// inherited.
func TestMoveWaitsForForks(t *testing.T) {
	a, b := tcpPair(t)
	defer b.Close()
	type moved struct {
		fd  int
		err error
	}
	done := make(chan moved, 1)
	syscall.ForkLock.Lock() // as one who forks does
	go func() {
		nb, err := move(a)
		m := moved{-1, err}
		if err == nil {
			m.fd = nb.Hash()
		}
		done <- m
	}()
	select {
	case m := <-done:
		syscall.ForkLock.Unlock()
		t.Fatalf("moved to descriptor %d while a program was being started", m.fd)
	case <-time.After(100 * time.Millisecond):
	}
	syscall.ForkLock.Unlock()
	m := <-done
	if m.err != nil {
		t.Fatal(m.err)
	}
	flags, err := unix.FcntlInt(uintptr(m.fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, error %v: programs that are started inherit it", flags, err)
	}
	if err := unix.Close(m.fd); err != nil {
		t.Error(err)
	}
}
