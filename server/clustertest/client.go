package clustertest

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/daisi/daisi-ws/session"
)

// Frame is one JSON frame as a client read it.
type Frame struct {
	At      time.Time
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload"`
	Seq     uint64          `json:"seq"`
}

// Field is a string field of the payload, "" if there is none.
func (f Frame) Field(name string) string {
	var fields map[string]any
	_ = json.Unmarshal(f.Payload, &fields)
	s, _ := fields[name].(string)
	return s
}

// Closed is how a socket ended.
type Closed struct {
	At     time.Time
	Code   uint16 // of the close frame; 0: none came
	Reason string
}

// Client is a WebSocket client on blocking sockets, which shares nothing with
// the server's own reader. It keeps all it read.
type Client struct {
	t    testing.TB
	conn net.Conn

	mu      sync.Mutex
	changed chan struct{} // mu; closed and replaced with every change
	frames  []Frame       // mu
	closed  *Closed       // mu
	write   sync.Mutex
	reading sync.WaitGroup // not done: see Pause
	done    chan struct{}
}

// Refused is the answer to an upgrade that was not 101.
type Refused struct {
	Status int
	Header http.Header
	Body   string
}

// Error gives status and body.
func (r *Refused) Error() string { return fmt.Sprintf("refused: %d %s", r.Status, r.Body) }

// Dial connects a user to a pod and waits for its ready frame. query is added
// to the URL.
func (c *Cluster) Dial(p *Pod, key session.Key, query ...string) *Client {
	c.t.Helper()
	k, err := c.TryDial(p, key, query...)
	if err != nil {
		c.t.Fatalf("dial %s as %v: %v", p.ID, key, err)
	}
	return k
}

// TryDial is Dial for logins that may be refused, with a *Refused.
func (c *Cluster) TryDial(p *Pod, key session.Key, query ...string) (*Client, error) {
	c.t.Helper()
	u := p.URL("ws") + "/ws/" + url.PathEscape(key.Company) + "/" + url.PathEscape(key.Agent) +
		"?x-api-key=" + APIKey + "&token=" + url.QueryEscape(c.Token(key))
	return c.dialReady(u, query)
}

// DialAdmin connects an admin.
func (c *Cluster) DialAdmin(p *Pod, token string) *Client {
	c.t.Helper()
	k, err := c.dialReady(p.URL("ws")+"/ws/admin?x-api-key="+AdminKey+"&token="+url.QueryEscape(token), nil)
	if err != nil {
		c.t.Fatalf("dial %s as admin: %v", p.ID, err)
	}
	return k
}

func (c *Cluster) dialReady(u string, query []string) (*Client, error) {
	for _, q := range query {
		u += "&" + q
	}
	k, err := c.DialURL(u, nil)
	if err != nil {
		return nil, err
	}
	if _, ok := k.Await(10*time.Second, func(f Frame) bool { return f.Type == "ready" }); !ok {
		k.Drop()
		return nil, fmt.Errorf("no ready frame; got %v, closed %v", k.Frames(), k.Closed())
	}
	return k, nil
}

// DialURL opens a socket and reads it until it ends.
func (c *Cluster) DialURL(u string, header http.Header) (*Client, error) {
	d := ws.Dialer{Timeout: 10 * time.Second, Header: ws.HandshakeHeaderHTTP(header)}
	if c.Cert != nil {
		d.TLSConfig = &tls.Config{RootCAs: c.Cert.Pool, MinVersion: tls.VersionTLS12}
	}
	var refused *Refused
	d.OnStatusError = func(status int, _ []byte, r io.Reader) { refused = readRefusal(status, r) }
	conn, br, _, err := d.Dial(context.Background(), u)
	if refused != nil {
		return nil, refused
	}
	if err != nil {
		return nil, err
	}
	k := &Client{t: c.t, conn: conn, changed: make(chan struct{}), done: make(chan struct{})}
	var r io.Reader = conn
	if br != nil {
		r = br
	}
	go k.read(bufio.NewReader(r))
	c.t.Cleanup(k.Drop)
	return k, nil
}

// readRefusal parses the answer.
func readRefusal(status int, r io.Reader) *Refused {
	resp, err := http.ReadResponse(bufio.NewReader(r), nil)
	if err != nil {
		return &Refused{Status: status, Body: err.Error()}
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	return &Refused{Status: status, Header: resp.Header, Body: string(body)}
}

// read takes everything until the socket ends; pings are answered.
func (k *Client) read(r *bufio.Reader) {
	defer close(k.done)
	ended := Closed{}
	for {
		h, err := ws.ReadHeader(r)
		k.reading.Wait()
		if err != nil {
			break
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(r, payload); err != nil {
			break
		}
		switch h.OpCode {
		case ws.OpText:
			f := Frame{At: time.Now()}
			if err := json.Unmarshal(payload, &f); err != nil {
				k.t.Errorf("not JSON: %q: %v", payload, err)
			}
			k.note(func() { k.frames = append(k.frames, f) })
		case ws.OpPing:
			k.send(ws.OpPong, payload)
		case ws.OpClose:
			code, reason := ws.ParseCloseFrameData(payload)
			ended.Code, ended.Reason = uint16(code), reason
			k.send(ws.OpClose, payload)
		}
	}
	_ = k.conn.Close()
	k.note(func() {
		ended.At = time.Now()
		k.closed = &ended
	})
}

// Pause has the client read nothing, from its next frame on, until resume.
func (k *Client) Pause() (resume func()) {
	k.reading.Add(1)
	return k.reading.Done
}

func (k *Client) note(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *Client) send(op ws.OpCode, payload []byte) {
	k.write.Lock()
	defer k.write.Unlock()
	_ = k.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	_ = wsutil.WriteClientMessage(k.conn, op, payload) // a dead socket shows in read
}

// Send writes one text message.
func (k *Client) Send(message string) { k.send(ws.OpText, []byte(message)) }

// Select selects a chat and waits until it took effect.
func (k *Client) Select(chat string) {
	k.t.Helper()
	id, _ := json.Marshal(chat)
	before := k.Count("selected")
	k.Send(`{"type":"select_chat","payload":{"chat_id":` + string(id) + `,"ack":true}}`)
	if !k.await(10*time.Second, func() bool { return k.count("selected") > before }) {
		k.t.Fatalf("select %q: no answer; got %v, closed %v", chat, k.Frames(), k.Closed())
	}
}

// Frames is all that was read.
func (k *Client) Frames() []Frame {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]Frame(nil), k.frames...)
}

// Events are the event frames read.
func (k *Client) Events() []Frame {
	var events []Frame
	for _, f := range k.Frames() {
		if f.Type == "event" {
			events = append(events, f)
		}
	}
	return events
}

// Count is how many frames of a type were read.
func (k *Client) Count(typ string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.count(typ)
}

func (k *Client) count(typ string) int {
	n := 0
	for i := range k.frames {
		if k.frames[i].Type == typ {
			n++
		}
	}
	return n
}

// Closed is how the socket ended, nil while it has not.
func (k *Client) Closed() *Closed {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.closed
}

// Await waits for a frame that f accepts, from the first one on.
func (k *Client) Await(limit time.Duration, f func(Frame) bool) (found Frame, ok bool) {
	next := 0
	ok = k.await(limit, func() bool {
		for ; next < len(k.frames); next++ {
			if f(k.frames[next]) {
				found = k.frames[next]
				return true
			}
		}
		return false
	})
	return found, ok
}

// AwaitEvents waits until n events were read.
func (k *Client) AwaitEvents(limit time.Duration, n int) bool {
	return k.await(limit, func() bool { return k.count("event") >= n })
}

// AwaitClose waits for the end.
func (k *Client) AwaitClose(limit time.Duration) (Closed, bool) {
	ok := k.await(limit, func() bool { return k.closed != nil })
	if !ok {
		return Closed{}, false
	}
	return *k.Closed(), true
}

// await waits until ok, called with the lock held, says so.
func (k *Client) await(limit time.Duration, ok func() bool) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		k.mu.Lock()
		if ok() {
			k.mu.Unlock()
			return true
		}
		changed := k.changed
		over := k.closed != nil
		k.mu.Unlock()
		if over {
			return false
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		}
	}
}

// Barrier waits until the server has seen all that was sent before.
func (k *Client) Barrier() error {
	before := k.Count("ready")
	k.Send(`{"type":"ready"}`)
	if !k.await(10*time.Second, func() bool { return k.count("ready") > before }) {
		return errors.New("no barrier")
	}
	return nil
}

// Close says goodbye and waits for the end.
func (k *Client) Close() {
	k.send(ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))
	select {
	case <-k.done:
	case <-time.After(5 * time.Second):
		k.Drop()
	}
}

// Drop cuts the socket without a word.
func (k *Client) Drop() {
	_ = k.conn.Close()
	<-k.done
}
