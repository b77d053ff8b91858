package server

import (
	"net"
	"net/http"
	"time"

	"github.com/gobwas/ws"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// maxToldRefusals is how many refusals may be on their way over WebSocket at
// once; the others get an HTTP status.
const maxToldRefusals = 256

// toldTimeout bounds one of them.
const toldTimeout = 2 * time.Second

// refuse answers a login that was not let in. A browser can't read the status
// of a refused upgrade: it would see 1006 and try again, maybe for ever. So it
// is let in just far enough to be told.
func (e *edge) refuse(a *attempt, f fault) {
	e.m.failed(f.Reason)
	e.m.refusedTime.Update(time.Since(a.began).Seconds())
	e.log.Debug().Str("request", a.id()).Str("reason", f.Reason.Label()).Str("details", f.Details).Msg("login refused")
	if e.tells(a, f) {
		select {
		case e.refused <- struct{}{}:
			defer func() { <-e.refused }()
			e.tell(a, f)
			return
		default:
		}
	}
	f.write(a.w)
}

// tells says whether a refusal should go over WebSocket. A foreign page learns
// nothing but the status, and what is no upgrade can't be one.
func (e *edge) tells(a *attempt, f fault) bool {
	if a.broken != nil || f.Reason == session.ReasonOrigin {
		return false
	}
	switch e.opts.Auth.Refuse {
	case RefuseHTTP:
		return false
	case RefuseClose:
		return true
	}
	return a.r.Header.Get("Origin") != ""
}

// tell answers 101, the error frame and the close frame in one write, and
// waits for the client to hang up: closing first could destroy them on the way.
func (e *edge) tell(a *attempt, f fault) {
	nc, _, err := hijack(a.w)
	if err != nil {
		return
	}
	defer func() { _ = nc.Close() }()
	e.m.told.Inc()
	_ = nc.SetDeadline(time.Now().Add(toldTimeout))
	b := loop.UpgradeResponse(a.key, a.protocol, http.Header{requestIDHeader: {a.id()}})
	b = append(b, loop.NewFrame(ws.OpText, encodeError(f.Code, f.Message, f.Details), loop.Control).Bytes()...)
	body := ws.NewCloseFrameBody(ws.StatusCode(f.Reason.CloseCode()), f.Reason.CloseText())
	b = append(b, loop.NewFrame(ws.OpClose, body, loop.Control).Bytes()...)
	if _, err := nc.Write(b); err != nil {
		return
	}
	drain(nc)
}

// drain reads until the other side hangs up, answers the close or runs out of
// time. Whatever else it sends is of no interest, and bounded.
func drain(nc net.Conn) {
	const maskedClose = 0x88
	var b [512]byte
	for range 128 {
		if n, err := nc.Read(b[:]); err != nil || n > 0 && b[0] == maskedClose {
			return
		}
	}
}
