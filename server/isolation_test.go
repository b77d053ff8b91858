package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/server"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// smallQueue is what the first pod may keep for another one; the second has the
// default, so that each sample shows one that keeps to the bound and one beyond it.
const (
	smallQueue   = 1 << 20
	defaultQueue = 16 << 20
)

// isolation is a pod that fails, the crowd on the two others, whose events those
// read, and sessions of the same agents on the pod itself, so that all of these
// events are forwarded to it.
type isolation struct {
	c     *clustertest.Cluster
	dead  *clustertest.Pod
	k     *crowd
	held  *crowd
	since int // events of the crowd before held came
}

// A pod stands still, then does not take what is forwarded to it, then is killed
// with -9: what sessions on the others notice of it, and what it costs those pods.
func TestProveIsolationFromDeadPeer(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Pods: 3, Processes: true, Env: func(pod int) []string {
		return []string{fmt.Sprintf("DWS_PEER_QUEUE=%d", []int{smallQueue, defaultQueue, defaultQueue}[pod])}
	}})
	x := &isolation{c: c, dead: c.Pods[2]}
	x.k = gather(t, c, c.Pods[:2], agentsReadBy(t, c, proofCrowd/10, "near", 0, 1), proofCrowd)
	x.hold(t)
	x.k.measure(t, 100, proofMeasure)
	x.stopped(t)
	x.readerStopped(t)
	x.takesNothing(t)
	x.killed(t)
	x.k.stays(t)
	for _, p := range c.Pods[:2] {
		p.Check()
	}
}

// hold logs in those on the pod that fails, one of each agent.
func (x *isolation) hold(t *testing.T) {
	t.Helper()
	x.since = x.k.seq
	x.held = gather(t, x.c, []*clustertest.Pod{x.dead}, x.k.agents, len(x.k.agents))
}

// owed waits until those on the pod have all that was published since they came,
// once and in order. They may have more: a pod that lags behind gives them what was
// stored before their login, too.
func (x *isolation) owed(t *testing.T) {
	t.Helper()
	want := x.k.seq - x.since
	got, bad := 0, 0
	x.c.Eventually(30*time.Second, "its own sessions have what they are owed", func() bool {
		x.held.mu.Lock()
		defer x.held.mu.Unlock()
		got, bad = x.held.got, x.held.bad
		return got >= want
	})
	if bad != 0 {
		t.Errorf("sessions of the pod have got %d events, %d of them out of order or twice", got, bad)
	}
	x.held.stays(t)
}

// dropped is how many batches each of the two others, at least, did not take for
// a pod.
func (x *isolation) dropped() float64 {
	return min(clustertest.Sum(x.c.Pods[0].Metrics(), "dws_forward_batches_dropped_total"),
		clustertest.Sum(x.c.Pods[1].Metrics(), "dws_forward_batches_dropped_total"))
}

// stopped measures from the instant when the pod is stopped, and again when the
// others have noticed.
func (x *isolation) stopped(t *testing.T) {
	var quiet, fresh, later []measured
	for range proofPairs {
		quiet = append(quiet, x.k.measure(t, 100, proofMeasure))
		before := x.dropped()
		fresh = append(fresh, x.k.meanwhile(t, x.dead.Stop))
		for end := time.Now().Add(5 * time.Second); x.dropped() == before && time.Now().Before(end); {
			x.k.measure(t, 100, proofMeasure/4)
		}
		if x.dropped() == before {
			t.Error("nothing was kept back from a pod that stands still: was anything forwarded to it?")
		}
		later = append(later, x.k.measure(t, 100, proofMeasure))
		x.dead.Cont()
		x.owed(t)
	}
	judge(t, "a pod is stopped", quiet, fresh)
	judge(t, "a pod has been stopped for a while", quiet, later)
}

// readerStopped is the control: those whose events the pod reads do wait for
// others to read them, and the judge says so.
func (x *isolation) readerStopped(t *testing.T) {
	k := gather(t, x.c, x.c.Pods[:2], agentsReadBy(t, x.c, 2, "far", 2), 20)
	quiet := []measured{k.measure(t, 100, proofMeasure)}
	attack := []measured{k.meanwhile(t, x.dead.Stop)}
	x.dead.Cont()
	base, under, limit := slowed(quiet, attack)
	t.Logf("control: the pod that reads is stopped: p99 %v without, %v with it (limit %v)", base, under, limit)
	if under <= limit {
		t.Error("the judge does not see events that wait for a pod that stands still")
	}
	x.owed(t)
}

// burden is what a pod had at most while many large events came.
type burden struct{ queue, rss float64 }

// takesNothing publishes large events, first for nobody, then for sessions of the
// pod while it stands still.
func (x *isolation) takesNothing(t *testing.T) {
	nobody := x.fatten(t, []string{agentReadBy(t, x.c, 0, "nobody"), agentReadBy(t, x.c, 1, "nobody")})
	agents := []string{agentReadBy(t, x.c, 0, "fat"), agentReadBy(t, x.c, 1, "fat")}
	gather(t, x.c, []*clustertest.Pod{x.dead}, agents, 2)
	x.dead.Stop()
	most := x.fatten(t, agents)
	x.dead.Cont()
	const mib = 1 << 20
	for i, limit := range []float64{smallQueue, defaultQueue} {
		t.Logf("%d events of 48 KiB for nobody: RSS of %s %.0f MiB at most; for a pod that takes none, with %.0f MiB to wait: %.0f MiB, %.2f MiB waited",
			proofFat, x.c.Pods[i].ID, nobody[i].rss/mib, limit/mib, most[i].rss/mib, most[i].queue/mib)
		if most[i].queue > limit {
			t.Errorf("%.0f bytes waited in %s, more than %.0f", most[i].queue, x.c.Pods[i].ID, limit)
		}
		// Go lets garbage grow to as much as is in use.
		if grown := most[i].rss - nobody[i].rss; grown > 2*limit+32*mib {
			t.Errorf("%s grew by %.0f MiB", x.c.Pods[i].ID, grown/mib)
		}
	}
	// What the small bound is worth: more than it came, for the other pod has more.
	if full := x.c.Pods[0].Metrics()[`dws_forward_batches_dropped_total{reason="queue_full"}`]; full == 0 || most[1].queue <= smallQueue {
		t.Errorf("the queue was never full (%v batches dropped for that), and the larger one had %.0f bytes", full, most[1].queue)
	}
}

// fatten publishes for two agents, the first of which the first pod reads, and
// looks at both pods until they have read all of it.
func (x *isolation) fatten(t *testing.T, agents []string) (most [2]burden) {
	t.Helper()
	look := func() {
		for i := range most {
			m := x.c.Pods[i].Metrics()
			most[i].queue = max(most[i].queue, clustertest.Sum(m, "dws_forward_queue_bytes"))
			most[i].rss = max(most[i].rss, m["process_resident_memory_bytes"])
		}
	}
	p := x.c.NATS.Publisher(t)
	body := fmt.Appendf(nil, `{"pad":%q}`, strings.Repeat("x", 48<<10))
	for n := range proofFat {
		p.Send(clustertest.Subject("acme", agents[n%2], "chats", ""), body)
		if n%250 == 249 {
			p.Flush()
			look()
		}
	}
	x.k.measure(t, 100, proofMeasure) // stored after it, so read after it
	look()
	return most
}

// killed measures from before the pod is killed on.
func (x *isolation) killed(t *testing.T) {
	var quiet, attack []measured
	for i := range proofPairs {
		if i > 0 {
			x.dead.Start()
			x.c.AwaitWhole()
			x.hold(t)
		}
		x.feed(t)
		x.k.measure(t, 100, proofMeasure) // partitions settle
		quiet = append(quiet, x.k.measure(t, 100, proofMeasure))
		x.owed(t)
		attack = append(attack, x.k.meanwhile(t, x.dead.Kill))
		x.c.Eventually(10*time.Second, "its own sessions are cut off", func() bool { return x.held.closed.Load() == int64(x.held.size) })
		t.Logf("killed, %d: %v before, %v meanwhile", i, quiet[i], attack[i])
	}
	judge(t, "a pod is killed with -9", quiet, attack)
}

// feed leaves out what the pod reads now: started anew, it has other partitions.
func (x *isolation) feed(t *testing.T) {
	t.Helper()
	all := owners(t, x.c)
	x.k.fed = x.k.fed[:0]
	for i, agent := range x.k.agents {
		if r := server.ReaderOf("acme", agent, 64, all); r != slices.Index(x.c.Pods, x.dead) {
			x.k.fed = append(x.k.fed, i)
		}
	}
}

// meanwhile is a measure, and soon after its beginning something happens.
func (k *crowd) meanwhile(t *testing.T, what func()) measured {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(proofMeasure / 8)
		what()
	}()
	defer func() { <-done }()
	return k.measure(t, 100, proofMeasure)
}
