//go:build figures

package server_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/bench"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// load is events for sessions of one pod, or of the first of several.
type load struct {
	receivers int
	rate      float64
	burst     int
}

func (l load) String() string {
	return fmt.Sprintf("%d (%g/s, %d at once)", l.receivers, l.rate, l.burst)
}

func figureStart(t *testing.T, o clustertest.Options) *clustertest.Cluster {
	t.Helper()
	o.Processes = true
	return clustertest.Start(t, o)
}

// figureTime is how long events last.
const figureTime = 8 * time.Second

// figureFanout gives 1,000 sessions of the first pod events.
func figureFanout(t *testing.T, c *clustertest.Cluster, l load) *bench.Report {
	t.Helper()
	o := benchOptions(c)
	o.Addrs, o.Redis = o.Addrs[:1], c.RedisURL
	r, err := bench.Fanout(context.Background(), bench.FanoutOptions{
		Options: o, Sessions: 1000, Receivers: l.receivers, Companies: 1, Chats: 1, Rate: l.rate, Burst: l.burst, Duration: figureTime,
	})
	return figureRun(t, r, err)
}

// What a pod's heap was given: as its metrics say it, and of it, in a report,
// what an idle pod is given as well, most of it for being asked.
const (
	mallocs     = "go_memstats_mallocs_total"
	idleMallocs = "idle_mallocs"
)

// figureMallocs is figureFanout beside what the pod's heap is given in as long
// a time while nobody is there.
func figureMallocs(t *testing.T, l load) *bench.Report {
	t.Helper()
	c := figureStart(t, clustertest.Options{})
	before := c.Pods[0].Metrics()[mallocs]
	time.Sleep(figureTime)
	idle := c.Pods[0].Metrics()[mallocs] - before
	r := figureFanout(t, c, l)
	r.Add(idleMallocs, idle, "", "")
	return r
}

// objects is how many a pod's heap was given for each delivery.
func objects(r *bench.Report) float64 {
	copies, _ := r.Figure("deliveries")
	idle, _ := r.Figure(idleMallocs)
	for _, c := range r.Server {
		if c.Name == mallocs {
			return (c.After - c.Before - idle) / max(copies, 1)
		}
	}
	return -1 // none was read
}

// lags are the generator's own delays: what of the latency is the machine's.
func lags(reports []*bench.Report) string {
	return medianOf(reports, func(r *bench.Report) float64 { return r.Generator.Lag.P99 * milli })
}

func figureReceivers(t *testing.T, s *sheet) {
	s.row(t, "receivers an event (rate)", "server CPU a delivery, net of idle, us", "of all pods an event, us", "p50, ms", "p99, ms", "generator's own lag p99, ms",
		"objects a delivery, at 1,000 net of idle", "of Redis an event, us")
	for _, l := range []load{{1, 500, 1}, {10, 500, 1}, {100, 100, 1}, {1000, 20, 1}, {10, 2000, 10}, {100, 500, 10}} {
		reports := figureTimes(t, l.String(), func(t *testing.T) *bench.Report {
			if l.receivers == 1000 {
				return figureMallocs(t, l)
			}
			return figureFanout(t, figureStart(t, clustertest.Options{}), l)
		})
		s.row(t, l, median(t, reports, "server_cpu_per_delivery_net", micro), median(t, reports, "server_cpu_per_event", micro),
			median(t, reports, "delivery.p50", milli), median(t, reports, "delivery.p99", milli), lags(reports), medianOf(reports, objects),
			medianOf(reports, func(r *bench.Report) float64 {
				cores, _ := r.Figure("redis_cpu")
				return cores / l.rate * micro
			}))
	}
}

// figureNobody asks what an event costs a pod on which nobody wants it, one by
// one and when there are many.
func figureNobody(t *testing.T, s *sheet) {
	loads := []load{{0, 500, 1}, {0, 10000, 100}}
	reports := figureTimes(t, "unwanted", func(t *testing.T) *bench.Report {
		return figureConnect(t, clustertest.Options{}, bench.ConnectOptions{
			Sessions: 1000, Hold: time.Second,
			During: func(ctx context.Context, st *bench.Stage) error { return unwanted(ctx, st, loads) },
		}, func(_ *clustertest.Cluster, o *bench.Options) { o.Settle = time.Second })
	})
	s.row(t, "events that nobody wants", "server CPU an event, net of idle, us")
	for _, l := range loads {
		s.row(t, l, median(t, reports, l.String(), micro))
	}
}

// unwanted publishes each load for 5 s to agents without sessions.
func unwanted(ctx context.Context, st *bench.Stage, loads []load) error {
	if err := st.OpenFeed(ctx, 0); err != nil {
		return err
	}
	pages := make([]*bench.Page, 50)
	for i := range pages {
		pages[i] = st.Book.Page(st.Options.Company, fmt.Sprintf("nobody%d", i))
	}
	idle, err := st.Measure("quiet", func() error { return bench.Wait(ctx, time.Now().Add(3*time.Second)) })
	if err != nil {
		return err
	}
	for _, l := range loads {
		count := int(l.rate * 5)
		use, err := st.Measure(l.String(), func() error {
			pace := bench.Pacer{Start: time.Now(), Rate: l.rate, Burst: l.burst}
			pick := func(i int) (*bench.Page, uint16) { return pages[i/l.burst%len(pages)], 0 }
			if err := st.Feed.Play(ctx, pace, count, pick); err != nil {
				return err
			}
			if err := st.Feed.Flush(ctx); err != nil {
				return err
			}
			return bench.Wait(ctx, time.Now().Add(200*time.Millisecond)) // until pods have read the last ones, too
		})
		if err != nil {
			return err
		}
		st.Report.Add(l.String(), (use.Server-idle.Server/idle.Seconds*use.Seconds)/float64(count), "s", "server, without what it does when nothing is published")
	}
	return nil
}

// figureForward compares three pods with one. Clients are on the first one, so
// that what the three spend on an event more, and its longer way, is the price
// of forwarding two thirds of them.
func figureForward(t *testing.T, s *sheet) {
	s.row(t, "pods, clients on the first", "receivers an event (rate)", "server CPU an event, net of idle, us, all pods", "p50, ms", "p99, ms", "generator's own lag p99, ms")
	for _, l := range []load{{10, 2000, 50}, {10, 500, 1}} {
		for _, pods := range []int{1, 3} {
			reports := figureTimes(t, fmt.Sprintf("%d pods, %v", pods, l), func(t *testing.T) *bench.Report {
				return figureFanout(t, figureStart(t, clustertest.Options{Pods: pods}), l)
			})
			s.row(t, pods, l, medianOf(reports, func(r *bench.Report) float64 {
				each, _ := r.Figure("server_cpu_per_delivery_net")
				return each * float64(l.receivers) * micro
			}), median(t, reports, "delivery.p50", milli), median(t, reports, "delivery.p99", milli), lags(reports))
		}
	}
}

func figureTakeover(t *testing.T, s *sheet) {
	reports := figureTimes(t, "1,000 users", func(t *testing.T) *bench.Report {
		r, err := bench.Takeover(context.Background(), bench.TakeoverOptions{Options: benchOptions(figureStart(t, clustertest.Options{Pods: 2}))})
		return figureRun(t, r, err)
	})
	s.row(t, "1,000 takeovers at 200/s", "p50, ms", "p99, ms")
	for _, f := range []struct{ what, name string }{{"across pods", "takeover"}, {"on one pod", "takeover_same_pod"}} {
		s.row(t, f.what, median(t, reports, f.name+".p50", milli), median(t, reports, f.name+".p99", milli))
	}
}

// figureSustained raises the rate until it is not held, then measures at the
// last one before that, and at half of it.
func figureSustained(t *testing.T, s *sheet) {
	s.row(t, "sustained, 100 receivers an event", "deliveries/s", "p99 there, ms", "machine busy", "p99 at half of it, ms", "p50, ms")
	for _, f := range []struct {
		name string
		rate float64
	}{{"ws", 300}, {"wss", 150}} {
		t.Run(f.name, func(t *testing.T) {
			c := figureStart(t, clustertest.Options{TLS: f.name == "wss"})
			next, held := f.rate, 0.0
			for next < 1e5 && holds(t, c, next) {
				next, held = next*1.3, next
			}
			if held == 0 {
				t.Fatal("nothing was sustained")
			}
			var most, half []*bench.Report
			for range figureRuns {
				most = append(most, figureFanout(t, c, load{100, held, 1}))
				half = append(half, figureFanout(t, c, load{100, held / 2, 1}))
			}
			s.row(t, f.name, median(t, most, "delivery_rate", 1), median(t, most, "delivery.p99", milli), median(t, most, "machine_busy", 1),
				median(t, half, "delivery.p99", milli), median(t, half, "delivery.p50", milli))
		})
	}
}

// holds says whether p99 stays below 100 ms at a rate and the generator keeps
// up, in one of two tries: a stall of the machine is no limit of it.
func holds(t *testing.T, c *clustertest.Cluster, rate float64) bool {
	t.Helper()
	for range 2 {
		r := figureFanout(t, c, load{100, rate, 1})
		p99, _ := r.Figure("delivery.p99")
		got, _ := r.Figure("delivery_rate")
		t.Logf("%.0f events/s: %.0f deliveries/s, p99 %.1f ms, exit %v", rate, got, p99*milli, r.Exit)
		if p99 <= 0.1 && r.Exit == bench.ExitPass {
			return true
		}
	}
	return false
}
