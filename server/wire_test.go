package server

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/daisi/daisi-ws/session"
)

// sameJSON holds a hand-made frame against what encoding/json would write.
func sameJSON(t *testing.T, got []byte, want string) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal(got, &a); err != nil {
		t.Fatalf("frame is no JSON: %v\n%s", err, got)
	}
	if err := json.Unmarshal([]byte(want), &b); err != nil {
		t.Fatal(err)
	}
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	if !bytes.Equal(x, y) {
		t.Fatalf("frame\n got %s\nwant %s", x, y)
	}
}

func TestEncodeFrames(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 89e6, time.FixedZone("x", 3600))
	chat := "628@s.\"whats\\app\".net \u2028é\x01"
	f := func(name string, got []byte, want string) {
		t.Helper()
		t.Run(name, func(t *testing.T) { t.Helper(); sameJSON(t, got, want) })
	}
	f("ready", encodeReady(readyInfo{
		Session: "p@b/1", Epoch: 18446744073709551615, Pod: "p", Stream: "s", Seq: 9,
		Window: 5 * time.Minute, Now: at, Limits: readyLimits{1, 2, 3},
	}),
		`{"type":"ready","payload":{"session":"p@b/1","epoch":18446744073709551615,"pod":"p","stream":"s","seq":9,"resume_window_s":300,`+
			`"server_time":"2026-03-04T04:06:07.089Z","limits":{"message_bytes":1,"waiting_messages":2,"send_budget_bytes":3}}}`)
	f("barrier", barrier, `{"type":"ready"}`)
	f("error", encodeError("BadRequest", "m\n", ""), `{"type":"error","payload":{"code":"BadRequest","message":"m\n"}}`)
	f("error with details", encodeError("C", "m", `d"\`), `{"type":"error","payload":{"code":"C","message":"m","details":"d\"\\"}}`)
	quoted, _ := json.Marshal(chat)
	f("selected", encodeSelected(&chat, 7), `{"type":"selected","payload":{"chat_id":`+string(quoted)+`,"seq":7}}`)
	f("unselected", encodeSelected(nil, 0), `{"type":"selected","payload":{"chat_id":null,"seq":0}}`)
	f("gap", encodeGap(3, 9, "window", true), `{"type":"gap","payload":{"from":3,"to":9,"reason":"window","replayable":true}}`)
	f("draining", encodeDraining(1500*time.Millisecond), `{"type":"draining","payload":{"reconnect_after_ms":1500}}`)
	f("draining at once", encodeDraining(-time.Second), `{"type":"draining","payload":{"reconnect_after_ms":0}}`)
	f("expiring", encodeExpiring(at), `{"type":"token_expiring","payload":{"expires_at":"2026-03-04T04:06:07.089Z"}}`)
	f("cursor", encodeCursor(5), `{"type":"cursor","payload":{"seq":5}}`)
}

func event(kind, body string) *session.Event {
	return &session.Event{Seq: 42, Route: session.Route{Company: "c", Agent: "a", Kind: kind}, Body: []byte(body)}
}

// joinEvent is the payload of the frame of ev.
func joinEvent(ev *session.Event) []byte {
	body, tail := eventParts(ev, nil)
	return slices.Concat(eventHead, body, tail)
}

func TestEventParts(t *testing.T) {
	f := func(kind, body, want string) {
		t.Helper()
		ev := event(kind, body)
		got := joinEvent(ev)
		if string(got) != want {
			t.Errorf("event of %s\n got %s\nwant %s", body, got, want)
		}
	}
	f("chats", `{"a":1}`, `{"type":"event","payload":{"a":1,"event_type":"chat"},"seq":42}`)
	f("messages", `{}`, `{"type":"event","payload":{"event_type":"message"},"seq":42}`)
	f("agents", `{ }`, `{"type":"event","payload":{ "event_type":"agent"},"seq":42}`)
	f("contacts", `{"event_type":"mine"}`, `{"type":"event","payload":{"event_type":"mine"},"seq":42}`)
	f(`we"ird`, `{"a":1}`, `{"type":"event","payload":{"a":1,"event_type":"we\"ird"},"seq":42}`)
	// Numbers and unknown fields pass as they are; so do escaped keys.
	f("chats", `{"n":12345678901234567890.10,"event\u005ftype":null}`,
		`{"type":"event","payload":{"n":12345678901234567890.10,"event\u005ftype":null},"seq":42}`)
	// A deeper one, or a value, is not the field.
	f("chats", `{"x":{"event_type":1},"y":["event_type"],"z":"event_type"}`,
		`{"type":"event","payload":{"x":{"event_type":1},"y":["event_type"],"z":"event_type","event_type":"chat"},"seq":42}`)
	f("chats", `{"a":"\\","b":"\"event_type\":","c":[{"d":"]}"}],"event_type":"q"}`,
		`{"type":"event","payload":{"a":"\\","b":"\"event_type\":","c":[{"d":"]}"}],"event_type":"q"},"seq":42}`)
}

// FuzzHasField holds the scanner against encoding/json.
func FuzzHasField(f *testing.F) {
	for _, s := range []string{`{"event_type":1}`, `{"a":{"event_type":1}}`, `{"event\u005ftype":1}`, `{"a":"\\\"","b":[1,{"c":2}]}`, `{ }`, `{"a":[],"event_type":{}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		body = bytes.TrimSpace(body)
		var m map[string]json.RawMessage
		if !utf8.Valid(body) || json.Unmarshal(body, &m) != nil || m == nil {
			return
		}
		_, want := m["event_type"]
		if got := hasField(body, "event_type"); got != want {
			t.Fatalf("hasField(%q) = %v", body, got)
		}
		if got := emptyObject(body); got != (len(m) == 0) {
			t.Fatalf("emptyObject(%q) = %v", body, got)
		}
		frame := joinEvent(event("chats", string(body)))
		var back struct {
			Payload map[string]json.RawMessage
			Seq     uint64
		}
		if err := json.Unmarshal(frame, &back); err != nil || back.Seq != 42 || back.Payload["event_type"] == nil {
			t.Fatalf("frame %q: %v", frame, err)
		}
	})
}

func TestDecodeSuccess(t *testing.T) {
	f := func(message string, want command) {
		t.Helper()
		got, err := decode([]byte(message))
		if err != nil {
			t.Fatalf("decode(%s): %v", message, err)
		}
		if (got.chat == nil) != (want.chat == nil) || got.chat != nil && *got.chat != *want.chat {
			t.Fatalf("decode(%s): chat differs", message)
		}
		got.chat, want.chat = nil, nil
		if got != want {
			t.Fatalf("decode(%s) = %+v, want %+v", message, got, want)
		}
	}
	chat := "628@s.whatsapp.net"
	f(`{"type":"ready"}`, command{verb: verbReady})
	f(` {"payload":7,"type":"ready"} `, command{verb: verbReady})
	f(`{"type":"select_chat","payload":{"chat_id":"628@s.whatsapp.net"}}`, command{verb: verbSelect, chat: &chat})
	f(`{"type":"select_chat","payload":{"chat_id":"628@s\u002ewhatsapp.net","ack":true}}`, command{verb: verbSelect, chat: &chat, ack: true})
	f(`{"type":"select_chat","payload":{"chat_id":null,"ack":false}}`, command{verb: verbSelect})
	f(`{"type":"resume","payload":{"stream":"s","seq":9007199254740991}}`, command{verb: verbResume, point: resumePoint{"s", maxSeq}})
	f(`{"type":"refresh","payload":{"token":"t"}}`, command{verb: verbRefresh, token: "t"})
}

func TestDecodeFailure(t *testing.T) {
	f := func(message, details string) {
		t.Helper()
		_, err := decode([]byte(message))
		if err == nil || !strings.Contains(err.Error(), details) {
			t.Fatalf("decode(%.80q): error %v, want %q", message, err, details)
		}
	}
	f(``, "no JSON object")
	f(`[]`, "no JSON object")
	f(`"ready"`, "no JSON object")
	f(`{"type":"ready"`, "no JSON object")
	f(`{"type":"ready"}{}`, "no JSON object")
	f(`{"type":"ready","x":01}`, "no JSON object")
	f(`{"type":"ready","x":nan}`, "no JSON object")
	f("{\"type\":\"ready\",\"x\":\"\x01\"}", "no JSON object")
	f(strings.Repeat("[", 1<<20), "no JSON object")
	f(`{}`, `"type"`)
	f(`{"type":null}`, `"type"`)
	f(`{"type":1}`, `"type"`)
	f(`{"type":"hello"}`, "unknown type")
	f(`{"type":"select_chat"}`, `"payload"`)
	f(`{"type":"select_chat","payload":[]}`, `"payload"`)
	f(`{"type":"select_chat","payload":{}}`, `"chat_id" is missing`)
	f(`{"type":"select_chat","payload":{"chat_id":1}}`, `"chat_id" must`)
	f(`{"type":"select_chat","payload":{"chat_id":""}}`, "chat_id must be 1-512")
	f(`{"type":"select_chat","payload":{"chat_id":"a\u0000"}}`, "chat_id must be 1-512")
	f(`{"type":"select_chat","payload":{"chat_id":"`+strings.Repeat("x", 513)+`"}}`, "chat_id must be 1-512")
	f(`{"type":"select_chat","payload":{"chat_id":"a","ack":"yes"}}`, `"ack"`)
	f(`{"type":"resume","payload":{"seq":1}}`, `"stream"`)
	f(`{"type":"resume","payload":{"stream":"s"}}`, `"seq"`)
	f(`{"type":"resume","payload":{"stream":"s","seq":-1}}`, `"seq"`)
	f(`{"type":"resume","payload":{"stream":"s","seq":1.5}}`, `"seq"`)
	f(`{"type":"resume","payload":{"stream":"s","seq":9007199254740992}}`, `"seq"`)
	f(`{"type":"refresh","payload":{"token":null}}`, `"token"`)
}

func TestParseResume(t *testing.T) {
	if p, err := parseResume("a:b:7"); err != nil || *p != (resumePoint{"a:b", 7}) {
		t.Fatalf("a:b:7 gives %v, %v", p, err)
	}
	if p, err := parseResume(""); err != nil || p != nil {
		t.Fatalf("empty gives %v, %v", p, err)
	}
	for _, s := range []string{"7", ":7", "a:", "a:-1", "a:x", "a:9007199254740992", strings.Repeat("a", 300) + ":1"} {
		if _, err := parseResume(s); err == nil {
			t.Errorf("%.20q was taken", s)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"type":"ready"}`, `{"type":"select_chat","payload":{"chat_id":"c","ack":true}}`,
		`{"type":"resume","payload":{"stream":"s","seq":1}}`, `{"type":"refresh","payload":{"token":"t"}}`, `{"type":"x","payload":null}`, `[[[[`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		kept := bytes.Clone(message)
		c, err := decode(message)
		if !bytes.Equal(kept, message) {
			t.Fatal("decode wrote into lent bytes")
		}
		if err != nil {
			if !json.Valid(encodeError("BadRequest", "m", err.Error())) {
				t.Fatalf("error frame is no JSON for %q", message)
			}
			return
		}
		if utf8.Valid(message) && !json.Valid(message) {
			t.Fatalf("took what is no JSON: %q", message)
		}
		if c.verb == verbSelect && c.chat != nil && session.CheckChat(*c.chat) != nil {
			t.Fatalf("took chat %q", *c.chat)
		}
	})
}
