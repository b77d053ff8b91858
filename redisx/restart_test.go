package redisx

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/daisi/daisi-ws/redisx/redistest"
	"github.com/daisi/daisi-ws/session"
)

// A server that was killed comes back, with or without its keys, with another
// replication id: either way nobody works on under the old incarnation.
func TestRestart(t *testing.T) {
	s := redistest.Start(t)
	c := start(t, Options{URL: s.URL, Owner: "a@1", Metrics: metrics.NewSet()})
	v := newVictim(t, s.URL, "v@1")
	subscribed := v.subscriptions()
	for _, keep := range []bool{true, false} {
		h := hold(t, c)
		epoch := h.login(1)
		s.Restart(keep)
		a := h.acquire(2)
		if a.Verdict != session.Stale {
			t.Fatalf("kept keys %v, first call after a restart: %+v, want Stale", keep, a)
		}
		if h.inc = incOf(t, c, part); h.inc != c.inc(part) {
			t.Errorf("incarnation %q, known %q", h.inc, c.inc(part))
		}
		got := h.reassert(epoch, session.Held{Key: alice, Conn: 1, Epoch: epoch})
		if got[0].Verdict != session.OK || got[0].Prev != nil {
			t.Errorf("kept keys %v: reassert %+v", keep, got[0])
		}
		if a := h.acquire(2); a.Verdict != session.OK || a.Epoch <= epoch {
			t.Errorf("kept keys %v: then %+v", keep, a)
		}
		eventually(t, "another subscription", func() bool { return v.subscriptions() > subscribed })
		subscribed = v.subscriptions()
	}
}

func (c *Client) inc(n int) string {
	if p := c.part[n].known.Load(); p != nil {
		return *p
	}
	return ""
}

// Two pods see a change of master; one new incarnation comes of it.
func TestFailover(t *testing.T) {
	s := redistest.StartSentinel(t)
	a := hold(t, start(t, Options{URL: s.URL, Owner: "a@1", Metrics: metrics.NewSet()}))
	b := hold(t, start(t, Options{URL: s.URL, Owner: "b@1", Metrics: metrics.NewSet()}))
	epoch := a.login(1)
	before := incsOf(a)
	incsOf(b)

	check := func(what string) {
		t.Helper()
		for _, h := range []*holder{a, b} {
			for n := range before {
				eventually(t, what+": another incarnation", func() bool {
					inc, _, err := h.c.Inc(within(t, time.Second), n)
					return err == nil && inc != before[n]
				})
			}
		}
		time.Sleep(2 * watchEach) // both have looked again by now
		after := incsOf(a)
		if again := incsOf(b); !reflect.DeepEqual(again, after) {
			t.Errorf("%s: incarnations differ: the second pod replaced what the first had made", what)
		}
		a.inc, b.inc, before = after[part], after[part], after
		if got := a.reassert(epoch, session.Held{Key: alice, Conn: 1, Epoch: epoch}); got[0] != (session.Reasserted{}) {
			t.Errorf("%s: reassert %+v", what, got[0])
		}
	}

	// Planned: for a moment both are masters, and the old one answers.
	s.Failover()
	check("a planned failover")

	// The old master is a replica by now. This time nothing answers but the
	// new master, and its first answer must be "stale".
	eventually(t, "a replica", func() bool { return s.Master().Info("connected_slaves") == "1" })
	s.KillMaster()
	eventually(t, "an answer of the new master", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		got, err := a.c.Acquire(ctx, part, a.inc, alice, 1, false, 0)
		if err == nil && got.Verdict != session.Stale {
			t.Errorf("the new master's first answer: %+v, want Stale", got)
		}
		return err == nil
	})
	check("a master that died")
}

func incsOf(h *holder) (all []string) {
	h.Helper()
	for n := range h.c.part {
		all = append(all, incOf(h, h.c, n))
	}
	return all
}
