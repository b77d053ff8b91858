package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// attempt is one request for a socket on its way through the checks.
type attempt struct {
	w     http.ResponseWriter
	r     *http.Request
	query url.Values
	began time.Time

	key      string // of the upgrade
	broken   error  // what is wrong with the upgrade headers
	protocol string // subprotocol to answer, "" none
	deflate  bool   // permessage-deflate was offered, and is on

	claims *session.Claims
	token  session.TokenID
	chat   *string      // ?chat=
	point  *resumePoint // ?resume=
	flags  session.Flags
}

// credentials says who asks, or refuses.
type credentials func(*attempt) *fault

func (e *edge) loginUser(w http.ResponseWriter, r *http.Request) { e.login(w, r, e.userCredentials) }

func (e *edge) loginAdmin(w http.ResponseWriter, r *http.Request) { e.login(w, r, e.adminCredentials) }

// login turns a request into a session. Nothing is locked, and nobody evicted,
// before credentials and upgrade headers have passed; whatever fails after
// that is undone.
func (e *edge) login(w http.ResponseWriter, r *http.Request, who credentials) {
	a := &attempt{w: w, r: r, query: r.URL.Query(), began: time.Now(), protocol: subprotocol(r)}
	a.deflate = e.opts.HTTP.Deflate && loop.OffersDeflate(r.Header)
	if nc, ok := r.Context().Value(connKey{}).(net.Conn); ok {
		loop.Asked(nc)
	}
	e.logins.enter()
	defer e.logins.leave()
	a.key, a.broken = loop.CheckUpgrade(r)
	if f := e.check(a, who); f != nil {
		e.refuse(a, e.struck(r, *f))
		return
	}
	e.m.authOK.Inc()
	ctx := r.Context() // net/http ends it with the connection, that is at LoginDeadline
	t, f := e.gate.login(ctx)
	if f != nil {
		e.refuse(a, *f)
		return
	}
	defer t.done()
	growStack(len(a.key) & 1)
	if f := e.open(ctx, a, t); f != nil {
		e.refuse(a, *f)
	}
}

// check goes through all that needs nobody but the request.
func (e *edge) check(a *attempt, who credentials) *fault {
	if f := e.gate.open(); f != nil {
		return f
	}
	if !e.origins.allow(a.r) {
		return refusal(session.ReasonOrigin, "")
	}
	if f := who(a); f != nil {
		return f
	}
	if f := e.revoked(a); f != nil {
		return f
	}
	if a.broken != nil {
		return refusal(session.ReasonBadRequest, a.broken.Error())
	}
	return a.readQuery()
}

func refusal(r session.Reason, details string) *fault {
	f := faultOf(r, details)
	return &f
}

func (e *edge) userCredentials(a *attempt) *fault {
	if !e.keys.login.equal(givenKey(a.r, a.query)) {
		return refusal(session.ReasonAPIKey, "")
	}
	if f := a.verify(e.env.users); f != nil {
		return f
	}
	if isFor := a.r.PathValue("company") == a.claims.Company && a.r.PathValue("agent") == a.claims.Agent; !(faults{}).opens(isFor) {
		return refusal(session.ReasonToken, "company and agent of the path are not those of the token")
	}
	return nil
}

func (e *edge) adminCredentials(a *attempt) *fault {
	if retry := e.strikes.over(e.strikes.from(a.r), monotonic()); retry > 0 {
		f := e.tooMany(retry)
		return &f
	}
	if f := e.checkAdmin(givenKey(a.r, a.query)); f != nil {
		return f
	}
	if e.env.admins == nil {
		f := faultNotFound.with("no admin token keys are configured, so this is off")
		return &f
	}
	return a.verify(e.env.admins)
}

func (a *attempt) verify(v *session.Verifier) *fault {
	token := givenToken(a.r, a.query)
	if token == "" {
		return refusal(session.ReasonToken, "no token: give it as query token, as Authorization: Bearer, or as subprotocol token.<token> after json.v1")
	}
	claims, err := v.Verify(a.r.Context(), token)
	switch {
	case errors.Is(err, session.ErrExpired):
		return refusal(session.ReasonExpired, err.Error())
	case err != nil:
		return refusal(session.ReasonToken, err.Error())
	}
	a.claims, a.token = claims, claims.TokenID(token)
	return nil
}

// revoked refuses what this pod knows to be revoked before a lock is taken:
// whoever holds such a token must not even end the session that is there. What
// it does not know yet, Open finds.
func (e *edge) revoked(a *attempt) *fault {
	core := e.env.core()
	if core == nil {
		return nil
	}
	if set := core.manager.Revocations(); set != nil {
		if _, yes := set.Refuses(a.claims, a.token, time.Now()); yes {
			return refusal(session.ReasonRevoked, "")
		}
	}
	return nil
}

// readQuery takes ?chat= and ?resume=, and what they ask for.
func (a *attempt) readQuery() *fault {
	if a.query.Has("chat") {
		chat := a.query.Get("chat")
		if chat != "" {
			if err := session.CheckChat(chat); err != nil {
				return refusal(session.ReasonBadRequest, err.Error())
			}
		}
		a.chat = &chat
	}
	if a.query.Has("resume") || a.protocol == protocolResume {
		a.flags |= session.FlagNewFrames
	}
	point, err := parseResume(a.query.Get("resume"))
	if err != nil {
		return refusal(session.ReasonBadRequest, "resume must be <stream>:<seq>: "+err.Error())
	}
	a.point = point
	if a.r.Header.Get("Origin") != "" {
		a.flags |= session.FlagBrowser
	}
	return nil
}

// open brings the session to life and hands its socket to the engine.
func (e *edge) open(ctx context.Context, a *attempt, t *ticket) *fault {
	core := e.env.core()
	if core == nil {
		f := refusal(session.ReasonOverloaded, "the gateway is starting")
		f.Retry = retryAfter()
		return f
	}
	if late := core.late(); late != "" {
		f := refusal(session.ReasonOverloaded, "Redis: "+late)
		f.Retry = retryAfter()
		return f
	}
	c := &client{edge: e}
	conn := e.env.engine.NewConn(c)
	core.manager.Init(&c.Session, conn, a.claims.Key(), session.Profile{
		Grants: e.grants.Of(a.claims), Expires: a.claims.ExpiresAt, Token: a.token, Flags: a.flags,
	})
	adopted := false
	defer func() { // a panic too must leave neither lock nor socket behind
		if !adopted {
			c.close(session.ReasonInternal, "")
			conn.Abandon(net.ErrClosed)
		}
	}()
	if !e.gate.addresses.enter(conn, a.r) {
		return e.gate.refuse(gateAddress, session.ReasonRate, "too many sessions of this address")
	}
	err := e.enter(ctx, core, c, a, t.waiting)
	t.opened()
	if err != nil {
		return openFault(err)
	}
	if err := e.handOver(a, conn); err != nil {
		// Nobody is left to be told: the connection is gone, or was never one.
		e.m.failed(session.ReasonGone)
		e.log.Debug().Err(err).Str("request", a.id()).Msg("login lost its connection")
		return nil
	}
	adopted = true
	e.m.loginOK.Inc()
	e.m.loginTime.Update(time.Since(a.began).Seconds())
	e.log.Debug().Str("request", a.id()).Str("company", c.Key().Company).Str("agent", c.Key().Agent).
		Str("user", c.Key().User).Uint64("epoch", c.Epoch()).Msg("logged in")
	return nil
}

func (a *attempt) id() string { return a.r.Header.Get(requestIDHeader) }

// greeting queues ready as the first frame. It runs under the shard's lock.
// The seq that it tells misses nothing: where a session's events begin, or,
// before a replay, where the client stands.
func (e *edge) greeting(core *edgeCore, a *attempt) func(*session.Session[*loop.Conn], session.Ready) {
	return func(s *session.Session[*loop.Conn], r session.Ready) {
		stream, seq := core.stream(s.Partition()), r.Floor
		if a.resumes() && a.point.Stream == stream {
			seq = a.point.Seq
		}
		_ = s.Sock().Queue(loop.NewFrame(ws.OpText, encodeReady(readyInfo{
			Session: fmt.Sprintf("%s/%d", e.env.owner, s.Conn()), Epoch: r.Epoch, Pod: e.opts.PodID,
			Stream: stream, Seq: seq, Window: e.opts.Resume.Window, Now: time.Now(),
			Limits: readyLimits{e.opts.Limits.MaxMessage, maxWaiting, e.opts.Limits.SendBudget},
		}), loop.Control))
	}
}

// openFault is the answer to what Open refused.
func openFault(err error) *fault {
	var r *session.Refusal
	if !errors.As(err, &r) {
		return refusal(session.ReasonInternal, "")
	}
	f := refusal(r.Reason, r.Details)
	if f.Status == http.StatusServiceUnavailable || f.Status == http.StatusTooManyRequests {
		f.Retry = retryAfter() + int(r.Again/time.Second)
	}
	return f
}

// handOver takes the connection from net/http and gives it to the engine, with
// our 101 in front of what greeting queued. An error means that the connection
// is closed.
func (e *edge) handOver(a *attempt, conn *loop.Conn) error {
	nc, early, err := hijack(a.w)
	if err != nil {
		return err
	}
	extra := http.Header{requestIDHeader: {a.id()}}
	if a.deflate {
		extra["Sec-WebSocket-Extensions"] = []string{loop.DeflateAnswer}
		conn.UseDeflate()
	}
	head := loop.UpgradeResponse(a.key, a.protocol, extra)
	if err := e.env.engine.Adopt(conn, nc, early, head); err != nil {
		return fmt.Errorf("adopt socket: %w", err)
	}
	return nil
}

// hijack takes the connection, and the bytes that net/http read too far.
func hijack(w http.ResponseWriter) (net.Conn, []byte, error) {
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("hijack connection: %w", err)
	}
	n := rw.Reader.Buffered()
	if n == 0 {
		return nc, nil, nil
	}
	peeked, err := rw.Peek(n)
	if err != nil {
		_ = nc.Close()
		return nil, nil, fmt.Errorf("take early bytes: %w", err)
	}
	return nc, []byte(strings.Clone(string(peeked))), nil
}
