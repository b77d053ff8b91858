package server

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/daisi/daisi-ws/session"
)

// edgeMetrics counts what happens at the edge. Labels are closed sets: gates
// and session.Reason.
type edgeMetrics struct {
	authOK       *metrics.Counter
	authFailed   [session.Reasons]*metrics.Counter
	loginOK      *metrics.Counter
	loginFailed  [session.Reasons]*metrics.Counter
	loginTime    *metrics.PrometheusHistogram
	refusedTime  *metrics.PrometheusHistogram
	refused      [gates]*metrics.Counter
	told         *metrics.Counter
	shed         *metrics.Counter
	minted       *metrics.Counter
	badMessages  *metrics.Counter
	selectErrors *metrics.Counter
	refreshes    *metrics.Counter
	serverErrors *metrics.Counter
	panics       *metrics.Counter
	probeErrors  *metrics.Counter
	reloads      *metrics.Counter
	reloadErrors *metrics.Counter
	keyLoads     *metrics.Counter
	keyErrors    *metrics.Counter
}

// authReasons are those that credentials are refused with.
var authReasons = [...]session.Reason{
	session.ReasonOrigin, session.ReasonAPIKey, session.ReasonToken, session.ReasonExpired, session.ReasonRevoked,
	session.ReasonDenied,
}

func newEdgeMetrics(set *metrics.Set) *edgeMetrics {
	m := &edgeMetrics{
		authOK:       set.NewCounter("dws_auth_success_total"),
		loginOK:      set.NewCounter(`dws_logins_total{result="ok"}`),
		loginTime:    set.NewPrometheusHistogram(`dws_login_duration_seconds{result="ok"}`),
		refusedTime:  set.NewPrometheusHistogram(`dws_login_duration_seconds{result="refused"}`),
		told:         set.NewCounter("dws_refusals_told_total"),
		shed:         set.NewCounter("dws_sessions_shed_total"),
		minted:       set.NewCounter("dws_tokens_minted_total"),
		badMessages:  set.NewCounter("dws_bad_messages_total"),
		selectErrors: set.NewCounter("dws_select_errors_total"),
		refreshes:    set.NewCounter("dws_token_refreshes_total"),
		serverErrors: set.NewCounter("dws_http_errors_total"),
		panics:       set.NewCounter("dws_http_panics_total"),
		probeErrors:  set.NewCounter("dws_self_probe_errors_total"),
		reloads:      set.NewCounter(`dws_certificate_reloads_total{result="ok"}`),
		reloadErrors: set.NewCounter(`dws_certificate_reloads_total{result="error"}`),
		keyLoads:     set.NewCounter(`dws_token_key_loads_total{result="ok"}`),
		keyErrors:    set.NewCounter(`dws_token_key_loads_total{result="error"}`),
	}
	for _, r := range authReasons {
		m.authFailed[r] = set.NewCounter(fmt.Sprintf("dws_auth_failure_total{reason=%q}", r.Label()))
	}
	for r := range session.Reason(session.Reasons) {
		if r.Status() != 0 || r == session.ReasonGone {
			m.loginFailed[r] = set.NewCounter(fmt.Sprintf("dws_logins_total{result=%q}", r.Label()))
		}
	}
	for g, label := range gateLabels {
		m.refused[g] = set.NewCounter(fmt.Sprintf("dws_admission_refused_total{gate=%q}", label))
	}
	return m
}

// gauges are read from the edge when metrics are.
func (m *edgeMetrics) gauges(set *metrics.Set, e *edge) {
	for name, read := range map[string]func() int{
		"dws_sessions_limit":      func() int { return e.gate.maxSessions },
		"dws_login_queue":         func() int { return int(e.gate.queued.Load()) },
		"dws_logins_active":       func() int { return len(e.gate.logins) },
		"dws_handshakes_active":   func() int { return len(e.gate.handshakes) },
		"dws_pending_connections": func() int { return e.public.pending() },
		"dws_memory_pressure":     func() int { return int(e.gate.pressure.memory.Load()) },
	} {
		set.NewGauge(name, func() float64 { return float64(read()) })
	}
	set.NewGauge("dws_scheduler_lag_seconds", func() float64 { return time.Duration(e.gate.pressure.lag.Load()).Seconds() })
	set.RegisterMetricsWriter(func(w io.Writer) {
		metrics.WriteCounterUint64(w, "dws_connections_evicted_total", e.public.evicted())
	})
}

// failed counts a login that came to nothing.
func (m *edgeMetrics) failed(r session.Reason) {
	if c := m.authFailed[r]; c != nil {
		c.Inc()
	}
	if c := m.loginFailed[r]; c != nil {
		c.Inc()
	} else {
		m.loginFailed[session.ReasonInternal].Inc()
	}
}

// lineCounter is a log that counts its lines and forgets them.
type lineCounter struct{ lines *metrics.Counter }

func (c lineCounter) Write(b []byte) (int, error) {
	c.lines.Add(bytes.Count(b, []byte{'\n'}))
	return len(b), nil
}
