package server_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/server"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// badClient does its worst until the server ends it, or the time is over.
type badClient struct {
	name string
	want string // what it is ended for
	feed bool   // events are published for it
	bad  func(p *prankster)
}

// prankster is the raw socket of one.
type prankster struct {
	nc    net.Conn
	br    *bufio.Reader
	sent  int // frames
	until time.Time
}

// write sends until it fails or the time is over.
func (p *prankster) write(b []byte, frames int) {
	for time.Now().Before(p.until) {
		_ = p.nc.SetWriteDeadline(p.until)
		if _, err := p.nc.Write(b); err != nil {
			return
		}
		p.sent += frames
	}
}

// trickle takes a byte a second off the kernel's hands, and keeps it for end.
func (p *prankster) trickle() {
	peeked, _ := p.br.Peek(p.br.Buffered())
	taken, one := bytes.Clone(peeked), make([]byte, 1)
	for time.Now().Before(p.until) {
		_ = p.nc.SetReadDeadline(p.until)
		n, err := p.nc.Read(one)
		if taken = append(taken, one[:n]...); err != nil {
			break
		}
		time.Sleep(min(time.Second, time.Until(p.until)))
	}
	p.br = bufio.NewReader(io.MultiReader(bytes.NewReader(taken), p.nc))
}

// end reads what is left, up to the close frame.
func (p *prankster) end(limit time.Duration) string {
	_ = p.nc.SetReadDeadline(time.Now().Add(limit))
	for {
		h, err := ws.ReadHeader(p.br)
		word := "cut off without a word"
		b := make([]byte, h.Length)
		if err == nil {
			_, err = io.ReadFull(p.br, b)
			word = "cut off inside a frame"
		}
		if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
			return "still in"
		}
		if err != nil {
			return word
		}
		if h.OpCode == ws.OpClose && len(b) >= 2 {
			return fmt.Sprintf("close %d %s", binary.BigEndian.Uint16(b), b[2:])
		}
	}
}

func masked(b0 byte, payload string) []byte {
	h := ws.Header{Fin: b0&0x80 != 0, OpCode: ws.OpCode(b0 & 0x0f), Masked: true, Length: int64(len(payload))}
	f := ws.Frame{Header: h, Payload: []byte(payload)}
	return ws.MustCompileFrame(f) // the mask is 0: valid, and cheap to make
}

func many(frame []byte, n int) []byte { return []byte(strings.Repeat(string(frame), n)) }

func badClients() []badClient {
	return []badClient{
		{"never reads", "slow", true, func(p *prankster) { time.Sleep(time.Until(p.until)) }},
		{"reads a byte a second", "slow", true, (*prankster).trickle},
		{"floods messages", "rate", false, func(p *prankster) { p.write(many(masked(0x81, `{"type":"ready"}`), 50), 50) }},
		{"floods garbage", "rate", false, func(p *prankster) { p.write(many(masked(0x81, `{`), 50), 50) }},
		{"floods pings and reads no pong", "rate", false, func(p *prankster) { p.write(many(masked(0x89, "p"), 100), 100) }},
		{"sends fragments of a byte", "too_big", false, func(p *prankster) {
			_, _ = p.nc.Write(masked(0x01, "x"))
			p.write(many(masked(0x00, "x"), 100), 100)
		}},
		{"sends fragments of nothing", "rate", false, func(p *prankster) {
			_, _ = p.nc.Write(masked(0x01, ""))
			p.write(many(masked(0x00, ""), 100), 100)
		}},
	}
}

// One client that behaves badly, in each of several ways: what became of it,
// and what the others felt.
func TestProveBadClients(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Processes: true, Env: func(int) []string { return []string{"DWS_SEND_BUDGET=256KiB"} }})
	k := newCrowd(t, c, proofCrowd, proofCrowd/10)
	k.measure(t, 100, proofMeasure)
	var table strings.Builder
	for i, b := range badClients() {
		t.Run(b.name, func(t *testing.T) { table.WriteString(suffer(t, c, k, b, fmt.Sprintf("bad%d", i))) })
	}
	k.stays(t)
	c.Pods[0].Check()
	t.Logf("one of them beside %d others, %d times:\n%-32s %-40s %8s %8s   %s\n%s", proofCrowd, proofPairs,
		"it", "what became of it", "frames", "after", "p99 of the others without, with, at most", table.String())
}

// suffer gives the line that says what became of it and of the others.
func suffer(t *testing.T, c *clustertest.Cluster, k *crowd, b badClient, agent string) (line string) {
	before := c.Pods[0].Metrics()
	var last suffered
	var quiet, attack []measured
	for range proofPairs {
		quiet = append(quiet, k.measure(t, 100, proofMeasure))
		p := newAttacker(t, attackBy(c, b, agent))
		var wg sync.WaitGroup
		if b.feed {
			wg.Go(func() { starve(t, c, agent) })
		}
		p.begin()
		attack = append(attack, k.measure(t, 100, proofMeasure))
		last = p.end()
		wg.Wait()
		if err := b.judge(last.Outcome); err != nil {
			t.Error(err)
		}
	}
	judge(t, b.name, quiet, attack)
	if err := endedFor(c, b.want, before, 30*time.Second); err != nil {
		t.Error(err)
	}
	base, under, limit := slowed(quiet, attack)
	return fmt.Sprintf("%-32s %-40s %8d %8s   %v, %v, %v\n", b.name, last.Outcome, last.Sent, last.After.Round(time.Millisecond),
		base.Round(10*time.Microsecond), under.Round(10*time.Microsecond), limit.Round(10*time.Microsecond))
}

// judge holds the end that a client saw against what it was to be ended for.
// Who does not read may find the connection gone before its word.
func (b badClient) judge(outcome string) error {
	code := map[string]string{"slow": "close 4408 ", "rate": "close 4429 ", "too_big": "close 1009 "}[b.want]
	if strings.HasPrefix(outcome, code) || strings.HasPrefix(outcome, "cut off") {
		return nil
	}
	return fmt.Errorf("%s: %s, want %s", b.name, outcome, code)
}

func attackBy(c *clustertest.Cluster, b badClient, agent string) attack {
	return attack{Name: b.name, Pod: c.Pods[0].Addr(), Request: upgradeRequest(c, agent, "u"), For: proofMeasure + 500*time.Millisecond}
}

// endedFor waits until one more session was ended for why than before.
func endedFor(c *clustertest.Cluster, why string, before map[string]float64, limit time.Duration) error {
	name := fmt.Sprintf("dws_session_ends_total{reason=%q}", why)
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if c.Pods[0].Metrics()[name] > before[name] {
			return nil
		}
	}
	return fmt.Errorf("within %v nobody was ended for %s", limit, why)
}

// What the judges are worth: a pod whose budget, rate and size know no bounds
// ends none of them, and each is missed. Those that are ended by a rule which no
// setting takes away do nothing bad here, which comes to the same.
func TestBadClientsSeesFaults(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Options: func(_ int, o *server.Options) {
		o.Limits.SendBudget, o.Limits.MessageRate, o.Limits.MaxMessage = 64<<20, 1_000_000, 16<<20
	}})
	for i, b := range badClients() {
		before := c.Pods[0].Metrics()
		agent := fmt.Sprintf("bad%d", i)
		p := intrude(t, c.Pods[0].Addr(), upgradeRequest(c, agent, "u"))
		p.until = time.Now().Add(300 * time.Millisecond)
		if b.feed {
			starve(t, c, agent)
		}
		if b.want != "rate" || b.name == "floods messages" {
			b.bad(p)
		}
		outcome := p.end(300 * time.Millisecond)
		if err := b.judge(outcome); err == nil {
			t.Errorf("%s: %s is taken for an end by the rule", b.name, outcome)
		}
		if err := endedFor(c, b.want, before, 500*time.Millisecond); err == nil {
			t.Errorf("%s: ended for %s by a pod without the rule", b.name, b.want)
		}
		_ = p.nc.Close()
	}
}

// I2's judge and that of who stays see an attack that hurts.
func TestCrowdSeesFaults(t *testing.T) {
	t.Parallel()
	quiet := []measured{{p99: 2 * time.Millisecond}, {p99: 90 * time.Millisecond}, {p99: 3 * time.Millisecond}}
	if base, under, limit := slowed(quiet, []measured{{p99: 9 * time.Millisecond}, {p99: 8 * time.Millisecond}, {p99: 9 * time.Millisecond}}); base != 3*time.Millisecond || under <= limit {
		t.Errorf("base %v, under attack %v, limit %v", base, under, limit)
	}
	if _, under, limit := slowed(quiet, quiet); under > limit {
		t.Errorf("an attack that does nothing: %v, limit %v", under, limit)
	}
	k := &crowd{}
	m := &member{crowd: k}
	event := func(n int) {
		m.Message(nil, ws.OpText, fmt.Appendf(nil, `{"type":"event","payload":{"due":1,"pad":"","n":%d}}`, n))
	}
	event(1)
	event(3)
	if k.bad != 0 || k.got != 2 {
		t.Errorf("in order: %d bad of %d", k.bad, k.got)
	}
	event(3)
	event(2)
	if k.bad == 0 {
		t.Error("twice and out of order were not seen")
	}
	m.Closed(nil, loop.End{})
	if k.closed.Load() != 1 {
		t.Error("an end was not seen")
	}
}

// intrude logs a raw socket in.
func intrude(t *testing.T, addr string, request []byte) *prankster {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write(request); err != nil {
		t.Fatal(err)
	}
	p := &prankster{nc: nc, br: bufio.NewReader(nc)}
	answer, err := http.ReadResponse(p.br, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("login: %v %v", answer, err)
	}
	return p
}

// starve publishes what the bad client does not read: 3 MiB, more than its budget
// and what the kernels of both ends keep for it.
func starve(t *testing.T, c *clustertest.Cluster, agent string) {
	conn := c.NATS.Conn(t)
	defer conn.Close()
	body := fmt.Appendf(nil, `{"pad":%q}`, strings.Repeat("x", 48<<10))
	for range 64 {
		time.Sleep(3 * time.Millisecond)
		_ = conn.Publish(clustertest.Subject("acme", agent, "chats", ""), body)
	}
	_ = conn.Flush()
}
