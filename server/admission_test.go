package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/daisi/daisi-ws/loop"
)

// newGate is an admission with so many sessions in the house.
func newGate(o LimitOptions, sessions *int) *admission {
	addresses, _ := newAddresses(HTTPOptions{})
	return newAdmission(o, addresses, func() int { return *sessions }, newEdgeMetrics(metrics.NewSet()))
}

func TestAdmissionSessions(t *testing.T) {
	sessions := 8
	a := newGate(LimitOptions{MaxSessions: 10, Handshakes: 1, LoginConcurrency: 5, LoginQueue: 5}, &sessions)
	first, f := a.login(t.Context())
	if f != nil {
		t.Fatal(f)
	}
	second, f := a.login(t.Context())
	if f != nil {
		t.Fatal(f)
	}
	if a.capacity() == "" {
		t.Fatal("capacity left, with two logins for two places")
	}
	_, f = a.login(t.Context())
	if f == nil || f.Status != 503 || f.Code != "Overloaded" || f.Retry < 1 || f.Retry > 5 {
		t.Fatalf("the third login: %+v", f)
	}
	first.done()
	sessions = 9 // it is one now
	if _, f = a.login(t.Context()); f == nil {
		t.Fatal("let in over the limit")
	}
	second.done() // it failed
	third, f := a.login(t.Context())
	if f != nil {
		t.Fatal(f)
	}
	third.done()
	if a.reserved.Load() != 0 || len(a.logins) != 0 || a.capacity() != "" {
		t.Fatal("something is held")
	}
}

func TestAdmissionQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sessions := 0
		a := newGate(LimitOptions{MaxSessions: 100, Handshakes: 1, LoginConcurrency: 1, LoginQueue: 1}, &sessions)
		first, f := a.login(t.Context())
		if f != nil {
			t.Fatal(f)
		}
		type result struct {
			t *ticket
			f *fault
		}
		results := make(chan result, 1)
		go func() { t, f := a.login(t.Context()); results <- result{t, f} }()
		synctest.Wait()
		if _, f := a.login(t.Context()); f == nil || f.Code != "Overloaded" {
			t.Fatalf("the queue holds one: %+v", f)
		}
		first.waiting(true) // on another pod: the next may go on meanwhile
		got := <-results
		if got.f != nil {
			t.Fatal(got.f)
		}
		first.waiting(false)
		first.opened()
		first.done()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, f := a.login(ctx); f == nil || f.Code != "Overloaded" {
			t.Fatalf("waited for ever: %+v", f)
		}
		got.t.done()
		if a.reserved.Load() != 0 || len(a.logins) != 0 || a.queued.Load() != 0 {
			t.Fatal("something is held")
		}
		a.draining.Store(true)
		if _, f := a.login(t.Context()); f == nil || f.Code != "Draining" || f.Retry == 0 {
			t.Fatalf("while draining: %+v", f)
		}
	})
}

// A client that stalls in its handshake keeps its slot for a moment only.
func TestAdmissionHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sessions := 0
		a := newGate(LimitOptions{Handshakes: 1, LoginConcurrency: 1, LoginQueue: 1}, &sessions)
		release, err := a.handshake(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), handshakeHold/2)
		defer cancel()
		if _, err := a.handshake(ctx); err == nil {
			t.Fatal("two at once")
		}
		began := time.Now()
		second, err := a.handshake(t.Context())
		if err != nil || time.Since(began) > handshakeHold {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		release() // late, and of no effect
		if len(a.handshakes) != 1 {
			t.Fatal("a late release freed another's slot")
		}
		second()
		second()
		if len(a.handshakes) != 0 {
			t.Fatal("not released")
		}
	})
}

func TestSessionLimit(t *testing.T) {
	for files, want := range map[uint64]int{1024: 960, 20000: 19488, 1 << 20: 1<<20 - 512, 1 << 62: 1<<31 - 1} {
		if got := sessionLimit(files); got != want {
			t.Errorf("%d files: %d sessions, want %d", files, got, want)
		}
	}
}

func TestRetryAfterIsSpread(t *testing.T) {
	seen := map[int]bool{}
	for range 200 {
		seen[retryAfter()] = true
	}
	if len(seen) != 5 {
		t.Fatalf("seconds %v", seen)
	}
}

func TestSessionsOfAnAddress(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.HTTP.MaxConnsPerIP = 3 })
	var sockets []*socket
	for u := range 3 {
		sockets = append(sockets, h.login("ag1", fmt.Sprintf("u%d", u), "", nil))
	}
	nc, err := h.tryDial()
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := nc.Read(make([]byte, 1)); err == nil {
		t.Fatal("the fourth connection stays")
	}
	_ = sockets[0].nc.Close()
	eventually(t, "there is room again", func() bool {
		h.gate.addresses.mu.Lock()
		defer h.gate.addresses.mu.Unlock()
		return len(h.gate.addresses.owners) == 2 && len(h.gate.addresses.pending) == 0
	})
	h.login("ag1", "u9", "", nil)
	h.stop()
	a := h.gate.addresses
	if len(a.owners) != 0 || len(a.sessions) != 0 || len(a.pending) != 0 {
		t.Fatalf("left: %v %v %v", a.owners, a.sessions, a.pending)
	}
}

// Of IPv6 a network counts, for anybody who has one of its addresses has them all;
// its books are closed when all have gone.
func TestSessionsOfANetwork(t *testing.T) {
	a, err := newAddresses(HTTPOptions{MaxConnsPerIP: 2})
	if err != nil {
		t.Fatal(err)
	}
	at := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1} }
	f := func(ip string, want bool) {
		t.Helper()
		if got := a.accept(at(ip)); got != want {
			t.Errorf("%s: %v", ip, got)
		}
	}
	f("2001:db8:0:1::1", true)
	conn := new(loop.Conn)
	if !a.enter(conn, &http.Request{RemoteAddr: "[2001:db8:0:1::1]:1"}) {
		t.Error("its session is not let in")
	}
	a.released(at("2001:db8:0:1::1"))
	f("2001:db8:0:1:ffff::2", true)
	f("2001:db8:0:1::3", false)
	f("2001:db8:0:2::1", true)
	f("192.0.2.1", true)
	f("::ffff:192.0.2.1", true)
	f("192.0.2.1", false)
	f("192.0.2.2", true)
	for _, ip := range []string{"2001:db8:0:1::9", "2001:db8:0:2::1", "192.0.2.1", "192.0.2.1", "192.0.2.2"} {
		a.released(at(ip))
	}
	a.leave(conn)
	if len(a.pending)+len(a.sessions)+len(a.owners)+len(a.moved) > 0 {
		t.Errorf("left: %v %v %v %v", a.pending, a.sessions, a.owners, a.moved)
	}
}

// Behind a trusted proxy the client counts, not the proxy.
func TestSessionsBehindProxy(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.HTTP.MaxConnsPerIP, o.HTTP.TrustedProxies = 1, []string{"127.0.0.0/8", "10.0.0.9"} })
	from := func(addr string) map[string]string { return map[string]string{"X-Forwarded-For": addr} }
	h.login("ag1", "u1", "", from("203.0.113.1"))
	h.login("ag1", "u2", "", from("203.0.113.2, 10.0.0.9"))
	s, answer := h.dial("/ws/acme/ag1?token="+url.QueryEscape(h.token("ag1", "u3")), map[string]string{
		"X-API-Key": testAPIKey, "X-Forwarded-For": "198.51.100.1, 203.0.113.2",
	}, nil)
	body, _ := io.ReadAll(answer.Body)
	refusedAs(t, answer.StatusCode, s.h, string(body), 429, "RateLimitExceeded", "address")
	if h.redis.epoch.Load() != 2 {
		t.Fatal("a refused login reached Redis")
	}
	for u := range 2 { // the proxy itself is not capped, where it names nobody
		h.login("ag1", fmt.Sprintf("p%d", u), "", nil)
	}
}

func TestClientAddress(t *testing.T) {
	a, err := newAddresses(HTTPOptions{TrustedProxies: []string{"10.0.0.0/8"}})
	if err != nil {
		t.Fatal(err)
	}
	f := func(remote, forwarded, want string) {
		t.Helper()
		r := &http.Request{RemoteAddr: remote, Header: http.Header{"X-Forwarded-For": {forwarded}}}
		if got := a.client(r).String(); got != want {
			t.Errorf("%s for %q is %s, want %s", remote, forwarded, got, want)
		}
	}
	f("192.0.2.1:5", "1.1.1.1", "192.0.2.1")
	f("10.0.0.1:5", "1.1.1.1", "1.1.1.1")
	f("10.0.0.1:5", "1.1.1.1, 2.2.2.2", "2.2.2.2")
	f("10.0.0.1:5", "1.1.1.1, 10.3.3.3", "1.1.1.1")
	f("10.0.0.1:5", "1.1.1.1:4711", "1.1.1.1")
	f("10.0.0.1:5", "[2001:db8::1]:4711,10.3.3.3:1", "2001:db8::1")
	f("10.0.0.1:5", "[2001:db8::1]", "2001:db8::1")
	f("10.0.0.1:5", "junk", "10.0.0.1")
	f("10.0.0.1:5", "", "10.0.0.1")
	f("[::ffff:10.0.0.1]:5", "2001:db8::1", "2001:db8::1")
	if addrIP(&net.UnixAddr{}).IsValid() {
		t.Error("a path is no address")
	}
	a.leave(new(loop.Conn)) // off: nothing happens
}
