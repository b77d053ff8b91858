package server

import (
	"bytes"
	"context"
	_ "embed"
	"io"
	"net/http"
	"net/http/pprof"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/daisi/daisi-ws/session"
)

//go:embed openapi.json
var openAPI []byte

// Bounds of a page of a list.
const (
	pageDefault = 100
	pageMax     = 1000
)

func (e *edge) internalRoutes() []route {
	get, post := http.MethodGet, http.MethodPost
	return append(e.healthRoutes(),
		route{get, "/metrics", e.writeMetrics},
		e.guarded(get, "/admin/sessions", mayLook, e.listSessions),
		e.guarded(get, "/admin/sessions/{company}/{agent}/{user}", mayLook, e.showSession),
		e.guarded(http.MethodDelete, "/admin/sessions/{company}/{agent}/{user}", mayAct, e.killSession),
		e.guarded(get, "/admin/routes", mayLook, e.listRoutes),
		e.guarded(get, "/admin/revocations", mayLook, e.listRevocations),
		e.guarded(post, "/admin/revoke", mayAct, e.revoke),
		e.guarded(post, "/admin/lift", mayAct, e.lift),
		e.guarded(get, "/admin/pods", mayLook, anybody(e.listPods)),
		e.guarded(get, "/admin/poison", mayLook, anybody(e.listPoison)),
		e.guarded(get, "/admin/config", mayLookAll, anybody(e.showConfig)),
		e.guarded(post, "/admin/drain", mayActAll, anybody(e.startDrain)),
		e.guarded(get, "/admin/openapi.json", mayLook, anybody(showOpenAPI)),
		e.guarded(get, "/debug/check", mayLookAll, anybody(e.runCheck)),
		// Profiles show all tenants' work, and cost some.
		e.guarded(get, "/debug/pprof/", mayActAll, anybody(brief(pprof.Index))),
		e.guarded(get, "/debug/pprof/cmdline", mayActAll, anybody(withoutArguments)),
		e.guarded(get, "/debug/pprof/profile", mayActAll, anybody(brief(pprof.Profile))),
		e.guarded(get, "/debug/pprof/symbol", mayActAll, anybody(pprof.Symbol)),
		e.guarded(post, "/debug/pprof/symbol", mayActAll, anybody(pprof.Symbol)),
		e.guarded(get, "/debug/pprof/trace", mayActAll, anybody(brief(pprof.Trace))),
	)
}

// writeMetrics is for scrapers. It is rendered before it is sent, so that a
// slow scraper holds no lock of ours.
func (e *edge) writeMetrics(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	e.opts.Metrics.WritePrometheus(&b)
	metrics.WriteGoMetrics(&b)
	metrics.WriteProcMetrics(&b)
	writeFiles(&b)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(describe(b.Bytes()))
}

// writeFiles counts descriptors by the folder's size: listing them, as the
// library does, takes long where there are many.
func writeFiles(w io.Writer) {
	if info, err := os.Stat("/proc/self/fd"); err == nil {
		metrics.WriteGaugeUint64(w, "process_open_fds", uint64(info.Size()))
	}
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err == nil {
		metrics.WriteGaugeUint64(w, "process_max_fds", l.Cur)
	}
}

// podView is a live pod as the admin API shows it.
type podView struct {
	Owner   session.Owner `json:"owner"`
	Pod     string        `json:"pod"`
	Addr    string        `json:"addr"`
	Self    bool          `json:"self"`
	Leaving bool          `json:"leaving"`
}

func (e *edge) listPods(w http.ResponseWriter, _ *http.Request) {
	pods := []podView{}
	for _, p := range e.env.pods() {
		pods = append(pods, podView{p.Owner, p.Owner.Pod(), p.Addr, p.Owner == e.env.owner, p.Leaving})
	}
	writeJSON(w, http.StatusOK, map[string]any{"pods": pods})
}

// poisonView is a stored message that was no event.
type poisonView struct {
	Stream string `json:"stream"`
	Seq    uint64 `json:"seq"`
	Reason string `json:"reason"`
}

func (e *edge) listPoison(w http.ResponseWriter, _ *http.Request) {
	list := []poisonView{}
	for _, p := range e.env.poison() {
		list = append(list, poisonView{p.Stream, p.Seq, p.Reason.String()})
	}
	writeJSON(w, http.StatusOK, map[string]any{"poison": list})
}

// routeView is something this pod wants events of.
type routeView struct {
	Partition int    `json:"partition"`
	Company   string `json:"company"`
	Agent     string `json:"agent,omitempty"`
	Chat      string `json:"chat,omitempty"`
}

func (e *edge) listRoutes(w http.ResponseWriter, r *http.Request, who operator) {
	core := e.started(w)
	if core == nil {
		return
	}
	q, limit, f := pageOf(r)
	if f != nil {
		f.write(w)
		return
	}
	routes, more := []routeView{}, false
	for n := 0; n < core.partitions && !more; n++ {
		for _, want := range core.index.Wants(n) {
			if !match(q.Get("company"), want.Company) || !match(q.Get("agent"), want.Agent) || !match(q.Get("chat"), want.Chat) ||
				!who.sees(want.Company, want.Agent) {
				continue
			}
			if more = len(routes) == limit; more {
				break
			}
			routes = append(routes, routeView{n, want.Company, want.Agent, want.Chat})
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{"routes": routes, "more": more})
}

// match is a filter's answer; an empty filter takes all.
func match(filter, value string) bool { return filter == "" || filter == value }

func (e *edge) showConfig(w http.ResponseWriter, _ *http.Request) {
	config, err := e.opts.Masked()
	if err != nil {
		faultOf(session.ReasonInternal, "").write(w)
		return
	}
	writeJSON(w, http.StatusOK, config)
}

func (e *edge) startDrain(w http.ResponseWriter, _ *http.Request) {
	e.env.drain()
	writeJSON(w, http.StatusAccepted, map[string]string{"status": "draining"})
}

// runCheck looks for what must never be. A finding is a bug, so it is a 500.
func (e *edge) runCheck(w http.ResponseWriter, r *http.Request) {
	found := e.env.check(r.Context())
	status := http.StatusOK
	if len(found) > 0 {
		status = http.StatusInternalServerError
	}
	writeJSON(w, status, map[string]any{"ok": len(found) == 0, "found": append([]string{}, found...)})
}

func showOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI)
}

// profileTime bounds how long one profile takes, whatever was asked for: whoever
// began it may have been revoked meanwhile.
const profileTime = 2 * time.Minute

func brief(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), profileTime)
		defer cancel()
		next(w, r.WithContext(ctx))
	}
}

// withoutArguments stands for pprof.Cmdline: a secret may have been given
// where all that is needed is the name.
func withoutArguments(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, os.Args[0])
}

// started is the core, or nil after an answer that there is none yet.
func (e *edge) started(w http.ResponseWriter) *edgeCore {
	core := e.env.core()
	if core == nil {
		f := faultOf(session.ReasonOverloaded, "the gateway is starting")
		f.Retry = retryAfter()
		f.write(w)
	}
	return core
}

// pageOf reads the query of a list, ?limit= among it.
func pageOf(r *http.Request) (q url.Values, limit int, f *fault) {
	q, limit = r.URL.Query(), pageDefault
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > pageMax {
			return nil, 0, refusal(session.ReasonBadRequest, "limit must be 1 to 1000")
		}
		limit = n
	}
	return q, limit, nil
}
