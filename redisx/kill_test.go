package redisx

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"pgregory.net/rapid"

	"github.com/daisi/daisi-ws/session"
)

// victim is a pod that answers kills when told to.
type victim struct {
	c *Client

	mu     sync.Mutex
	mute   bool
	asked  []session.Key
	epochs []uint64
	subs   int
	unsaid []func()
}

func newVictim(t *testing.T, url string, owner session.Owner) *victim {
	t.Helper()
	v := &victim{c: create(t, Options{URL: url, Owner: owner, Metrics: metrics.NewSet()})}
	v.c.OnKill(func(key session.Key, epoch uint64, answer func()) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.asked, v.epochs = append(v.asked, key), append(v.epochs, epoch)
		if v.mute {
			v.unsaid = append(v.unsaid, answer)
			return
		}
		answer()
	})
	v.c.OnResubscribe(func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.subs++
	})
	run(t, v.c)
	eventually(t, "a subscription", func() bool { return v.subscriptions() > 0 })
	return v
}

func (v *victim) subscriptions() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.subs
}

func (v *victim) setMute(mute bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mute = mute
	if !mute {
		for _, answer := range v.unsaid {
			answer()
		}
		v.unsaid = nil
	}
}

func (v *victim) knows(o session.Owner) func() bool {
	return func() bool {
		list := v.c.live.Load()
		if list == nil {
			return false
		}
		_, ok := list.owners[o]
		return ok
	}
}

// kill asks, and says how long it took.
func (v *victim) kill(owner session.Owner) (bool, time.Duration) {
	start := time.Now()
	ok := v.c.Kill(context.Background(), owner, session.Key{Company: "a c", Agent: "b:", User: "ü"}, 1795411297285854, 7)
	return ok, time.Since(start)
}

func testKill(t *testing.T, e *env) {
	a, b := newVictim(t, e.url, "a@1"), newVictim(t, e.url, "b@ 1")
	eventually(t, "b on a's list", a.knows("b@ 1"))
	eventually(t, "a on b's list", b.knows("a@1"))

	if ok, took := a.kill("b@ 1"); !ok || took >= killWait {
		t.Errorf("an owner that answers: %v after %v", ok, took)
	}
	if len(b.asked) != 1 || b.asked[0] != (session.Key{Company: "a c", Agent: "b:", User: "ü"}) || b.epochs[0] != 1795411297285854 {
		t.Errorf("b was asked %v %v", b.asked, b.epochs)
	}
	if ok, took := a.kill("nobody@1"); ok || took > killWait/4 {
		t.Errorf("an owner that is not on the live list: %v after %v, want no wait", ok, took)
	}

	b.setMute(true)
	if ok, took := a.kill("b@ 1"); ok || took < killWait || took > 3*killWait {
		t.Errorf("an owner that is silent for the first time: %v after %v, want %v", ok, took, killWait)
	}
	if ok, took := a.kill("b@ 1"); ok || took > killWait/4 {
		t.Errorf("an owner known to be silent: %v after %v, want no wait", ok, took)
	}
	eventually(t, "the unawaited kill at b", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.asked) == 3 })
	b.setMute(false) // late answers are signs of life
	eventually(t, "b heard again", func() bool { ok, _ := a.kill("b@ 1"); return ok })

	// A kill of its own is a sign of life, too.
	b.setMute(true)
	a.kill("b@ 1")
	b.kill("a@1")
	if _, took := a.kill("b@ 1"); took < killWait {
		t.Errorf("an owner heard of since it was silent: waited %v, want %v", took, killWait)
	}
	b.setMute(false)

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	began := time.Now()
	a.c.Kill(ctx, "b@ 1", alice, 1, 1) // answered or not: who gives up is not kept
	if took := time.Since(began); took > killWait/2 {
		t.Errorf("a cancelled kill took %v", took)
	}
}

func TestMessage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := message{answer: rapid.Bool().Draw(t, "answer"), id: rapid.Uint64().Draw(t, "id"), from: session.Owner("x" + rapid.String().Draw(t, "from"))}
		if !m.answer {
			m.key = session.Key{Company: rapid.String().Draw(t, "company"), Agent: rapid.String().Draw(t, "agent"), User: rapid.String().Draw(t, "user")}
			m.epoch, m.conn = rapid.Uint64().Draw(t, "epoch"), rapid.Uint64().Draw(t, "conn")
		}
		got, err := parseMessage(m.String())
		if err != nil || got != m {
			t.Fatalf("%q: got %+v, %v, want %+v", m.String(), got, err, m)
		}
	})
}

func FuzzMessage(f *testing.F) {
	for _, s := range []string{"", "1 K 1 a@1 2 3 c a u", "1 A 1 a@1", "2 A 1 a@1", "1 K x a@1 2 3 c a u", "1 A 1 ", "1 K 1 a 2 3 %zz % %4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseMessage(s)
		if err != nil {
			return
		}
		if again, err := parseMessage(m.String()); err != nil || again != m {
			t.Fatalf("%q: read %+v, written and read again %+v, %v", s, m, again, err)
		}
	})
}
