package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"time"
)

// Pauses before a connection is made again; the server may ask for others.
const (
	returnMin = 500 * time.Millisecond
	returnMax = 15 * time.Second
)

// place is where a client stands in the stream, and when it may come back, as
// the server's frames say.
type place struct {
	stream string
	seq    uint64
	after  time.Duration // told by draining, 0: nothing was
}

// note takes what a frame says; nil does nothing.
func (p *place) note(message []byte) {
	if p == nil {
		return
	}
	var f struct {
		Type    string
		Seq     uint64
		Payload struct {
			Stream string
			Seq    uint64
			To     uint64
			After  int64 `json:"reconnect_after_ms"`
		}
	}
	_ = json.Unmarshal(message, &f) // an event's fields may be of other types; what is asked for is there
	switch f.Type {
	case "ready":
		if f.Payload.Stream != "" {
			p.stream, p.seq = f.Payload.Stream, f.Payload.Seq
		}
	case "event":
		p.seq = f.Seq
	case "cursor":
		p.seq = f.Payload.Seq
	case "gap":
		p.seq = f.Payload.To
	case "draining":
		p.after = time.Duration(f.Payload.After) * time.Millisecond
	}
}

// url is where to connect next; an empty ?resume= asks for the frames that note
// reads.
func (p *place) url(target string) (string, error) {
	u, err := url.Parse(target)
	if err != nil {
		return "", fmt.Errorf("read URL: %w", err)
	}
	q := u.Query()
	switch {
	case p.stream != "":
		q.Set("resume", p.stream+":"+strconv.FormatUint(p.seq, 10))
	case !q.Has("resume"):
		q.Set("resume", "")
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// comesBack says whether a connection that ended so is worth another one.
func comesBack(err error) bool {
	var closed *serverClosed
	if !errors.As(err, &closed) {
		return true
	}
	switch closed.frame.Code {
	case 1001, 1006, 1008, 1011, 1012, 1013, 4408, 4429:
		return true
	}
	return false
}

// follow connects again and again, until a connection ends for good or ctx does.
// The first one must succeed.
func (t *terminal) follow(ctx context.Context, target string, p *place) error {
	wait := returnMin
	for {
		next, err := p.url(target)
		if err != nil {
			return err
		}
		began := time.Now()
		err = t.session(ctx, next, p)
		if err == nil || ctx.Err() != nil || p.stream == "" || !comesBack(err) {
			return err
		}
		if time.Since(began) > returnMax {
			wait = returnMin
		}
		pause := wait + rand.N(wait)
		if p.after > 0 {
			pause, p.after = p.after, 0
		}
		wait = min(2*wait, returnMax)
		fmt.Fprintf(t.err, "%v; again in %v\n", err, pause.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}
