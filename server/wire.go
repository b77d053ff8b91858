package server

import (
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/daisi/daisi-ws/session"
)

// Encoders of the frames for clients: {"type":…,"payload":…}. They append by
// hand, since a login and an event each pay for one, and the output is held
// against encoding/json by tests.

// readyInfo is the payload of a ready frame.
type readyInfo struct {
	Session string // names the socket to an operator
	Epoch   uint64
	Pod     string
	Stream  string // resume from Stream and Seq misses nothing
	Seq     uint64
	Window  time.Duration // how far back a resume reaches
	Now     time.Time
	Limits  readyLimits
}

// readyLimits are the limits a client can meet.
type readyLimits struct {
	Message int // bytes of one message from the client
	Waiting int // messages that may wait for an answer
	Budget  int // bytes that may wait for the client
}

func encodeReady(r readyInfo) []byte {
	b := make([]byte, 0, 320)
	b = appendText(append(b, `{"type":"ready","payload":{"session":`...), r.Session)
	b = appendUint(append(b, `,"epoch":`...), r.Epoch)
	b = appendText(append(b, `,"pod":`...), r.Pod)
	b = appendText(append(b, `,"stream":`...), r.Stream)
	b = appendUint(append(b, `,"seq":`...), r.Seq)
	b = appendUint(append(b, `,"resume_window_s":`...), uint64(r.Window/time.Second))
	b = appendTime(append(b, `,"server_time":`...), r.Now)
	b = appendUint(append(b, `,"limits":{"message_bytes":`...), uint64(r.Limits.Message))
	b = appendUint(append(b, `,"waiting_messages":`...), uint64(r.Limits.Waiting))
	b = appendUint(append(b, `,"send_budget_bytes":`...), uint64(r.Limits.Budget))
	return append(b, "}}}"...)
}

// barrier is the echo of a client's ready.
var barrier = []byte(`{"type":"ready"}`)

// encodeError tells a client what it did wrong, or why its socket will close.
func encodeError(code, message, details string) []byte {
	b := make([]byte, 0, 96+len(message)+len(details))
	b = append(b, `{"type":"error","payload":`...)
	return append(appendError(b, code, message, details), '}')
}

// appendError writes the object that frames and HTTP bodies share.
func appendError(b []byte, code, message, details string) []byte {
	b = appendText(append(b, `{"code":`...), code)
	b = appendText(append(b, `,"message":`...), message)
	if details != "" {
		b = appendText(append(b, `,"details":`...), details)
	}
	return append(b, '}')
}

// encodeSelected says that chat (nil: none) is live from seq+1 on.
func encodeSelected(chat *string, seq uint64) []byte {
	b := append(make([]byte, 0, 128), `{"type":"selected","payload":{"chat_id":`...)
	if chat == nil {
		b = append(b, "null"...)
	} else {
		b = appendText(b, *chat)
	}
	b = appendUint(append(b, `,"seq":`...), seq)
	return append(b, "}}"...)
}

// encodeGap says that [from, to] was not delivered; replayable, that a resume
// from from-1 would still find it.
func encodeGap(from, to uint64, reason string, replayable bool) []byte {
	b := append(make([]byte, 0, 128), `{"type":"gap","payload":{"from":`...)
	b = appendUint(b, from)
	b = appendUint(append(b, `,"to":`...), to)
	b = appendText(append(b, `,"reason":`...), reason)
	b = strconv.AppendBool(append(b, `,"replayable":`...), replayable)
	return append(b, "}}"...)
}

// encodeDraining tells a client when to come back.
func encodeDraining(after time.Duration) []byte {
	b := append(make([]byte, 0, 80), `{"type":"draining","payload":{"reconnect_after_ms":`...)
	return append(appendUint(b, uint64(max(0, after.Milliseconds()))), "}}"...)
}

// encodeExpiring warns of the end of a token.
func encodeExpiring(at time.Time) []byte {
	b := append(make([]byte, 0, 80), `{"type":"token_expiring","payload":{"expires_at":`...)
	return append(appendTime(b, at), "}}"...)
}

// encodeCursor says that nothing up to seq is missing.
func encodeCursor(seq uint64) []byte {
	b := append(make([]byte, 0, 64), `{"type":"cursor","payload":{"seq":`...)
	return append(appendUint(b, seq), "}}"...)
}

// eventHead and eventSeq stand before and behind the body of an event.
var eventHead = []byte(`{"type":"event","payload":`)

const eventSeq = `,"seq":`

// eventParts are what stands between eventHead and the end of an event's frame:
// the body, a valid JSON object without white space around it, passes through,
// so numbers and unknown fields stay what they were; a missing event_type goes
// in at its end. The tail is appended to buf.
func eventParts(ev *session.Event, buf []byte) (body, tail []byte) {
	body = ev.Body
	if !hasField(body, "event_type") {
		body = body[:len(body)-1]
		if !emptyObject(ev.Body) {
			buf = append(buf, ',')
		}
		buf = append(appendText(append(buf, `"event_type":`...), eventType(ev.Route.Kind)), '}')
	}
	return body, append(appendUint(append(buf, eventSeq...), ev.Seq), '}')
}

// eventKinds are the labels of dws_messages_sent_total; kindOf indexes them.
// The last stands for all that have no name of their own, since a label must
// never hold what a publisher made up.
var eventKinds = [...]string{"chat", "message", "agent", "contact", "other"}

func kindOf(kind string) uint8 {
	switch kind {
	case session.KindChats:
		return 0
	case session.KindMessages:
		return 1
	case session.KindAgents:
		return 2
	case session.KindContacts:
		return 3
	}
	return uint8(len(eventKinds) - 1)
}

// eventType is the event_type of a subject's 4th token: known ones in the
// singular, others as they are.
func eventType(kind string) string {
	if k := int(kindOf(kind)); k < len(eventKinds)-1 {
		return eventKinds[k]
	}
	return kind
}

func appendUint(b []byte, n uint64) []byte { return strconv.AppendUint(b, n, 10) }

// appendTime writes RFC 3339 with milliseconds, UTC.
func appendTime(b []byte, t time.Time) []byte {
	b = t.UTC().AppendFormat(append(b, '"'), "2006-01-02T15:04:05.000Z")
	return append(b, '"')
}

// appendText writes s as a JSON string. Nearly all are plain ASCII; what is
// not goes through encoding/json.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string can't fail
			return append(b, quoted...)
		}
	}
	b = append(append(b, '"'), s...)
	return append(b, '"')
}
