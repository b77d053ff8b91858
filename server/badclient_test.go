package server_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/daisi/daisi-ws/server/clustertest"
)

// badClient does its worst until the server ends it, or the time is over.
type badClient struct {
	name string
	want string // in the outcome
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

// end reads what is left, up to the close frame.
func (p *prankster) end(limit time.Duration) string {
	_ = p.nc.SetReadDeadline(time.Now().Add(limit))
	for {
		h, err := ws.ReadHeader(p.br)
		if e, ok := err.(net.Error); ok && e.Timeout() {
			return "still in"
		}
		if err != nil {
			return "cut off without a word"
		}
		b := make([]byte, h.Length)
		if _, err := io.ReadFull(p.br, b); err != nil {
			return "cut off inside a frame"
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
		{"reads a byte a second", "slow", true, func(p *prankster) {
			for time.Now().Before(p.until) {
				_, _ = p.br.ReadByte()
				time.Sleep(time.Second)
			}
		}},
		{"floods messages", "rate", false, func(p *prankster) { p.write(many(masked(0x81, `{"type":"ready"}`), 50), 50) }},
		{"floods garbage", "rate", false, func(p *prankster) { p.write(many(masked(0x81, `{`), 50), 50) }},
		{"floods pings and reads no pong", "", false, func(p *prankster) { p.write(many(masked(0x89, "p"), 100), 100) }},
		{"sends fragments of a byte", "too_big", false, func(p *prankster) {
			_, _ = p.nc.Write(masked(0x01, "x"))
			p.write(many(masked(0x00, "x"), 100), 100)
		}},
		{"sends fragments of nothing", "timeout", false, func(p *prankster) {
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
	for i, b := range badClients() {
		t.Run(b.name, func(t *testing.T) { suffer(t, c, k, b, fmt.Sprintf("bad%d", i)) })
	}
	k.stays(t)
	c.Pods[0].Check()
}

func suffer(t *testing.T, c *clustertest.Cluster, k *crowd, b badClient, agent string) {
	ends := func() map[string]float64 { return c.Pods[0].Metrics() }
	before := ends()
	var quiet, attack []measured
	for range proofPairs {
		quiet = append(quiet, k.measure(t, 100, proofMeasure))
		p := intrude(t, c, agent)
		p.until = time.Now().Add(proofMeasure + 500*time.Millisecond)
		fed := make(chan struct{})
		go func() {
			defer close(fed)
			if b.feed {
				starve(t, c, agent)
			}
		}()
		done := make(chan struct{})
		began := time.Now()
		go func() { defer close(done); b.bad(p) }()
		attack = append(attack, k.measure(t, 100, proofMeasure))
		<-done
		<-fed
		if len(attack) == proofPairs {
			limit := 20 * time.Second
			if b.want == "" {
				limit = time.Second
			}
			outcome := p.end(limit)
			t.Logf("%s: after %v and %d frames: %s", b.name, time.Since(began).Round(100*time.Millisecond), p.sent, outcome)
		}
		_ = p.nc.Close()
	}
	judge(t, b.name, quiet, attack)
	if b.want == "" {
		return
	}
	name := fmt.Sprintf("dws_session_ends_total{reason=%q}", b.want)
	c.Eventually(30*time.Second, "it was ended for "+b.want, func() bool { return ends()[name] >= before[name]+1 })
}

// intrude logs a raw socket in.
func intrude(t *testing.T, c *clustertest.Cluster, agent string) *prankster {
	t.Helper()
	nc, err := net.Dial("tcp", c.Pods[0].Addr())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write(upgradeRequest(c, agent, "u")); err != nil {
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
