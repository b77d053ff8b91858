package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"github.com/daisi/daisi-ws/loop"
)

// ChatMode is how a session comes to its selected chat.
type ChatMode uint8

// Chat modes.
const (
	ChatNone     ChatMode = iota // none is selected
	ChatQuery                    // ?chat= at connect: selected before ready
	ChatSelect                   // select_chat, confirmed by the ready barrier
	ChatRestored                 // the server remembers it from an earlier session
)

// client is one socket of the Fleet; its callbacks come from the pollers.
type client struct {
	// Static.
	fleet *Fleet
	watch *Watch
	user  *User
	mode  ChatMode
	door  uint16
	hint  uint32 // spreads counters and histograms

	mu    sync.Mutex
	back  bool      // it resumes
	away  time.Time // since when it has no socket
	due   time.Time // when it may come back
	state clientState
	login chan error // told once, when the login is through or failed; nil afterwards
	early bool       // it ended before the login was through
	conn  *loop.Conn // nil before the first callback and after the end
}

type clientState uint8

const (
	clientDialled   clientState = iota
	clientReady                 // `ready` came
	clientSelecting             // select_chat and the barrier are out
	clientLive
	clientClosed
)

var (
	barrier    = []byte(`{"type":"ready"}`)
	errNoReady = errors.New("first frame is not ready")
)

// Message implements loop.Handler.
func (c *client) Message(conn *loop.Conn, op ws.OpCode, payload []byte) {
	now := time.Now()
	if op != ws.OpText {
		return
	}
	f, err := parseFrame(payload)
	if err != nil {
		c.fleet.junk.Add(1)
		return
	}
	switch f.Type {
	case frameEvent:
		c.event(f, now)
	case frameReady:
		c.ready(conn, f)
	case frameError:
		c.refused(f)
	case frameGap:
		c.watch.Gap()
	case frameCursor:
		c.cursor(f)
	case frameDraining:
		c.draining(f, now)
	}
}

func (c *client) event(f frame, now time.Time) {
	fl := c.fleet
	fl.frames[c.hint%counterShards].n.Add(1)
	switch fl.plant.next() {
	case faultDrop:
		return
	case faultDouble:
		c.watch.Event(f.Payload, f.Seq)
	}
	m, ok := c.watch.Event(f.Payload, f.Seq)
	if !ok {
		return
	}
	at := now.UnixNano()
	fl.delivered(c.hint, time.Duration(at-m.Due), time.Duration(at-m.Sent))
}

// ready takes the first `ready`, or the echo of the barrier.
func (c *client) ready(conn *loop.Conn, f frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case clientDialled:
		var p readyPayload
		if len(f.Payload) > 0 {
			if err := json.Unmarshal(f.Payload, &p); err != nil {
				c.finish(fmt.Errorf("decode ready: %w", err))
				return
			}
		}
		c.conn, c.state = conn, clientReady
		c.user.took(c)
		c.fleet.open.Add(1)
		topic := c.user.Chat
		if c.mode == ChatNone || c.mode == ChatSelect {
			topic = 0
		}
		if c.back { // and the server remembers what it had selected
			topic = c.user.Chat
		}
		c.watch.Ready(p.Epoch, p.Pod, topic)
		c.watch.Stands(p.Stream, p.Seq)
		if c.mode != ChatSelect || c.user.Chat == 0 || c.back {
			c.live()
			return
		}
		c.state = clientSelecting
		c.watch.Selecting(c.user.Chat)
		c.finish(c.choose(conn))
	case clientSelecting:
		c.watch.Selected()
		c.live()
	}
}

// choose asks for the user's chat; the barrier behind it is echoed when it took
// effect. Nil: the login goes on.
func (c *client) choose(conn *loop.Conn) error {
	msg := append([]byte(nil), `{"type":"select_chat","payload":{"chat_id":`...)
	msg = append(appendString(msg, c.user.Page.Topics[c.user.Chat].Chat), `}}`...)
	if err := conn.Send(ws.OpText, msg); err != nil {
		return fmt.Errorf("select chat: %w", err)
	}
	if err := conn.Send(ws.OpText, barrier); err != nil {
		return fmt.Errorf("send barrier: %w", err)
	}
	return nil
}

// live is called with mu held.
func (c *client) live() {
	c.state = clientLive
	c.tell(nil)
}

// finish fails the login; nil does nothing. Called with mu held.
func (c *client) finish(err error) {
	if err != nil {
		c.tell(err)
	}
}

func (c *client) tell(err error) {
	if c.login != nil {
		c.login <- err // has room for the one it gets
		c.login = nil
	}
}

// refused notes an error frame; SessionConflict is how a socket learns that
// another took its place, right before its close frame.
func (c *client) refused(f frame) {
	var p errorPayload
	if err := json.Unmarshal(f.Payload, &p); err != nil {
		c.fleet.junk.Add(1)
		return
	}
	c.fleet.errorFrame(p.Code)
	c.mu.Lock()
	if c.state == clientSelecting {
		c.finish(fmt.Errorf("select chat: %s: %s %s", p.Code, p.Message, p.Details))
	}
	c.mu.Unlock()
	if p.Code == codeConflict {
		c.watch.Closed()
	}
}

// Tick implements loop.Handler.
func (c *client) Tick(*loop.Conn, uint32) uint32 { return 0 }

// Closed implements loop.Handler.
func (c *client) Closed(_ *loop.Conn, why loop.End) {
	c.watch.Closed()
	c.mu.Lock()
	open := c.state >= clientReady
	c.early = c.login != nil
	c.state, c.conn = clientClosed, nil
	if c.early {
		c.tell(fmt.Errorf("closed with %d before it was live: %w", why.Code, orErr(why.Err, errNoReady)))
	}
	c.mu.Unlock()
	c.fleet.closed(c, why, open)
}

// asked says whether someone waited for the login when the socket ended.
func (c *client) asked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.early
}

// leave ends the socket of u, if it has one, and waits for that.
func (u *User) leave(ctx context.Context) error {
	u.mu.Lock()
	c := u.client
	u.mu.Unlock()
	if c == nil {
		return nil
	}
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		return nil
	}
	conn.Close(1000, "")
	ctx, cancel := context.WithTimeout(ctx, leaveWait)
	defer cancel()
	for {
		c.mu.Lock()
		gone := c.conn == nil
		c.mu.Unlock()
		if gone {
			return nil
		}
		if err := Wait(ctx, time.Now().Add(2*time.Millisecond)); err != nil {
			return fmt.Errorf("leave: %w", err)
		}
	}
}

// leaveWait is how long a close handshake may take.
const leaveWait = 5 * time.Second

func orErr(err, def error) error {
	if err == nil {
		return def
	}
	return err
}
