package loop

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// house is a server engine behind net/http, as the gateway has it.
type house struct {
	engine *Engine
	ln     *Listener
	url    string
	tls    *tls.Config // client side, nil when plain

	handler func() Handler
	mu      sync.Mutex
	conns   []*Conn
	arrived chan *Conn
}

type houseOptions struct {
	loop    Options
	listen  ListenOptions
	tls     bool
	handler func() Handler
	// greet is called between NewConn and Adopt.
	greet func(c *Conn)
}

// startHouse runs all of it until the test ends, and checks the ledger then.
func startHouse(t testing.TB, o houseOptions) *house {
	t.Helper()
	h := &house{engine: startEngine(t, o.loop), handler: o.handler, arrived: make(chan *Conn, 20000)}
	if h.handler == nil {
		h.handler = func() Handler { return newEcho() }
	}
	ln, err := Listen("127.0.0.1:0", o.listen)
	if err != nil {
		t.Fatal(err)
	}
	h.ln = ln
	h.url = "ws://" + ln.Addr().String() + "/"
	var outer net.Listener = ln
	if o.tls {
		server, client := tlsConfigs(t)
		outer = tls.NewListener(ln, server)
		h.tls = client
		h.url = "wss://" + ln.Addr().String() + "/"
	}
	srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, err := CheckUpgrade(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c := h.engine.NewConn(h.handler())
		if o.greet != nil {
			o.greet(c)
		}
		nc, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			c.Abandon(err)
			return
		}
		early, _ := brw.Reader.Peek(brw.Reader.Buffered())
		if h.engine.Adopt(c, nc, early, UpgradeResponse(key, "", nil)) == nil {
			h.mu.Lock()
			h.conns = append(h.conns, c)
			h.mu.Unlock()
			h.arrived <- c
		}
	})}
	done := make(chan struct{})
	go func() { _ = srv.Serve(outer); close(done) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return h
}

// startEngine runs an engine until the test ends.
func startEngine(t testing.TB, o Options) *Engine {
	t.Helper()
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		checkLedger(t, e, 0)
		if n := e.Len(); n != 0 {
			t.Errorf("%d sockets after the end", n)
		}
	})
	return e
}

// checkLedger wants every copy accounted for, and so many still queued.
func checkLedger(t testing.TB, e *Engine, wantQueued uint64) {
	t.Helper()
	made, written, queued, discarded := e.Ledger()
	if made != written+queued+discarded {
		t.Errorf("ledger: made %d, written %d, queued %d, discarded %d", made, written, queued, discarded)
	}
	if queued != wantQueued {
		t.Errorf("ledger: %d queued, want %d", queued, wantQueued)
	}
}

func (h *house) dial(t testing.TB, e *Engine, handler Handler) *Conn {
	t.Helper()
	c, err := e.Dial(context.Background(), DialOptions{URL: h.url, TLS: h.tls}, handler)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (h *house) next(t testing.TB) *Conn {
	t.Helper()
	select {
	case c := <-h.arrived:
		return c
	case <-time.After(10 * time.Second):
		t.Fatal("no socket arrived")
		return nil
	}
}

func tlsConfigs(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	cert, err := throwawayCert()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	_ = leaf
	server = &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}, DynamicRecordSizingDisabled: true}
	client = &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true}
	return server, client
}

// echo sends messages back and remembers how it ended.
type echo struct {
	ended chan End
}

func newEcho() *echo { return &echo{ended: make(chan End, 2)} }

func (h *echo) Message(c *Conn, op ws.OpCode, p []byte) { _ = c.Send(op, p) }
func (h *echo) Tick(*Conn, uint32)                      {}
func (h *echo) Closed(_ *Conn, why End)                 { h.ended <- why }

// catcher keeps messages.
type catcher struct {
	got   chan []byte
	ended chan End
	ticks chan uint32
}

func newCatcher() *catcher {
	return &catcher{got: make(chan []byte, 1<<16), ended: make(chan End, 2), ticks: make(chan uint32, 1)}
}

func (h *catcher) Message(_ *Conn, _ ws.OpCode, p []byte) { h.got <- append([]byte(nil), p...) }
func (h *catcher) Closed(_ *Conn, why End)                { h.ended <- why }
func (h *catcher) Tick(_ *Conn, now uint32) {
	select {
	case h.ticks <- now:
	default:
	}
}

func (h *catcher) message(t testing.TB) []byte {
	t.Helper()
	select {
	case b := <-h.got:
		return b
	case why := <-h.ended:
		t.Fatalf("ended: %+v", why)
	case <-time.After(10 * time.Second):
		t.Fatal("no message")
	}
	return nil
}

func waitEnd(t testing.TB, ch chan End) End {
	t.Helper()
	select {
	case why := <-ch:
		return why
	case <-time.After(10 * time.Second):
		t.Fatal("Closed was not called")
		return End{}
	}
}

// eventually polls cond for ten seconds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}
