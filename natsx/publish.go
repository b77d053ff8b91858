package natsx

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Publish stores body in the publisher's stream, under a subject that begins
// with "websocket." and has no wildcards (see Subject), and returns its
// sequence there. It is for test pages and commands; events come from
// publishers.
func (c *Client) Publish(ctx context.Context, subject string, body []byte) (uint64, error) {
	rest, ok := strings.CutPrefix(subject, publisherPrefix)
	if !ok || !literal(rest) {
		return 0, fmt.Errorf("subject %q must be websocket.<company>.<agent>.<kind>[.<chat>] without wildcards", subject)
	}
	nc := c.conn()
	if nc == nil {
		return 0, ErrNotConnected
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	m, err := nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: subject, Data: body})
	if err != nil {
		return 0, fmt.Errorf("publish to %s: %w", subject, err)
	}
	var ack struct {
		Seq   uint64
		Error *apiError
	}
	if err := json.Unmarshal(m.Data, &ack); err != nil {
		return 0, fmt.Errorf("decode the answer to a publish: %w", err)
	}
	if ack.Error != nil {
		return 0, fmt.Errorf("publish to %s: %w", subject, ack.Error)
	}
	return ack.Seq, nil
}

// literal says whether tokens can be part of a subject to publish to.
func literal(tokens string) bool {
	for t := range strings.SplitSeq(tokens, ".") {
		if t == "" || t == "*" || t == ">" || strings.ContainsAny(t, " \t\r\n\f") {
			return false
		}
	}
	return true
}
