package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/gobwas/ws"

	"github.com/daisi/daisi-ws/loop"
)

// sentinel tells in which order bytes reached this machine, although they are
// read by different goroutines. It is one more socket on the engine's only
// poller, whose far end is ours. epoll lists readable sockets in the order in
// which they became so, but for those that it has just returned: these are
// listed anew at once, and word that comes then is found ahead of what came to
// others before. So word is sent three times, each when the one before was
// handled, which the poller reads no earlier than its next round (it leaves a
// socket after a short read). What had come before the first was listed when
// that was handled, so the round of the second has it, if behind the second; the
// third comes after that round.
type sentinel struct {
	far net.Conn // we write, the poller reads

	mu      sync.Mutex
	waiting []func() // in the order of the words on their way
}

// newSentinel puts one on the engine, which runs and has one poller.
func newSentinel(ctx context.Context, e *loop.Engine) (*sentinel, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("make sentinel: %w", err)
	}
	defer ln.Close()
	s := new(sentinel)
	done := make(chan error, 1)
	go func() { done <- s.accept(ln) }()
	_, err = e.Dial(ctx, loop.DialOptions{URL: "ws://" + ln.Addr().String() + "/"}, s)
	ln.Close() // frees an accept that nobody came to
	if err = errors.Join(err, <-done); err != nil {
		return nil, fmt.Errorf("make sentinel: %w", err)
	}
	return s, nil
}

func (s *sentinel) accept(ln net.Listener) error {
	nc, err := ln.Accept()
	if err != nil {
		return err
	}
	r, err := http.ReadRequest(bufio.NewReader(nc))
	if err != nil {
		return errors.Join(err, nc.Close())
	}
	key, err := loop.CheckUpgrade(r)
	if err != nil {
		return errors.Join(err, nc.Close())
	}
	s.far = nc
	_, err = nc.Write(loop.UpgradeResponse(key, "", nil))
	return err
}

// after runs do on the poller once all that has reached other sockets by now
// was handled. It never blocks for long: a word is a few bytes.
func (s *sentinel) after(do func()) {
	s.send(func() { s.send(func() { s.send(do) }) })
}

func (s *sentinel) send(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, do)
	if _, err := s.far.Write(loop.NewFrame(ws.OpText, []byte("{}"), loop.Control).Bytes()); err != nil {
		s.waiting = s.waiting[:len(s.waiting)-1] // the run is over
	}
}

func (s *sentinel) close() error { return s.far.Close() }

// Message implements loop.Handler.
func (s *sentinel) Message(*loop.Conn, ws.OpCode, []byte) {
	s.mu.Lock()
	do := s.waiting[0]
	s.waiting = s.waiting[1:]
	s.mu.Unlock()
	do()
}

// Tick implements loop.Handler.
func (s *sentinel) Tick(*loop.Conn, uint32) uint32 { return 0 }

// Closed implements loop.Handler.
func (s *sentinel) Closed(*loop.Conn, loop.End) {}
