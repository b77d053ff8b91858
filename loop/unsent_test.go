package loop

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// TestUnsent wants the kernel to hold little for a peer that does not read, so
// that its budget is soon used up, and to hold it to the last byte. Without the
// limit it holds megabytes: the measure would see it.
func TestUnsent(t *testing.T) {
	const budget, size = 512 << 10, 48 << 10
	f := func(name string, secure bool, unsent, least, most int) {
		t.Run(name, func(t *testing.T) {
			h := startHouse(t, houseOptions{tls: secure, listen: ListenOptions{Unsent: unsent}, loop: Options{Budget: budget, CloseTimeout: 20 * time.Second}})
			p := h.raw(t, nil)
			c := h.next(t)
			payload := string(bytes.Repeat([]byte{'x'}, size))
			sent := 0
			for {
				err := c.Send(ws.OpText, []byte(payload))
				if errors.Is(err, ErrSlow) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				sent++
				eventually(t, "it went, or waits in the kernel's stead", func() bool { return c.Queued() == 0 || c.is(flagBlocked) })
			}
			held, err := unix.IoctlGetInt(c.nb.Hash(), unix.SIOCOUTQ)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d KiB sent to one who does not read: %d KiB in the kernel, %d KiB wait", sent*size>>10, held>>10, c.Queued()>>10)
			if held < least || held > most {
				t.Errorf("%d B in the kernel, want %d to %d", held, least, most)
			}
			for i := range sent {
				if op, got := p.frame(t); op != ws.OpText || got != payload {
					t.Fatalf("message %d of %d: %d bytes", i, sent, len(got))
				}
			}
		})
	}
	for _, secure := range []bool{false, true} {
		f(fmt.Sprintf("tls=%v", secure), secure, 0, 32<<10, 256<<10)
		f(fmt.Sprintf("tls=%v/no limit", secure), secure, -1, 1<<20, 64<<20)
	}
}

// TestAbort wants what the kernel keeps for a peer that does not read known, and
// forgotten with an Abort. With a Cut it stays, for the kernel goes on trying.
func TestAbort(t *testing.T) {
	eachTransport(t, func(t *testing.T, secure bool) {
		h := startHouse(t, houseOptions{tls: secure})
		f := func(end func(*Conn), forgotten bool) {
			t.Helper()
			p := h.raw(t, nil)
			c := h.next(t)
			if n := c.Unsent(); n > 64<<10 {
				t.Errorf("%d bytes are kept for one who is owed nothing", n)
			}
			for c.Queued() < 256<<10 {
				if err := c.Send(ws.OpText, make([]byte, 32<<10)); err != nil {
					t.Fatal(err)
				}
				eventually(t, "it went, or waits", func() bool { return c.Queued() == 0 || c.is(flagBlocked) })
			}
			if n := c.Unsent(); n < 32<<10 {
				t.Errorf("%d bytes in the kernel", n)
			}
			peer := p.LocalAddr().(*net.TCPAddr).Port
			end(c)
			if why := waitEnd(t, c.Handler().(*echo).ended); !errors.Is(why.Err, ErrSlow) {
				t.Errorf("end %+v", why)
			}
			if n := c.Unsent(); n != 0 {
				t.Errorf("%d bytes of a socket that is gone", n)
			}
			if forgotten {
				eventually(t, "the kernel has forgotten it", func() bool { return !keepsFor(t, peer) })
			} else if !keepsFor(t, peer) {
				t.Error("the kernel has forgotten it by itself")
			}
		}
		f((*Conn).Cut, false)
		f((*Conn).Abort, true)
	})
}

// keepsFor says whether the kernel has bytes for a peer at this port.
func keepsFor(t *testing.T, port int) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		field := strings.Fields(line) // number, local, remote, state, what waits to be sent and received
		if len(field) > 4 && strings.HasSuffix(field[2], fmt.Sprintf(":%04X", port)) && !strings.HasPrefix(field[4], "00000000:") {
			return true
		}
	}
	return false
}
