package loop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// DialOptions say where a client's Conn goes.
type DialOptions struct {
	URL       string        // ws://host:port/path?query or wss://; required
	Addr      string        // host:port to connect to: that of URL
	LocalAddr net.Addr      // source address: the system's choice
	TLS       *tls.Config   // for wss: verifies the URL's host
	Header    http.Header   // further request headers
	Timeout   time.Duration // for all of it, beside ctx: 30 s
}

// DialError is an answer other than 101.
type DialError struct {
	Status int
	Header http.Header
	Body   []byte // at most 4 KiB
}

func (e *DialError) Error() string {
	return fmt.Sprintf("upgrade refused: %d %s", e.Status, bytes.TrimSpace(e.Body))
}

// Dial connects, upgrades and returns the Conn when the 101 was read. The
// Engine must be a client's. On an error Closed was called only if the upgrade
// had succeeded.
func (e *Engine) Dial(ctx context.Context, o DialOptions, h Handler) (*Conn, error) {
	if !e.opts.Client {
		return nil, errors.New("dial: the engine is a server's")
	}
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	if u.Scheme != "ws" && u.Scheme != "wss" {
		return nil, fmt.Errorf("dial %s: scheme is not ws or wss", u.Redacted())
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	nc, early, err := dial(ctx, o, u)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", u.Host, err)
	}
	c := e.NewConn(h)
	if err := e.Adopt(c, nc, early, nil); err != nil {
		return nil, err
	}
	return c, nil
}

// dial returns an upgraded connection and the bytes behind the 101.
func dial(ctx context.Context, o DialOptions, u *url.URL) (nc net.Conn, early []byte, err error) {
	addr := o.Addr
	if addr == "" {
		addr = hostPort(u)
	}
	d := net.Dialer{LocalAddr: o.LocalAddr, KeepAlive: -1}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	tcp, ok := raw.(*net.TCPConn)
	if !ok {
		_ = raw.Close()
		return nil, nil, fmt.Errorf("not TCP but %T", raw)
	}
	deadline, _ := ctx.Deadline()
	wire := newWire(tcp, deadline, nil)
	nc = wire
	// Not later than this function: Adopt must not meet it.
	stop := context.AfterFunc(ctx, func() { _ = tcp.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			_ = tcp.Close()
		}
	}()
	if u.Scheme == "wss" {
		cfg := o.TLS.Clone()
		if cfg == nil {
			cfg = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		if cfg.ServerName == "" {
			cfg.ServerName = u.Hostname()
		}
		secure := tls.Client(wire, cfg)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, nil, err
		}
		nc = secure
	}
	early, err = upgrade(nc, o, u)
	return nc, early, err
}

func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	if u.Scheme == "wss" {
		return net.JoinHostPort(u.Hostname(), "443")
	}
	return net.JoinHostPort(u.Hostname(), "80")
}

// upgrade sends the request and reads the answer.
func upgrade(nc net.Conn, o DialOptions, u *url.URL) (early []byte, err error) {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	key := base64.StdEncoding.EncodeToString(nonce[:])
	b := make([]byte, 0, 512)
	b = append(b, "GET "+u.RequestURI()+" HTTP/1.1\r\n"...)
	b = appendField(b, "Host", u.Host)
	b = append(b, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"...)
	b = appendField(b, "Sec-WebSocket-Key", key)
	for name, values := range o.Header {
		for _, v := range values {
			b = appendField(b, name, v)
		}
	}
	if _, err := nc.Write(append(b, "\r\n"...)); err != nil {
		return nil, err
	}
	br := bufio.NewReaderSize(nc, 2048)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		_ = resp.Body.Close()
		return nil, &DialError{resp.StatusCode, resp.Header, body}
	}
	if resp.Header.Get("Sec-Websocket-Accept") != acceptKey(key) || !hasToken(resp.Header, "Upgrade", "websocket") {
		return nil, errors.New("bad 101: wrong accept key or no upgrade")
	}
	early, _ = br.Peek(br.Buffered())
	return early, nil
}
