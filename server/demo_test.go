package server

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func TestDemoPage(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Embedded.On = true })
	status, header, body := h.do(call{path: "/?token=secret"})
	if status != 200 || !strings.HasPrefix(header.Get("Content-Type"), "text/html") || header.Get("Cache-Control") != "no-store" {
		t.Fatalf("page: %d %v", status, header)
	}
	for _, id := range []string{"connect", "status", "chat", "select", "publish", "events", "company", "agent"} {
		if !strings.Contains(body, `id="`+id+`"`) {
			t.Errorf("no element %s", id)
		}
	}
	_, rest, ok := strings.Cut(body, "const settings = ")
	var s demoSettings
	if !ok || json.NewDecoder(strings.NewReader(rest)).Decode(&s) != nil {
		t.Fatalf("no settings in the page: %.200s", rest)
	}
	socket, _ := h.dial("/ws/"+s.Company+"/"+s.Agent+"?x-api-key="+s.APIKey, map[string]string{
		"Sec-WebSocket-Protocol": "json.v1+resume, token." + strings.TrimRight(s.Token, "="), "Origin": "http://" + h.public.Addr().String(),
	}, nil)
	socket.expect("ready", nil)
	status, header, body = h.do(call{path: "/", header: map[string]string{"Host": "rebound.example:8080"}})
	refusedAs(t, status, header, body, 404, "NotFound", "this machine")
}

func TestDemoEvent(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Embedded.On = true })
	post := func(body string, header map[string]string) (int, http.Header, string) {
		t.Helper()
		m := map[string]string{"Content-Type": "application/json"}
		for k, v := range header {
			m[k] = v
		}
		return h.do(call{method: http.MethodPost, path: "/dev/events", body: body, header: m})
	}
	good := func(body, subject, event string) {
		t.Helper()
		status, _, answer := post(body, nil)
		if status != http.StatusAccepted {
			t.Fatalf("%s: %d %s", body, status, answer)
		}
		if got := <-h.events; got != [2]string{subject, event} {
			t.Fatalf("published %q", got)
		}
	}
	good(`{"company_id":"c","agent_id":"a","kind":"chats","chat_id":"x","event":{"n": 1.0}}`, "websocket.c.a.chats", `{"n": 1.0}`)
	good(`{"company_id":"c","agent_id":"a","kind":"messages","chat_id":"628@s.whatsapp.net","event":{}}`, "websocket.c.a.messages.628@s.whatsapp.net", `{}`)
	bad := func(body string, header map[string]string, want int, code, details string) {
		t.Helper()
		status, got, answer := post(body, header)
		refusedAs(t, status, got, answer, want, code, details)
	}
	bad(`{`, nil, 400, "BadRequest", "JSON")
	bad(`{"company_id":"c","agent_id":"a","kind":"chats","event":[]}`, nil, 400, "BadRequest", "event")
	bad(`{"company_id":"c","agent_id":"a","kind":"chats"}`, nil, 400, "BadRequest", "event")
	bad(`{"company_id":"c.d","agent_id":"a","kind":"chats","event":{}}`, nil, 400, "BadRequest", "company_id")
	bad(`{"company_id":"c","agent_id":">","kind":"chats","event":{}}`, nil, 400, "BadRequest", "agent_id")
	bad(`{"company_id":"c","agent_id":"a","kind":"*","event":{}}`, nil, 400, "BadRequest", "kind")
	bad(`{"company_id":"c","agent_id":"a","kind":"messages","chat_id":"x..y","event":{}}`, nil, 400, "BadRequest", "chat_id")
	bad(`{"company_id":"c","agent_id":"a","kind":"messages","chat_id":"x.>","event":{}}`, nil, 400, "BadRequest", "chat_id")
	bad(`{}`, map[string]string{"Content-Type": "text/plain"}, 400, "BadRequest", "Content-Type")
	bad(`{}`, map[string]string{"Origin": "https://evil.example"}, 403, "OriginNotAllowed", "")
	bad(`{}`, map[string]string{"Host": "rebound.example"}, 403, "OriginNotAllowed", "")
}
