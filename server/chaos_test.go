package server_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/bench"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// chaosOptions are the load of a test that ends pods: clients that resume.
func chaosOptions(c *clustertest.Cluster) bench.FanoutOptions {
	return bench.FanoutOptions{
		Options: benchOptions(c), Sessions: chaosSessions, Agents: chaosAgents, Rate: chaosRate, Duration: time.Second, Resume: true,
	}
}

// A random pod is killed with -9 again and again, under load: clients that
// resume miss nothing, and get nothing twice or out of order. Those
// that come back without saying where they stand miss what came meanwhile.
func TestProveKillsUnderLoad(t *testing.T) {
	waits(t)
	c := clustertest.Start(t, clustertest.Options{Pods: 3, Processes: true})
	kills := func(rounds int) func(context.Context, *bench.Stage) error {
		return func(ctx context.Context, _ *bench.Stage) error {
			for range rounds {
				p := c.Pods[rand.IntN(len(c.Pods))]
				p.Kill()
				p.Start()
				if err := bench.Wait(ctx, time.Now().Add(chaosEvery)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	o := chaosOptions(c)
	o.During = kills(chaosKills)
	r, err := bench.Fanout(context.Background(), o)
	passed(t, r, err)
	c.AwaitWhole()

	control := chaosOptions(c)
	control.Forget, control.DrainTime = true, 2*time.Second
	control.During = kills(1)
	r, err = bench.Fanout(context.Background(), control)
	show(t, r, err)
	if lost, _ := r.Figure("lost"); lost == 0 {
		t.Error("control: clients that do not say where they stand lost nothing")
	}
	for _, p := range c.Pods {
		p.Check()
	}
}

// Every pod in turn is told to end, and started again, under load: clients come
// back when `draining` told them to, with resume, and no second has more of them
// than the pace.
func TestProveRollingRestart(t *testing.T) {
	waits(t)
	c := clustertest.Start(t, clustertest.Options{Pods: 3, Processes: true, Env: func(int) []string {
		return []string{fmt.Sprintf("DWS_DRAIN_RATE=%d", drainRate)}
	}})
	o := chaosOptions(c)
	o.Thresholds = fmt.Sprintf("reconnect_rate_max<=%d", drainRate)
	o.During = func(ctx context.Context, _ *bench.Stage) error {
		for _, p := range c.Pods {
			p.Term()
			p.Start()
			c.AwaitWhole()
			if err := bench.Wait(ctx, time.Now().Add(chaosEvery/2)); err != nil {
				return err
			}
		}
		return nil
	}
	r, err := bench.Fanout(context.Background(), o)
	passed(t, r, err)
	t.Logf("reconnects in each second: %v", returnsEachSecond(r))
}

// returnsEachSecond is how many clients tried to come back between two rows of
// the time series.
func returnsEachSecond(r *bench.Report) (each []int64) {
	before := int64(0)
	for _, s := range r.Samples {
		each, before = append(each, s.Returns-before), s.Returns
	}
	return each
}
