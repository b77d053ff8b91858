package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// edge is everything that speaks HTTP: the public port, until a login is a
// session, and the internal one. New by newEdge, bound by listen, served by
// runPublic and runInternal, each of which the end of its context ends.
type edge struct {
	// Static after newEdge.
	opts    Options
	env     edgeEnv
	log     zerolog.Logger
	m       *edgeMetrics
	gate    *admission
	origins *origins
	strikes *strikes
	certs   *certs // nil: plain
	keys    edgeKeys
	refused chan struct{} // a token a refusal told over WebSocket
	grants  session.GrantTable

	logins tracker
	probe  probe

	// Bound by listen.
	public   publicPort
	internal port[net.Listener]
}

// Times of plain HTTP, beside HTTP.ReadHeaderTimeout and HTTP.LoginDeadline.
const (
	bodyTimeout  = 10 * time.Second // reading of a whole request
	writeTimeout = 30 * time.Second // public answers, all of them small
	idleTimeout  = time.Minute
	stopTimeout  = 5 * time.Second // requests under way when Run's context ends, at most
)

func newEdge(o Options, env edgeEnv) (*edge, error) {
	e := &edge{opts: o, env: env, log: o.Log, keys: newEdgeKeys(o.Auth), refused: make(chan struct{}, maxToldRefusals)}
	e.m = newEdgeMetrics(o.Metrics)
	addresses, err := newAddresses(o.HTTP)
	if err != nil {
		return nil, fmt.Errorf("read HTTP.TrustedProxies: %w", err)
	}
	e.strikes = newStrikes(o.Auth.Failures, addresses.client)
	e.gate = newAdmission(o.Limits, addresses, env.engine.Len, e.m)
	e.gate.pressure.evict, e.gate.pressure.shed, e.gate.pressure.budget = e.evictPending, e.shed, o.Limits.SendBudget
	e.m.gauges(o.Metrics, e)
	if e.origins, err = newOrigins(o.HTTP.Origins); err != nil {
		return nil, fmt.Errorf("read HTTP.Origins: %w", err)
	}
	if o.TLS.On() {
		if e.certs, err = newCerts(o.TLS, o.Limits.Handshakes, e.gate.handshake, e.log, e.m); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// listen binds both ports, so that their addresses are known before they are
// served.
func (e *edge) listen() error {
	if err := e.public.bind(e.listenPublic); err != nil {
		return err
	}
	return e.internal.bind(e.listenInternal)
}

func (e *edge) listenPublic() (*loop.Listener, error) {
	return loop.Listen(e.public.addr(e.opts.HTTP.Addr), loop.ListenOptions{
		Deadline: e.opts.HTTP.LoginDeadline, MaxPending: e.gate.maxPending,
		Admit: e.gate.admit, Released: e.gate.released,
	})
}

func (e *edge) listenInternal() (net.Listener, error) {
	addr := e.internal.addr(e.opts.Internal.Addr)
	var config net.ListenConfig
	l, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return l, nil
}

// close gives up ports that were bound and never served.
func (e *edge) close() {
	e.public.close()
	e.internal.close()
}

// runPublic serves the public port until ctx ends; then it closes the port and
// waits, within bounds, for logins and requests under way.
func (e *edge) runPublic(ctx context.Context) error {
	l, err := e.public.take(e.listenPublic)
	if err != nil {
		return err
	}
	s := e.server(e.publicRoutes())
	// Not for the internal port: a profile takes as long as it was asked to.
	s.ReadTimeout, s.WriteTimeout = bodyTimeout, writeTimeout
	var front net.Listener = l
	if e.certs != nil {
		front = tls.NewListener(l, e.certs.server())
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serve(s, front) })
	g.Go(func() error { e.runProbe(ctx); return nil })
	g.Go(func() error { e.gate.pressure.run(ctx); return nil })
	if e.certs != nil {
		g.Go(func() error { e.certs.watch(ctx); return nil })
	}
	g.Go(func() error {
		<-ctx.Done()
		// Shutdown neither knows hijacked logins nor ends connections that
		// never sent a byte, so both are seen to here.
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.env.ending(stopTimeout))
		defer cancel()
		_ = l.Close()
		l.CloseSilent()
		e.logins.wait(late)
		shutdown(late, s)
		return nil
	})
	return g.Wait()
}

// runInternal serves the internal port until ctx ends.
func (e *edge) runInternal(ctx context.Context) error {
	l, err := e.internal.take(e.listenInternal)
	if err != nil {
		return err
	}
	s := e.server(e.internalRoutes())
	s.Handler = bounded(s.Handler)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serve(s, l) })
	g.Go(func() error {
		<-ctx.Done()
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.env.ending(stopTimeout))
		defer cancel()
		shutdown(late, s)
		return nil
	})
	return g.Wait()
}

// bounded gives a request's body its time, also one that nobody will read: net/http
// waits for it before it answers. Without one the deadline would end a profile.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		}
		next.ServeHTTP(w, r)
	})
}

func shutdown(ctx context.Context, s *http.Server) {
	if s.Shutdown(ctx) != nil {
		_ = s.Close()
	}
}

func serve(s *http.Server, l net.Listener) error {
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// server speaks HTTP/1.1 alone: a connection of HTTP/2 can't be handed over.
func (e *edge) server(routes []route) *http.Server {
	var only http.Protocols
	only.SetHTTP1(true)
	return &http.Server{
		Handler:           e.around(e.keyed(newMux(routes))),
		Protocols:         &only,
		ReadHeaderTimeout: e.opts.HTTP.ReadHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    e.opts.HTTP.MaxHeader,
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, nc)
		},
		// A line per failed handshake would be a log that strangers write.
		ErrorLog: log.New(lineCounter{e.m.serverErrors}, "", 0),
	}
}

// connKey is where a request's context has its connection.
type connKey struct{}

// around gives every request its id, and a panic its answer.
func (e *edge) around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := requestID(r)
		r.Header.Set(requestIDHeader, id)
		w.Header().Set(requestIDHeader, id)
		defer e.rescue(w, id)
		next.ServeHTTP(w, r)
	})
}

func (e *edge) rescue(w http.ResponseWriter, id string) {
	if v := recover(); v != nil {
		e.panicked("request "+id, v)
		faultOf(session.ReasonInternal, "").write(w)
	}
}

// route is one endpoint.
type route struct {
	method, path string
	handle       http.HandlerFunc
}

// newMux serves routes. What is none of them gets the error body that every
// other refusal has, which http.ServeMux itself would not give.
func newMux(routes []route) *http.ServeMux {
	byPath := map[string]map[string]http.HandlerFunc{}
	for _, r := range routes {
		if byPath[r.path] == nil {
			byPath[r.path] = map[string]http.HandlerFunc{}
		}
		byPath[r.path][r.method] = r.handle
	}
	mux := http.NewServeMux()
	for path, methods := range byPath {
		mux.HandleFunc(path, byMethod(methods))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { faultNotFound.write(w) })
	return mux
}

func byMethod(methods map[string]http.HandlerFunc) http.HandlerFunc {
	allowed := make([]string, 0, len(methods))
	for m := range methods {
		allowed = append(allowed, m)
	}
	slices.Sort(allowed)
	allow := strings.Join(allowed, ", ")
	return func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		handle := methods[method]
		if handle == nil {
			w.Header().Set("Allow", allow)
			faultMethod.with("allowed here: " + allow).write(w)
			return
		}
		handle(w, r)
	}
}

func (e *edge) publicRoutes() []route {
	routes := append(e.healthRoutes(),
		route{http.MethodPost, "/generate-token", e.mintUser},
		route{http.MethodPost, "/admin/generate-token", e.mintAdmin},
		route{http.MethodGet, "/ws/{company}/{agent}", e.loginUser},
		route{http.MethodGet, "/ws/admin", e.loginAdmin},
	)
	if e.opts.Embedded.On {
		routes = append(routes,
			route{http.MethodGet, "/{$}", e.demoPage},
			route{http.MethodPost, "/dev/events", e.demoEvent},
		)
	}
	return routes
}
