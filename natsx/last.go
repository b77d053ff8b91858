package natsx

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
)

// LastSeq asks our stream's leader for the first and the last sequence
// stored; an empty stream has first = last+1. ErrStream: it is not the stream
// that Stream tells of. Calls that come while one is out are answered together
// by the next: a pod whose partitions all serve themselves asks once, not once
// for each, and does not keep the server busy that it waits for.
func (c *Client) LastSeq(ctx context.Context) (first, last uint64, err error) {
	cur := c.cur.Load()
	if cur == nil {
		return 0, 0, ErrNotConnected
	}
	i, err := c.ends.ask(ctx, func(ctx context.Context) (*streamInfo, error) { return c.events(ctx, cur.id) })
	if err != nil {
		return 0, 0, fmt.Errorf("ask for the last sequence: %w", err)
	}
	return i.State.FirstSeq, i.State.LastSeq, nil
}

// LastOf asks our stream's leader for the highest sequence stored under any
// of the subjects, which may hold wildcards; 0 when there is none.
func (c *Client) LastOf(ctx context.Context, subjects ...string) (uint64, error) {
	var last uint64
	for _, s := range subjects {
		body, err := c.ask(ctx, "STREAM.MSG.GET."+c.o.EventsStream, config{"last_by_subj": s})
		if err != nil {
			return 0, fmt.Errorf("ask for the last sequence of %s: %w", s, err)
		}
		seq, err := storedSeq(body)
		if isCode(err, codeNoMessage) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("ask for the last sequence of %s: %w", s, err)
		}
		last = max(last, seq)
	}
	return last, nil
}

// storedSeq finds the sequence in a STREAM.MSG.GET answer without decoding
// the body in it, which may be a MiB. No text in it can hold `"seq":`, since
// a quote within a string is escaped.
func storedSeq(answer []byte) (uint64, error) {
	key := []byte(`"seq":`)
	if i := bytes.Index(answer, key); i >= 0 {
		rest := answer[i+len(key):]
		end := 0
		for end < len(rest) && rest[end]-'0' <= 9 {
			end++
		}
		if seq, ok := parseNumber(string(rest[:end])); ok {
			return seq, nil
		}
	}
	var refusal struct{ Error *apiError }
	if err := json.Unmarshal(answer, &refusal); err != nil {
		return 0, fmt.Errorf("decode answer: %w", err)
	}
	if refusal.Error != nil {
		return 0, refusal.Error
	}
	return 0, fmt.Errorf("no sequence in the answer")
}
