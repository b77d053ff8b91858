package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// crowd is sessions that are in, and do nothing wrong: what an attack does to
// them is what counts. Events are due by a schedule, and late from that on.
type crowd struct {
	c      *clustertest.Cluster
	engine *loop.Engine
	pods   []*clustertest.Pod // where its sessions are
	agents []string
	fed    []int // of agents, those that get events
	size   int   // sessions
	seq    int
	closed atomic.Int64
	ready  atomic.Int64

	mu   sync.Mutex
	late []time.Duration // mu; of the measure under way
	got  int             // mu
	bad  int             // mu; out of order or twice
}

// member is one session; it is its own handler.
type member struct {
	crowd *crowd
	last  int
}

func (m *member) Tick(*loop.Conn, uint32) uint32 { return 0 }
func (m *member) Closed(*loop.Conn, loop.End)    { m.crowd.closed.Add(1) }
func (m *member) Message(_ *loop.Conn, _ ws.OpCode, b []byte) {
	if bytes.HasPrefix(b, []byte(`{"type":"ready"`)) {
		m.crowd.ready.Add(1)
		return
	}
	_, rest, ok := bytes.Cut(b, []byte(`"due":`))
	if !ok {
		return
	}
	digits, rest, _ := bytes.Cut(rest, []byte(","))
	due, _ := strconv.ParseInt(string(digits), 10, 64)
	_, rest, _ = bytes.Cut(rest, []byte(`"n":`))
	end := bytes.IndexAny(rest, ",}")
	n, _ := strconv.Atoi(string(rest[:max(end, 0)]))
	late := time.Since(time.Unix(0, due))
	c := m.crowd
	c.mu.Lock()
	defer c.mu.Unlock()
	if n <= m.last {
		c.bad++
	}
	m.last = n
	c.got++
	c.late = append(c.late, late)
}

// clientEngine is one that runs until the test is over.
func clientEngine(t *testing.T) *loop.Engine {
	t.Helper()
	engine, err := loop.New(loop.Options{Client: true, PongTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return engine
}

// newCrowd logs sessions of agents in to the first pod.
func newCrowd(t *testing.T, c *clustertest.Cluster, sessions, agents int) *crowd {
	t.Helper()
	names := make([]string, agents)
	for i := range names {
		names[i] = fmt.Sprint("crowd", i)
	}
	return gather(t, c, c.Pods[:1], names, sessions)
}

// gather logs sessions in, as many of each agent, and of each agent as many to
// each of the pods.
func gather(t *testing.T, c *clustertest.Cluster, pods []*clustertest.Pod, agents []string, sessions int) *crowd {
	t.Helper()
	k := &crowd{c: c, engine: clientEngine(t), pods: pods, agents: agents, size: sessions}
	for i := range agents {
		k.fed = append(k.fed, i)
	}
	work := make(chan int)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range work {
				if err := k.login(i); err != nil {
					t.Errorf("session %d of the crowd: %v", i, err)
				}
			}
		})
	}
	for i := range sessions {
		work <- i
	}
	close(work)
	wg.Wait()
	c.Eventually(30*time.Second, "the crowd is in", func() bool { return k.ready.Load() == int64(sessions) })
	return k
}

func (k *crowd) login(i int) error {
	pod := k.pods[i/len(k.agents)%len(k.pods)]
	url := loginURL(k.c, pod, k.agents[i%len(k.agents)], fmt.Sprintf("%s-u%d", pod.ID, i))
	_, err := k.engine.Dial(context.Background(), loop.DialOptions{URL: url, TLS: clientTLS(k.c), LocalAddr: source(i)}, &member{crowd: k})
	return err
}

// loginURL is that of a user of acme on a pod.
func loginURL(c *clustertest.Cluster, pod *clustertest.Pod, agent, name string) string {
	return pod.URL("ws") + "/ws/acme/" + agent + "?x-api-key=" + clustertest.APIKey +
		"&token=" + url.QueryEscape(c.Token(user("acme", agent, name)))
}

func clientTLS(c *clustertest.Cluster) *tls.Config {
	if c.Cert == nil {
		return nil
	}
	return &tls.Config{RootCAs: c.Cert.Pool, ServerName: "localhost", MinVersion: tls.VersionTLS12}
}

// source spreads connections over addresses: each has its own range of ports.
func source(i int) net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%8))} }

// measured is what one measure found.
type measured struct {
	p50, p99 time.Duration
	copies   int
}

func (m measured) String() string {
	return fmt.Sprintf("p50 %.2f ms, p99 %.2f ms", 1e3*m.p50.Seconds(), 1e3*m.p99.Seconds())
}

// measure publishes at rate for a time, and wants each event at every session
// of its agent, once and in order.
func (k *crowd) measure(t *testing.T, rate int, d time.Duration) measured {
	t.Helper()
	k.mu.Lock()
	k.late, k.got = k.late[:0], 0
	k.mu.Unlock()
	conn := k.c.NATS.Conn(t)
	defer conn.Close()
	want, start := 0, time.Now()
	for n := 0; n < int(d.Seconds()*float64(rate)); n++ {
		due := start.Add(time.Duration(n) * time.Second / time.Duration(rate))
		time.Sleep(time.Until(due))
		k.seq++
		agent := k.fed[k.seq%len(k.fed)]
		body := fmt.Sprintf(`{"due":%d,"pad":%q,"n":%d}`, due.UnixNano(), padding, k.seq)
		if err := conn.Publish(clustertest.Subject("acme", k.agents[agent], "chats", ""), []byte(body)); err != nil {
			t.Fatal(err)
		}
		want += (k.size + len(k.agents) - 1 - agent) / len(k.agents)
	}
	k.c.Eventually(30*time.Second, "every copy is there", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.got >= want
	})
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.got != want || k.bad != 0 {
		t.Errorf("%d copies, want %d; %d out of order or twice", k.got, want, k.bad)
	}
	slices.Sort(k.late)
	return measured{k.late[len(k.late)/2], k.late[len(k.late)*99/100], k.got}
}

const padding = "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"

// stays wants nobody of the crowd to have been closed.
func (k *crowd) stays(t *testing.T) {
	t.Helper()
	if n := k.closed.Load(); n != 0 {
		t.Errorf("%d of the crowd's %d sessions were closed", n, k.size)
	}
}

// slowed is I2's measure over pairs of a baseline and an attack: the median p99
// under attack is at most twice the baseline's, or 5 ms more.
func slowed(quiet, attack []measured) (base, under, limit time.Duration) {
	median := func(all []measured) time.Duration {
		p := make([]time.Duration, len(all))
		for i, m := range all {
			p[i] = m.p99
		}
		slices.Sort(p)
		return p[len(p)/2]
	}
	base, under = median(quiet), median(attack)
	return base, under, max(2*base, base+5*time.Millisecond)
}

// judge holds it against its limit. The short form shares its machine with other
// tests, and judges only what can't be chance.
func judge(t *testing.T, what string, quiet, attack []measured) {
	t.Helper()
	base, under, limit := slowed(quiet, attack)
	t.Logf("%s: p99 %v without, %v with it (medians of %d pairs; limit %v)", what, base, under, len(quiet), limit)
	if under > limit && !shortForm || under > 2*time.Second {
		t.Errorf("%s: p99 %v, more than %v", what, under, limit)
	}
}

// refusal is the status of a login that was refused, 0 for another error.
func refusal(err error) int {
	var e *loop.DialError
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// upgradeRequest is a login as it goes over the wire.
func upgradeRequest(c *clustertest.Cluster, agent, name string) []byte {
	u, _ := url.Parse(loginURL(c, c.Pods[0], agent, name))
	r, _ := http.NewRequest(http.MethodGet, u.String(), http.NoBody)
	return []byte("GET " + r.URL.RequestURI() + " HTTP/1.1\r\nHost: " + u.Host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
}
