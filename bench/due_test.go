package bench

import (
	"sync/atomic"
	"testing"
	"time"
)

// stalls lets a gate stand still once, when so many logins have begun.
func stalls(g *gate, at int64, long time.Duration) {
	var begun atomic.Int64
	g.pause = func() {
		if begun.Add(1) == at {
			time.Sleep(long) // the fault itself
		}
	}
}

// A server that stands still under takeovers by schedule keeps all that are due
// meanwhile waiting, not only the one it has: that only the time from the due
// instant tells.
func TestTakeoverRunsFromDue(t *testing.T) {
	t.Parallel()
	g := newGate(t, 2, wrongNothing)
	const users = 60
	stalls(g, users+5, 800*time.Millisecond)
	o := TakeoverOptions{Options: g.options(), Users: users, Rate: 200}
	o.LoginWorkers = 1
	r, err := Takeover(t.Context(), o)
	if err != nil || len(broken(r)) > 0 {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	due, raw := r.Latencies["takeover"], r.Latencies["takeover_raw"]
	if due.Count != users || raw.Count != users || due.P50 < 0.3 || raw.P50 > due.P50/2 || raw.Max < 0.8 {
		t.Errorf("from the due instant p50 %v s, from the request %v s: those that waited are not told\n%s", due.P50, raw.P50, tableOf(r))
	}
}

// In a storm all are due when it begins: the last one's time holds its wait.
func TestStormRunsFromDue(t *testing.T) {
	t.Parallel()
	g := newGate(t, 2, wrongNothing)
	o := scripted(g, Step{Do: DeedStorm})
	stalls(g, int64(o.Sessions)+5, 800*time.Millisecond)
	o.LoginWorkers = 1
	r, err := Script(t.Context(), o)
	if err != nil || len(broken(r)) > 0 {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	// Half of all logins were those of the storm, nearly all of them behind the stall.
	due, raw := r.Latencies["login"], r.Latencies["login_raw"]
	if int(due.Count) != 2*o.Sessions || due.P90 < 0.8 || raw.P90 > 0.4 {
		t.Errorf("from the due instant p90 %v s, from the request %v s:\n%s", due.P90, raw.P90, tableOf(r))
	}
}
