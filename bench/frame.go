package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
)

// Frame types of the gateway's protocol that the bench acts on.
const (
	frameReady    = "ready"
	frameEvent    = "event"
	frameError    = "error"
	frameGap      = "gap"
	frameCursor   = "cursor"
	frameDraining = "draining"
)

// frame is one message of the server, its payload lent from the message.
type frame struct {
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload"`
	Seq     uint64          `json:"seq"` // only of events
}

// readyPayload is the part of `ready` that the bench uses; all zero from a
// server that sends none.
type readyPayload struct {
	Epoch  uint64 `json:"epoch"`
	Pod    string `json:"pod"`
	Stream string `json:"stream"`
	Seq    uint64 `json:"seq"`
}

type drainingPayload struct {
	After int64 `json:"reconnect_after_ms"`
}

type errorPayload struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Details string `json:"details"`
}

const eventHead = `{"type":"event","payload":`

// parseFrame reads one message. Events in the usual spelling, type first and
// seq last, cost no allocation; anything else is decoded as JSON.
func parseFrame(b []byte) (frame, error) {
	if f, ok := parseEvent(b); ok {
		return f, nil
	}
	var f frame
	if err := json.Unmarshal(b, &f); err != nil {
		return frame{}, fmt.Errorf("decode frame: %w", err)
	}
	return f, nil
}

func parseEvent(b []byte) (frame, bool) {
	if !bytes.HasPrefix(b, []byte(eventHead)) || b[len(b)-1] != '}' {
		return frame{}, false
	}
	payload := b[len(eventHead) : len(b)-1]
	f := frame{Type: frameEvent}
	if i := len(payload); i > 0 && payload[i-1] >= '0' && payload[i-1] <= '9' {
		for i > 0 && payload[i-1] >= '0' && payload[i-1] <= '9' {
			i--
		}
		seq, err := strconv.ParseUint(string(payload[i:]), 10, 64)
		head := bytes.TrimSuffix(payload[:i], []byte(`,"seq":`))
		if err != nil || len(head) == i {
			return frame{}, false
		}
		f.Seq, payload = seq, head
	}
	if len(payload) < 2 || payload[0] != '{' || payload[len(payload)-1] != '}' {
		return frame{}, false
	}
	f.Payload = payload
	return f, true
}
