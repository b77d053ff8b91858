package bench

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/loop"
)

// What came to another socket before the word is handled before it, also where
// the word is read in the poller's round of an earlier one: the kernel then lists
// the sentinel ahead of that socket.
func TestSentinelComesLast(t *testing.T) {
	t.Parallel()
	e, err := loop.New(loop.Options{Client: true, Pollers: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	var all [4]*sentinel
	t.Cleanup(func() {
		for _, s := range all {
			if s != nil {
				_ = s.close()
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for i := range all {
		if all[i], err = newSentinel(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	first, second, other, s := all[0], all[1], all[2], all[3]

	release := stall(t, first)
	entered, next := make(chan struct{}), make(chan struct{})
	second.send(func() { close(entered); <-next })
	s.after(func() {})
	release()
	<-entered // second and s are in one round, s not yet read: it is listed anew

	var handled atomic.Bool
	other.send(func() { handled.Store(true) })
	told := make(chan bool, 1)
	s.after(func() { told <- handled.Load() })
	close(next)
	select {
	case before := <-told:
		if !before {
			t.Error("the word overtook what another socket was sent before it")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the word never came")
	}
}

// stall holds the poller up in s until the function it returns is called.
func stall(t *testing.T, s *sentinel) (release func()) {
	t.Helper()
	entered, out := make(chan struct{}), make(chan struct{})
	s.send(func() { close(entered); <-out })
	<-entered
	return func() { close(out) }
}
