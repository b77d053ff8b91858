package server

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// socket is a client of the tests, down to the frame.
type socket struct {
	t  *testing.T
	nc net.Conn
	br *bufio.Reader
	h  http.Header // of the answer

	ready frame // of login
}

// upgradeHeader is what every upgrade needs.
var upgradeHeader = map[string]string{
	"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}

func withUpgrade(more map[string]string) map[string]string {
	m := maps.Clone(upgradeHeader)
	maps.Copy(m, more)
	return m
}

// dial asks for a socket; early is sent right behind the request.
func (h *house) dial(path string, header map[string]string, early []byte) (*socket, *http.Response) {
	h.t.Helper()
	nc, err := net.Dial("tcp", h.public.Addr().String())
	if err != nil {
		h.t.Fatal(err)
	}
	if h.certs != nil {
		nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	}
	h.t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	var b strings.Builder
	b.WriteString("GET " + path + " HTTP/1.1\r\nHost: " + h.public.Addr().String() + "\r\n")
	for k, v := range withUpgrade(header) {
		if v != "" {
			b.WriteString(k + ": " + v + "\r\n")
		}
	}
	b.WriteString("\r\n")
	if _, err := nc.Write(append([]byte(b.String()), early...)); err != nil {
		h.t.Fatal(err)
	}
	br := bufio.NewReader(nc)
	answer, err := http.ReadResponse(br, nil)
	if err != nil {
		h.t.Fatalf("dial %s: %v", path, err)
	}
	return &socket{t: h.t, nc: nc, br: br, h: answer.Header}, answer
}

// login connects a user of acme and reads ready.
func (h *house) login(agent, user, query string, header map[string]string) *socket {
	h.t.Helper()
	m := map[string]string{"X-API-Key": testAPIKey}
	maps.Copy(m, header)
	s, answer := h.dial("/ws/acme/"+agent+"?token="+url.QueryEscape(h.token(agent, user))+query, m, nil)
	if answer.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(answer.Body)
		h.t.Fatalf("login of %s: %d %s", user, answer.StatusCode, body)
	}
	if s.ready = s.next(); s.ready.Type != "ready" {
		h.t.Fatalf("first frame is %+v", s.ready)
	}
	return s
}

// frame is one from the server.
type frame struct {
	Type    string         `json:"type"`
	Payload map[string]any `json:"payload"`
	Seq     uint64         `json:"seq"`
}

// closed is a close frame as an error.
type closed struct {
	code   ws.StatusCode
	reason string
}

func (c closed) Error() string { return c.reason }

// raw gives the next frame as it came.
func (s *socket) raw() (ws.OpCode, []byte, error) {
	h, err := ws.ReadHeader(s.br)
	if err != nil {
		return 0, nil, err
	}
	payload := make([]byte, h.Length)
	_, err = io.ReadFull(s.br, payload)
	return h.OpCode, payload, err
}

// read gives the next frame that is no ping, or closed.
func (s *socket) read() (frame, error) {
	for {
		op, payload, err := s.raw()
		if err != nil {
			return frame{}, err
		}
		switch op {
		case ws.OpText:
			var out frame
			return out, json.Unmarshal(payload, &out)
		case ws.OpClose:
			code, reason := ws.ParseCloseFrameData(payload)
			return frame{}, closed{code, reason}
		}
	}
}

func (s *socket) next() frame {
	s.t.Helper()
	f, err := s.read()
	if err != nil {
		s.t.Fatalf("read frame: %v (%T)", err, err)
	}
	return f
}

// expect reads a frame of this type and with these fields of the payload.
func (s *socket) expect(kind string, payload map[string]any) frame {
	s.t.Helper()
	f := s.next()
	if f.Type != kind {
		s.t.Fatalf("frame %+v, want %s", f, kind)
	}
	for k, v := range payload {
		if f.Payload[k] != v {
			s.t.Fatalf("%s frame: %s is %v, want %v (%v)", kind, k, f.Payload[k], v, f.Payload)
		}
	}
	return f
}

// expectClose reads the close frame, and nothing before it.
func (s *socket) expectClose(code ws.StatusCode, reason string) {
	s.t.Helper()
	_, err := s.read()
	var c closed
	if !errors.As(err, &c) || c.code != code || c.reason != reason {
		s.t.Fatalf("close %v, want %d %s", err, code, reason)
	}
}

func text(message string) []byte {
	return ws.MustCompileFrame(ws.MaskFrameInPlace(ws.NewTextFrame([]byte(message))))
}

func (s *socket) send(message string) {
	s.t.Helper()
	if _, err := s.nc.Write(text(message)); err != nil {
		s.t.Fatal(err)
	}
}

// barrier waits until all that was sent took effect.
func (s *socket) barrier() {
	s.t.Helper()
	s.send(`{"type":"ready"}`)
	s.expect("ready", nil)
}

// ask sends a login of acme's ag1 and does not read.
func (h *house) ask(path string) net.Conn {
	h.t.Helper()
	nc, err := h.tryDial()
	if err != nil {
		h.t.Fatal(err)
	}
	head := "GET " + path + " HTTP/1.1\r\nHost: x\r\nX-API-Key: " + testAPIKey + "\r\n"
	for k, v := range upgradeHeader {
		head += k + ": " + v + "\r\n"
	}
	if _, err := nc.Write([]byte(head + "\r\n")); err != nil {
		h.t.Fatal(err)
	}
	return nc
}

func (h *house) tryDial() (net.Conn, error) {
	nc, err := net.Dial("tcp", h.public.Addr().String())
	if err == nil {
		h.t.Cleanup(func() { _ = nc.Close() })
	}
	return nc, err
}
