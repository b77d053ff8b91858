//go:build prove

package server_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/server/clustertest"
)

// A flood of sessions that each send most of a message, and no more: together more
// than a group of halfGroupMiB holds.
const (
	halfGroupMiB = 192
	halfPart     = 31 << 10 // of a message of 32,512 bytes
	halfPlain    = halfGroupMiB << 10 / 32 * 5 / 4
	halfSecure   = halfPlain * 2 / 3 // TLS takes the rest of the group
)

// Sessions that are in, and each send most of a message and no more: together
// more than the group may hold, 100 MB a second. The kernel kills nobody, they
// are ended and told so, and those who behave stay and get everything.
func TestProveMemoryLimitOfHalfMessages(t *testing.T) { // not beside others: a small group fills faster than a pod that gets no processor can see
	t.Run("ws", func(t *testing.T) { halvesAreCut(t, false, halfPlain) })
	t.Run("wss", func(t *testing.T) { halvesAreCut(t, true, halfSecure) })
}

func halvesAreCut(t *testing.T, secure bool, n int) {
	g := newGroup(t, halfGroupMiB<<20)
	c := clustertest.Start(t, clustertest.Options{Processes: true, TLS: secure, Before: g.enter()})
	k := newCrowd(t, c, proofCrowd, proofCrowd/10)
	all := halfSessions(t, c, n)
	wait := sendHalves(all)
	k.measure(t, 100, proofMeasure)
	wait()
	k.measure(t, 100, proofMeasure)

	m := c.Pods[0].Metrics()
	ended, told := endedWith(all, 4408)
	t.Logf("group of %d MiB, %d half messages: peak %d MiB, killed %d, ended for memory %.0f; of the clients %d were ended, %d told with 4408",
		halfGroupMiB, n, g.peak()>>20, g.kills(), m["dws_sessions_shed_total"], ended, told)
	if g.kills() != 0 {
		t.Fatalf("the kernel killed %d processes of the group", g.kills())
	}
	if ended == 0 || told < ended/2 {
		t.Errorf("%d were ended, %d of them told", ended, told)
	}
	c.Eventually(30*time.Second, "it is through", func() bool { return c.Pods[0].Metrics()["dws_memory_pressure"] < 850 })
	c.Dial(c.Pods[0], user("acme", "late", "u")).Close()
	k.measure(t, 100, proofMeasure)
	k.stays(t)
	c.Pods[0].Check()
}

// The same flood kills a pod that does not see its group.
func TestProveMemoryLimitOfHalfMessagesControl(t *testing.T) {
	g := newGroup(t, halfGroupMiB<<20)
	c := clustertest.Start(t, clustertest.Options{Processes: true, Before: g.enterBlind()})
	sendHalves(halfSessions(t, c, halfPlain))()
	g.isKilled(t, c)
}

// Sessions that read nothing and are owed no more than the kernel takes of it:
// nothing waits here, and yet they fill the group. They are ended, the kernel
// forgets what it kept for them, and others are let in.
func TestProveMemoryLimitOfUnread(t *testing.T) { // not beside others, as the one above
	const unread = 2400
	g := newGroup(t, halfGroupMiB<<20)
	c := clustertest.Start(t, clustertest.Options{Processes: true, Before: g.enter()})
	k := newCrowd(t, c, proofCrowd, proofCrowd/10)
	hogs(t, c, unread)
	conn := c.NATS.Conn(t)
	defer conn.Close()
	for _, piece := range []int{60 << 10, 30 << 10} { // the second fits into what the kernel keeps unsent
		body := []byte(`{"pad":"` + strings.Repeat("x", piece) + `"}`)
		for i := range unread {
			if err := conn.Publish(clustertest.Subject("acme", fmt.Sprintf("hog%d", i), "chats", ""), body); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(piece) * 10 * time.Nanosecond) // 100 MB a second
		}
	}
	k.measure(t, 100, proofMeasure)
	shed := func() float64 { return c.Pods[0].Metrics()["dws_sessions_shed_total"] }
	t.Logf("memory %.0f thousandths, %.0f ended", c.Pods[0].Metrics()["dws_memory_pressure"], shed())
	c.Eventually(30*time.Second, "some are ended", func() bool { return shed() > 0 })
	c.Eventually(30*time.Second, "it is through", func() bool { return c.Pods[0].Metrics()["dws_memory_pressure"] < 850 })
	t.Logf("group of %d MiB, %d that read nothing: peak %d MiB, killed %d, ended for memory %.0f", halfGroupMiB, unread, g.peak()>>20, g.kills(), shed())
	if g.kills() != 0 {
		t.Fatalf("the kernel killed %d processes of the group", g.kills())
	}
	c.Dial(c.Pods[0], user("acme", "late", "u")).Close()
	k.measure(t, 100, proofMeasure)
	k.stays(t)
	c.Pods[0].Check()
}

// halfSessions are sockets of users of their own, logged in.
func halfSessions(t *testing.T, c *clustertest.Cluster, n int) []net.Conn {
	t.Helper()
	all := make([]net.Conn, n)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := w; i < n && !t.Failed(); i += 16 {
				nc, err := half(c, i)
				if err != nil {
					t.Errorf("login %d: %v", i, err)
					return
				}
				t.Cleanup(func() { _ = nc.Close() })
				all[i] = nc
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return all
}

func half(c *clustertest.Cluster, i int) (net.Conn, error) {
	d := net.Dialer{LocalAddr: source(i), Timeout: 20 * time.Second}
	nc, err := d.Dial("tcp", c.Pods[0].Addr())
	if err != nil {
		return nil, err
	}
	if c.Cert != nil {
		nc = tls.Client(nc, clientTLS(c))
	}
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := nc.Write(upgradeRequest(c, "half", fmt.Sprintf("u%d", i))); err != nil {
		return nc, err
	}
	answer, err := http.ReadResponse(bufio.NewReaderSize(nc, 512), nil)
	if err == nil && answer.StatusCode != http.StatusSwitchingProtocols {
		err = errors.New(answer.Status)
	}
	return nc, err
}

// sendHalves has each send its part, all together 100 MB a second, and returns
// what waits for that.
func sendHalves(all []net.Conn) (wait func()) {
	part := append([]byte{0x81, 0xfe, 0x7f, 0x00, 0, 0, 0, 0}, strings.Repeat(" ", halfPart)...)
	const writers = 8
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := w; i < len(all); i += writers {
				_ = all[i].SetDeadline(time.Now().Add(20 * time.Second))
				_, _ = all[i].Write(part) // it may be ended by now
				time.Sleep(writers * time.Duration(len(part)) * 10 * time.Nanosecond)
			}
		})
	}
	return wg.Wait
}

// endedWith says how many of the sockets are at their end, and how many of these
// read a close frame with this code.
func endedWith(all []net.Conn, code int) (ended, told int) {
	var gone, heard atomic.Int64
	var wg sync.WaitGroup
	const readers = 16
	for r := range readers {
		wg.Go(func() {
			for i := r; i < len(all); i += readers {
				_ = all[i].SetReadDeadline(time.Now().Add(time.Millisecond))
				b, err := io.ReadAll(all[i])
				if errors.Is(err, os.ErrDeadlineExceeded) {
					continue
				}
				gone.Add(1)
				// The close frame is the last, and its text the reason.
				if at := bytes.LastIndexByte(b, 0x88); at >= 0 && len(b) >= at+4 && int(b[at+2])<<8|int(b[at+3]) == code {
					heard.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return int(gone.Load()), int(heard.Load())
}
