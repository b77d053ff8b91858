package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func small(g *gate) FanoutOptions {
	return FanoutOptions{Options: g.options(), Sessions: 60, Agents: 6, Rate: 500, Duration: 400 * time.Millisecond, Warmup: 100 * time.Millisecond}
}

// broken is the breaches of a report that are not zero.
func broken(r *Report) map[string]int64 {
	m := map[string]int64{}
	for k, n := range r.Oracle.Breaches {
		if n != 0 {
			m[k] = n
		}
	}
	return m
}

// tableOf is the report as people see it, for messages of tests.
func tableOf(r *Report) string {
	var b bytes.Buffer
	_ = r.WriteTable(&b)
	return b.String()
}

// passes allows for a machine so busy that the generator calls itself slow.
func passes(r *Report) bool {
	return r.Exit == ExitPass || r.Exit == ExitGenerator && len(broken(r)) == 0
}

// misses says that a threshold was missed, if need be on such a machine.
func misses(r *Report) bool {
	return r.Exit == ExitThreshold || r.Exit == ExitGenerator
}

func TestFanoutPasses(t *testing.T) {
	t.Parallel()
	g := newGate(t, 3, wrongNothing)
	r, err := Fanout(t.Context(), small(g))
	if err != nil {
		t.Fatal(err)
	}
	v := r.Oracle
	if !passes(r) || v.Sessions != 60 || v.Published != 250 || v.Met != v.Expected || v.Received != v.Expected || v.Expected < 1000 || v.Unsure+v.Told+v.Foreign != 0 {
		t.Fatalf("want all met:\n%s", tableOf(r))
	}
	if l := r.Latencies["delivery"]; l.Count == 0 || l.P50 <= 0 || l.P50 < r.Latencies["delivery_raw"].Min {
		t.Errorf("delivery latency %+v", l)
	}
	if n := r.Latencies["login"].Count; n != 60 {
		t.Errorf("%d logins timed, want 60", n)
	}
}

func TestFanoutFindsPlantedInClient(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongNothing)
	o := small(g)
	o.Plant = Plant{Drop: 1, Double: 1}
	r, err := Fanout(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if b := broken(r); r.Exit != ExitBroken || len(b) != 2 || b["lost"] != 1 || b["repeated"] != 1 {
		t.Fatalf("want exactly 1 lost and 1 repeated:\n%s", tableOf(r))
	}
	if len(r.Oracle.Findings) != 2 || r.Oracle.Findings[1].Agent == "" || r.Oracle.Findings[1].Pod != g.doors[0]+" fake" {
		t.Errorf("findings %+v", r.Oracle.Findings)
	}
}

func TestFanoutFindsPlantedInServer(t *testing.T) {
	t.Parallel()
	f := func(fault wrong, want map[string]int64) {
		t.Helper()
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			r, err := Fanout(t.Context(), small(newGate(t, 2, fault)))
			if err != nil {
				t.Fatal(err)
			}
			got := broken(r)
			same := len(got) == len(want) && r.Exit == ExitBroken
			for k, n := range want {
				same = same && got[k] == n
			}
			if !same {
				t.Fatalf("want %v, exit 3; got %v\n%s", want, got, tableOf(r))
			}
		})
	}
	f(wrongLose, map[string]int64{"lost": 1})
	f(wrongRepeat, map[string]int64{"repeated": 1})
	f(wrongSwap, map[string]int64{"out_of_order": 1})
	f(wrongTenant, map[string]int64{"wrong_tenant": 1})
	f(wrongChat, map[string]int64{"wrong_chat": 1})
	f(wrongDamage, map[string]int64{"damaged": 1, "lost": 1})
	f(wrongForge, map[string]int64{"forged": 1})
	f(wrongSeq, map[string]int64{"out_of_order": 1})
	f(wrongStray, map[string]int64{"wrong_tenant": 1})
}

func TestFanoutWSS(t *testing.T) {
	t.Parallel()
	g := bareGate(t, wrongNothing)
	g.secure = true
	g.listen()
	r, err := Fanout(t.Context(), small(g))
	if err != nil || !passes(r) || r.Oracle.Met != r.Oracle.Expected || r.Oracle.Met < 1000 {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	o := small(g)
	o.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	r, err = Fanout(t.Context(), o)
	if err != nil || r.Logins.OK != 0 || r.Exit == ExitPass {
		t.Fatalf("an unknown authority was trusted: error %v:\n%s", err, tableOf(r))
	}
}

// What was told is not lost: a close misses a threshold of the scenario, a gap
// without a cause is a breach.
func TestFanoutTold(t *testing.T) {
	t.Parallel()
	r, err := Fanout(t.Context(), small(newGate(t, 1, wrongKill)))
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := r.Figure("closed"); !misses(r) || v != 1 || r.Oracle.Told < 1 || len(broken(r)) > 0 {
		t.Fatalf("want closed 1 and exit 2:\n%s", tableOf(r))
	}
	r, err = Fanout(t.Context(), small(newGate(t, 1, wrongGap)))
	if err != nil {
		t.Fatal(err)
	}
	b := broken(r)
	if v, _ := r.Figure("gaps"); v != 1 || r.Oracle.Told != 1 || len(b) != 1 || b["unexplained_gap"] != 1 || r.Exit != ExitBroken {
		t.Fatalf("want gaps 1, unexplained_gap 1 and exit 3:\n%s", tableOf(r))
	}
	o := small(newGate(t, 1, wrongGap))
	o.During = func(context.Context, *Stage) error { return nil } // may have broken what it liked
	if r, err = Fanout(t.Context(), o); err != nil || r.Oracle.Gaps != 1 || len(broken(r)) > 0 {
		t.Fatalf("error %v, want an explained gap:\n%s", err, tableOf(r))
	}
}

// The events go on until During has ended, and its error ends the run.
func TestFanoutDuring(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongNothing)
	o := small(g)
	o.Duration = 50 * time.Millisecond
	o.During = func(ctx context.Context, st *Stage) error {
		return Wait(ctx, time.Now().Add(300*time.Millisecond))
	}
	r, err := Fanout(t.Context(), o)
	if err != nil || !passes(r) || r.Oracle.Published < 150 {
		t.Fatalf("error %v, want 200 events:\n%s", err, tableOf(r))
	}
	// It took 0.3 s at least, whatever the nominal duration.
	if rate, _ := r.Figure("delivery_rate"); rate > float64(r.Oracle.Received)/0.3 {
		t.Errorf("%v deliveries a second of %d in 0.3 s", rate, r.Oracle.Received)
	}
	planted := errors.New("planted")
	o.During = func(context.Context, *Stage) error { return planted }
	r, err = Fanout(t.Context(), o)
	if !errors.Is(err, planted) || r.Exit != ExitError {
		t.Fatalf("error %v, exit %d", err, r.Exit)
	}
}

// Nobody knows what a process used that was killed during the run, so that no
// figure says it.
func TestFanoutServerKilled(t *testing.T) {
	t.Parallel()
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	o := small(newGate(t, 1, wrongNothing))
	o.PIDs = []int{child.Process.Pid}
	r, err := Fanout(t.Context(), o)
	if _, known := r.Figure("server_cpu_per_delivery"); err != nil || !known {
		t.Fatalf("error %v, want what the process used:\n%s", err, tableOf(r))
	}
	o.During = func(context.Context, *Stage) error {
		_ = child.Process.Kill()
		_, err := child.Process.Wait()
		return err
	}
	r, err = Fanout(t.Context(), o)
	if _, known := r.Figure("server_cpu_per_delivery"); err != nil || known {
		t.Fatalf("error %v, want no such figure:\n%s", err, tableOf(r))
	}
}

// An interrupted run reports what there was.
func TestFanoutInterrupted(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongNothing)
	o := small(g)
	o.Duration = time.Minute
	ctx, stop := context.WithCancel(t.Context())
	o.Progress = func(s Sample) {
		if s.Received > 0 {
			stop()
		}
	}
	r, err := Fanout(ctx, o)
	if err != nil || !r.Interrupted || r.Exit != ExitError || r.Oracle.Received == 0 || len(broken(r)) > 0 || r.Oracle.Met != r.Oracle.Expected {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
}

// A server that ends is an error, with a report of what there was.
func TestFanoutServerEnds(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongNothing)
	o := small(g)
	o.Duration, o.Progress = 3*time.Second, func(s Sample) {
		if s.Received > 0 {
			g.stop()
		}
	}
	r, err := Fanout(t.Context(), o)
	if err != nil || r.Exit != ExitError || r.Oracle.Received == 0 || len(r.Closes) == 0 {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
}

func TestLoginsComeAgain(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongRefuse)
	r, err := Connect(t.Context(), ConnectOptions{Options: g.options(), Sessions: 20, Hold: 10 * time.Millisecond})
	if err != nil || !passes(r) || r.Logins.Retries != 3 || r.Logins.Refused["503 Overloaded"] != 3 || r.Logins.OK != 20 {
		t.Fatalf("error %v, logins %+v:\n%s", err, r.Logins, tableOf(r))
	}
	if r.Oracle.Sessions != 20 {
		t.Errorf("%d sessions judged, want 20", r.Oracle.Sessions)
	}
}

func TestLoginsRefused(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongNothing)
	o := ConnectOptions{Options: g.options(), Sessions: 5, Hold: 10 * time.Millisecond}
	o.APIKey = "wrong"
	r, err := Connect(t.Context(), o)
	if err != nil || r.Exit != ExitError || r.Logins.Refused["403 InvalidToken"] != 5 || len(r.Logins.Failed) > 0 {
		t.Fatalf("error %v, logins %+v:\n%s", err, r.Logins, tableOf(r))
	}
	if len(r.Errors) != 1 || !strings.Contains(r.Errors[0], "none of 5 logins came through (403 InvalidToken)") || !strings.Contains(tableOf(r), "logins refused") {
		t.Errorf("what to change is not said:\n%s", tableOf(r))
	}
}

func TestConnect(t *testing.T) {
	t.Parallel()
	g := newGate(t, 2, wrongNothing)
	o := ConnectOptions{Options: g.options(), Sessions: 100, Chat: true, Hold: 50 * time.Millisecond}
	o.PIDs, o.LoginRate = []int{os.Getpid()}, 1000
	r, err := Connect(t.Context(), o)
	if err != nil || !passes(r) {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	for _, name := range []string{"sessions", "rss_per_session", "server_cpu_per_login", "kernel_slab_per_session", "idle_cpu_per_session", "login.p99", "login_raw.p50"} {
		if _, ok := r.Figure(name); !ok {
			t.Errorf("no figure %s", name)
		}
	}
	if v, _ := r.Figure("sessions"); v != 100 {
		t.Errorf("%v sessions, want 100", v)
	}
}

func TestTakeoverPasses(t *testing.T) {
	t.Parallel()
	g := newGate(t, 2, wrongNothing)
	r, err := Takeover(t.Context(), TakeoverOptions{Options: g.options(), Users: 40, Rate: 400})
	if err != nil || len(broken(r)) > 0 {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	if n, _ := r.Figure("replaced"); n != 80 || r.Oracle.Overlaps != 0 || r.Oracle.Takeovers != 80 || r.Oracle.Received != 40 || r.Oracle.Met != 40 {
		t.Fatalf("want 80 replaced, one event a user:\n%s", tableOf(r))
	}
	if r.Latencies["takeover"].Count != 40 || r.Latencies["takeover_same_pod"].Count != 40 {
		t.Errorf("latencies %v", r.Latencies)
	}
}

func TestTakeoverFindsTwoOwners(t *testing.T) {
	t.Parallel()
	f := func(fault wrong, want int64) {
		t.Helper()
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			g := newGate(t, 2, fault)
			r, err := Takeover(t.Context(), TakeoverOptions{Options: g.options(), Users: 10, Rate: 400})
			if err != nil {
				t.Fatal(err)
			}
			if n := broken(r)["two_owners"]; n != want || r.Exit != ExitBroken {
				t.Fatalf("want %d two_owners or more:\n%s", want, tableOf(r))
			}
		})
	}
	// 20 sockets each not told in time, never closed, given an event that was
	// no longer theirs.
	f(wrongKeep, 60)
	f(wrongLate, 20)
}

func TestFloor(t *testing.T) {
	r, err := Floor(t.Context(), FloorOptions{Sockets: 50, Repeats: 1, Sizes: []int{260}, Reader: []string{os.Args[0], "floor-reader"}})
	if err != nil {
		t.Fatal(err)
	}
	one, _ := r.Figure("send_260B_joined_1")
	ten, ok := r.Figure("send_260B_joined_10")
	if !ok || ten <= 0 || one <= ten {
		t.Fatalf("one a send() %v s, ten joined %v s a frame", one, ten)
	}
}

func TestRunFailure(t *testing.T) {
	t.Parallel()
	f := func(want string, o Options) {
		t.Helper()
		if _, err := Connect(t.Context(), ConnectOptions{Options: o}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	f("token", Options{Addrs: []string{"127.0.0.1:1"}})
	f("address", Options{Addrs: []string{"nowhere"}, TokenKey: gateKey})
	f("threshold", Options{Thresholds: "lost"})
	r, err := Fanout(t.Context(), FanoutOptions{Options: Options{Addrs: []string{"127.0.0.1:1"}, TokenKey: gateKey, NATS: "nats://127.0.0.1:1"}})
	if err == nil || r == nil || r.Exit != ExitError || len(r.Errors) == 0 {
		t.Errorf("without NATS: report %v, error %v", r, err)
	}
}

// The report holds what was asked for, and no secret.
func TestReportJSON(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongNothing)
	const password = "planted%2Fs3cret"
	o := small(g)
	o.NATS = strings.Replace(o.NATS, "://", "://bench:"+password+"@", 1)
	o.Thresholds = "lost==0,delivery.p50<10s,delivery.p50<1ns"
	r, err := Fanout(t.Context(), o)
	if err != nil || !misses(r) {
		t.Fatalf("error %v:\n%s", err, tableOf(r))
	}
	name := t.TempDir() + "/report.json"
	if err := r.WriteFile(name); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		Schema, Scenario string
		Options          struct{ Sessions int }
		Thresholds       []struct{ OK bool }
	}
	if err := json.Unmarshal(b, &back); err != nil || back.Schema != Schema || back.Scenario != "fanout" || back.Options.Sessions != 60 {
		t.Fatalf("error %v, read back %+v", err, back)
	}
	last := back.Thresholds[len(back.Thresholds)-3:]
	if !last[0].OK || !last[1].OK || last[2].OK {
		t.Errorf("thresholds %+v", back.Thresholds)
	}
	if bytes.Contains(b, []byte(gateKey)) || bytes.Contains(b, []byte(`"key"`)) || bytes.Contains(b, []byte(password)) || bytes.Contains(b, []byte("bench:")) {
		t.Error("a secret is in the report")
	}
	if !bytes.Contains(b, []byte(strings.Replace(g.nats, "://", "://xxxxx@", 1))) {
		t.Error("where NATS was is not in the report")
	}
	o.NATS = "nats://bench:" + password + "@127.0.0.1:1"
	r, err = Fanout(t.Context(), o)
	if err == nil || strings.Contains(err.Error()+fmt.Sprint(r.Errors), password) {
		t.Errorf("error %v, in the report %v", err, r.Errors)
	}
}
