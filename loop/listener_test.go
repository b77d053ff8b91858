package loop

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

func listen(t *testing.T, o ListenOptions) *Listener {
	t.Helper()
	l, err := Listen("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func dialTo(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func accept(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestListenerDeadline wants the deadline from accept kept, whatever is set.
func TestListenerDeadline(t *testing.T) {
	l := listen(t, ListenOptions{Deadline: 200 * time.Millisecond})
	for name, set := range map[string]func(net.Conn) error{
		"none":       func(net.Conn) error { return nil },
		"cleared":    func(c net.Conn) error { return c.SetDeadline(time.Time{}) },
		"read clear": func(c net.Conn) error { return c.SetReadDeadline(time.Time{}) },
		"later":      func(c net.Conn) error { return c.SetReadDeadline(time.Now().Add(time.Hour)) },
	} {
		dialTo(t, l)
		c := accept(t, l)
		begin := time.Now()
		if err := set(c); err != nil {
			t.Fatal(err)
		}
		_, err := c.Read(make([]byte, 1))
		if took := time.Since(begin); !errors.Is(err, os.ErrDeadlineExceeded) || took > 5*time.Second {
			t.Errorf("%s: %v after %v", name, err, took)
		}
	}
	dialTo(t, l)
	c := accept(t, l)
	_ = c.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an earlier deadline: %v", err)
	}
}

// TestListenerPending wants Accept to pause when too many are pending.
func TestListenerPending(t *testing.T) {
	var released atomic.Int32
	l := listen(t, ListenOptions{MaxPending: 2, Released: func(_ net.Addr, adopted bool) {
		if adopted {
			t.Error("released as adopted")
		}
		released.Add(1)
	}})
	for range 3 {
		dialTo(t, l)
	}
	first, _ := accept(t, l), accept(t, l)
	third := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			third <- c
		}
		close(third)
	}()
	select {
	case <-third:
		t.Fatal("a third was accepted")
	case <-time.After(50 * time.Millisecond):
	}
	_ = first.Close()
	_ = first.Close()
	c := <-third
	if c == nil {
		t.Fatal("no third")
	}
	if l.Pending() != 2 || released.Load() != 1 {
		t.Errorf("%d pending, %d released", l.Pending(), released.Load())
	}
	waiting := make(chan error, 1)
	go func() { _, err := l.Accept(); waiting <- err }()
	_ = l.Close()
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	_ = c.Close()
}

// TestListenerEvicts wants a full listener to take newcomers in place of the
// oldest that never asked for anything, and of nobody who did.
func TestListenerEvicts(t *testing.T) {
	l := listen(t, ListenOptions{MaxPending: 3})
	var far []net.Conn
	for range 3 {
		far = append(far, dialTo(t, l))
	}
	near := map[string]net.Conn{}
	for range far {
		c := accept(t, l)
		near[c.RemoteAddr().String()] = c
		go func() { // as net/http does
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}()
	}
	Asked(near[far[0].LocalAddr().String()])
	began := time.Now()
	dialTo(t, l)
	accept(t, l)
	if took := time.Since(began); took < evictAfter/2 {
		t.Errorf("a newcomer was let in after %v", took)
	}
	for i, gone := range []bool{false, true, false} {
		_ = far[i].SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if gone {
			_ = far[i].SetReadDeadline(time.Now().Add(10 * time.Second))
		}
		_, err := far[i].Read(make([]byte, 1))
		if stays := errors.Is(err, os.ErrDeadlineExceeded); stays == gone {
			t.Errorf("connection %d: %v, want gone %v", i, err, gone)
		}
	}
	if l.Evicted() != 1 || l.Pending() != 3 {
		t.Errorf("%d evicted, %d pending", l.Evicted(), l.Pending())
	}
}

func TestListenerAdmit(t *testing.T) {
	var asked atomic.Int32
	l := listen(t, ListenOptions{Admit: func(net.Addr) bool { return asked.Add(1) > 1 }})
	refused := dialTo(t, l)
	dialTo(t, l)
	accept(t, l)
	_ = refused.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := refused.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("refused connection: %v", err)
	}
	if a, r, f := l.Counts(); a != 1 || r != 1 || f != 0 {
		t.Errorf("accepted %d, refused %d, failed %d", a, r, f)
	}
}

// TestListenerCloseSilent wants only those closed that never said a word.
func TestListenerCloseSilent(t *testing.T) {
	l := listen(t, ListenOptions{})
	silent := dialTo(t, l)
	accept(t, l)
	talker := dialTo(t, l)
	heard := accept(t, l)
	if _, err := talker.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := heard.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if n := l.CloseSilent(); n != 1 {
		t.Errorf("%d closed", n)
	}
	_ = silent.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("silent one: %v", err)
	}
	if _, err := heard.Write([]byte("x")); err != nil {
		t.Errorf("the other one: %v", err)
	}
}

// TestListenerForgetsAdopted wants an adopted connection released, as such, and
// free of the deadline.
func TestListenerForgetsAdopted(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		var adopted atomic.Int32
		h := startHouse(t, houseOptions{tls: secure, listen: ListenOptions{
			Deadline: 2 * time.Second,
			Released: func(_ net.Addr, yes bool) {
				if yes {
					adopted.Add(1)
				}
			},
		}})
		p := h.raw(t, nil)
		h.next(t)
		if adopted.Load() != 1 || h.ln.Pending() != 0 {
			t.Errorf("%d adopted, %d pending", adopted.Load(), h.ln.Pending())
		}
		time.Sleep(2100 * time.Millisecond)
		p.send(t, masked(0x81, "still there"))
		p.want(t, 1, "still there")
	})
}

func TestListenFailure(t *testing.T) {
	if _, err := Listen("256.0.0.1:0", ListenOptions{}); err == nil {
		t.Error("listening on nonsense")
	}
	if _, err := Listen("127.0.0.1:0", ListenOptions{MaxPending: -1}); err == nil {
		t.Error("negative MaxPending")
	}
}
