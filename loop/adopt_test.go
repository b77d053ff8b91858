package loop

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestDescriptorsComeBack wants none leaked, however a socket ended.
func TestDescriptorsComeBack(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{tls: secure})
		e := startEngine(t, Options{Client: true})
		<-h.engine.started
		<-e.started
		before := descriptors(t)
		for i := range 40 {
			hd := newEcho()
			c := h.dial(t, e, hd)
			srv := h.next(t)
			switch i % 4 {
			case 0:
				c.Close(1000, "")
			case 1:
				srv.Close(1000, "")
			case 2:
				_ = srv.nb.Close()
			case 3:
				srv.fail(1002, "", nil)
			}
			waitEnd(t, hd.ended)
			waitEnd(t, srv.Handler().(*echo).ended)
		}
		eventually(t, "as many descriptors as before", func() bool { return descriptors(t) <= before })
	})
}

// TestAdoptAtFileLimit wants an error, Closed, and no crash when there is no
// descriptor for the move; and Accept to fail for a while only.
func TestAdoptAtFileLimit(t *testing.T) {
	e := startEngine(t, Options{})
	l := listen(t, ListenOptions{})
	server, _ := tcpPair(t)
	late := dialTo(t, l)
	<-e.started // its pollers need descriptors too
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	limit := was
	limit.Cur = uint64(descriptors(t)) - 1 // one of them was ReadDir's own
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// Fill the gaps below the limit.
	var gaps []int
	for {
		fd, err := unix.Dup(0)
		if err != nil {
			break
		}
		gaps = append(gaps, fd)
	}
	hd := newEcho()
	err := e.Adopt(e.NewConn(hd), server, nil, nil)
	if fd, err := unix.Dup(0); err == nil {
		gaps = append(gaps, fd) // the socket that was not adopted left it
	}
	_, acceptErr := l.Accept()
	for _, fd := range gaps {
		_ = unix.Close(fd)
	}
	if restore := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); restore != nil {
		t.Fatal(restore)
	}
	if !errors.Is(err, unix.EMFILE) {
		t.Errorf("adopt: %v", err)
	}
	waitEnd(t, hd.ended)
	var temporary interface{ Temporary() bool }
	if !errors.As(acceptErr, &temporary) || !temporary.Temporary() {
		t.Errorf("accept: %v is not temporary", acceptErr)
	}
	if _, _, failed := l.Counts(); failed != 1 {
		t.Errorf("%d failed accepts counted", failed)
	}
	c := accept(t, l)
	_ = late.Close()
	_ = c.Close()
}

// TestRunEndsWhileAdopting wants each Conn to end once, adopted or not.
func TestRunEndsWhileAdopting(t *testing.T) {
	round := func() {
		e, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		var wg sync.WaitGroup
		for i := range 40 {
			server, _ := tcpPair(t)
			wg.Go(func() {
				hd := newEcho()
				c := e.NewConn(hd)
				_ = c.Queue(NewEvent([]byte("x"), 1, 0))
				_ = e.Adopt(c, server, nil, nil)
				_ = c.Queue(NewEvent([]byte("y"), 1, 0))
				waitEnd(t, hd.ended)
				if len(hd.ended) != 0 {
					t.Error("Closed twice")
				}
			})
			if i == 20 {
				cancel()
			}
		}
		wg.Wait()
		if err := <-done; err != nil {
			t.Error(err)
		}
		checkLedger(t, e, 0)
	}
	for range 5 {
		round()
	}
}

// TestAdoptRaw wants a plain *net.TCPConn adopted, with its address.
func TestAdoptRaw(t *testing.T) {
	e := startEngine(t, Options{})
	if e.addrs == nil {
		t.Error("addresses of nbio.Conn can't be replaced with this version")
	}
	server, client := tcpPair(t)
	c := e.NewConn(newEcho())
	if c.RemoteAddr() != "" {
		t.Errorf("address %q before adoption", c.RemoteAddr())
	}
	if err := e.Adopt(c, server, nil, []byte("head")); err != nil {
		t.Fatal(err)
	}
	if got := c.RemoteAddr(); got != client.LocalAddr().String() {
		t.Errorf("address %q, want %q", got, client.LocalAddr())
	}
	buf := make([]byte, 4)
	if _, err := client.Read(buf); err != nil || string(buf) != "head" {
		t.Errorf("read %q, %v", buf, err)
	}
	if err := c.Send(ws.OpBinary, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := client.Read(buf); err != nil || string(buf[:n]) != "\x82\x01x" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	again, far := tcpPair(t)
	if err := e.Adopt(c, again, nil, nil); err == nil {
		t.Error("adopted twice")
	}
	if _, err := far.Read(buf); err == nil {
		t.Error("the second socket stayed open")
	}
	if c.is(flagDead) {
		t.Error("the first socket was closed")
	}
	var nc net.Conn = client
	_ = nc.Close()
	waitEnd(t, c.Handler().(*echo).ended)
}
