package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/nats-io/nats.go"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/natsx/natstest"
	"github.com/daisi/daisi-ws/session"
)

// wrong is what a gate does wrong, once: at the first copy from faultAt on that
// allows it, or at every takeover.
type wrong string

const (
	wrongNothing wrong = ""
	wrongLose    wrong = "lose"
	wrongRepeat  wrong = "repeat"
	wrongSwap    wrong = "swap"
	wrongTenant  wrong = "tenant"
	wrongChat    wrong = "chat"
	wrongDamage  wrong = "damage"
	wrongForge   wrong = "forge"
	wrongSeq     wrong = "seq"  // the stream seq falls
	wrongGap     wrong = "gap"  // a copy replaced by a gap frame
	wrongKill    wrong = "kill" // close instead of a copy
	wrongKeep    wrong = "keep" // older sockets of a key live on
	wrongLate    wrong = "late" // older sockets are closed late
	wrongRefuse  wrong = "refuse"
	wrongStray   wrong = "stray" // besides, an event that nobody of the run published
)

// gate is a tiny gateway of several doors that speaks wire.md, for one process
// and one NATS connection.
type gate struct {
	t      *testing.T
	engine *loop.Engine
	ring   *session.KeyRing
	doors  []string
	nats   string
	stop   func() // ends all sockets
	pause  func() // before each login; nil: none
	secure bool
	roots  *x509.CertPool // with secure

	mu       sync.Mutex
	wrong    wrong
	sessions []*gateSession
	chats    map[session.Key]string
	epoch    uint64
	seq      uint64
	copies   int
	refused  int
	minted   int
	from     map[string]int // logins by the client's address
	held     *loop.Frame
	heldFor  *gateSession
	wait     sync.WaitGroup
}

type gateSession struct {
	gate *gate
	key  session.Key
	chat string
	conn *loop.Conn
	gone chan struct{} // closed by Closed
}

// faultAt is late enough that every session was given something before.
const faultAt = 500

const gateMintKey = "mint-key"

const gateKey = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

// newGate starts doors that end with the test.
func newGate(t *testing.T, doors int, fault wrong) *gate {
	t.Helper()
	g := bareGate(t, fault)
	for range doors {
		g.listen()
	}
	return g
}

// bareGate has no door yet.
func bareGate(t *testing.T, fault wrong) *gate {
	t.Helper()
	ring, err := session.ParseKeyRing(session.PurposeUser, gateKey, true)
	if err != nil {
		t.Fatal(err)
	}
	engine, err := loop.New(loop.Options{Pollers: 1, Flushers: 1})
	if err != nil {
		t.Fatal(err)
	}
	host := natstest.Start(t)
	host.MakeStream(t, "wa_stream", "websocket.>")
	g := &gate{t: t, engine: engine, ring: ring, nats: host.URL, wrong: fault, chats: make(map[session.Key]string), from: make(map[string]int)}
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	g.wait.Go(func() {
		if err := engine.Run(ctx); err != nil {
			t.Errorf("run engine: %v", err)
		}
	})
	t.Cleanup(func() { stop(); g.wait.Wait() })
	nc := host.Conn(t)
	if _, err := nc.Subscribe("websocket.>", g.publish); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *gate) listen() {
	ln, err := loop.Listen("127.0.0.1:0", loop.ListenOptions{})
	if err != nil {
		g.t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(g.serve))
	_ = srv.Listener.Close()
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are part of a test
	srv.Listener = ln
	if g.secure {
		srv.StartTLS()
		g.roots = x509.NewCertPool()
		g.roots.AddCert(srv.Certificate())
	} else {
		srv.Start()
	}
	g.t.Cleanup(srv.Close)
	g.doors = append(g.doors, ln.Addr().String())
}

func (g *gate) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/generate-token" {
		g.mint(w, r)
		return
	}
	claims, err := g.ring.Verify(r.URL.Query().Get("token"), time.Now())
	parts := strings.Split(r.URL.Path, "/") // "", ws, company, agent
	if err != nil || len(parts) != 4 || claims.Company != parts[2] || claims.Agent != parts[3] || r.Header.Get("X-API-Key") != "key" {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"code":"InvalidToken"}`)
		return
	}
	g.mu.Lock()
	if g.wrong == wrongRefuse && g.refused < 3 {
		g.refused++
		g.mu.Unlock()
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"code":"Overloaded"}`)
		return
	}
	g.mu.Unlock()
	key, err := loop.CheckUpgrade(r)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	nc, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		g.t.Errorf("hijack: %v", err)
		return
	}
	g.mu.Lock()
	g.from[r.RemoteAddr[:strings.LastIndexByte(r.RemoteAddr, ':')]]++
	g.mu.Unlock()
	if g.pause != nil {
		g.pause()
	}
	early, _ := buf.Reader.Peek(buf.Reader.Buffered())
	s := g.admit(session.Key{Company: claims.Company, Agent: claims.Agent, User: claims.User}, r.URL.Query().Get("chat"))
	if err := g.engine.Adopt(s.conn, nc, early, loop.UpgradeResponse(key, "", nil)); err != nil {
		g.t.Logf("adopt: %v", err)
	}
}

// mint is the endpoint for tokens.
func (g *gate) mint(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Company string `json:"company_id"`
		Agent   string `json:"agent_id"`
		User    string `json:"user_id"`
		Expires int64  `json:"expires_in_seconds"`
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.Method != http.MethodPost || r.Header.Get("X-API-Key") != gateMintKey {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"code":"InvalidAPIKey","details":"minting has a key of its own"}`)
		return
	}
	token, err := g.ring.Mint(session.Claims{Company: q.Company, Agent: q.Agent, User: q.User, ExpiresAt: time.Now().Add(time.Duration(q.Expires) * time.Second)})
	if err != nil {
		g.t.Errorf("mint: %v", err)
	}
	g.mu.Lock()
	g.minted++
	g.mu.Unlock()
	_ = json.NewEncoder(w).Encode(map[string]string{"token": token})
}

// admit closes the older socket of the key, and queues ready on the new one.
func (g *gate) admit(key session.Key, chat string) *gateSession {
	for _, old := range g.evict(key) {
		<-old.gone // so that its close frame was written before ready is
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &gateSession{gate: g, key: key, chat: chat, gone: make(chan struct{})}
	s.conn = g.engine.NewConn(s)
	if chat == "" {
		s.chat = g.chats[key]
	}
	g.chats[key] = s.chat
	g.epoch++
	g.sessions = append(g.sessions, s)
	_ = s.conn.Queue(text(fmt.Sprintf(`{"type":"ready","payload":{"epoch":%d,"pod":"fake","stream":"s","seq":%d}}`, g.epoch, g.seq)))
	return s
}

// evict ends the older sockets of key and says which ends are to be awaited.
func (g *gate) evict(key session.Key) (await []*gateSession) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := 0; i < len(g.sessions) && g.wrong != wrongKeep; i++ {
		old := g.sessions[i]
		if old.key != key {
			continue
		}
		g.sessions = append(g.sessions[:i], g.sessions[i+1:]...)
		i--
		end := func() {
			_ = old.conn.Queue(text(`{"type":"error","payload":{"code":"SessionConflict","message":"replaced"}}`))
			old.conn.Close(4402, "session-replaced")
		}
		if g.wrong == wrongLate {
			time.AfterFunc(100*time.Millisecond, end)
			continue
		}
		end()
		await = append(await, old)
	}
	return await
}

func text(s string) *loop.Frame { return loop.NewFrame(ws.OpText, []byte(s), loop.Control) }

// publish delivers one event to whom it is for, but for what is to go wrong.
func (g *gate) publish(m *nats.Msg) {
	route, ok := session.ParseRoute(strings.TrimPrefix(m.Subject, "websocket."))
	if !ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seq++
	f := event(m.Data, g.seq)
	for _, s := range append([]*gateSession(nil), g.sessions...) {
		if s.key.Company != route.Company || s.key.Agent != route.Agent || route.Chat != "" && s.chat != route.Chat {
			continue
		}
		g.copies++
		if g.copies >= faultAt && g.meddle(s, route, m.Data, f) {
			continue
		}
		_ = s.conn.Queue(f)
		if g.heldFor == s {
			_ = s.conn.Queue(g.held)
			g.heldFor = nil
		}
	}
}

// meddle does what is wrong with one copy; true: the copy is done with.
func (g *gate) meddle(s *gateSession, r session.Route, body []byte, f *loop.Frame) bool {
	done := g.wrong
	switch g.wrong {
	case wrongLose:
	case wrongRepeat:
		_ = s.conn.Queue(f)
	case wrongSwap:
		g.held, g.heldFor = f, s
	case wrongTenant:
		g.stray(f, func(o *gateSession) bool { return o.key.Company != s.key.Company })
	case wrongChat:
		if r.Chat == "" {
			return false
		}
		g.stray(f, func(o *gateSession) bool {
			return o.key.Company == s.key.Company && o.key.Agent == s.key.Agent && o.chat != s.chat
		})
	case wrongDamage:
		_ = s.conn.Queue(event(bytes.Replace(body, []byte(`"pad":"`), []byte(`"pad":"!`), 1), g.seq))
	case wrongForge:
		mark, _ := ParseBody(body)
		mark.N += 1 << 20
		_ = s.conn.Queue(event(AppendBody(nil, &Page{Topics: make([]Topic, 9)}, mark, 260), g.seq))
		done = wrongForge
	case wrongStray:
		_ = s.conn.Queue(event([]byte(`{"event_id":"1","row_data":{}}`), g.seq))
	case wrongSeq:
		_ = s.conn.Queue(event(body, 1))
	case wrongGap:
		// In the lane of events: it stands where the copy would.
		_ = s.conn.Queue(loop.NewFrame(ws.OpText, fmt.Appendf(nil, `{"type":"gap","payload":{"from":%d,"to":%d,"reason":"test","replayable":true}}`, g.seq, g.seq), loop.Events))
	case wrongKill:
		s.conn.Close(1011, "internal-error")
	default:
		return false
	}
	g.wrong = wrongNothing
	return done != wrongRepeat && done != wrongTenant && done != wrongChat && done != wrongForge && done != wrongStray
}

func (g *gate) stray(f *loop.Frame, to func(*gateSession) bool) {
	for _, o := range g.sessions {
		if to(o) {
			_ = o.conn.Queue(f)
			return
		}
	}
}

func event(body []byte, seq uint64) *loop.Frame {
	return loop.NewEventParts(0, 0, []byte(eventHead), body, []byte(fmt.Sprintf(`,"seq":%d}`, seq)))
}

// Message implements loop.Handler.
func (s *gateSession) Message(c *loop.Conn, _ ws.OpCode, payload []byte) {
	var m struct {
		Type    string
		Payload struct {
			Chat string `json:"chat_id"`
		}
	}
	if err := json.Unmarshal(payload, &m); err != nil {
		s.gate.t.Errorf("client sent %q: %v", payload, err)
		return
	}
	if m.Type == "ready" {
		_ = c.Queue(text(`{"type":"ready"}`))
		return
	}
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	s.chat = m.Payload.Chat
	s.gate.chats[s.key] = s.chat
}

// Tick implements loop.Handler.
func (s *gateSession) Tick(*loop.Conn, uint32) uint32 { return 0 }

// Closed implements loop.Handler.
func (s *gateSession) Closed(*loop.Conn, loop.End) {
	close(s.gone)
	g := s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, o := range g.sessions {
		if o == s {
			g.sessions = append(g.sessions[:i], g.sessions[i+1:]...)
			return
		}
	}
}

// options are those for a run against g, short enough for a test.
func (g *gate) options() Options {
	o := Options{
		Addrs: g.doors, NATS: g.nats, APIKey: "key", TokenKey: gateKey, Seed: 1, LoginWorkers: 8,
		DrainTime: 2 * time.Second, Quiet: 50 * time.Millisecond, Settle: 10 * time.Millisecond,
	}
	if g.secure {
		o.TLS = &tls.Config{RootCAs: g.roots, MinVersion: tls.VersionTLS13}
	}
	return o
}
