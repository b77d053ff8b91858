package server_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/bench"
	"github.com/daisi/daisi-ws/natsx/natstest"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// startLocal is a cluster as daisi-bench -servers starts it.
func startLocal(t *testing.T, pods int) *bench.Local {
	t.Helper()
	l, err := bench.StartLocal(t.Context(), bench.LocalOptions{
		Pods: pods, Gateway: clustertest.Binary(t), NATSServer: natstest.Binary(t), Dir: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func localFanout(l *bench.Local) bench.FanoutOptions {
	o := bench.FanoutOptions{Sessions: proofSessions, Agents: proofAgents, Rate: proofRate}
	l.Apply(&o.Options)
	return o
}

// A cluster of one pod, too, takes all logins from the first on: none is told to
// come later, which would be counted as the gateway's time.
func TestLocalClusterIsReady(t *testing.T) {
	t.Parallel()
	l := startLocal(t, 1)
	o := bench.ConnectOptions{Hold: time.Millisecond}
	l.Apply(&o.Options)
	o.Sessions, o.Settle = 64, time.Millisecond
	r, err := bench.Connect(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := r.Figure("login.count"); len(r.Logins.Refused) > 0 || !ok || n != 64 {
		t.Errorf("%v logins, refused %v", n, r.Logins.Refused)
	}
}

// The whole set, drain and chaos with it, each time on a cluster of its own:
// nothing to find.
func TestProveVerify(t *testing.T) {
	waits(t)
	for i := range proofVerifies {
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			l := startLocal(t, 3)
			o := bench.VerifyOptions{FanoutOptions: localFanout(l), Local: l}
			o.Sessions, o.Agents, o.Rate, o.Duration = verifySessions, verifyAgents, verifyRate, verifyTime
			r, err := bench.Verify(context.Background(), o)
			if show(t, r, err); r.Exit != bench.ExitPass && (!shortForm || !onlySlow(r)) {
				t.Errorf("exit %v", r.Exit)
			}
			if len(r.Parts) != 8 {
				t.Errorf("%d parts, want 8", len(r.Parts))
			}
		})
	}
}

// onlySlow says that every promise was kept, and all that was counted, on a
// machine that other tests keep busy.
func onlySlow(r *bench.Report) bool {
	for _, t := range r.Thresholds {
		if !t.OK && r.Unit(t.Figure) != "s" {
			return false
		}
	}
	return r.Exit == bench.ExitThreshold || r.Exit == bench.ExitGenerator
}

// A pod stands still, another is killed, under events: what stood still shows in
// the latency from the due instant, and whose socket ended comes back and is given
// all it missed.
func TestProveScriptBreaksPods(t *testing.T) {
	waits(t)
	l := startLocal(t, 3)
	o := bench.ScriptOptions{FanoutOptions: localFanout(l), Local: l, Title: "broken", Steps: []bench.Step{
		{Name: "baseline", For: time.Second},
		// First, while each pod has sessions: those of a pod that was killed may come back elsewhere.
		{Do: bench.DeedStop, For: 3 * time.Second, Every: 3 * time.Second, Pause: 2 * time.Second},
		{Do: bench.DeedKill, For: time.Second, Every: time.Second, Pause: 200 * time.Millisecond},
	}}
	o.Resume, o.Thresholds = true, "stop.max<1s"
	r, err := bench.Script(context.Background(), o)
	show(t, r, err)
	back, _ := r.Figure("reconnects")
	open, _ := r.Figure("kill_open")
	if r.Oracle.Broken() || r.Oracle.Told+r.Oracle.Gaps > 0 || back == 0 || int(open) != proofSessions || len(r.Errors) > 0 {
		t.Errorf("%v came back, %v are open of %d, %d told, %d gaps, errors %v", back, open, proofSessions, r.Oracle.Told, r.Oracle.Gaps, r.Errors)
	}
	if r.Exit != bench.ExitThreshold && (!shortForm || r.Exit != bench.ExitGenerator) {
		t.Errorf("exit %v although a pod stood still for 2 s", r.Exit)
	}
}

// A crew of processes counts as one client does: sockets, the gateways' own
// number, locks in Redis, and every copy.
func TestProveMillionSmall(t *testing.T) {
	l := startLocal(t, 2)
	o := bench.MillionOptions{Events: 100, Takeovers: 20}
	o.Sessions, o.Hold = proofSessions, time.Second
	l.Apply(&o.Options)
	o.Settle = time.Second
	r, err := bench.Million(context.Background(), o)
	passed(t, r, err)
	for _, name := range []string{"server_off", "locks_off", "unreplaced"} {
		if n, ok := r.Figure(name); !ok || n != 0 {
			t.Errorf("%s is %v", name, n)
		}
	}
	if n, _ := r.Figure("deliveries"); n != 1000 {
		t.Errorf("%v copies of 100 events to 10 sessions each", n)
	}
}
