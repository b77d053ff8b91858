package bench

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// ledgered serves the metrics of a gate whose count of copies sent is off by so
// many since a copy in the middle of the run.
func ledgered(t *testing.T, g *gate, off int) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		g.mu.Lock()
		defer g.mu.Unlock()
		n := g.copies
		if n > faultAt {
			n += off
		}
		fmt.Fprintf(w, "dws_messages_sent_total{event_type=\"chats\"} %d\ndws_messages_sent_total{event_type=\"control\"} %d\n", n, g.epoch)
		fmt.Fprintf(w, "go_goroutines 40\ngo_gc_duration_seconds_count %d\ndws_redis_pipeline_calls_sum %d\ndws_nats_events_total %d\n", n/100, 3*g.seq, g.seq)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// The pods' own count is held against what came, in runs that end no socket and
// have the cluster to themselves; a copy more or less is a broken promise.
func TestLedgerIsCompared(t *testing.T) {
	t.Parallel()
	f := func(off int, own bool, want Exit) {
		t.Helper()
		t.Run(fmt.Sprintf("off=%d,own=%v", off, own), func(t *testing.T) {
			t.Parallel()
			g := newGate(t, 2, wrongNothing)
			o := small(g)
			o.Internal, o.Own = []string{ledgered(t, g, off)}, own
			r, err := Fanout(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			passed := want == ExitPass && passes(r)
			if d, ok := r.Figure("ledger_difference"); !ok || int(d) != off || r.Exit != want && !passed {
				t.Errorf("difference %v, want %d and exit %d:\n%s", d, off, want, tableOf(r))
			}
			if _, judged := r.Oracle.Breaches["ledger"]; judged != own {
				t.Errorf("judged: %v, want %v", judged, own)
			}
			if want == ExitBroken && !strings.Contains(tableOf(r), "copies, ") {
				t.Errorf("nothing said of it:\n%s", tableOf(r))
			}
			for _, name := range []string{"pods_goroutines", "pods_gc_rate", "pods_redis_call_rate", "pods_nats_event_rate"} {
				if v, ok := r.Figure(name); !ok || v <= 0 {
					t.Errorf("%s is %v", name, v)
				}
			}
		})
	}
	f(0, true, ExitPass)
	f(-1, true, ExitBroken)
	f(2, true, ExitBroken)
	f(1, false, ExitPass) // others may use it
}

// Steps that end sockets leave copies under way: nobody judges the ledger then.
func TestLedgerOfScripts(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongNothing)
	internal := ledgered(t, g, 0)
	f := func(judged bool, steps ...Step) {
		t.Helper()
		o := scripted(g, steps...)
		o.Internal, o.Own = []string{internal}, true
		r, err := Script(t.Context(), o)
		if err != nil || !passes(r) {
			t.Fatalf("error %v:\n%s", err, tableOf(r))
		}
		if n, ok := r.Oracle.Breaches["ledger"]; ok != judged || n != 0 {
			t.Errorf("judged: %v, want %v; %d", ok, judged, n)
		}
	}
	f(true, Step{Name: "quiet"})
	f(false, Step{Do: DeedStorm})
}
