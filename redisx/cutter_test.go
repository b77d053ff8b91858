package redisx

import (
	"bytes"
	"net"
	"sync"
	"testing"
)

// cutter stands between a client and Redis, and cuts connections where it is
// told: after a request went through and before its answer does is where
// outcomes become unknown.
type cutter struct {
	addr string
	l    net.Listener
	wg   sync.WaitGroup

	mu    sync.Mutex
	drop  int    // answers still to be dropped, each with its connection
	hold  string // the next request with it in it is kept until late is closed
	late  chan struct{}
	conns map[net.Conn]struct{}
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{addr: l.Addr().String(), l: l, conns: make(map[net.Conn]struct{})}
	c.wg.Go(func() {
		for {
			down, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", to)
			if err != nil {
				_ = down.Close()
				continue
			}
			c.keep(down, up)
			c.wg.Go(func() { c.pipe(up, down, false) })
			c.wg.Go(func() { c.pipe(down, up, true) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		c.cutAll()
		c.wg.Wait()
	})
	return c
}

func (c *cutter) keep(conns ...net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		c.conns[conn] = struct{}{}
	}
}

// pipe copies until one side ends, then ends both. Answers pass the knife.
func (c *cutter) pipe(to, from net.Conn, answers bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil || answers && c.cuts() {
			break
		}
		if !answers {
			c.await(buf[:n])
		}
		if _, err := to.Write(buf[:n]); err != nil {
			break
		}
	}
	_ = to.Close()
	_ = from.Close()
	c.mu.Lock()
	delete(c.conns, to)
	delete(c.conns, from)
	c.mu.Unlock()
}

func (c *cutter) cuts() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drop == 0 {
		return false
	}
	c.drop--
	return true
}

// holdNext keeps the next request that has text in it, as a network may, also
// after its sender gave up; release lets it go on its way.
func (c *cutter) holdNext(text string) (release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold, c.late = text, make(chan struct{})
	return sync.OnceFunc(func() { close(c.late) })
}

// await returns when request may go on.
func (c *cutter) await(request []byte) {
	c.mu.Lock()
	if c.hold == "" || !bytes.Contains(request, []byte(c.hold)) {
		c.mu.Unlock()
		return
	}
	c.hold = ""
	c.mu.Unlock()
	<-c.late
}

// dropAnswers cuts the connections of the next n answers.
func (c *cutter) dropAnswers(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop = n
}

// cutAll cuts whatever is connected now, in the middle of whatever it does.
func (c *cutter) cutAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		_ = conn.Close()
	}
}
