package server_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/bench"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// once runs do beside a run as soon as ready holds for its progress; finish
// waits for it.
func once(ready func(bench.Sample) bool, do func()) (progress func(bench.Sample), finish func()) {
	var begin sync.Once
	var beside sync.WaitGroup
	return func(s bench.Sample) {
		if ready(s) {
			begin.Do(func() { beside.Go(do) })
		}
	}, beside.Wait
}

func delivering(s bench.Sample) bool { return s.Received > 0 }

// A pod that ends in the middle of a run that did not ask for it: an error, or a
// broken promise where copies are missing, and a report of what there was.
func TestProveServerKilledMidRun(t *testing.T) {
	l := startLocal(t, 3)
	o := localFanout(l)
	o.Duration, o.DrainTime = proofTime, 2*time.Second
	progress, finish := once(delivering, l.Pods()[1].Kill)
	o.Progress = progress
	r, err := bench.Fanout(context.Background(), o)
	finish()
	show(t, r, err)
	if r.Exit != bench.ExitError && r.Exit != bench.ExitBroken {
		t.Errorf("exit %v", r.Exit)
	}
	if len(r.Errors) == 0 || r.Oracle.Received == 0 || r.Closes["1006"] == 0 {
		t.Errorf("errors %v, %d copies, closes %v", r.Errors, r.Oracle.Received, r.Closes)
	}
}

// A pod that stands still for 2 s under logins by schedule is not the generator's
// fault. Those that were due meanwhile were begun late, or refused and begun
// again: that only the time from the due instant tells.
func TestProveServerStopped(t *testing.T) {
	l := startLocal(t, 1)
	pod := l.Pods()[0]
	o := bench.ConnectOptions{Sessions: 500, Hold: 100 * time.Millisecond}
	l.Apply(&o.Options)
	o.LoginRate, o.LoginWorkers, o.Settle, o.Thresholds = 100, 8, 100*time.Millisecond, "login.p99<1s"
	progress, finish := once(func(s bench.Sample) bool { return s.Logins > 0 }, func() {
		if err := pod.Stop(); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Second) // the fault itself
		if err := pod.Cont(); err != nil {
			t.Error(err)
		}
	})
	o.Progress = progress
	r, err := bench.Connect(context.Background(), o)
	finish()
	show(t, r, err)
	if r.Exit != bench.ExitThreshold && (!shortForm || r.Exit != bench.ExitGenerator) {
		t.Errorf("exit %v", r.Exit)
	}
	due, raw := r.Latencies["login"], r.Latencies["login_raw"]
	if due.Max < 1.5 || due.P90 < 0.8 || raw.P90 > due.P90/2 {
		t.Errorf("from the due instant p90 %v s, max %v s, from the beginning p90 %v s: the 200 that waited are not told apart", due.P90, due.Max, raw.P90)
	}
}

// What a client socket costs the harness: memory, plain and under TLS, and CPU of
// a frame that it receives and judges.
func TestProveClientCost(t *testing.T) {
	most := float64(64 << 10) // of a few sockets, what any process has counts
	if !shortForm {
		most = 16 << 10
	}
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			c := clustertest.Start(t, clustertest.Options{Pods: 1, Processes: true, TLS: secure})
			o := benchOptions(c)
			o.Untimed = true // bytes and CPU are the same on a busy machine
			o.Crew.Workers, o.Crew.Name = 1, "cost"
			command := []string{clustertest.Bench(t), "worker", "-crew", o.Crew.Name, "-nats", c.NATS.URL}
			if secure {
				command = append(command, "-insecure")
			}
			s, err := bench.Spawn(1, command, append(os.Environ(), "DAISI_BENCH_API_KEY="+o.APIKey, "DAISI_BENCH_TOKEN_KEY="+o.TokenKey))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			r, err := bench.Connect(context.Background(), bench.ConnectOptions{Options: o, Sessions: proofIdle, Hold: time.Second})
			passed(t, r, err)
			each, _ := r.Figure("client_rss_per_socket")
			if n, _ := r.Figure("sessions"); n != proofIdle || each <= 0 || each > most {
				t.Errorf("%v sockets in one worker, %.0f B each, want at most %.0f", n, each, most)
			}
			f := fanoutOptions(c)
			f.Crew, f.Untimed = o.Crew, true
			r, err = bench.Fanout(context.Background(), f)
			passed(t, r, err)
			if cpu := r.Generator.CPUPerCopy; cpu <= 0 || cpu > 1e-3 {
				t.Errorf("%v s of CPU a received frame", cpu)
			}
			t.Logf("%d sockets in one worker, %.0f B each, %.1f us of its CPU a received frame", proofIdle, each, r.Generator.CPUPerCopy*1e6)
		})
	}
}
