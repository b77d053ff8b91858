package redisx

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/daisi/daisi-ws/redisx/redistest"
	"github.com/daisi/daisi-ws/session"
)

// env is one kind of Redis, with a connection beside the client's.
type env struct {
	url string
	raw redis.UniversalClient
}

// scriptCases run on every kind of Redis: what holds on one and not on another
// would be found in production only.
var scriptCases = []struct {
	name string
	f    func(*testing.T, *env)
}{
	{"acquire/first", testAcquireFirst},
	{"acquire/again", testAcquireAgain},
	{"acquire/takeover", testAcquireTakeover},
	{"acquire/takeovers", testAcquireTakeovers},
	{"acquire/same pod", testAcquireSamePod},
	{"acquire/reject", testAcquireReject},
	{"acquire/epoch grows", testAcquireEpoch},
	{"acquire/version", testAcquireVersion},
	{"open/settles", testOpenSettles},
	{"open/lost", testOpenLost},
	{"open/chat", testOpenChat},
	{"open/keeps chat", testOpenKeepsChat},
	{"open/admin", testOpenAdmin},
	{"release", testRelease},
	{"release/again", testReleaseAgain},
	{"reassert/mine", testReassertMine},
	{"reassert/lost", testReassertLost},
	{"reassert/gone", testReassertGone},
	{"reassert/taken", testReassertTaken},
	{"reassert/many", testReassertMany},
	{"stale", testStale},
	{"fence/age", testFenceAge},
	{"routes/join and leave", testJoinLeave},
	{"routes/chat", testJoinChat},
	{"routes/late commands", testLateEdges},
	{"routes/all", testJoinAll},
	{"lookup/owners", testLookupOwners},
	{"lookup/fences", testLookupFences},
	{"lookup/many", testLookupMany},
	{"lookup/strange ids", testLookupStrange},
	{"beat", testBeat},
	{"kill", testKill},
	{"tokens", testTokens},
	{"revocations/life", testRevocations},
	{"revocations/lost", testRevocationsLost},
	{"revocations/lifts lost", testLiftLost},
	{"revocations/deeds lost", testDeedsLost},
	{"revocations/unknown", testRevocationsUnknown},
}

func TestScripts(t *testing.T) {
	t.Run("redis-server", func(t *testing.T) { runCases(t, redistest.Start(t).URL) })
	t.Run("cluster", func(t *testing.T) { runCases(t, redistest.StartCluster(t, 3).URL) })
	t.Run("miniredis", func(t *testing.T) { runCases(t, "redis://"+miniredis.RunT(t).Addr()) })
}

func runCases(t *testing.T, url string) {
	raw, err := connect(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	for _, c := range scriptCases {
		t.Run(c.name, func(t *testing.T) {
			e := &env{url: url, raw: raw}
			e.flush(t)
			c.f(t, e)
		})
	}
}

func (e *env) flush(t *testing.T) {
	t.Helper()
	each := &Client{rdb: e.raw}
	err := each.eachMaster(context.Background(), func(ctx context.Context, node *redis.Client) error {
		return node.FlushAll(ctx).Err()
	})
	if err != nil {
		t.Fatalf("flush: %v", err)
	}
}

func (e *env) pod(t *testing.T, owner session.Owner) *Client {
	t.Helper()
	return start(t, Options{URL: e.url, Owner: owner, Addr: "127.0.0.1:50051"})
}

// do runs one command beside the client; nil for no such key.
func (e *env) do(t *testing.T, args ...any) any {
	t.Helper()
	v, err := e.raw.Do(within(t, 5*time.Second), args...).Result()
	if err != nil && err != redis.Nil {
		t.Fatalf("%v: %v", args, err)
	}
	return v
}

func (e *env) get(t *testing.T, key string) string {
	t.Helper()
	v := e.do(t, "GET", key)
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// between checks a TTL, in seconds.
func (e *env) wantTTL(t *testing.T, key string, want int64) {
	t.Helper()
	got, _ := e.do(t, "TTL", key).(int64)
	if got > want || got < want-5 {
		t.Errorf("TTL of %s: %d s, want %d", key, got, want)
	}
}

// wantOwners looks a route up.
func wantOwners(t *testing.T, c *Client, n int, w session.Want, want ...session.Owner) {
	t.Helper()
	got, err := c.Lookup(within(t, 5*time.Second), n, []session.Want{w}, false)
	if err != nil {
		t.Fatalf("Lookup: %v", err)
	}
	if fmt.Sprint(got.Owners) != fmt.Sprint([][]session.Owner{want}) {
		t.Errorf("owners of %+v: %v, want %v", w, got.Owners, want)
	}
}

// holder is one pod's view in a test of locks, partition 3 throughout.
type holder struct {
	*testing.T
	c   *Client
	inc string
}

const part = 3

func hold(t *testing.T, c *Client) *holder { return &holder{t, c, incOf(t, c, part)} }

func (h *holder) acquire(conn uint64) session.Acquired {
	h.Helper()
	return h.acquireWith(conn, false, 0)
}

func (h *holder) acquireWith(conn uint64, reject bool, expect uint64) session.Acquired {
	h.Helper()
	a, err := h.c.Acquire(within(h, 5*time.Second), part, h.inc, alice, conn, reject, expect)
	if err != nil {
		h.Fatalf("Acquire: %v", err)
	}
	return a
}

func (h *holder) open(held session.Held, fence bool) session.Opened {
	h.Helper()
	o, err := h.c.Open(within(h, 5*time.Second), part, h.inc, held, fence)
	if err != nil {
		h.Fatalf("Open: %v", err)
	}
	return o
}

// login is acquire and open without a fence.
func (h *holder) login(conn uint64) (epoch uint64) {
	h.Helper()
	epoch = h.acquire(conn).Epoch
	if o := h.open(session.Held{Key: alice, Conn: conn, Epoch: epoch}, false); o != (session.Opened{}) {
		h.Fatalf("Open: %+v", o)
	}
	return epoch
}

// release returns when it is done: calls of a partition are done in order.
func (h *holder) release(conn uint64) {
	h.Helper()
	h.c.Release(part, alice, conn)
	incOf(h, h.c, part)
}

func (h *holder) reassert(seen uint64, held ...session.Held) []session.Reasserted {
	h.Helper()
	got, stale, err := h.c.Reassert(within(h, 5*time.Second), part, h.inc, seen, held)
	if err != nil || stale || len(got) != len(held) {
		h.Fatalf("Reassert: %d answers of %d, stale %v, %v", len(got), len(held), stale, err)
	}
	return got
}

func (h *holder) fences() map[string]uint64 {
	h.Helper()
	l, err := h.c.Lookup(within(h, 5*time.Second), part, []session.Want{{Company: alice.Company, Agent: alice.Agent}}, false)
	if err != nil {
		h.Fatalf("Lookup: %v", err)
	}
	m := make(map[string]uint64)
	for _, f := range l.Fences {
		m[f.User] = f.Epoch
	}
	return m
}
