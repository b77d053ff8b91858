package loop

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
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
	arrived chan *Conn

	mu   sync.Mutex
	conn *Conn // for the next request, instead of a new one
	done chan struct{}
}

// greetNext lets the next request have c; done is closed when Adopt returned.
func (h *house) greetNext(c *Conn, done chan struct{}) {
	h.mu.Lock()
	h.conn, h.done = c, done
	h.mu.Unlock()
}

func (h *house) newConn() (c *Conn, done chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c, done = h.conn, h.done
	h.conn, h.done = nil, nil
	if c == nil {
		c, done = h.engine.NewConn(h.handler()), make(chan struct{})
	}
	return c, done
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
	return startHouseOn(t, startEngine(t, o.loop), o)
}

func startHouseOn(t testing.TB, e *Engine, o houseOptions) *house {
	t.Helper()
	h := &house{engine: e, handler: o.handler, arrived: make(chan *Conn, 20000)}
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
		c, done := h.newConn()
		defer close(done)
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
	runEngine(t, e)
	return e
}

func runEngine(t testing.TB, e *Engine) {
	t.Helper()
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
func (h *echo) Tick(*Conn, uint32) uint32               { return 0 }
func (h *echo) Closed(_ *Conn, why End)                 { h.ended <- why }

// catcher keeps messages.
type catcher struct {
	got   chan []byte
	ended chan End
	ticks chan uint32
	next  uint32 // asked for by Tick
}

func newCatcher() *catcher {
	return &catcher{got: make(chan []byte, 1<<16), ended: make(chan End, 2), ticks: make(chan uint32, 1)}
}

func (h *catcher) Message(_ *Conn, _ ws.OpCode, p []byte) { h.got <- append([]byte(nil), p...) }
func (h *catcher) Closed(_ *Conn, why End)                { h.ended <- why }
func (h *catcher) Tick(_ *Conn, now uint32) uint32 {
	select {
	case h.ticks <- now:
	default:
	}
	return h.next
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

// rawPeer is a client written by hand.
type rawPeer struct {
	net.Conn
	br *bufio.Reader
}

// raw dials and upgrades; behind is sent with the request.
func (h *house) raw(t testing.TB, behind []byte) *rawPeer {
	t.Helper()
	var nc net.Conn
	var err error
	if h.tls != nil {
		nc, err = tls.Dial("tcp", h.ln.Addr().String(), h.tls)
	} else {
		nc, err = net.Dial("tcp", h.ln.Addr().String())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return h.upgraded(t, nc, behind)
}

// upgraded asks for the upgrade on nc.
func (h *house) upgraded(t testing.TB, nc net.Conn, behind []byte) *rawPeer {
	t.Helper()
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	request := "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	if _, err := nc.Write(append([]byte(request), behind...)); err != nil {
		t.Fatal(err)
	}
	p := &rawPeer{nc, bufio.NewReader(nc)}
	resp, err := http.ReadResponse(p.br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("status %d, headers %v", resp.StatusCode, resp.Header)
	}
	return p
}

func (p *rawPeer) frame(t testing.TB) (ws.OpCode, string) {
	t.Helper()
	h, err := ws.ReadHeader(p.br)
	if err != nil {
		t.Fatalf("read header: %v", err)
	}
	payload := make([]byte, h.Length)
	if _, err := io.ReadFull(p.br, payload); err != nil {
		t.Fatalf("read frame: %v", err)
	}
	return h.OpCode, string(payload)
}

func (p *rawPeer) want(t testing.TB, op ws.OpCode, payload string) {
	t.Helper()
	if gotOp, got := p.frame(t); gotOp != op || got != payload {
		t.Fatalf("got frame %v %q, want %v %q", gotOp, cut(got), op, cut(payload))
	}
}

func (p *rawPeer) send(t testing.TB, b []byte) {
	t.Helper()
	if _, err := p.Write(b); err != nil {
		t.Fatal(err)
	}
}

func (p *rawPeer) wantEOF(t testing.TB) {
	t.Helper()
	if b, err := p.br.ReadByte(); !errors.Is(err, io.EOF) {
		t.Fatalf("got byte %x, error %v, want EOF", b, err)
	}
}
