//go:build faults

package server_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/bench"
	"github.com/daisi/daisi-ws/server"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// One delivery of thousands that the server drops, doubles or swaps: the oracle
// of the harness says which, and the run is a broken promise. Without a fault
// the same run passes.
func TestProveServerFaultsAreSeen(t *testing.T) {
	f := func(kind, breach string) {
		t.Run(kind, func(t *testing.T) {
			c := clustertest.Start(t, clustertest.Options{Pods: 2})
			if kind != "none" {
				server.PlantFault(&server.Fault{Kind: kind, After: 3000})
				defer server.PlantFault(nil)
			}
			o := fanoutOptions(c)
			o.Sessions, o.Agents, o.Rate = 300, 20, 200
			r, err := bench.Fanout(context.Background(), o)
			show(t, r, err)
			if kind == "none" {
				if r.Exit != bench.ExitPass {
					t.Errorf("exit %v", r.Exit)
				}
				return
			}
			n, _ := r.Figure(breach)
			if r.Exit != bench.ExitBroken || n != 1 {
				t.Errorf("exit %v, %s %v, want a broken promise and 1", r.Exit, breach, n)
			}
		})
	}
	f("none", "")
	f("drop", "lost")
	f("double", "repeated")
	f("swap", "out_of_order")
}

// The verify set against three pods, one delivery wrong at a place drawn by a
// printed seed, or every kill late: exit 3, and the report names agent, number and
// pod. The short form draws one of the four.
func TestProveServerFaultsBreakVerify(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	list := []struct{ kind, breach string }{
		{"drop", "lost"},
		{"double", "repeated"},
		{"swap", "out_of_order"},
		{"late", "two_owners"},
	}
	if shortForm {
		at := rng.IntN(len(list))
		list = list[at : at+1]
	}
	for _, x := range list {
		at := faultFrom + rng.Uint64N(faultSpan)
		t.Run(x.kind, func(t *testing.T) { faultBreaksVerify(t, x.kind, x.breach, at) })
	}
}

func faultBreaksVerify(t *testing.T, kind, breach string, at uint64) {
	c := clustertest.Start(t, clustertest.Options{Pods: 3})
	server.PlantFault(&server.Fault{Kind: kind, After: at})
	defer server.PlantFault(nil)
	o := bench.VerifyOptions{FanoutOptions: bench.FanoutOptions{
		Options: benchOptions(c), Sessions: verifySessions, Agents: verifyAgents, Rate: verifyRate, Duration: verifyTime,
	}}
	r, err := bench.Verify(context.Background(), o)
	show(t, r, err)
	n, _ := r.Figure(breach)
	if n == 0 && kind == "swap" { // nothing came to the socket that it could have been swapped with
		breach = "lost"
		n, _ = r.Figure(breach)
	}
	if once := breach != "two_owners"; r.Exit != bench.ExitBroken || n < 1 || once && n != 1 || len(r.Oracle.Findings) == 0 {
		t.Fatalf("fault at delivery %d: exit %v, %s %v, want a broken promise and 1", at, r.Exit, breach, n)
	}
	x := r.Oracle.Findings[0]
	if x.Breach != breach || x.Agent == "" || x.User == "" || !strings.Contains(x.Pod, "pod-") || breach != "two_owners" && x.Topic == "" {
		t.Errorf("finding %+v", x)
	}
	t.Logf("fault at delivery %d, found: %+v", at, x)
}

// Simultaneous logins on pods that break the protocol: kills that are not done,
// or late, or not heard while fences are not obeyed, are seen by the judge. Kills
// that nobody hears alone are not: fences do their work.
func TestProveServerFaultsOfTakeovers(t *testing.T) {
	f := func(kind string, broken bool) {
		t.Run(kind, func(t *testing.T) {
			x := newContest(t, startContest(t))
			server.PlantFault(&server.Fault{Kind: kind})
			defer server.PlantFault(nil)
			x.logins = 10
			if broken {
				x.patience = 2 * time.Second
			}
			r := x.run(10)
			if r.broken() != broken || (r.S1+r.Several > 0) != broken {
				t.Errorf("broken %v, want %v: %+v", r.broken(), broken, r)
			}
		})
	}
	f("deaf", false)
	f("unfenced", true)
	f("unkilled", true)
	f("late", true)
}

// The same of admins, whose fences are in one partition and whose events in all:
// nobody hears the kill, and the one on the former pod is given nothing more.
func TestProveServerFaultsOfAdmins(t *testing.T) {
	f := func(kind string, broken bool) {
		t.Run(kind, func(t *testing.T) {
			c := clustertest.Start(t, clustertest.Options{Pods: 2})
			server.PlantFault(&server.Fault{Kind: kind})
			defer server.PlantFault(nil)
			old := c.DialAdmin(c.Pods[0], c.AdminToken("root", "", ""))
			young := c.DialAdmin(c.Pods[1], c.AdminToken("root", "", ""))
			for i := range 16 {
				c.Publish(clustertest.Subject("acme", fmt.Sprintf("ag%d", i), "agents", ""), body(fmt.Sprint(i)))
			}
			if !young.AwaitEvents(arrival, 16) {
				t.Errorf("the newer socket has got %d of 16 events", len(young.Events()))
			}
			if broken {
				if !old.AwaitEvents(arrival, 16) {
					t.Errorf("control: the older socket has got %d events, closed %v", len(old.Events()), old.Closed())
				}
				return
			}
			if end, ok := old.AwaitClose(arrival); !ok || end.Code != 4402 || len(old.Events()) > 0 {
				t.Errorf("the older socket ended %+v, and was given %d events stored after the newer one's ready", end, len(old.Events()))
			}
		})
	}
	f("deaf", false)
	f("unfenced", true)
}

// Pods come and go under load, so that partitions have two readers for a while:
// what the second one offers again is delivered once, by the sequence alone.
func TestProveServerFaultsOfSequence(t *testing.T) {
	f := func(kind string, broken bool) {
		t.Run(kind, func(t *testing.T) {
			c := clustertest.Start(t, clustertest.Options{Pods: 3})
			server.PlantFault(&server.Fault{Kind: kind})
			defer server.PlantFault(nil)
			o := bench.FanoutOptions{Options: benchOptions(c), Sessions: 300, Agents: 20, Rate: 300, Duration: time.Second, Resume: true}
			o.During = func(ctx context.Context, _ *bench.Stage) error {
				for range 3 {
					c.Pods[2].Term()
					c.Pods[2].Start()
					if err := bench.Wait(ctx, time.Now().Add(2*time.Second)); err != nil {
						return err
					}
				}
				return nil
			}
			r, err := bench.Fanout(context.Background(), o)
			show(t, r, err)
			if repeated, _ := r.Figure("repeated"); (repeated > 0) != broken || (r.Exit == bench.ExitBroken) != broken {
				t.Errorf("%v copies repeated, exit %v; want a broken promise: %v", repeated, r.Exit, broken)
			}
		})
	}
	f("none", false)
	f("unsequenced", true)
}

// Replays that hold up live events of their partition are seen by the measure
// that TestProveResumesBesideLiveSessions goes by.
func TestProveServerFaultsOfReplays(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Options: func(_ int, o *server.Options) {
		o.Resume.MaxEvents, o.Resume.MaxBytes = 10_000, 16<<20
	}})
	history(t, c)
	k := newCrowd(t, c, proofCrowd, resumedAgents)
	k.measure(t, 100, proofMeasure)
	stream, _ := place(c.Dial(c.Pods[0], user("acme", "nobody", "u"), "resume="))
	quiet := k.measure(t, 100, proofMeasure)
	server.PlantFault(&server.Fault{Kind: "starve"})
	defer server.PlantFault(nil)
	done := make(chan stormed, 1)
	go func() { done <- resumeStorm(t, c, stream) }()
	attack := k.measure(t, 100, time.Second)
	<-done
	if base, under, _ := slowed([]measured{quiet}, []measured{attack}); under <= starving {
		t.Errorf("p99 %v, then %v: replays that hold the lock starved nobody", base, under)
	}
}
