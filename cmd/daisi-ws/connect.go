package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// client is a terminal's WebSocket connection. Frames are written by the
// reader (pongs, the close answer) and by the sender, so mu guards conn's
// writing side.
type client struct {
	conn  net.Conn
	in    *bufio.Reader
	place *place // nil: it does not come back
	mu    sync.Mutex
}

// connect prints every text frame as a line, and sends every line of standard
// input as a text frame, until the server closes, -n frames were printed, or
// the process is told to end. With -resume it comes back after a cut, for what
// it missed.
func connect(ctx context.Context, c console, args []string) error {
	f := c.flags("connect", "connect [-select CHAT] [-n COUNT] [-resume] [-origin ORIGIN] [-insecure] URL")
	chat := f.String("select", "", "chat to select first")
	count := f.Int("n", 0, "end after so many frames; 0: never")
	resume := f.Bool("resume", false, "come back after a cut, from the last frame on")
	origin := f.String("origin", "", "Origin header, as a browser would send it")
	insecure := f.Bool("insecure", false, "don't check the server's certificate")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	// Flags may follow the URL: it is pasted, and they are added.
	url := f.Arg(0)
	if f.NArg() > 1 {
		if err := parseFlags(f, f.Args()[1:]); err != nil {
			return err
		}
		if f.NArg() > 0 {
			url = ""
		}
	}
	if url == "" {
		return fmt.Errorf("%w: connect URL", errUsage)
	}
	header := http.Header{}
	if *origin != "" {
		header.Set("Origin", *origin)
	}
	t := &terminal{console: c, header: header, insecure: *insecure, chat: *chat, left: *count}
	if *resume {
		return t.follow(ctx, url, new(place))
	}
	return t.session(ctx, url, nil)
}

// terminal is what connections of one command share.
type terminal struct {
	console
	header   http.Header
	insecure bool
	chat     string
	left     int // frames to print, 0: no limit
	lines    sync.Once
	current  atomic.Pointer[client]
}

// session is one connection, from its dial to its end.
func (t *terminal) session(ctx context.Context, url string, p *place) error {
	cl, err := dial(ctx, url, t.header, t.insecure)
	if err != nil {
		return err
	}
	cl.place = p
	defer cl.conn.Close()
	stop := context.AfterFunc(ctx, func() { cl.write(ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, "")) })
	defer stop()
	if t.chat != "" && (p == nil || p.stream == "") { // later the server remembers
		msg, err := json.Marshal(map[string]any{"type": "select_chat", "payload": map[string]any{"chat_id": t.chat, "ack": true}})
		if err != nil {
			return err
		}
		if err := cl.write(ws.OpText, msg); err != nil {
			return err
		}
	}
	t.current.Store(cl)
	t.lines.Do(func() { go t.send() }) // ends with standard input, at the latest with the process
	return cl.print(t.console, &t.left)
}

// dial connects; a refusal's status and body are in the error.
func dial(ctx context.Context, url string, header http.Header, insecure bool) (*client, error) {
	refusal := ""
	d := ws.Dialer{
		Timeout: 10 * time.Second, Header: ws.HandshakeHeaderHTTP(header), Protocols: []string{"json.v1"},
		TLSConfig: &tls.Config{InsecureSkipVerify: insecure},
		OnStatusError: func(status int, reason []byte, resp io.Reader) {
			refusal = fmt.Sprintf("%d %s", status, reason)
			if r, err := http.ReadResponse(bufio.NewReader(resp), nil); err == nil {
				body, _ := io.ReadAll(io.LimitReader(r.Body, 16<<10)) // what there is of it
				refusal += ": " + string(bytes.TrimSpace(body))
			}
		},
	}
	conn, early, _, err := d.Dial(ctx, url)
	if refusal != "" {
		return nil, fmt.Errorf("refused: %s", refusal)
	}
	if err != nil {
		return nil, err
	}
	if early == nil {
		early = bufio.NewReader(conn)
	}
	return &client{conn: conn, in: early}, nil
}

func (cl *client) write(op ws.OpCode, payload []byte) error {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return wsutil.WriteClientMessage(cl.conn, op, payload)
}

// send ends with standard input. It leaves the connection open: a script's
// input ends long before its events do. What is typed between two connections
// is lost.
func (t *terminal) send() {
	lines := bufio.NewScanner(t.in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); line != "" {
			_ = t.current.Load().write(ws.OpText, []byte(line)) // a dead one shows in print
		}
	}
}

// print reads until the connection ends. The server's close code and reason go
// to the error output; any but 1000 is an error. left counts down to the last
// frame to print; 0 from the start: there is none.
func (cl *client) print(c console, left *int) error {
	control := func(h ws.Header, r io.Reader) error {
		body, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		switch h.OpCode {
		case ws.OpPing:
			return cl.write(ws.OpPong, body)
		case ws.OpClose:
			code, reason := ws.ParseCloseFrameData(body)
			cl.write(ws.OpClose, body[:min(len(body), 2)]) // the server may be gone already
			return wsutil.ClosedError{Code: code, Reason: reason}
		}
		return nil
	}
	reader := wsutil.Reader{Source: cl.in, State: ws.StateClientSide, CheckUTF8: true, OnIntermediate: control}
	for limit := *left > 0; !limit || *left > 0; {
		h, err := reader.NextFrame()
		if err == nil && h.OpCode.IsControl() {
			err = control(h, &reader)
		} else if err == nil {
			var message []byte
			if message, err = io.ReadAll(&reader); err == nil {
				*left--
				cl.place.note(message)
				_, err = fmt.Fprintf(c.out, "%s\n", message)
			}
		}
		var closed wsutil.ClosedError
		switch {
		case errors.As(err, &closed) && closed.Code == ws.StatusNormalClosure:
			return nil
		case errors.As(err, &closed):
			return &serverClosed{closed}
		case errors.Is(err, io.EOF):
			return errors.New("the connection was cut without a close frame")
		case err != nil:
			return err
		}
	}
	return cl.write(ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))
}

// serverClosed is an end by a close frame other than 1000.
type serverClosed struct{ frame wsutil.ClosedError }

func (e *serverClosed) Error() string {
	return fmt.Sprintf("closed by the server: %d %s", e.frame.Code, e.frame.Reason)
}
