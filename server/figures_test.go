//go:build figures

package server_test

import (
	"context"
	"crypto/tls"
	"fmt"
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

// figureRun runs one scenario and gives its report; anything but a missed speed
// fails the test.
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

// median gives the median of a figure over some reports, and all of them.
func median(t *testing.T, reports []*bench.Report, name string, scale float64) string {
	t.Helper()
	var all []float64
	for _, r := range reports {
		v, ok := r.Figure(name)
		if !ok {
			t.Errorf("no figure %s", name)
		}
		all = append(all, v*scale)
	}
	slices.Sort(all)
	var texts []string
	for _, v := range all {
		texts = append(texts, strconv.FormatFloat(v, 'g', 4, 64))
	}
	if len(all) == 1 {
		return texts[0]
	}
	return fmt.Sprintf("**%s** (%s)", texts[len(texts)/2], strings.Join(texts, ", "))
}

const micro = 1e6

func TestFigures(t *testing.T) {
	var s sheet
	t.Run("floor", func(t *testing.T) { figureFloor(t, &s) })
	t.Run("sessions", func(t *testing.T) { figureSessions(t, &s) })
	t.Run("wss", func(t *testing.T) { figureWSS(t, &s) })
	t.Run("receivers", func(t *testing.T) { figureReceivers(t, &s) })
	t.Run("forward", func(t *testing.T) { figureForward(t, &s) })
	t.Run("sustained", func(t *testing.T) { figureSustained(t, &s) })
	t.Run("idle", func(t *testing.T) { figureIdle(t, &s) })
	t.Log("\n" + strings.Join(s.rows, "\n"))
}

func figureFloor(t *testing.T, s *sheet) {
	bin := filepath.Join(t.TempDir(), "daisi-bench")
	if out, err := exec.Command("go", "build", "-o", bin, "../cmd/daisi-bench").CombinedOutput(); err != nil {
		t.Fatalf("build daisi-bench: %v\n%s", err, out)
	}
	var reports []*bench.Report
	for range figureRuns {
		r, err := bench.Floor(context.Background(), bench.FloorOptions{Reader: []string{bin, "floor-reader"}})
		reports = append(reports, figureRun(t, r, err))
	}
	for _, name := range []string{"send_260B_joined_1", "send_260B_joined_10"} {
		s.row(t, "bare send(), us a frame: "+name, median(t, reports, name, micro))
	}
}

// figureConnect runs connect on a fresh pod, and gives Redis's CPU a login too.
func figureConnect(t *testing.T, o clustertest.Options, co bench.ConnectOptions) (*bench.Report, float64) {
	t.Helper()
	o.Processes = true
	c := clustertest.Start(t, o)
	co.Options = benchOptions(c)
	co.Settle = 10 * time.Second
	before := redisCPU(c)
	r, err := bench.Connect(context.Background(), co)
	r = figureRun(t, r, err)
	return r, (redisCPU(c) - before) / float64(co.Sessions)
}

// redisCPU is what Redis has used, in seconds.
func redisCPU(c *clustertest.Cluster) (sum float64) {
	info, _ := c.Redis.Do("INFO", "cpu").(string)
	for line := range strings.Lines(info) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), ":"); name == "used_cpu_user" || name == "used_cpu_sys" {
			v, _ := strconv.ParseFloat(value, 64)
			sum += v
		}
	}
	return sum
}

func figureSessions(t *testing.T, s *sheet) {
	s.row(t, "sessions a process", "agents", "RSS a session, KiB", "server CPU a login, us", "of Redis a login, us", "goroutines before", "with them", "idle CPU a session, us/s", "net of the empty pod")
	for _, n := range []int{1000, 5000, 15000} {
		for _, each := range []int{1, 10} {
			if each == 1 && n != 15000 {
				continue
			}
			var reports []*bench.Report
			var redis []string
			for range figureRuns {
				t.Run(fmt.Sprintf("%d by %d", n, each), func(t *testing.T) {
					r, cpu := figureConnect(t, clustertest.Options{}, bench.ConnectOptions{
						Sessions: n, Agents: n / each, Hold: 20 * time.Second, Empty: 5 * time.Second,
					})
					reports = append(reports, r)
					redis = append(redis, fmt.Sprintf("%.1f", cpu*micro))
				})
			}
			s.row(t, n, n/each, median(t, reports, "rss_per_session", 1.0/1024), median(t, reports, "server_cpu_per_login", micro), strings.Join(redis, ", "),
				median(t, reports, "goroutines_before", 1), median(t, reports, "goroutines", 1),
				median(t, reports, "idle_cpu_per_session", micro), median(t, reports, "idle_cpu_per_session_net", micro))
		}
	}
}

func figureWSS(t *testing.T, s *sheet) {
	s.row(t, "WSS", "RSS a session, KiB", "server CPU a login, us", "logins/s")
	for _, resumed := range []bool{false, true} {
		var reports []*bench.Report
		for range figureRuns {
			t.Run(fmt.Sprintf("resumed=%v", resumed), func(t *testing.T) {
				c := clustertest.Start(t, clustertest.Options{Processes: true, TLS: true})
				o := benchOptions(c)
				o.Settle = 10 * time.Second // as of plain ones: what the ramp left behind is given back by then
				if resumed {
					o.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(64)
				}
				r, err := bench.Connect(context.Background(), bench.ConnectOptions{Options: o, Sessions: 10000, Hold: 10 * time.Second})
				reports = append(reports, figureRun(t, r, err))
			})
		}
		s.row(t, map[bool]string{false: "full handshake", true: "resumed"}[resumed], median(t, reports, "rss_per_session", 1.0/1024),
			median(t, reports, "server_cpu_per_login", micro), median(t, reports, "logins_per_second", 1))
	}
}

func figureReceivers(t *testing.T, s *sheet) {
	s.row(t, "receivers an event (rate)", "server CPU a delivery, us", "of all pods an event, us", "p50, ms", "p99, ms", "generator's own lag p99, ms")
	for _, f := range []struct {
		receivers int
		rate      float64
		burst     int
	}{{1, 500, 1}, {10, 500, 1}, {100, 100, 1}, {1000, 20, 1}, {10, 2000, 10}, {100, 500, 10}} {
		var reports []*bench.Report
		for range figureRuns {
			t.Run(fmt.Sprintf("%d", f.receivers), func(t *testing.T) {
				reports = append(reports, figureFanout(t, clustertest.Options{}, f.receivers, f.rate, f.burst))
			})
		}
		s.row(t, fmt.Sprintf("%d (%g/s, %d at once)", f.receivers, f.rate, f.burst), median(t, reports, "server_cpu_per_delivery_net", micro), median(t, reports, "server_cpu_per_event", micro),
			median(t, reports, "delivery.p50", 1e3), median(t, reports, "delivery.p99", 1e3), lags(reports))
	}
}

func figureFanout(t *testing.T, o clustertest.Options, receivers int, rate float64, burst int) *bench.Report {
	t.Helper()
	o.Processes = true
	c := clustertest.Start(t, o)
	b := benchOptions(c)
	b.Settle = time.Second
	r, err := bench.Fanout(context.Background(), bench.FanoutOptions{
		Options: b, Sessions: 1000, Receivers: receivers, Companies: 1, Chats: 1, Rate: rate, Burst: burst, Duration: 8 * time.Second,
	})
	return figureRun(t, r, err)
}

// lags are the generator's own delays: what of the latency is the machine's.
func lags(reports []*bench.Report) string {
	var all []string
	for _, r := range reports {
		all = append(all, fmt.Sprintf("%.2f", r.Generator.Lag.P99*1e3))
	}
	return strings.Join(all, ", ")
}

// figureForward compares three pods with one: what all of them spend on an
// event more is the price of forwarding two thirds of them.
func figureForward(t *testing.T, s *sheet) {
	s.row(t, "pods, 500 events/s in batches of 50, 10 receivers", "server CPU an event, us, all pods", "p50, ms", "p99, ms")
	for _, pods := range []int{1, 3} {
		var reports []*bench.Report
		for range figureRuns {
			t.Run(fmt.Sprintf("%d pods", pods), func(t *testing.T) {
				reports = append(reports, figureFanout(t, clustertest.Options{Pods: pods}, 10, 2000, 50))
			})
		}
		s.row(t, pods, median(t, reports, "server_cpu_per_event", micro), median(t, reports, "delivery.p50", 1e3), median(t, reports, "delivery.p99", 1e3))
	}
}

// figureSustained raises the rate until p99 passes 100 ms or the generator is
// the bottleneck, then measures at the last rate before that, and at half of it.
func figureSustained(t *testing.T, s *sheet) {
	s.row(t, "sustained, 100 receivers an event", "deliveries/s", "p99 there, ms", "machine busy", "p99 at half of it, ms", "p50, ms")
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("wss=%v", secure), func(t *testing.T) {
			o := clustertest.Options{TLS: secure}
			rate, held := 200.0, 0.0
			for ; rate < 1e5; rate *= 1.3 {
				r := figureFanout(t, o, 100, rate, 1)
				p99, _ := r.Figure("delivery.p99")
				got, _ := r.Figure("delivery_rate")
				t.Logf("%.0f events/s: %.0f deliveries/s, p99 %.1f ms, exit %v", rate, got, p99*1e3, r.Exit)
				if p99 > 0.1 || r.Exit != bench.ExitPass {
					break
				}
				held = rate
			}
			if held == 0 {
				t.Fatal("nothing was sustained")
			}
			var most, half []*bench.Report
			for range figureRuns {
				most = append(most, figureFanout(t, o, 100, held, 1))
				half = append(half, figureFanout(t, o, 100, held/2, 1))
			}
			s.row(t, map[bool]string{false: "ws", true: "wss"}[secure], median(t, most, "delivery_rate", 1), median(t, most, "delivery.p99", 1e3), median(t, most, "machine_busy", 1),
				median(t, half, "delivery.p99", 1e3), median(t, half, "delivery.p50", 1e3))
		})
	}
}

// figureIdle is the long one: five minutes with 15,000 sessions, ten pings each.
func figureIdle(t *testing.T, s *sheet) {
	const hold = 5 * time.Minute
	r, _ := figureConnect(t, clustertest.Options{}, bench.ConnectOptions{Sessions: 15000, Hold: hold, Empty: 20 * time.Second})
	one := []*bench.Report{r}
	s.row(t, "15,000 sessions for "+hold.String(), "idle CPU a session, us/s", median(t, one, "idle_cpu_per_session", micro), "net of the empty pod", median(t, one, "idle_cpu_per_session_net", micro),
		"closed", median(t, one, "closed", 1), "the empty pod, ms/s", median(t, one, "empty_cpu", 1e3))
}
