//go:build figures

package server_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/bench"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// The figures of README's tables: each the median of figureRuns runs against
// fresh processes with the default configuration, printed with all the runs.
// Nothing here passes or fails by a figure; a broken promise fails.
const figureRuns = 3

// figureSettle is between a ramp and the reading of memory: what the ramp left
// behind is given back by then.
const figureSettle = 10 * time.Second

func TestFigures(t *testing.T) {
	var s sheet
	for _, f := range []struct {
		name string
		run  func(*testing.T, *sheet)
	}{
		{"floor", figureFloor},
		{"sessions", figureSessions},
		{"wss", figureWSS},
		{"idle", figureIdle},
		{"receivers", figureReceivers},
		{"nobody", figureNobody},
		{"forward", figureForward},
		{"takeover", figureTakeover},
		{"sustained", figureSustained},
	} {
		began := time.Now()
		t.Run(f.name, func(t *testing.T) { f.run(t, &s) })
		t.Logf("%s took %v", f.name, time.Since(began).Round(time.Second))
	}
	t.Log("\n" + strings.Join(s.rows, "\n"))
}

// sheet gathers the rows of the tables in the order of their making.
type sheet struct{ rows []string }

func (s *sheet) row(t *testing.T, cells ...any) {
	t.Helper()
	text := "|"
	for _, c := range cells {
		text += " " + fmt.Sprint(c) + " |"
	}
	s.rows = append(s.rows, text)
	t.Log(text)
}

// figureRun gives the report of a run; anything but a missed speed fails the
// test.
func figureRun(t *testing.T, r *bench.Report, err error) *bench.Report {
	t.Helper()
	if err != nil && r == nil {
		t.Fatal(err)
	}
	switch r.Exit {
	case bench.ExitPass, bench.ExitGenerator, bench.ExitThreshold:
	default:
		show(t, r, err)
		t.Errorf("exit %v", r.Exit)
	}
	return r
}

// figureTimes runs one scenario figureRuns times, each in a test of its own, so
// that the processes of one have ended before the next.
func figureTimes(t *testing.T, name string, run func(*testing.T) *bench.Report) []*bench.Report {
	t.Helper()
	var reports []*bench.Report
	for range figureRuns {
		t.Run(name, func(t *testing.T) { reports = append(reports, run(t)) })
	}
	if len(reports) < figureRuns {
		t.Fatalf("%d runs of %d gave a report", len(reports), figureRuns)
	}
	return reports
}

// median gives the median of a figure over some reports, and all of them.
func median(t *testing.T, reports []*bench.Report, name string, scale float64) string {
	t.Helper()
	return medianOf(reports, func(r *bench.Report) float64 {
		v, ok := r.Figure(name)
		if !ok {
			t.Errorf("no figure %s", name)
		}
		return v * scale
	})
}

func medianOf(reports []*bench.Report, value func(*bench.Report) float64) string {
	var all []float64
	for _, r := range reports {
		all = append(all, value(r))
	}
	slices.Sort(all)
	var texts []string
	for _, v := range all {
		texts = append(texts, strconv.FormatFloat(v, 'g', 4, 64))
	}
	return fmt.Sprintf("**%s** (%s)", texts[len(texts)/2], strings.Join(texts, ", "))
}

const (
	micro = 1e6
	milli = 1e3
	kibi  = 1.0 / 1024
)

func figureFloor(t *testing.T, s *sheet) {
	bin := filepath.Join(t.TempDir(), "daisi-bench")
	if out, err := exec.Command("go", "build", "-o", bin, "../cmd/daisi-bench").CombinedOutput(); err != nil {
		t.Fatalf("build daisi-bench: %v\n%s", err, out)
	}
	reports := figureTimes(t, "send", func(t *testing.T) *bench.Report {
		r, err := bench.Floor(context.Background(), bench.FloorOptions{Reader: []string{bin, "floor-reader"}})
		return figureRun(t, r, err)
	})
	for _, name := range []string{"send_260B_joined_1", "send_260B_joined_10"} {
		s.row(t, "bare send(), us a frame: "+name, median(t, reports, name, micro))
	}
}

// figureConnect runs connect on a fresh pod.
func figureConnect(t *testing.T, o clustertest.Options, co bench.ConnectOptions, change func(*clustertest.Cluster, *bench.Options)) *bench.Report {
	t.Helper()
	o.Processes = true
	c := clustertest.Start(t, o)
	co.Options = benchOptions(c)
	co.Redis, co.Settle = c.RedisURL, figureSettle
	if change != nil {
		change(c, &co.Options)
	}
	r, err := bench.Connect(context.Background(), co)
	return figureRun(t, r, err)
}

// figureSessions holds for 30 s, so that each session is pinged once; but not
// where only the login is another.
func figureSessions(t *testing.T, s *sheet) {
	s.row(t, "sessions a process", "agents", "RSS a session, KiB", "of the kernel, both ends, KiB", "server CPU a login, us", "of Redis a login, us", "logins/s",
		"goroutines before", "with them", "idle CPU a session, us/s", "net of the empty pod")
	for _, f := range []struct {
		sessions, agents int
		hold             time.Duration
	}{{1000, 100, 30 * time.Second}, {5000, 500, 30 * time.Second}, {15000, 1500, 30 * time.Second}, {15000, 15000, time.Second}} {
		reports := figureTimes(t, fmt.Sprintf("%d of %d", f.sessions, f.agents), func(t *testing.T) *bench.Report {
			return figureConnect(t, clustertest.Options{}, bench.ConnectOptions{
				Sessions: f.sessions, Agents: f.agents, Hold: f.hold, Empty: 5 * time.Second,
			}, nil)
		})
		idle := []any{"–", "–"}
		if f.hold > time.Second {
			idle = []any{median(t, reports, "idle_cpu_per_session", micro), median(t, reports, "idle_cpu_per_session_net", micro)}
		}
		s.row(t, append([]any{
			f.sessions, f.agents, median(t, reports, "rss_per_session", kibi), median(t, reports, "kernel_slab_per_session", kibi),
			median(t, reports, "server_cpu_per_login", micro), median(t, reports, "redis_cpu_per_login", micro), median(t, reports, "logins_per_second", 1),
			median(t, reports, "goroutines_before", 1), median(t, reports, "goroutines", 1),
		}, idle...)...)
	}
}

func figureWSS(t *testing.T, s *sheet) {
	s.row(t, "WSS, 10,000 sessions", "RSS a session, KiB", "of the kernel, both ends, KiB", "server CPU a login, us", "of Redis a login, us", "logins/s")
	for _, name := range []string{"full handshake", "resumed"} {
		reports := figureTimes(t, name, func(t *testing.T) *bench.Report {
			return figureConnect(t, clustertest.Options{TLS: true}, bench.ConnectOptions{Sessions: 10000, Hold: time.Second},
				func(_ *clustertest.Cluster, o *bench.Options) {
					if name == "resumed" {
						o.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(64)
					}
				})
		})
		s.row(t, name, median(t, reports, "rss_per_session", kibi), median(t, reports, "kernel_slab_per_session", kibi),
			median(t, reports, "server_cpu_per_login", micro), median(t, reports, "redis_cpu_per_login", micro), median(t, reports, "logins_per_second", 1))
	}
}

// figureIdle is the long one: five minutes with 15,000 sessions, ten pings each
// and three renewals of each lock. The runs are side by side, each with a pod,
// Redis, NATS and client process of its own: one after the other they would take
// 20 minutes, and do nothing for most of it.
func figureIdle(t *testing.T, s *sheet) {
	const hold = 5 * time.Minute
	reports := make([]*bench.Report, figureRuns)
	t.Run("held", func(t *testing.T) {
		for i := range reports {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				reports[i] = figureConnect(t, clustertest.Options{}, bench.ConnectOptions{Sessions: 15000, Agents: 1500, Hold: hold, Empty: 20 * time.Second},
					func(c *clustertest.Cluster, o *bench.Options) { figureWorker(t, c, o) })
			})
		}
	})
	if t.Failed() {
		return
	}
	s.row(t, "idle, each of three pods at once", "idle CPU a session, us/s", "net of the empty pod", "the empty pod, ms/s", "RSS a session, KiB", "closed", "machine busy",
		"calls to Redis a second", "in round trips", "its commands a second, scripts' too", "its CPU, ms/s")
	s.row(t, "15,000 sessions for "+hold.String(), median(t, reports, "idle_cpu_per_session", micro), median(t, reports, "idle_cpu_per_session_net", micro),
		median(t, reports, "empty_cpu", milli), median(t, reports, "rss_per_session", kibi), median(t, reports, "closed", 1), median(t, reports, "idle_machine_busy", 1),
		median(t, reports, "pods_redis_call_rate", 1), median(t, reports, "pods_redis_pipeline_rate", 1), median(t, reports, "redis_command_rate", 1), median(t, reports, "redis_cpu", milli))
}

// figureWorker gives a run a client process of its own: the file limit of this
// one is for one run's sockets.
func figureWorker(t *testing.T, c *clustertest.Cluster, o *bench.Options) {
	t.Helper()
	o.Crew.Workers, o.Crew.Name = 1, "figures"
	w, err := bench.Spawn(1, []string{clustertest.Bench(t), "worker", "-crew", o.Crew.Name, "-nats", c.NATS.URL},
		append(os.Environ(), "DAISI_BENCH_API_KEY="+o.APIKey, "DAISI_BENCH_TOKEN_KEY="+o.TokenKey))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
}
