package server_test

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// Receivers of the hot agent live in a process of their own, at nice 10, so that
// the crowd's latency is not that of sharing a process with them.
var (
	holdAddr  = flag.String("hold", "", "address where to hold sessions of one agent; the test binary then does nothing else")
	holdAgent = flag.String("hold-agent", "", "the agent")
	holdSize  = flag.Int("hold-size", 0, "sessions")
)

// hotRate is how many events a second the hot agent has.
const hotRate = 20

// tally counts events over all sessions.
type tally struct{ got *atomic.Int64 }

func (tally) Tick(*loop.Conn, uint32) (next uint32) { return 0 }
func (tally) Closed(*loop.Conn, loop.End)           {}
func (h tally) Message(_ *loop.Conn, _ ws.OpCode, b []byte) {
	if bytes.HasPrefix(b, []byte(`{"type":"event"`)) {
		h.got.Add(1)
	}
}

// TestHolder is their process; without its flags it is nothing. It is told at its
// end how many copies there must be, and says how many there were.
func TestHolder(t *testing.T) {
	if *holdAddr == "" {
		return
	}
	engine := clientEngine(t)
	var got atomic.Int64
	for i := range *holdSize {
		url := addressOf(t, *holdAddr, user("acme", *holdAgent, fmt.Sprint("u", i)))
		if _, err := engine.Dial(context.Background(), loop.DialOptions{URL: url, LocalAddr: source(i), Timeout: 15 * time.Second}, tally{&got}); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println("held")
	var want int64
	if _, err := fmt.Scan(&want); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); got.Load() < want && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	fmt.Println("held", got.Load())
}

// holder is that process, seen from the test.
type holder struct {
	agent  string
	events int // published for it
	in     io.WriteCloser
	out    *bufio.Scanner
}

// hold logs all the receivers of one agent in to the pod that reads its events.
func hold(t *testing.T, c *clustertest.Cluster, pod int) *holder {
	t.Helper()
	agent := agentReadBy(t, c, pod, "hot")
	cmd := exec.Command("nice", "-n", "10", os.Args[0], "-test.run", "^TestHolder$", "-test.v",
		"-hold", c.Pods[pod].Addr(), "-hold-agent", agent, "-hold-size", fmt.Sprint(proofHot))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	h := &holder{agent: agent, in: in, out: bufio.NewScanner(out)}
	h.says(t)
	return h
}

// says is the rest of the next line of its own.
func (h *holder) says(t *testing.T) string {
	t.Helper()
	text := ""
	for h.out.Scan() {
		if rest, ok := strings.CutPrefix(h.out.Text(), "held"); ok {
			return strings.TrimSpace(rest)
		}
		text += h.out.Text() + "\n"
	}
	t.Fatalf("holder of sessions ended:\n%s", text)
	return ""
}

// beside measures the crowd while events come for those who are held.
func (h *holder) beside(t *testing.T, k *crowd) measured {
	t.Helper()
	conn := k.c.NATS.Conn(t)
	defer conn.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		subject := clustertest.Subject("acme", h.agent, "chats", "")
		for n := range max(1, int(proofMeasure.Seconds()*hotRate)) {
			if n > 0 {
				time.Sleep(time.Second / hotRate)
			}
			if err := conn.Publish(subject, fmt.Appendf(nil, `{"pad":%q}`, padding)); err != nil {
				t.Error(err)
			}
			h.events++
		}
		_ = conn.Flush()
	}()
	defer func() { <-done }()
	return k.measure(t, 100, proofMeasure)
}

// all wants every copy to be there.
func (h *holder) all(t *testing.T) {
	t.Helper()
	want := fmt.Sprint(h.events * proofHot)
	if _, err := fmt.Fprintln(h.in, want); err != nil {
		t.Error(err)
	}
	if got := h.says(t); got != want {
		t.Errorf("%s copies of %d events at %d receivers, want %s", got, h.events, proofHot, want)
	}
}

// felt says that an attack is felt by more than I2 allows, and not only because the
// machine is busy: by more, too, than where the attack is another pod's.
func felt(quiet, attack, elsewhere []measured) bool {
	_, under, limit := slowed(quiet, attack)
	_, _, bound := slowed(elsewhere, attack)
	return under > max(limit, bound)
}

// That judge sees what a pod does, and leaves out what the machine does.
func TestFeltSeesFaults(t *testing.T) {
	t.Parallel()
	p99 := func(ms int) []measured { return []measured{{p99: time.Duration(ms) * time.Millisecond}} }
	for _, x := range []struct {
		quiet, attack, elsewhere int
		want                     bool
	}{{3, 25, 4, true}, {3, 25, 10, true}, {3, 8, 3, false}, {3, 18, 10, false}, {10, 19, 3, false}} {
		if got := felt(p99(x.quiet), p99(x.attack), p99(x.elsewhere)); got != x.want {
			t.Errorf("%+v: %v", x, got)
		}
	}
}

// One agent with very many receivers, who all get 20 events a second: all of them
// do, and sessions of other agents notice little. The control has the same on
// another pod: what the others feel of that is the machine's doing.
func TestProveIsolationFromHotAgent(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Pods: 2, Processes: true})
	k := gather(t, c, c.Pods[:1], agentsReadBy(t, c, proofCrowd/10, "near", 0), proofCrowd)
	k.measure(t, 100, proofMeasure)
	near, far := hold(t, c, 0), hold(t, c, 1)
	var quiet, attack, elsewhere []measured
	for range proofPairs {
		quiet = append(quiet, k.measure(t, 100, proofMeasure))
		attack = append(attack, near.beside(t, k))
		elsewhere = append(elsewhere, far.beside(t, k))
		t.Logf("others: %v before, %v meanwhile, %v while it is on another pod", quiet[len(quiet)-1], attack[len(attack)-1], elsewhere[len(elsewhere)-1])
	}
	near.all(t)
	far.all(t)
	base, under, limit := slowed(quiet, attack)
	control, _, bound := slowed(elsewhere, attack)
	t.Logf("an agent with %d receivers and %d events/s: p99 %v without, %v with it (medians of %d pairs; limit %v); %v with it on another pod (limit beside that %v)",
		proofHot, hotRate, base, under, proofPairs, limit, control, bound)
	if felt(quiet, attack, elsewhere) && !shortForm || under > 2*time.Second {
		t.Errorf("others beside it: p99 %v", under)
	}
	k.stays(t)
	c.Pods[0].Check()
}
