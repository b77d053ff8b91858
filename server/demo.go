package server

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/daisi/daisi-ws/session"
)

//go:embed web/index.html
var demoHTML []byte

// demoMark is where the page's settings go.
var demoMark = []byte("{}/*settings*/")

// demoSettings are what the demo page needs to log in.
type demoSettings struct {
	Company string `json:"company"`
	Agent   string `json:"agent"`
	User    string `json:"user"`
	APIKey  string `json:"api_key"`
	Token   string `json:"token"`
}

// demoLife is how long the page's token lasts.
const demoLife = time.Hour

// demoPage serves the page with a token for a made-up user in it, so only to
// this machine; only in embedded mode is there a route to it at all.
func (e *edge) demoPage(w http.ResponseWriter, r *http.Request) {
	if !fromHere(r) {
		faultNotFound.with("the demo page is for this machine only").write(w)
		return
	}
	s := demoSettings{Company: "demo", Agent: "agent1", User: "user1", APIKey: e.opts.Auth.APIKey}
	var err error
	s.Token, err = e.env.users.Ring().Mint(session.Claims{
		Company: s.Company, Agent: s.Agent, User: s.User, ExpiresAt: time.Now().Add(demoLife),
	})
	if err != nil {
		faultOf(session.ReasonInternal, "").write(w)
		return
	}
	settings, err := json.Marshal(s)
	if err != nil {
		faultOf(session.ReasonInternal, "").write(w)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	_, _ = w.Write(bytes.Replace(demoHTML, demoMark, settings, 1))
}

// demoPublish is the body of POST /dev/events.
type demoPublish struct {
	Company string          `json:"company_id"`
	Agent   string          `json:"agent_id"`
	Kind    string          `json:"kind"`
	Chat    string          `json:"chat_id"`
	Event   json.RawMessage `json:"event"`
}

// demoEvent publishes as the upstream publisher would.
func (e *edge) demoEvent(w http.ResponseWriter, r *http.Request) {
	// A page of elsewhere can post text without asking, but not JSON.
	if !fromHere(r) || !e.origins.allow(r) {
		faultOf(session.ReasonOrigin, "").write(w)
		return
	}
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); strings.TrimSpace(kind) != "application/json" {
		faultOf(session.ReasonBadRequest, "Content-Type must be application/json").write(w)
		return
	}
	var q demoPublish
	if !e.readBody(w, r, &q) {
		return
	}
	subject, err := q.subject()
	if err != nil {
		faultOf(session.ReasonBadRequest, err.Error()).write(w)
		return
	}
	event := bytes.TrimSpace(q.Event)
	if len(event) == 0 || event[0] != '{' {
		faultOf(session.ReasonBadRequest, "event must be a JSON object").write(w)
		return
	}
	if err := e.env.publish(r.Context(), subject, event); err != nil {
		f := faultOf(session.ReasonOverloaded, err.Error())
		f.Retry = retryAfter()
		f.write(w)
		return
	}
	writeJSON(w, http.StatusAccepted, map[string]string{"subject": subject})
}

// subject is where the publisher would put this event.
func (q *demoPublish) subject() (string, error) {
	for _, id := range [][2]string{{"company_id", q.Company}, {"agent_id", q.Agent}, {"kind", q.Kind}} {
		if err := session.CheckTenantID(id[0], id[1]); err != nil {
			return "", err
		}
	}
	subject := "websocket." + q.Company + "." + q.Agent + "." + q.Kind
	if q.Kind != session.KindMessages {
		return subject, nil
	}
	if err := session.CheckChat(q.Chat); err != nil {
		return "", err
	}
	// Of a chat only its tokens are free: none may be empty or a wildcard.
	for _, token := range strings.Split(q.Chat, ".") {
		if err := session.CheckTenantID("chat_id", token); err != nil {
			return "", err
		}
	}
	return subject + "." + q.Chat, nil
}

// fromHere says whether r was sent by this machine, to a name of this machine:
// a page that resolved its own name to 127.0.0.1 is not.
func fromHere(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return false
	}
	name := r.Host
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback()
}
