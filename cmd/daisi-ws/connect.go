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
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// client is a terminal's WebSocket connection. Frames are written by the
// reader (pongs, the close answer) and by the sender, so mu guards conn's
// writing side.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	mu   sync.Mutex
}

// connect prints every text frame as a line, and sends every line of standard
// input as a text frame, until the server closes, -n frames were printed, or
// the process is told to end.
func connect(ctx context.Context, c console, args []string) error {
	f := c.flags("connect", "connect [-select CHAT] [-n COUNT] [-origin ORIGIN] [-insecure] URL")
	chat := f.String("select", "", "chat to select first")
	count := f.Int("n", 0, "end after so many frames; 0: never")
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
	cl, err := dial(ctx, url, header, *insecure)
	if err != nil {
		return err
	}
	defer cl.conn.Close()
	stop := context.AfterFunc(ctx, func() { cl.write(ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, "")) })
	defer stop()
	if *chat != "" {
		msg, err := json.Marshal(map[string]any{"type": "select_chat", "payload": map[string]any{"chat_id": *chat, "ack": true}})
		if err != nil {
			return err
		}
		if err := cl.write(ws.OpText, msg); err != nil {
			return err
		}
	}
	go cl.send(c.in) // ends with standard input, at the latest with the process
	return cl.print(c, *count)
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

// send ends when standard input or the connection does. It leaves the
// connection open: a script's input ends long before its events do.
func (cl *client) send(in io.Reader) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); line != "" && cl.write(ws.OpText, []byte(line)) != nil {
			return
		}
	}
}

// print reads until the connection ends. The server's close code and reason go
// to the error output; any but 1000 is an error.
func (cl *client) print(c console, count int) error {
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
	for printed := 0; count == 0 || printed < count; {
		h, err := reader.NextFrame()
		if err == nil && h.OpCode.IsControl() {
			err = control(h, &reader)
		} else if err == nil {
			var message []byte
			if message, err = io.ReadAll(&reader); err == nil {
				printed++
				_, err = fmt.Fprintf(c.out, "%s\n", message)
			}
		}
		var closed wsutil.ClosedError
		switch {
		case errors.As(err, &closed) && closed.Code == ws.StatusNormalClosure:
			return nil
		case errors.As(err, &closed):
			return fmt.Errorf("closed by the server: %d %s", closed.Code, closed.Reason)
		case errors.Is(err, io.EOF):
			return errors.New("the connection was cut without a close frame")
		case err != nil:
			return err
		}
	}
	return cl.write(ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))
}
