package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// Secrets of the tests. One of them searches all logs for them.
const (
	testAPIKey   = "api-key-8d2f"
	testMintKey  = "mint-key-41ac"
	testAdminKey = "admin-key-77e0"
	testRing     = "k1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	testStream   = "stream-1"
)

// house is an edge on real sockets, with a real engine and session manager,
// above fakes of Redis and NATS.
type house struct {
	*edge
	t       *testing.T
	redis   *fakeRedis
	core    *edgeCore
	log     *logBuffer
	status  atomic.Pointer[Status]
	starts  atomic.Bool // while true there is no core
	cutOff  atomic.Bool // no beat of Redis for long
	drained atomic.Int32
	faults  []string
	events  chan [2]string // subject, body
	last    atomic.Uint64
	lastErr atomic.Pointer[error]
	stream  *fakeStream
	stop    func() // ends the edge; cleanup does it too
	revoked *fakeRevocations
}

// fakeRevocations is a set of one pod.
type fakeRevocations struct {
	apply func(*session.Revocations) int
	err   error

	mu      sync.Mutex
	version uint64               // mu
	list    []session.Revocation // mu
}

// set puts list in force, and says how many it ended.
func (f *fakeRevocations) set(list ...session.Revocation) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	f.list = list
	return f.apply(session.NewRevocations(f.version, "mark", list))
}

func (f *fakeRevocations) Revoke(_ context.Context, r session.Revocation) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return f.set(append(slices.Clone(f.list), r)...), nil
}

func (f *fakeRevocations) Lift(_ context.Context, r session.Revoked) (bool, error) {
	left := slices.DeleteFunc(slices.Clone(f.list), func(e session.Revocation) bool { return e.Revoked == r })
	lifted := len(left) < len(f.list)
	f.set(left...)
	return lifted, f.err
}

// fakeRedis answers everything at once with yes.
type fakeRedis struct {
	epoch    atomic.Uint64
	released atomic.Int32
	full     atomic.Bool // Join says ErrBusy
	lost     atomic.Bool // Reassert says that a lock is another's
	acquire  func(ctx context.Context) (session.Acquired, error)

	mu   sync.Mutex
	hold bool     // mu; joins wait for letGo
	held []func() // mu
}

func (f *fakeRedis) Acquire(ctx context.Context, _ int, _ string, _ session.Key, _ uint64, _ bool, _ uint64) (session.Acquired, error) {
	if f.acquire != nil {
		return f.acquire(ctx)
	}
	return session.Acquired{Epoch: f.epoch.Add(1)}, nil
}

func (f *fakeRedis) Open(context.Context, int, string, session.Held, bool) (session.Opened, error) {
	return session.Opened{}, nil
}
func (f *fakeRedis) Release(int, session.Key, uint64)                 { f.released.Add(1) }
func (f *fakeRedis) Inc(context.Context, int) (string, uint64, error) { return "inc", 0, nil }
func (f *fakeRedis) Leave(int, session.Want)                          {}
func (f *fakeRedis) Room(int) bool                                    { return !f.full.Load() }
func (f *fakeRedis) Kill(context.Context, session.Owner, session.Key, uint64, uint64) bool {
	return true
}

func (f *fakeRedis) Reassert(_ context.Context, _ int, _ string, _ uint64, held []session.Held) ([]session.Reasserted, bool, error) {
	answers := make([]session.Reasserted, len(held))
	for i := range answers {
		if f.lost.Load() {
			answers[i].Verdict = session.Lost
		}
	}
	return answers, false, nil
}

func (f *fakeRedis) JoinAll(context.Context, int, string, []session.Want) (bool, error) {
	return false, nil
}

func (f *fakeRedis) Join(_ int, _ string, _ *session.Want, _ session.Held, done func(session.Verdict, error)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hold {
		f.held = append(f.held, func() { done(session.OK, nil) })
		return nil
	}
	go done(session.OK, nil)
	return nil
}

// letGo answers the joins that were held; those after them wait again.
func (f *fakeRedis) letGo() int {
	f.mu.Lock()
	held := f.held
	f.held = nil
	f.mu.Unlock()
	for _, done := range held {
		done()
	}
	return len(held)
}

func (f *fakeRedis) holdJoins() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = true
}

// asserted is a session.Partitions that always agrees.
type asserted struct{}

func (asserted) Assert(context.Context, int) error { return nil }
func (asserted) Inc(int) string                    { return "inc" }

// logBuffer is a log to search in.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // mu
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// testOptions are complete but for what a test adds.
func testOptions() Options {
	var o Options
	o.PodID = "pod-1"
	o.HTTP.Addr, o.Internal.Addr = "127.0.0.1:0", "127.0.0.1:0"
	o.Redis.URL, o.NATS.URL = "redis://127.0.0.1:1", "nats://127.0.0.1:1"
	o.Auth.APIKey, o.Auth.MintKey, o.Auth.AdminKey = testAPIKey, testMintKey, testAdminKey
	o.Auth.TokenKeys, o.Auth.AdminTokenKeys = testRing, testRing
	return o
}

// newHouse starts one. change may be nil.
func newHouse(t *testing.T, change func(*Options)) *house {
	t.Helper()
	h := &house{t: t, redis: &fakeRedis{}, log: &logBuffer{}, events: make(chan [2]string, 16)}
	o := testOptions()
	o.Log = zerolog.New(h.log).Level(zerolog.TraceLevel)
	if change != nil {
		change(&o)
	}
	o, err := o.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	engine, err := newEngine(o)
	if err != nil {
		t.Fatal(err)
	}
	manager, err := session.NewManager(session.Options[*loop.Conn]{
		Owner: "pod-1@boot", Partitions: 4, Locks: h.redis, Renewer: h.redis, Routes: h.redis, Killer: h.redis,
		Parts: asserted{}, Farewell: farewell, Metrics: o.Metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	users, admins, err := newVerifiers(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.status.Store(&Status{State: StateReady, Dependencies: map[string]string{"redis": "ok", "nats": "ok"}})
	h.core = &edgeCore{manager: manager, index: manager.Index(), partitions: 4, stream: func(int) string { return testStream }, last: h.lastSeq, late: h.late}
	h.stream = &fakeStream{id: testStream, first: 1}
	h.core.replays = newReplays(o, replayEnv{
		index: h.core.index, manager: manager, stream: h.stream, id: h.stream.now, partitions: 4,
		shown: func(n int) string { return h.core.stream(n) }, revoked: func(context.Context) bool { return true },
	})
	h.revoked = &fakeRevocations{apply: manager.SetRevocations}
	h.core.revoker = h.revoked
	h.revoked.set()
	h.edge, err = newEdge(o, edgeEnv{
		owner: "pod-1@boot", engine: engine, users: users, admins: admins,
		status: func() Status { return *h.status.Load() }, core: h.getCore,
		publish: func(_ context.Context, subject string, body []byte) error {
			h.events <- [2]string{subject, string(body)}
			return nil
		},
		drain: func() { h.drained.Add(1) }, ending: func(own time.Duration) time.Duration { return own },
		check: func(context.Context) []string { return h.faults },
		pods: func() []session.Pod {
			return []session.Pod{{Owner: "pod-1@boot", Addr: "10.0.0.1:1"}, {Owner: "pod-2@boot", Addr: "10.0.0.2:1"}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.listen(); err != nil {
		t.Fatal(err)
	}
	h.run(engine.Run, manager.Run, h.core.replays.Run)
	return h
}

func (h *house) getCore() *edgeCore {
	if h.starts.Load() {
		return nil
	}
	return h.core
}

func (h *house) late() string {
	if h.cutOff.Load() {
		return "no beat for 5s"
	}
	return ""
}

func (h *house) lastSeq(context.Context) (uint64, error) {
	if err := h.lastErr.Load(); err != nil {
		return 0, *err
	}
	return h.last.Load(), nil
}

// run starts all parts; the edge ends first, as in a Gateway.
func (h *house) run(below ...func(context.Context) error) {
	edge := start(h.t, h.runPublic, h.runInternal)
	rest := start(h.t, below...)
	h.stop = sync.OnceFunc(func() { edge(); rest() })
	h.t.Cleanup(h.stop)
}

// start runs all of f, and returns what ends them and waits for that.
func start(t *testing.T, f ...func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range f {
		wg.Go(func() {
			if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("a part ended with %v", err)
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// token mints one for a user of acme.
func (h *house) token(agent, user string) string {
	return h.mintFor(session.Claims{Company: "acme", Agent: agent, User: user, ExpiresAt: time.Now().Add(time.Hour)})
}

func (h *house) mintFor(c session.Claims) string {
	h.t.Helper()
	v := h.env.users
	if c.Admin {
		v = h.env.admins
	}
	token, err := v.Ring().Mint(c)
	if err != nil {
		h.t.Fatal(err)
	}
	return token
}

func (h *house) url(internal bool, path string) string {
	if internal {
		return "http://" + h.internal.Addr().String() + path
	}
	return "http://" + h.public.Addr().String() + path
}

// call is one request and what came back.
type call struct {
	method, path, body string
	internal           bool
	header             map[string]string
}

func (h *house) do(c call) (status int, header http.Header, body string) {
	h.t.Helper()
	if c.method == "" {
		c.method = http.MethodGet
	}
	r, err := http.NewRequest(c.method, h.url(c.internal, c.path), bytes.NewReader([]byte(c.body)))
	if err != nil {
		h.t.Fatal(err)
	}
	if c.body == "" {
		r.Body = http.NoBody
		r.ContentLength = 0
	}
	for k, v := range c.header {
		r.Header.Set(k, v)
		if k == "Host" {
			r.Host = v
		}
	}
	transport := &http.Transport{DisableKeepAlives: true}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		h.t.Fatalf("%s %s: %v", c.method, c.path, err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode == http.StatusSwitchingProtocols {
		return answer.StatusCode, answer.Header, ""
	}
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(b)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 500 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}
