package loop

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lobby is a listener with an Accept under way.
type lobby struct {
	*Listener
	released atomic.Int32
	out      chan net.Conn // what Accept handed out; closed with its error
	err      error
}

// startLobby starts one. All its places at work are held, until open, by nobody.
func startLobby(t *testing.T, o ListenOptions) *lobby {
	t.Helper()
	b := &lobby{out: make(chan net.Conn, 100)}
	o.Released = func(net.Addr, bool) { b.released.Add(1) }
	o.TurnAway = func(tcp *net.TCPConn) { _, _ = tcp.Write([]byte("later")) }
	b.Listener = listen(t, o)
	for b.turn() { //nolint:revive // until there is none left
	}
	go func() {
		defer close(b.out)
		for {
			c, err := b.Accept()
			if err != nil {
				b.err = err
				return
			}
			b.out <- c
		}
	}()
	t.Cleanup(func() {
		_ = b.Close()
		for c := range b.out {
			_ = c.Close()
		}
	})
	return b
}

// open gives the places back.
func (b *lobby) open() {
	for range cap(b.work) {
		<-b.work
	}
}

// join connects, and waits until n wait.
func (b *lobby) join(t *testing.T, n int) net.Conn {
	t.Helper()
	c := dialTo(t, b.Listener)
	eventually(t, "it waits", func() bool { return b.Waiting() == n })
	return c
}

// wantAway wants c told to come later, and closed.
func wantAway(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if told, err := io.ReadAll(c); string(told) != "later" || err != nil {
		t.Errorf("told %q, %v", told, err)
	}
}

// While those before them wait for their turn, connections wait as sockets, and
// are handed out in the order in which they came.
func TestLobbyHolds(t *testing.T) {
	b := startLobby(t, ListenOptions{})
	var far []net.Conn
	for i := range 5 {
		far = append(far, b.join(t, i+1))
	}
	if len(b.out) != 0 || b.Pending() != 5 {
		t.Fatalf("%d handed out, %d pending", len(b.out), b.Pending())
	}
	b.open()
	for i, c := range far {
		near := <-b.out
		if near.RemoteAddr().String() != c.LocalAddr().String() {
			t.Errorf("number %d is another's", i)
		}
		_ = near.Close()
	}
	if b.Waiting() != 0 || b.Pending() != 0 || b.released.Load() != 5 {
		t.Errorf("%d wait, %d pending, %d released", b.Waiting(), b.Pending(), b.released.Load())
	}
}

// Where no more may wait, a newcomer is told so; the others keep their places.
func TestLobbyIsBounded(t *testing.T) {
	b := startLobby(t, ListenOptions{MaxWaiting: 2})
	b.join(t, 1)
	b.join(t, 2)
	wantAway(t, dialTo(t, b.Listener))
	eventually(t, "it is forgotten", func() bool { return b.released.Load() == 1 })
	if b.Waiting() != 2 || b.TurnedAway() != 1 {
		t.Errorf("%d wait, %d turned away", b.Waiting(), b.TurnedAway())
	}
}

// Nor is anybody let in who would wait for too much of the deadline; and whose own
// has passed leaves, also when nobody is let in.
func TestLobbyIsBoundedInTime(t *testing.T) {
	const deadline = 2500 * time.Millisecond
	b := startLobby(t, ListenOptions{Deadline: deadline})
	first := b.join(t, 1)
	time.Sleep(deadline/lobbyPart + time.Millisecond)
	wantAway(t, dialTo(t, b.Listener))
	if b.Waiting() != 1 {
		t.Errorf("%d wait", b.Waiting())
	}
	wantAway(t, first)
	if b.Waiting() != 0 || b.Pending() != 0 || b.TurnedAway() != 2 {
		t.Errorf("%d wait, %d pending, %d turned away", b.Waiting(), b.Pending(), b.TurnedAway())
	}
}

// The deadline counts from accept, also for who waited in the lobby.
func TestLobbyKeepsDeadlines(t *testing.T) {
	b := startLobby(t, ListenOptions{Deadline: 2 * time.Second})
	began := time.Now()
	b.join(t, 1)
	time.Sleep(time.Second)
	b.open()
	c := <-b.out
	_, err := c.Read(make([]byte, 1))
	if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || took < 1900*time.Millisecond {
		t.Errorf("%v after %v", err, took)
	}
}

// A listener that is closed leaves nobody behind.
func TestLobbyCloses(t *testing.T) {
	b := startLobby(t, ListenOptions{})
	first, second := b.join(t, 1), b.join(t, 2)
	_ = b.Close()
	wantAway(t, first)
	wantAway(t, second)
	for range b.out {
		t.Error("handed out")
	}
	if !errors.Is(b.err, net.ErrClosed) || b.Pending() != 0 || b.released.Load() != 2 {
		t.Errorf("%v; %d pending, %d released", b.err, b.Pending(), b.released.Load())
	}
	if b.sit(arrival{}) {
		t.Error("one more waits in a closed lobby")
	}
}

// speak connects and says a byte, so that a Read of it would not wait.
func speak(t *testing.T, b *lobby) net.Conn {
	t.Helper()
	c := dialTo(t, b.Listener)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	return c
}

// read reads a byte of c, and says when it has it.
func read(c net.Conn) (done chan error) {
	done = make(chan error, 1)
	go func() { _, err := c.Read(make([]byte, 1)); done <- err }()
	return done
}

// Only so many are at work: the next is handed out when one of them waits for
// bytes, is served, or ends; and whoever has waited for bytes goes on when there
// is a place.
func TestAtWork(t *testing.T) {
	b := startLobby(t, ListenOptions{AtWork: 3})
	b.open()
	var far []net.Conn
	near := map[string]net.Conn{}
	next := func() net.Conn {
		t.Helper()
		select {
		case c := <-b.out:
			near[c.RemoteAddr().String()] = c
			return c
		case <-time.After(10 * time.Second):
			t.Fatal("nobody is handed out")
			return nil
		}
	}
	for range 6 {
		far = append(far, speak(t, b))
	}
	for range 3 {
		next()
	}
	eventually(t, "three wait", func() bool { return b.Waiting() == 3 && len(b.out) == 0 })
	first := near[far[0].LocalAddr().String()]
	if err := <-read(first); err != nil || len(b.out) != 0 {
		t.Fatalf("%v; one more was handed out", err)
	}
	again := read(first) // would wait
	next()
	Served(near[far[1].LocalAddr().String()])
	next()
	if b.Waiting() != 1 {
		t.Errorf("%d wait", b.Waiting())
	}
	_, _ = far[0].Write([]byte("x"))
	eventually(t, "its bytes are there", func() bool { return unread(t, first) == 0 })
	select {
	case <-again:
		t.Error("a fourth at work")
	default:
	}
	third := near[far[2].LocalAddr().String()]
	_ = third.Close()
	if err := <-again; err != nil { // before the sixth
		t.Error(err)
	}
	_ = first.Close()
	next()
	for _, c := range near {
		_ = c.Close()
	}
	if len(b.work) > 1 { // Accept's own, while it waits for another
		t.Errorf("%d places are held by nobody", len(b.work))
	}
}

// unread is how many bytes nobody has read.
func unread(t *testing.T, c net.Conn) (n int) {
	t.Helper()
	raw, err := c.(*Wire).pre.tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n
}
