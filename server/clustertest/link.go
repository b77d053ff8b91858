package clustertest

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Link is one pod's way to Redis or NATS, or that of others to it, which a test
// can cut or slow down for this pod alone (Options.Links).
type Link struct {
	t     testing.TB
	proxy *toxiproxy.Proxy
}

// newLink leads to upstream, host:port.
func newLink(t testing.TB, upstream string) *Link {
	t.Helper()
	s := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	l := &Link{t: t, proxy: toxiproxy.NewProxy(s, "link", "127.0.0.1:0", upstream)}
	l.Mend()
	t.Cleanup(l.proxy.Stop)
	return l
}

// Cut closes all connections and refuses new ones.
func (l *Link) Cut() { l.proxy.Stop() }

// Mend ends a Cut; the address stays.
func (l *Link) Mend() {
	l.t.Helper()
	if err := l.proxy.Start(); err != nil {
		l.t.Fatalf("start link: %v", err)
	}
}

// Slow delays all that goes either way by d, give or take jitter, until the
// test ends or it is called again; 0 ends it.
func (l *Link) Slow(d, jitter time.Duration) {
	l.t.Helper()
	for _, way := range []string{"upstream", "downstream"} {
		_ = l.proxy.Toxics.RemoveToxic(context.Background(), way) // there may be none
		if d == 0 {
			continue
		}
		toxic := fmt.Sprintf(`{"name":%q,"type":"latency","stream":%q,"attributes":{"latency":%d,"jitter":%d}}`,
			way, way, d.Milliseconds()/2, jitter.Milliseconds()/2)
		if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			l.t.Fatalf("slow link: %v", err)
		}
	}
}

// through is raw with the link's address for host and port.
func (l *Link) through(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		l.t.Fatal(err)
	}
	u.Host = l.proxy.Listen
	return u.String()
}
