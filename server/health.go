package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

func (e *edge) healthRoutes() []route {
	return []route{
		{http.MethodGet, "/health", e.health},
		{http.MethodGet, "/livez", e.health},
		{http.MethodGet, "/ready", e.ready},
		{http.MethodGet, "/readyz", e.ready},
	}
}

// health fails only when a restart would help.
func (e *edge) health(w http.ResponseWriter, _ *http.Request) {
	if dead := e.env.status().Dead; dead != "" {
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "DEAD", "details": dead})
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "OK"})
}

// ready says whether new sessions should be sent here.
func (e *edge) ready(w http.ResponseWriter, _ *http.Request) {
	s := e.readiness()
	code := http.StatusOK
	if s.State == StateNotReady {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, s)
}

// readiness is the gateway's status and the edge's own: could a client come in?
func (e *edge) readiness() Status {
	s := e.env.status()
	s.Dependencies = maps.Clone(s.Dependencies)
	if s.Dependencies == nil {
		s.Dependencies = map[string]string{}
	}
	for name, wrong := range map[string]string{"admission": e.gate.capacity(), "listener": e.probe.wrong()} {
		s.Dependencies[name] = "ok"
		if wrong != "" {
			s.Dependencies[name] = wrong
			s.State = StateNotReady
		}
	}
	return s
}

// probe is the last look at our own public port from outside.
type probe struct {
	failure atomic.Pointer[string]
}

// Times of the self-probe.
const (
	probeEvery   = 5 * time.Second
	probeTimeout = 2 * time.Second
)

func (p *probe) wrong() string {
	if s := p.failure.Load(); s != nil {
		return *s
	}
	return ""
}

var errAccept = errors.New("connections can't be accepted: out of file descriptors?")

// runProbe connects to the public port as a client would, again and again. One
// failure may be chance; two in a row make the pod not ready.
func (e *edge) runProbe(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	failed, refused := 0, e.public.failedAccepts()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := e.probeOnce(ctx)
		if n := e.public.failedAccepts(); n != refused {
			err, refused = errAccept, n
		}
		if err == nil {
			failed = 0
			e.probe.failure.Store(nil)
			continue
		}
		if failed++; failed > 1 {
			e.m.probeErrors.Inc()
			s := err.Error()
			e.probe.failure.Store(&s)
		}
	}
}

func (e *edge) probeOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	scheme := "http"
	transport := &http.Transport{DisableKeepAlives: true}
	if e.certs != nil {
		scheme = "https"
		// Who we are is known; whether we answer is the question.
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // talks to itself
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+dialable(e.public.Addr())+"/livez", http.NoBody)
	if err != nil {
		return fmt.Errorf("make probe: %w", err)
	}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return fmt.Errorf("probe public port: %w", err)
	}
	return answer.Body.Close()
}

// dialable turns a wildcard address into one of this machine.
func dialable(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.To4() == nil {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}
