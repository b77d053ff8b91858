package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/bench"
	"github.com/daisi/daisi-ws/server"
	"github.com/daisi/daisi-ws/server/clustertest"
	"github.com/daisi/daisi-ws/session"
)

// owners are those of the pods, in their order, as all see them now.
func owners(t *testing.T, c *clustertest.Cluster) []session.Owner {
	t.Helper()
	list := make([]session.Owner, len(c.Pods))
	for i, p := range c.Pods {
		var answer struct {
			Pods []struct {
				Owner session.Owner
				Self  bool
			}
		}
		a := mustAdmin(t, c, p, "GET", "/admin/pods", "")
		if err := json.Unmarshal([]byte(a.Body), &answer); err != nil {
			t.Fatal(err)
		}
		for _, o := range answer.Pods {
			if o.Self {
				list[i] = o.Owner
			}
		}
	}
	return list
}

// agentReadBy is the name of an agent whose events this pod reads.
func agentReadBy(t *testing.T, c *clustertest.Cluster, pod int, prefix string) string {
	t.Helper()
	return agentsReadBy(t, c, 1, prefix, pod)[0]
}

// agentsReadBy are the names of n agents whose events one of these pods reads.
func agentsReadBy(t *testing.T, c *clustertest.Cluster, n int, prefix string, pods ...int) (list []string) {
	t.Helper()
	all := owners(t, c)
	for i := range 1000 * n {
		if agent := fmt.Sprint(prefix, i); slices.Contains(pods, server.ReaderOf("acme", agent, 64, all)) {
			if list = append(list, agent); len(list) == n {
				return list
			}
		}
	}
	t.Fatalf("pods %v read only %d of these agents", pods, len(list))
	return nil
}

// Redis, NATS, streams, consumers and pods fail, one after the other: clients
// stay, or are told to go; events wait and come, once and in order; afterwards
// the fan-out proof holds in the same cluster. The table is in README.
func TestProveFaultsThenNothingIsLost(t *testing.T) {
	waits(t)
	c := clustertest.Start(t, clustertest.Options{Pods: 3, Processes: true})
	w := newWatcher(c, agentReadBy(t, c, 2, "ag"))
	long, short := proofOutage, proofOutage/3
	refused := "503"
	if shortForm {
		refused = "" // over before a login gives up
	}
	const told = 5 * time.Second // of silence, and /readyz speaks of NATS
	beyond := func(d time.Duration) time.Duration { return d + 3*time.Second }
	w.during(outage{what: "Redis stands still", d: long, begin: c.Redis.Stop, mend: c.Redis.Cont, degraded: true, login: refused, late: beyond(long)})
	w.during(outage{what: "Redis is killed, and back empty", d: short, begin: c.Redis.Kill, mend: func() { c.Redis.Restart(false) }, degraded: true, late: beyond(short)})
	w.during(outage{what: "Redis loses all keys", begin: c.Redis.Flush, mend: func() {}, late: beyond(0)})
	w.during(outage{what: "NATS stands still", d: long, begin: c.NATS.Stop, mend: c.NATS.Cont, degraded: long > told, login: "in", late: beyond(long)})
	w.during(outage{what: "NATS is killed, its store kept", d: short, begin: c.NATS.Kill, mend: func() { c.NATS.Restart(true) }, degraded: true, login: "in", late: beyond(short)})
	w.during(outage{what: "all consumers are deleted", begin: func() { c.NATS.DeleteConsumers(t, "dws_events") }, mend: func() {}, late: beyond(0)})
	w.during(outage{what: "the publisher's stream is deleted, and made again by a pod", d: short, begin: func() {
		w.quietly(func() { c.NATS.DeleteStream(t, "wa_stream") })
	}, mend: func() {}, login: "in", late: 5 * time.Second})
	w.during(outage{what: "our stream is deleted (all are told a gap)", begin: func() { // what is stored before is in the gap
		w.quietly(func() { c.NATS.DeleteStream(t, "dws_events"); w.toldOfReset() })
	}, mend: func() {}, late: 5 * time.Second})
	for _, o := range []outage{
		{what: "the pod that reads is killed with -9", begin: c.Pods[2].Kill, login: "in", late: 3 * time.Second},
		{what: "the pod that reads ends by SIGTERM", begin: c.Pods[2].Term, login: "in", late: 3 * time.Second},
	} {
		o.d, o.mend, o.down, o.ends = short, c.Pods[2].Start, []int{2}, []int{2}
		w.during(o)
		w.rejoin(2)
	}
	w.end()
	c.AwaitWhole()
	r, err := bench.Fanout(context.Background(), fanoutOptions(c))
	passed(t, r, err)
}

// toldOfReset wants every client to have been told that the stream is another.
func (w *watcher) toldOfReset() {
	for i, k := range w.clients {
		if k == nil {
			continue
		}
		if _, ok := k.Await(arrival, func(f clustertest.Frame) bool { return f.Field("reason") == "stream_reset" }); !ok {
			w.t.Errorf("the client of pod-%d was not told", i)
		}
	}
}

// A pod stands still for a while, once as the one that reads what others hold
// sessions of, once as the one that holds them: nothing is lost, nobody waits for
// it, and whoever moved away from it meanwhile is the only one.
func TestProveStoppedPods(t *testing.T) {
	waits(t)
	c := clustertest.Start(t, clustertest.Options{Pods: 3, Processes: true})
	stopped := c.Pods[2]
	reads := newWatcher(c, agentReadBy(t, c, 2, "read"), 0, 1)
	for _, d := range proofStops {
		reads.during(outage{
			what: "the pod that reads stands still", d: d, begin: stopped.Stop, mend: stopped.Cont, down: []int{2},
			login: "in", late: min(d, 3*time.Second) + time.Second, then: time.Second,
		})
	}
	// Where little is published a reader may be silent for long: whoever waits
	// for it notices by the first event that is late, not anew by each.
	reads.every.Store(int64(700 * time.Millisecond))
	reads.during(outage{
		what: "the pod that reads one or two events a second stands still", d: proofIdleStop, begin: stopped.Stop, mend: stopped.Cont, down: []int{2},
		login: "in", late: 4 * time.Second, then: time.Second,
	})
	reads.end()
	holds := newWatcher(c, agentReadBy(t, c, 1, "held"), 2)
	for i, d := range proofStops {
		o := outage{
			what: "the pod that holds the sessions stands still", d: d, begin: stopped.Stop, mend: stopped.Cont, down: []int{2},
			late: d + 3*time.Second,
		}
		var m *move
		if d >= time.Second {
			m = &move{w: holds, old: holds.dial(2, fmt.Sprint("mover", i, "-"))}
			o.beside = func() { time.Sleep(d / 2); m.away(fmt.Sprint("mover", i, "-", 2)) }
		}
		holds.during(o)
		if m != nil {
			m.judge()
		}
	}
	holds.end()
	for _, p := range c.Pods {
		p.Check()
	}
}

// move is a user who leaves a pod that does not answer.
type move struct {
	w     *watcher
	old   *watched
	young *clustertest.Client
	took  time.Duration
	ready int // events that were stored when the newcomer's ready had come
}

func (m *move) away(name string) {
	began := time.Now()
	k, err := m.w.c.TryDial(m.w.c.Pods[0], user("acme", m.w.agent, name))
	if err != nil {
		m.w.t.Errorf("login beside a pod that stands still: %v", err)
		return
	}
	m.young, m.took, m.ready = k, time.Since(began), len(m.w.stored())
}

// judge wants the old socket closed, without an event that was stored after the
// newcomer's ready, and the newcomer to have got all of those.
func (m *move) judge() {
	t := m.w.t
	if m.young == nil {
		return
	}
	if m.took > 400*time.Millisecond && !shortForm {
		t.Errorf("a takeover from a pod that stands still took %v", m.took)
	}
	end, ok := m.old.AwaitClose(arrival)
	if !ok || end.Code != 4402 {
		t.Errorf("the socket on the pod that stood still ended %+v, %v", end, ok)
	}
	m.w.quietly(func() {})
	late := map[string]bool{}
	after := m.w.stored()[m.ready:]
	for _, s := range after {
		late[s.id] = true
	}
	for _, e := range m.old.Events() {
		if late[e.Field("event_id")] {
			t.Errorf("the old socket was given %s, stored after the newer one's ready", e.Field("event_id"))
		}
	}
	got := map[string]bool{}
	m.young.Await(arrival, func(f clustertest.Frame) bool {
		got[f.Field("event_id")] = true
		return len(after) == 0 || got[after[len(after)-1].id]
	})
	for _, s := range after {
		if !got[s.id] {
			t.Errorf("the newer socket has not got %s", s.id)
		}
	}
	t.Logf("taken over from it in %v", m.took.Round(time.Millisecond))
	m.young.Close()
}

// Pods can't reach each other, though all of them see Redis and NATS: each reads
// for itself.
func TestProveCutPods(t *testing.T) {
	waits(t)
	c := clustertest.Start(t, clustertest.Options{Pods: 3, Processes: true, Links: true})
	w := newWatcher(c, agentReadBy(t, c, 2, "ag"))
	w.during(outage{
		what: "one pod can't be reached by the others", d: proofOutage, begin: c.Pods[0].Peers.Cut, mend: c.Pods[0].Peers.Mend,
		login: "in", late: 3 * time.Second,
	})
	w.during(outage{what: "no pod reaches another", d: proofOutage, begin: func() {
		for _, p := range c.Pods {
			p.Peers.Cut()
		}
	}, mend: func() {
		for _, p := range c.Pods {
			p.Peers.Mend()
		}
	}, login: "in", late: 3 * time.Second})
	w.end()
	c.AwaitWhole()
}
