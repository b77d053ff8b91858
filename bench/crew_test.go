package bench

import (
	"context"
	"encoding/json"
	"maps"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/daisi/daisi-ws/natsx/natstest"
)

// crewed starts n worker processes for g and asks for them.
func crewed(t *testing.T, g *gate, n int) (Options, *Spawned) {
	t.Helper()
	s, err := Spawn(n, []string{os.Args[0], "worker", g.nats}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	o := g.options()
	o.Crew = CrewOptions{Workers: n, Wait: 20 * time.Second}
	return o, s
}

// Three processes bear one run; what they found is one report.
func TestCrewFanout(t *testing.T) {
	t.Parallel()
	g := newGate(t, 2, wrongNothing)
	o := small(g)
	o.Options, _ = crewed(t, g, 3)
	r, err := Fanout(t.Context(), o)
	if err != nil || !passes(r) {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	v := r.Oracle
	if v.Sessions != 60 || v.Published < 240 || v.Published > 252 || v.Met != v.Expected || v.Received != v.Expected || v.Expected < 1000 {
		t.Fatalf("want all met:\n%s", tableOf(r))
	}
	if l := r.Latencies["delivery"]; l.Count == 0 || l.Count > v.Received || l.P50 <= 0 || r.Latencies["login"].Count != 60 {
		t.Errorf("latencies %+v", r.Latencies)
	}
	if len(r.Workers) != 3 || r.Generator.Feed == nil || r.Generator.Feed.Sent != v.Published {
		t.Errorf("workers %+v, feed %+v", r.Workers, r.Generator.Feed)
	}
	for i, w := range r.Workers {
		// All on one machine, by one clock.
		if w.Lost != "" || w.PID == 0 || w.Offset.Abs() > w.Way || w.Way > time.Second {
			t.Errorf("worker %d: %+v", i, w)
		}
	}
	n, _ := r.Figure("deliveries")
	// A sample holds what each worker had said by then: one may be late.
	if s := r.Samples[len(r.Samples)-1]; n == 0 || s.Sessions == 0 || s.Sessions > 60 {
		t.Errorf("%v deliveries, last sample %+v", n, s)
	}
}

// What one worker saw breaks the whole run.
func TestCrewFindsFaults(t *testing.T) {
	t.Parallel()
	f := func(fault wrong, want string) {
		t.Helper()
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			g := newGate(t, 2, fault)
			o := small(g)
			o.Options, _ = crewed(t, g, 2)
			r, err := Fanout(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if b := broken(r); len(b) != 1 || b[want] != 1 || r.Exit != ExitBroken || len(r.Oracle.Findings) != 1 {
				t.Fatalf("want %s, exit 3; got %v\n%s", want, b, tableOf(r))
			}
		})
	}
	f(wrongLose, "lost")
	f(wrongTenant, "wrong_tenant")
}

// The run goes on without a worker that was killed, and says so.
func TestCrewLosesAWorker(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongNothing)
	o := small(g)
	var s *Spawned
	o.Options, s = crewed(t, g, 2)
	o.Crew.Lost, o.Duration = 4*time.Second, 6*time.Second
	killed := false
	o.Progress = func(now Sample) {
		if now.Received > 0 && !killed {
			killed = true
			if err := syscall.Kill(s.PIDs()[0], syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}
	}
	r, err := Fanout(t.Context(), o)
	if err != nil || r.Exit != ExitError || len(r.Errors) != 1 || !strings.Contains(r.Errors[0], `was lost in "`) {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	v, pid := r.Oracle, s.PIDs()[0]
	if v.Sessions != 30 || v.Met != v.Expected || v.Met == 0 || len(broken(r)) > 0 {
		t.Fatalf("want the other worker's part whole:\n%s", tableOf(r))
	}
	for _, w := range r.Workers {
		if (w.PID == pid) != (w.Lost != "") {
			t.Errorf("worker %+v, killed was %d", w, pid)
		}
	}
}

// Too few workers are an error before anything has begun.
func TestCrewTooSmall(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongNothing)
	o := small(g)
	o.Crew = CrewOptions{Workers: 1, Wait: 300 * time.Millisecond}
	if _, err := Fanout(t.Context(), o); err == nil || !strings.Contains(err.Error(), "0 of 1") {
		t.Fatalf("error %v", err)
	}
}

// An interrupted run of a crew ends in all of its processes, with a report.
func TestCrewInterrupted(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongNothing)
	o := small(g)
	o.Options, _ = crewed(t, g, 2)
	o.Duration = time.Minute
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	o.Progress = func(s Sample) {
		if s.Received > 100 {
			stop()
		}
	}
	r, err := Fanout(ctx, o)
	if err != nil || !r.Interrupted || r.Exit != ExitError || r.Oracle.Received < 100 || len(broken(r)) > 0 || r.Oracle.Met != r.Oracle.Expected {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	if n, _ := r.Figure("deliveries"); n < 100 {
		t.Errorf("figures of the phase that was cut short are missing:\n%s", tableOf(r))
	}
}

// Of a worker whose clock is off the guide learns by how much, by the probe with
// the shortest way; it lets all go on at one instant, told by each one's clock.
func TestCrewClocks(t *testing.T) {
	t.Parallel()
	const off = 5 * time.Second
	host := natstest.Start(t)
	asked := 0
	theirs, ours := host.Conn(t), host.Conn(t)
	answer := func(m *nats.Msg) {
		if asked++; asked != 3 {
			time.Sleep(20 * time.Millisecond) // a long way there, a short one back
		}
		b, _ := json.Marshal(crewAnswer{Now: time.Now().Add(off).UnixNano()})
		_ = m.Respond(b)
	}
	if _, err := theirs.Subscribe("crew.w.far", answer); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Flush(); err != nil {
		t.Fatal(err)
	}
	g := &guide{nc: ours, offers: []crewOffer{{ID: "far"}}}
	if err := g.clocks(t.Context(), "crew"); err != nil {
		t.Fatal(err)
	}
	if w := g.workers[0]; (w.Offset-off).Abs() > w.Way/2 || w.Way <= 0 || asked != clockProbes {
		t.Errorf("%d probes: off by %v of a round trip of %v, want %v", asked, w.Offset, w.Way, off)
	}

	g.workers = []Worker{{Offset: off}, {}}
	points := make(chan *nats.Msg, 2)
	if _, err := ours.ChanSubscribe("meet", points); err != nil {
		t.Fatal(err)
	}
	if err := ours.Flush(); err != nil {
		t.Fatal(err)
	}
	starts := make(chan crewGo, 2)
	began := time.Now()
	for i := range 2 {
		go func() {
			var start crewGo
			if m, err := theirs.Request("meet", []byte{byte(i)}, 10*time.Second); err == nil {
				_ = json.Unmarshal(m.Data, &start)
			}
			starts <- start
		}()
	}
	answers := map[int]*nats.Msg{}
	for range 2 {
		m := <-points
		answers[int(m.Data[0])] = m
	}
	if err := g.release(answers, crewGo{}); err != nil {
		t.Fatal(err)
	}
	went := time.Now()
	a, b := <-starts, <-starts
	if a.At < b.At {
		a, b = b, a
	}
	if at := time.Unix(0, b.At); time.Duration(a.At-b.At) != off || at.Before(began) || at.After(went) {
		t.Errorf("let go at %v and %v, between %v and %v by the guide's clock", time.Unix(0, a.At), at, began, went)
	}
}

// Sockets come from the source addresses that are given, in turn; without any,
// the processes of a crew take different ones of loopback.
func TestSources(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongNothing)
	o := ConnectOptions{Options: g.options(), Sessions: 30, Hold: 10 * time.Millisecond}
	o.Sources = []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.9.8.7"), netip.MustParseAddr("127.0.0.4")}
	if r, err := Connect(t.Context(), o); err != nil || !passes(r) {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	if want := map[string]int{"127.0.0.2": 10, "127.9.8.7": 10, "127.0.0.4": 10}; !maps.Equal(g.from, want) {
		t.Errorf("logins came from %v, want %v", g.from, want)
	}
	clear(g.from)
	o.Options, _ = crewed(t, g, 2)
	o.Sessions, o.Agents = 64, 2
	if r, err := Connect(t.Context(), o); err != nil || !passes(r) {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	for host, n := range g.from {
		if n != 4 || len(g.from) != 16 {
			t.Errorf("%d logins from %s, of %d addresses; want 4 from each of 16", n, host, len(g.from))
		}
	}
}

// The same values in one histogram and in two that were merged.
func TestLatencyPlus(t *testing.T) {
	var all, one, two Hist
	for i := range 20000 {
		d := time.Duration(i*i) * time.Microsecond / 10
		all.Record(uint32(i), d)
		if i%3 == 0 {
			one.Record(uint32(i), d)
		} else {
			two.Record(uint32(i), d)
		}
	}
	want, err := all.Summary()
	if err != nil {
		t.Fatal(err)
	}
	a, _ := one.Summary()
	b, _ := two.Summary()
	got, err := a.plus(b)
	if err != nil {
		t.Fatal(err)
	}
	got.HDR, want.HDR = "", ""
	if got != want {
		t.Errorf("merged %+v, want %+v", got, want)
	}
	if got, err := (Latency{}).plus(a); err != nil || got != a {
		t.Errorf("nothing plus a: %+v, error %v", got, err)
	}
	if _, err := a.plus(Latency{Count: 1, HDR: "junk"}); err == nil {
		t.Error("junk was merged")
	}
}
