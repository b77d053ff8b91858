package bench

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// millionSmall is a run of 20 sessions, whose gateways and Redis say that there
// are so many more.
func millionSmall(t *testing.T, active, locks int) MillionOptions {
	t.Helper()
	const sessions = 20
	g := newGate(t, 2, wrongNothing)
	metrics := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		g.mu.Lock()
		defer g.mu.Unlock()
		fmt.Fprintf(w, "dws_active_connections %d\n", len(g.sessions)+active)
	}))
	t.Cleanup(metrics.Close)
	redis := miniredis.RunT(t)
	for i := range sessions + locks {
		if err := redis.Set(fmt.Sprintf("s:{p%d}:mil:agent0:user%d", i%3, i), "1 pod-0/1 7 42 1 0"); err != nil {
			t.Fatal(err)
		}
	}
	// A released lock, and somebody else's.
	if err := redis.Set("s:{p0}:mil:agent0:gone", "1 41"); err != nil {
		t.Fatal(err)
	}
	if err := redis.Set("s:{p0}:other:agent0:user0", "1 pod-0/1 7 42 1 0"); err != nil {
		t.Fatal(err)
	}
	o := MillionOptions{Events: 30, Takeovers: 5, EventRate: 300}
	o.Options = g.options()
	o.Sessions, o.Hold, o.Company = sessions, 50*time.Millisecond, "mil"
	o.Internal, o.Redis = []string{metrics.URL}, "redis://"+redis.Addr()+"/0"
	return o
}

// Clients, gateways and Redis count alike, or the run does not pass.
func TestMillionCounts(t *testing.T) {
	t.Parallel()
	f := func(active, locks int, want Exit) {
		t.Helper()
		r, err := Million(t.Context(), millionSmall(t, active, locks))
		if err != nil || r.Exit != want {
			t.Fatalf("error %v, want exit %d:\n%s", err, want, tableOf(r))
		}
		for name, want := range map[string]float64{
			"clients_open": 20, "server_off": float64(active), "locks_off": float64(locks), "deliveries": 300,
			"taken_over": 5, "unreplaced": 0, "deliveries_after_takeover": 50,
		} {
			if got, ok := r.Figure(name); !ok || got != want {
				t.Errorf("%s is %v, want %v:\n%s", name, got, want, tableOf(r))
			}
		}
	}
	f(0, 0, ExitPass)
	f(1, 0, ExitThreshold)
	f(0, -1, ExitThreshold)
}

// Gateways that nobody asks have not said that they hold none.
func TestMillionFromOutside(t *testing.T) {
	t.Parallel()
	o := millionSmall(t, 0, 0)
	o.Internal, o.Redis = nil, ""
	r, err := Million(t.Context(), o)
	if _, known := r.Figure("server_off"); err != nil || r.Exit != ExitPass || known {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
}

// A run that would take the last memory stops by itself, and says with what.
func TestMillionStopsBeforeMemoryIsOut(t *testing.T) {
	t.Parallel()
	o := millionSmall(t, 0, 0)
	o.Hold, o.Reserve = time.Minute, 1<<60
	began := time.Now()
	r, err := Million(t.Context(), o)
	if err == nil || r.Exit != ExitError || !strings.Contains(tableOf(r), errMemory.Error()) || strings.Contains(tableOf(r), "has no figure") {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	if took := time.Since(began); took > 30*time.Second || len(broken(r)) > 0 {
		t.Errorf("it took %v:\n%s", took, tableOf(r))
	}
}
