package server_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/server"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// stage is how far connections get that then stop.
type stage struct {
	name string
	tls  bool
	last time.Duration // the server ends it so long after it began, and no later
	open func(c *clustertest.Cluster, nc net.Conn, i int) error
}

// stages are those of the way in. Deadlines are the defaults: 15 s from accept,
// 15 s for a message; net/http gives TLS and headers 5 s of them.
func stages() []stage {
	return []stage{
		{"silent", false, 15 * time.Second, func(*clustertest.Cluster, net.Conn, int) error { return nil }},
		{"TLS", true, 15 * time.Second, func(_ *clustertest.Cluster, nc net.Conn, _ int) error {
			_, err := nc.Write(hello()[:40])
			return err
		}},
		{"headers", false, 15 * time.Second, func(_ *clustertest.Cluster, nc net.Conn, _ int) error {
			_, err := io.WriteString(nc, "GET /ws/acme/ag1 HTTP/1.1\r\nHost: x\r\nX-Sl")
			return err
		}},
		{"upgrade", false, 15 * time.Second, func(c *clustertest.Cluster, nc net.Conn, i int) error {
			request := upgradeRequest(c, "half", fmt.Sprintf("h%d", i))
			_, err := nc.Write(request[:len(request)-2])
			return err
		}},
		{"first frame", false, 17 * time.Second, func(c *clustertest.Cluster, nc net.Conn, i int) error {
			if _, err := nc.Write(upgradeRequest(c, "half", fmt.Sprintf("h%d", i))); err != nil {
				return err
			}
			_ = nc.SetReadDeadline(time.Now().Add(20 * time.Second))
			answer, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if err != nil {
				return err
			}
			if answer.StatusCode != http.StatusSwitchingProtocols {
				return fmt.Errorf("login: %s", answer.Status)
			}
			_, err = nc.Write([]byte{0x81, 0xfe, 0x10}) // of 8 bytes of a header
			return err
		}},
	}
}

// hello is the first message of a TLS client.
func hello() []byte {
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		_ = tls.Client(far, &tls.Config{ServerName: "localhost", MinVersion: tls.VersionTLS12}).Handshake()
	}()
	b := make([]byte, 4096)
	n, _ := near.Read(b)
	return b[:n]
}

// Thousands of connections that stop at each stage of the way in: those who are
// in keep their latency, each of the connections is ended by its one deadline,
// or before it where newcomers need its place, and then all is as before.
func TestProveHalfOpen(t *testing.T) {
	for _, s := range stages() {
		t.Run(s.name, func(t *testing.T) {
			if shortForm { // nothing is judged by time then
				t.Parallel()
			}
			c := clustertest.Start(t, clustertest.Options{Processes: true, TLS: s.tls})
			k := newCrowd(t, c, proofCrowd, proofCrowd/10)
			k.measure(t, 100, proofMeasure)
			var quiet, attack []measured
			var last *halves
			for i := range proofPairs {
				quiet = append(quiet, k.measure(t, 100, proofMeasure))
				last = openHalves(t, c, s)
				attack = append(attack, k.measure(t, 100, proofMeasure))
				if i < proofPairs-1 {
					last.drop()
					c.Eventually(20*time.Second, "they are forgotten", func() bool { return c.Pods[0].Metrics()["dws_pending_connections"] == 0 })
				}
			}
			c.Dial(c.Pods[0], user("acme", "newcomer", "u")).Close() // there is room for others
			if err := last.await(t, proofHalfOpen); err != nil {
				t.Error(err)
			}
			judge(t, s.name, quiet, attack)
			k.stays(t)
			m := c.Pods[0].Metrics()
			t.Logf("evicted for newcomers: %.0f", m["dws_connections_evicted_total"])
			c.Eventually(20*time.Second, "nothing is left of them", func() bool {
				m := c.Pods[0].Metrics()
				return m["dws_pending_connections"] == 0 && m["dws_active_connections"] == proofCrowd
			})
			k.measure(t, 100, proofMeasure)
			c.Pods[0].Check()
		})
	}
}

// halves are the connections of one attack.
type halves struct {
	stage stage
	conns []net.Conn
	wg    sync.WaitGroup

	mu    sync.Mutex
	lived []time.Duration // mu
}

func openHalves(t *testing.T, c *clustertest.Cluster, s stage) *halves {
	t.Helper()
	h := &halves{stage: s, conns: make([]net.Conn, proofHalfOpen)}
	work := make(chan int)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for i := range work {
				d := net.Dialer{LocalAddr: source(i), Timeout: 20 * time.Second}
				nc, err := d.Dial("tcp", c.Pods[0].Addr())
				if err != nil {
					t.Errorf("half %d: %v", i, err)
					continue
				}
				began := time.Now()
				h.conns[i] = nc
				if err := s.open(c, nc, i); err != nil {
					t.Errorf("half %d: %v", i, err)
					continue
				}
				h.wg.Go(func() { h.watch(nc, began) })
			}
		})
	}
	for i := range proofHalfOpen {
		work <- i
	}
	close(work)
	wg.Wait()
	return h
}

// watch waits for the end.
func (h *halves) watch(nc net.Conn, began time.Time) {
	_ = nc.SetReadDeadline(time.Now().Add(time.Minute))
	_, err := io.Copy(io.Discard, nc)
	lived := time.Since(began)
	if e, ok := err.(net.Error); ok && e.Timeout() {
		lived = time.Minute
	}
	h.mu.Lock()
	h.lived = append(h.lived, lived)
	h.mu.Unlock()
	_ = nc.Close()
}

func (h *halves) drop() {
	for _, nc := range h.conns {
		if tcp, ok := nc.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
			_ = tcp.Close()
		}
	}
	h.wg.Wait()
}

// halfSlack is of a machine that stands still now and then.
const halfSlack = 5 * time.Second

// await waits for the server's end of each, prints when that was, and says
// whether one of them came too late.
func (h *halves) await(t *testing.T, want int) error {
	t.Helper()
	h.wg.Wait()
	slices.Sort(h.lived)
	if n := len(h.lived); n != want || h.lived[n-1] > h.stage.last+halfSlack {
		return fmt.Errorf("%d of %d ended, the last after %v; want %v", n, want, h.lived[n-1], h.stage.last)
	}
	counts := map[int]int{}
	for _, d := range h.lived {
		counts[int(d.Seconds())]++
	}
	var b strings.Builder
	for s := range 60 {
		if n := counts[s]; n > 0 {
			fmt.Fprintf(&b, "\n  %2d s %6d %s", s, n, strings.Repeat("#", (n*60+proofHalfOpen-1)/proofHalfOpen))
		}
	}
	t.Logf("%s: when the server ended them:%s", h.stage.name, b.String())
	return nil
}

// What the judge is worth: it sees a server that ends them ten seconds too late,
// and one that loses count of one.
func TestHalfOpenSeesFaults(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Options: func(_ int, o *server.Options) {
		o.HTTP.LoginDeadline, o.HTTP.ReadHeaderTimeout = 10*time.Second, 10*time.Second
	}})
	s := stages()[0]
	s.last = time.Second
	h := &halves{stage: s}
	nc, err := net.Dial("tcp", c.Pods[0].Addr())
	if err != nil {
		t.Fatal(err)
	}
	h.wg.Go(func() { h.watch(nc, time.Now()) })
	if err := h.await(t, 1); err == nil || !strings.Contains(err.Error(), "the last after 1") {
		t.Errorf("a server without the deadline: %v", err)
	}
	h.stage.last = 15 * time.Second
	if err := h.await(t, 1); err != nil {
		t.Error(err)
	}
	if err := h.await(t, 2); err == nil {
		t.Error("one that is not ended was not missed")
	}
}
