//go:build prove

package server_test

import (
	"testing"
	"time"

	"github.com/daisi/daisi-ws/server/clustertest"
)

// Redis fails over by sentinel, planned and not: whoever logged in more than ten
// seconds ago notices nothing but that events come later. Those who came in just
// before are the subject of TestFailoverTellsRoutesThatMayBeLost.
func TestProveFailover(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Pods: 3, Processes: true, Redis: clustertest.RedisSentinel})
	w := newWatcher(c, agentReadBy(t, c, 2, "ag"))
	time.Sleep(15 * time.Second)
	w.during(outage{what: "Redis fails over, as planned", begin: c.Sentinel.Failover, mend: func() {}, late: 10 * time.Second})
	time.Sleep(15 * time.Second)
	w.during(outage{what: "the master of Redis is killed, its replica promoted", begin: c.Sentinel.KillMaster, mend: func() {}, late: 10 * time.Second})
	w.end()
	for _, p := range c.Pods {
		p.Check()
	}
}
