package clustertest

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/daisi/daisi-ws/redisx/redistest"
	"github.com/daisi/daisi-ws/server"
)

// Pod is one gateway of a Cluster, in this process or of its own.
type Pod struct {
	ID string

	c        *Cluster
	number   int
	public   string // host:port
	internal string
	rpc      string

	NATS, Redis *Link // Options.Links
	Peers       *Link // of it: the other pods' way to this one

	gateway *gateway // in this process
	process *process // of its own
}

// gateway is one run of server.Gateway.
type gateway struct {
	*server.Gateway
	cancel context.CancelFunc
	done   chan struct{}
}

func (c *Cluster) newPod(i int) *Pod {
	p := &Pod{
		ID: "pod-" + strconv.Itoa(i), c: c, number: i,
		public: freeAddr(c), internal: freeAddr(c), rpc: freeAddr(c),
	}
	if c.o.Links {
		p.NATS, p.Redis = newLink(c.t, strings.TrimPrefix(c.NATS.URL, "nats://")), newLink(c.t, c.Redis.Addr)
		p.Peers = newLink(c.t, p.rpc)
	}
	return p
}

// urls are where this pod finds Redis and NATS.
func (p *Pod) urls() (redis, nats string) {
	if p.c.o.Links {
		return p.Redis.through(p.c.RedisURL), p.NATS.through(p.c.NATS.URL)
	}
	return p.c.RedisURL, p.c.NATS.URL
}

// told is where other pods are told to find this one.
func (p *Pod) told() string {
	if p.c.o.Links {
		return p.Peers.proxy.Listen
	}
	return p.rpc
}

// freeAddr is a port of this cluster's own, which pods keep over restarts.
func freeAddr(c *Cluster) string {
	return "127.0.0.1:" + strconv.Itoa(redistest.FreePort(c.t))
}

// Start runs the pod, if it does not run.
func (p *Pod) Start() {
	p.c.t.Helper()
	switch {
	case p.running():
	case p.c.o.Processes:
		p.process = p.launch()
	default:
		p.gateway = p.begin()
	}
}

func (p *Pod) running() bool { return p.gateway != nil || p.process != nil }

func (p *Pod) begin() *gateway {
	log := new(logBook)
	o := server.Options{PodID: p.ID, PodAddr: p.told(), Log: zerolog.New(log).Level(zerolog.InfoLevel)}
	o.HTTP.Addr, o.Internal.Addr, o.RPC.Addr = p.public, p.internal, p.rpc
	o.RPC.Insecure = true
	o.Redis.URL, o.NATS.URL = p.urls()
	o.NATS.CreateStream = true
	o.Auth = server.AuthOptions{
		APIKey: APIKey, MintKey: MintKey, AdminKey: AdminKey, TokenKeys: userHex, AdminTokenKeys: adminHex,
	}
	o.Drain.Rate = 100000
	if p.c.Cert != nil {
		o.TLS.CertFile, o.TLS.KeyFile = p.c.Cert.CertFile, p.c.Cert.KeyFile
	}
	if p.c.o.Options != nil {
		p.c.o.Options(p.number, &o)
	}
	g, err := server.New(o)
	if err != nil {
		p.c.t.Fatalf("new %s: %v", p.ID, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	run := &gateway{Gateway: g, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(run.done)
		if err := g.Run(ctx); err != nil {
			p.c.t.Errorf("run %s: %v", p.ID, err)
		}
	}()
	p.c.t.Cleanup(func() {
		p.Term()
		log.show(p.c.t, p.ID)
	})
	return run
}

// Gateway is the pod's gateway, nil for a process.
func (p *Pod) Gateway() *server.Gateway { return p.gateway.Gateway }

// Term ends the pod as SIGTERM does, and waits for that.
func (p *Pod) Term() {
	p.c.t.Helper()
	if p.gateway != nil {
		p.gateway.cancel()
		<-p.gateway.done
		p.gateway = nil
	}
	if p.process != nil {
		p.process.end(syscall.SIGTERM)
		p.process = nil
	}
}

// Kill ends a process with SIGKILL.
func (p *Pod) Kill() {
	p.process.end(syscall.SIGKILL)
	p.process = nil
}

// Stop and Cont pause a process and let it go on.
func (p *Pod) Stop() { p.process.signal(syscall.SIGSTOP) }

// Cont lets a stopped process go on.
func (p *Pod) Cont() { p.process.signal(syscall.SIGCONT) }

// Hup has a process read its key files again.
func (p *Pod) Hup() { p.process.signal(syscall.SIGHUP) }

// PID is that of a process, 0 for a gateway in this one.
func (p *Pod) PID() int {
	if p.process == nil {
		return 0
	}
	return p.process.cmd.Process.Pid
}

// URL is the pod's public address under a scheme without its s: "ws" or "http".
func (p *Pod) URL(scheme string) string {
	if p.c.Cert != nil {
		scheme += "s"
	}
	return scheme + "://" + p.public
}

// InternalURL is where metrics and the admin API are.
func (p *Pod) InternalURL() string { return "http://" + p.internal }

// Addr is the public host:port.
func (p *Pod) Addr() string { return p.public }

// PeerAddr is where other pods reach this one.
func (p *Pod) PeerAddr() string { return p.rpc }

// Answer is what an HTTP request came to.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// JSON decodes the body.
func (a Answer) JSON() map[string]any {
	var m map[string]any
	_ = json.Unmarshal([]byte(a.Body), &m)
	return m
}

// Do sends a request to a full URL; header holds "Name: value" lines.
func (c *Cluster) Do(method, url, body string, header ...string) (Answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	tr := &http.Transport{DisableKeepAlives: true}
	if c.Cert != nil {
		tr.TLSClientConfig = &tls.Config{RootCAs: c.Cert.Pool, MinVersion: tls.VersionTLS12}
	}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return Answer{resp.StatusCode, resp.Header, string(b)}, err
}

// Ready says whether /readyz answers READY.
func (p *Pod) Ready() bool {
	a, err := p.c.Do("GET", p.InternalURL()+"/readyz", "")
	return err == nil && a.Status == http.StatusOK && a.JSON()["status"] == "READY"
}

// Metrics are all samples of /metrics, by name with labels.
func (p *Pod) Metrics() map[string]float64 {
	m := map[string]float64{}
	a, err := p.c.Do("GET", p.InternalURL()+"/metrics", "")
	if err != nil {
		return m
	}
	lines := bufio.NewScanner(strings.NewReader(a.Body))
	for lines.Scan() {
		line := lines.Text()
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			m[line[:i]] = v
		}
	}
	return m
}

// Sum adds up the samples of a metric over all its labels.
func Sum(m map[string]float64, name string) float64 {
	sum := m[name]
	for k, v := range m {
		if strings.HasPrefix(k, name+"{") {
			sum += v
		}
	}
	return sum
}

// Check asks for what must never be, and fails the test when something is.
func (p *Pod) Check() {
	p.c.t.Helper()
	a, err := p.c.Do("GET", p.InternalURL()+"/debug/check", "", "X-API-Key: "+AdminKey)
	if err != nil || a.Status != http.StatusOK {
		p.c.t.Errorf("%s: check: %d %s %v", p.ID, a.Status, a.Body, err)
	}
}

// logBook keeps the end of a log, for a test that fails.
type logBook struct {
	mu   sync.Mutex
	text []byte // mu
}

// Write appends p.
func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if excess := len(l.text) - 8<<10; excess > 8<<10 {
		l.text = append(l.text[:0], l.text[excess:]...)
	}
	return len(p), nil
}

func (l *logBook) show(t testing.TB, pod string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.Failed() {
		t.Logf("log of %s:\n%s", pod, l.text)
	}
}
