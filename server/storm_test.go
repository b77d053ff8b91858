package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/server/clustertest"
	"github.com/daisi/daisi-ws/session"
)

// A storm is logins of a process of its own, at nice 10, so that the crowd's
// latency is not that of sharing a process with the storm.
var (
	stormAddr = flag.String("storm", "", "address to storm; the test binary then does nothing else")
	stormSize = flag.Int("storm-size", 0, "logins")
	stormRate = flag.Float64("storm-rate", 0, "offered a second, by schedule; 0: 32 at once, each after another")

	// They may be other users of a crowd's agents, who resume.
	stormStream = flag.String("storm-stream", "", "resume from the start of this stream")
	stormAgents = flag.Int("storm-agents", 0, "agents of the crowd")
	stormOwed   = flag.Int("storm-owed", 0, "old events that each of them is owed")
)

// stormed is what a storm came to.
type stormed struct {
	Accepted int            `json:"accepted"`
	Refused  map[string]int `json:"refused"`
	Seconds  float64        `json:"seconds"` // from the first offer to the last acceptance
	PerS     float64        `json:"per_s"`   // accepted, over that time
	Old      int64          `json:"old"`     // events that were replayed, and until when
	Replayed float64        `json:"replayed"`
}

// counted is the handler of a stormer's session.
type counted struct{ ready, old *atomic.Int64 }

func (counted) Tick(*loop.Conn, uint32) (next uint32) { return 0 }
func (counted) Closed(*loop.Conn, loop.End)           {}
func (h counted) Message(_ *loop.Conn, _ ws.OpCode, b []byte) {
	if bytes.Contains(b, []byte(`"old":`)) {
		h.old.Add(1)
	} else {
		h.ready.Add(1)
	}
}

// stormer is who the i-th login of a storm is.
func stormer(i int) (key session.Key, query string) {
	if *stormStream != "" {
		return user("acme", fmt.Sprint("crowd", i%*stormAgents), fmt.Sprint("storm", i)), "&resume=" + *stormStream + ":0"
	}
	return user("storm", fmt.Sprintf("ag%d", i/10), fmt.Sprintf("u%d", i)), ""
}

// fresh is an address to storm from. Ports of former storms rest for a minute, and
// where most of an address's do, the kernel takes a millisecond to find another.
func fresh(i int) net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 1, byte(os.Getpid()), byte(1+i%64))}
}

// addressOf is where a user logs in, for a process that has no cluster.
func addressOf(t *testing.T, addr string, key session.Key) string {
	t.Helper()
	ring, err := session.ParseKeyRing(session.PurposeUser, clustertest.TokenKeys, true)
	if err != nil {
		t.Fatal(err)
	}
	token, err := ring.Mint(session.Claims{Company: key.Company, Agent: key.Agent, User: key.User, ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return "ws://" + addr + "/ws/" + key.Company + "/" + key.Agent + "?x-api-key=" + clustertest.APIKey + "&token=" + url.QueryEscape(token)
}

// TestStormer is the storm's process; without its flags it is nothing.
func TestStormer(t *testing.T) {
	if *stormAddr == "" {
		return
	}
	engine := clientEngine(t)
	var ready, old atomic.Int64
	var mu sync.Mutex
	out := stormed{Refused: map[string]int{}}
	var last time.Time
	urls := make([]string, *stormSize)
	for i := range urls {
		key, query := stormer(i)
		urls[i] = addressOf(t, *stormAddr, key) + query
	}
	began := time.Now()
	login := func(i int) {
		_, err := engine.Dial(context.Background(), loop.DialOptions{URL: urls[i], LocalAddr: fresh(i), Timeout: 15 * time.Second}, counted{&ready, &old})
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			out.Accepted++
			last = time.Now()
		} else if status := refusal(err); status != 0 {
			out.Refused[fmt.Sprint(status)]++
		} else {
			out.Refused["no answer"]++
		}
	}
	var wg sync.WaitGroup
	if *stormRate > 0 {
		for i := range urls {
			time.Sleep(time.Until(began.Add(time.Duration(float64(i) / *stormRate * float64(time.Second)))))
			wg.Go(func() { login(i) })
		}
	} else {
		var next atomic.Int64
		for range 32 {
			wg.Go(func() {
				for i := next.Add(1) - 1; int(i) < len(urls); i = next.Add(1) - 1 {
					login(int(i))
				}
			})
		}
	}
	wg.Wait()
	if out.Accepted > 0 {
		out.Seconds = last.Sub(began).Seconds()
		out.PerS = float64(out.Accepted) / out.Seconds
	}
	for owed := int64(*stormOwed * *stormSize); old.Load() < owed && time.Since(began) < time.Minute; {
		time.Sleep(5 * time.Millisecond)
	}
	out.Old, out.Replayed = old.Load(), time.Since(began).Seconds()
	b, _ := json.Marshal(out)
	fmt.Printf("stormed %s\n", b)
}

// storm runs one to its end.
func storm(t *testing.T, c *clustertest.Cluster, size int, rate float64, flags ...string) (out stormed) {
	t.Helper()
	in := c.Pods[0].Metrics()["dws_active_connections"]
	flags = append([]string{
		"-n", "10", os.Args[0], "-test.run", "^TestStormer$", "-test.v",
		"-storm", c.Pods[0].Addr(), "-storm-size", fmt.Sprint(size), "-storm-rate", fmt.Sprint(rate),
	}, flags...)
	cmd := exec.Command("nice", flags...)
	text, err := cmd.CombinedOutput()
	_, line, ok := strings.Cut(string(text), "stormed ")
	if err != nil || !ok {
		t.Fatalf("storm: %v\n%s", err, text)
	}
	line, _, _ = strings.Cut(line, "\n")
	if err := json.Unmarshal([]byte(line), &out); err != nil {
		t.Fatal(err)
	}
	c.Eventually(60*time.Second, "the storm is over", func() bool {
		m := c.Pods[0].Metrics()
		return m["dws_active_connections"] == in && m["dws_pending_connections"] == 0
	})
	return out
}

// burn keeps every core busy, at the nice of a storm, with what asks the pod for
// nothing, as long as this process lives. What the others feel of that is the
// machine's doing.
func burn(t *testing.T) (stop func()) {
	t.Helper()
	var burners []*exec.Cmd
	stop = func() {
		for _, b := range burners {
			_ = b.Process.Kill()
			_ = b.Wait()
		}
		burners = nil
	}
	t.Cleanup(stop)
	for range runtime.NumCPU() {
		b := exec.Command("nice", "-n", "10", "sh", "-c", "while kill -0 $PPID; do :; done")
		if err := b.Start(); err != nil {
			t.Fatal(err)
		}
		burners = append(burners, b)
	}
	return stop
}

// control measures the others beside busy cores, in pairs, as a storm is.
func control(t *testing.T, k *crowd) {
	t.Helper()
	var quiet, busy []measured
	for range proofPairs {
		quiet = append(quiet, k.measure(t, 100, proofMeasure))
		stop := burn(t)
		busy = append(busy, k.measure(t, 100, proofMeasure))
		stop()
	}
	base, under, limit := slowed(quiet, busy)
	t.Logf("control: cores busy with something else: p99 %v without, %v with it (medians of %d pairs; limit %v)", base, under, len(quiet), limit)
}

// Logins offered at once, twice and five times the rate that a pod sustains:
// it accepts as many a second as it can, the others are told when to come back,
// and those who are in notice little.
func TestProveStorm(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Processes: true})
	k := newCrowd(t, c, proofStormCrowd, proofStormCrowd/10)
	k.measure(t, 100, proofMeasure)
	control(t, k)
	sustained := storm(t, c, proofStorm/3, 0).PerS
	t.Logf("sustained: %.0f logins a second, 32 at once", sustained)
	turnstile(t, c, k, 5*sustained)
	peak := 0.0
	for _, factor := range []float64{1, 2, 5} {
		quiet := []measured{k.measure(t, 100, proofMeasure)}
		var wg sync.WaitGroup
		var out stormed
		wg.Go(func() { out = storm(t, c, proofStorm, factor*sustained) })
		attack := []measured{k.measure(t, 100, proofMeasure)}
		wg.Wait()
		peak = max(peak, out.PerS)
		t.Logf("%.0fx: %d of %d accepted, %.0f a second; refused %v; others: %v before, %v meanwhile",
			factor, out.Accepted, proofStorm, out.PerS, out.Refused, quiet[0], attack[0])
		if out.PerS < 0.8*peak && !shortForm {
			t.Errorf("%.0fx: %.0f accepted a second, less than 80 %% of the peak of %.0f", factor, out.PerS, peak)
		}
		judge(t, fmt.Sprintf("%.0fx", factor), quiet, attack)
	}
	k.stays(t)
	c.Pods[0].Check()
}
