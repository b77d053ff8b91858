package server

import (
	"strings"
	"testing"

	"github.com/daisi/daisi-ws/session"
)

// What waits for a resume, which takes as long as its client likes, is bounded in
// number and in bytes, and known: a few tokens of the longest would be 128 KiB.
func TestMailbox(t *testing.T) {
	var m mailbox
	put := func(n int, want bool) {
		t.Helper()
		waits, full := m.put(command{verb: verbRefresh, token: strings.Repeat("x", n)})
		if !waits || full == want {
			t.Errorf("waits %v, full %v", waits, full)
		}
	}
	put(session.MaxToken-100, true)
	put(101, false)
	chat := strings.Repeat("c", 60)
	if waits, full := m.put(command{verb: verbSelect, chat: &chat}); !waits || full {
		t.Errorf("a chat waits %v, full %v", waits, full)
	}
	put(40, true)
	put(1, false)
	if n := m.held(); n != session.MaxToken {
		t.Errorf("%d bytes wait", n)
	}
	if cmd, ok := m.take(); !ok || len(cmd.token) != session.MaxToken-100 {
		t.Errorf("took %d bytes, %v", len(cmd.token), ok)
	}
	if n := m.held(); n != 100 {
		t.Errorf("%d bytes wait", n)
	}
	for range maxWaiting - 2 {
		put(1, true)
	}
	put(1, false)
	if n := (*mailbox)(nil).held(); n != 0 {
		t.Errorf("%d bytes wait for nobody", n)
	}
}

// A token that can be none is refused before it is copied.
func TestDecodeRefresh(t *testing.T) {
	f := func(n int, ok bool) {
		t.Helper()
		cmd, err := decode([]byte(`{"type":"refresh","payload":{"token":"` + strings.Repeat("x", n) + `"}}`))
		if (err == nil) != ok || ok && len(cmd.token) != n {
			t.Errorf("%d bytes: %d, %v", n, len(cmd.token), err)
		}
	}
	f(0, false)
	f(session.MaxToken, true)
	f(session.MaxToken+1, false)
}
