package server_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/daisi/daisi-ws/server/clustertest"
	"github.com/daisi/daisi-ws/session"
)

// recordCounter counts the TLS records that are read from it.
type recordCounter struct {
	net.Conn
	records atomic.Int64

	head []byte // of a record, unless it is whole
	left int    // bytes of the one at hand
}

// Read implements net.Conn.
func (r *recordCounter) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	for data := b[:n]; len(data) > 0; {
		if r.left == 0 {
			take := min(5-len(r.head), len(data))
			r.head, data = append(r.head, data[:take]...), data[take:]
			if len(r.head) == 5 {
				r.left = int(binary.BigEndian.Uint16(r.head[3:]))
				r.head = r.head[:0]
				r.records.Add(1)
			}
			continue
		}
		take := min(r.left, len(data))
		r.left, data = r.left-take, data[take:]
	}
	return n, err
}

// Under TLS a flush is one record, as the client sees them: events of several
// segments' size one by one, and short ones that may be joined.
func TestRecordsAreFlushes(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{TLS: true})
	pod, key := c.Pods[0], session.Key{Company: "acme", Agent: "ag1", User: "u1"}
	var counter *recordCounter
	d := ws.Dialer{
		Timeout: 10 * time.Second, TLSConfig: &tls.Config{RootCAs: c.Cert.Pool, MinVersion: tls.VersionTLS13},
		NetDial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, addr)
			counter = &recordCounter{Conn: nc}
			return counter, err
		},
	}
	conn, br, _, err := d.Dial(context.Background(), pod.URL("ws")+"/ws/acme/ag1?x-api-key="+clustertest.APIKey+"&token="+url.QueryEscape(c.Token(key)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	var in io.Reader = conn
	if br != nil {
		in = br
	}
	next := func() string { // of the frames that are no control frames
		for {
			h, err := ws.ReadHeader(in)
			if err != nil {
				t.Fatal(err)
			}
			payload := make([]byte, min(h.Length, 1<<20))
			if _, err := io.ReadFull(in, payload); err != nil {
				t.Fatal(err)
			}
			if h.OpCode == ws.OpText {
				return string(payload)
			}
		}
	}
	if first := next(); !strings.Contains(first, `"ready"`) {
		t.Fatalf("first frame %q", first)
	}
	flushes := func() float64 { return pod.Metrics()["dws_flush_frames_count"] }
	subject := clustertest.Subject("acme", "ag1", "chats", "")
	long := strings.Repeat("x", 8000)
	c.Publish(subject, body("warm-up"))
	next()
	before := flushes()
	c.Eventually(10*time.Second, "the flushes until now are counted", func() bool {
		last := before
		before = flushes()
		return before == last && before > 0
	})
	records := counter.records.Load()

	const each, atOnce = 20, 40 // those at once are less than a record can hold
	for i := range each {
		c.Publish(subject, body(fmt.Sprint(i)+long))
		next()
	}
	nc := c.NATS.Conn(t)
	for i := range atOnce {
		if err := nc.Publish(subject, []byte(body(fmt.Sprint("short", i)))); err != nil {
			t.Fatal(err)
		}
	}
	for range atOnce {
		next()
	}
	seen := float64(counter.records.Load() - records)
	if seen < each+1 || seen > each+atOnce {
		t.Fatalf("%.0f records for %d events", seen, each+atOnce)
	}
	c.Eventually(10*time.Second, fmt.Sprintf("%.0f flushes for as many records", seen), func() bool { return flushes()-before >= seen })
	if n := flushes() - before; n != seen {
		t.Errorf("%.0f records for %.0f flushes", seen, n)
	}
}
