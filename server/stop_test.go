package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/server/clustertest"
)

// stopRoom is what a stop may take beyond its time: the end of the process, and
// timers on a machine that others use too.
const stopRoom = 500 * time.Millisecond

// SIGTERM to a pod of its own: it is gone within DWS_DRAIN_TIMEOUT, and has told
// everybody, whether all is well (then no lock is left) or everything hangs that
// can. That this much hangs is shown by a pod that has time to wait for it.
func TestAStopEndsInItsTime(t *testing.T) {
	t.Parallel()
	f := func(name string, timeout, least time.Duration, hang bool) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rate := 20 // too slow
			if least > 0 {
				rate = 1000 // it is not the pace that takes so long
			}
			c := clustertest.Start(t, clustertest.Options{Pods: 2, Processes: true, Env: func(int) []string {
				return []string{fmt.Sprintf("DWS_DRAIN_RATE=%d", rate), "DWS_DRAIN_TIMEOUT=" + timeout.String(), "DWS_SEND_BUDGET=16MiB"}
			}})
			var in []*clustertest.Client
			for i := range 100 {
				in = append(in, c.Dial(c.Pods[0], user("acme", fmt.Sprintf("ag%d", i%16), fmt.Sprintf("u%d", i))))
			}
			if hang {
				hangAll(t, c)
			}
			lost := standstill(t)
			began := time.Now()
			c.Pods[0].Term()
			took, stood := time.Since(began), lost()
			t.Logf("took %v of %v, of it stood still: %v", took, timeout, stood)
			if took < least || took > timeout+stopRoom+stood {
				t.Errorf("took %v, want %v to %v; the machine stood still for %v", took, least, timeout, stood)
			}
			for i, k := range in {
				if end, ok := k.AwaitClose(arrival); !ok || end.Code != 1001 {
					t.Errorf("client %d: %+v", i, end)
				}
			}
			if hang {
				c.Redis.Cont()
				return
			}
			if n := locksLeft(c); n != 0 {
				t.Errorf("%d locks left", n)
			}
		})
	}
	f("all is well, the least time", time.Second, 0, false)
	f("all is well", 4*time.Second, 0, false)
	f("everything hangs, the least time", time.Second, 0, true)
	f("everything hangs", 4*time.Second, 0, true)
	f("everything hangs, and there is time for it", 25*time.Second, 4*time.Second+2*stopRoom, true)
}

// hangAll makes all hang that a stop of the first pod could wait for.
func hangAll(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	raw := func(addr string, request []byte) net.Conn {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		if _, err := nc.Write(request); err != nil {
			t.Fatal(err)
		}
		return nc
	}
	pod := c.Pods[0]
	internal := strings.TrimPrefix(pod.InternalURL(), "http://")

	// A client that never reads: events wait for it here, and so will its close frame.
	deaf := raw(pod.Addr(), upgradeRequest(c, "deaf", "deaf"))
	_ = deaf.(*net.TCPConn).SetReadBuffer(4 << 10)
	answer, err := http.ReadResponse(bufio.NewReaderSize(deaf, 16), nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("login: %+v %v", answer, err)
	}
	big := fmt.Sprintf(`{"id":"big","text":%q}`, strings.Repeat("x", 200<<10))
	c.Eventually(arrival, "events wait for a client that never reads", func() bool {
		c.Publish(clustertest.Subject("acme", "deaf", "chats", ""), big)
		a, err := c.Do("GET", pod.InternalURL()+"/admin/sessions?agent=deaf", "", "X-API-Key: "+clustertest.AdminKey)
		return err == nil && strings.Contains(a.Body, `"agent":"deaf"`) && !strings.Contains(a.Body, `"queued_bytes":0,`)
	})

	// Connections that stop on the way in, and requests whose end never comes.
	for i := range 20 {
		for _, s := range stages() {
			if !s.tls && s.name != "first frame" {
				if err := s.open(c, raw(pod.Addr(), nil), i); err != nil {
					t.Fatal(err)
				}
			}
		}
		body := "POST /generate-token HTTP/1.1\r\nHost: x\r\nX-API-Key: " + clustertest.MintKey + "\r\nContent-Length: 999\r\n\r\n{"
		raw(pod.Addr(), []byte(body))
		raw(internal, []byte("GET /metr"))
	}
	raw(internal, []byte("GET /debug/pprof/profile?seconds=60 HTTP/1.1\r\nHost: x\r\nX-API-Key: "+clustertest.AdminKey+"\r\n\r\n"))

	// All that is behind the pod, and logins that wait for it.
	c.NATS.Stop()
	c.Pods[1].Stop()
	c.Redis.Stop()
	t.Cleanup(func() { c.Redis.Cont(); c.NATS.Cont(); c.Pods[1].Cont() })
	for i := range 20 {
		go func(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) }(raw(pod.Addr(), upgradeRequest(c, "late", fmt.Sprintf("l%d", i))))
	}
}

// standstill measures how long this machine does not let a program run that
// sleeps for moments only; the answer is the sum until it is asked for.
func standstill(t *testing.T) (stop func() time.Duration) {
	t.Helper()
	const tick, usual = 10 * time.Millisecond, 50 * time.Millisecond
	var ended atomic.Bool
	sum := make(chan time.Duration, 1)
	go func() {
		var lost time.Duration
		for !ended.Load() {
			began := time.Now()
			time.Sleep(tick)
			if d := time.Since(began); d > usual {
				lost += d
			}
		}
		sum <- lost
	}()
	return func() time.Duration { ended.Store(true); return <-sum }
}
