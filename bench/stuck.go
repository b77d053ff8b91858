package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/gobwas/ws"
)

// stuckReaders are sessions that read their ready and then nothing any more, to
// see that nobody else suffers and that they are told. They are outside of the
// oracle: what they were given is not known.
type stuckReaders struct {
	conns []stuckReader
	ends  map[string]int64 // by close code, "open" for those never closed
	bytes int64            // they were given before
}

// stuckReader is one of them; r gives what was read with the upgrade first.
type stuckReader struct {
	net.Conn // TLS or tcp
	tcp      *net.TCPConn
	r        *bufio.Reader
}

// stuckBuffer is a small window, so that they are stuck soon.
const stuckBuffer = 4096

// stick opens n of them for users of these pages.
func (f *Fleet) stick(ctx context.Context, pages []*Page, n int) (*stuckReaders, error) {
	s := &stuckReaders{ends: make(map[string]int64)}
	for i := range n {
		p := pages[i%len(pages)]
		l := Login{User: &User{Page: p, Name: fmt.Sprintf("stuck%d", i)}, Door: i % len(f.opts.Doors)}
		nc, err := f.stickOne(ctx, l)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("stick reader %d: %w", i, err)
		}
		s.conns = append(s.conns, nc)
	}
	return s, nil
}

func (f *Fleet) stickOne(ctx context.Context, l Login) (s stuckReader, err error) {
	token, err := f.opts.Mint(l.User.Page.Company, l.User.Page.Agent, l.User.Name)
	if err != nil {
		return s, err
	}
	u, err := url.Parse(f.target(l, token, ""))
	if err != nil {
		return s, err
	}
	d := net.Dialer{LocalAddr: f.source(f.next.Add(1))}
	nc, err := d.DialContext(ctx, "tcp", f.opts.Doors[l.Door])
	if err != nil {
		return s, err
	}
	s.tcp = nc.(*net.TCPConn) //nolint:forcetypeassert // of the network "tcp"
	s.Conn = f.secured(s.tcp, u.Hostname())
	err = s.tcp.SetReadBuffer(stuckBuffer)
	up := ws.Dialer{Header: ws.HandshakeHeaderHTTP(http.Header{"X-Api-Key": {f.opts.APIKey}})}
	if err == nil {
		err = s.SetDeadline(time.Now().Add(10 * time.Second))
	}
	if err == nil {
		s.r, _, err = up.Upgrade(s.Conn, u)
	}
	if err == nil {
		err = s.SetDeadline(time.Time{})
	}
	if err != nil {
		return s, errors.Join(err, s.Close())
	}
	if s.r == nil {
		s.r = bufio.NewReader(s.Conn)
	}
	return s, nil
}

// secured is the connection under TLS, where doors speak it; the first write
// shakes hands.
func (f *Fleet) secured(tcp *net.TCPConn, host string) net.Conn {
	if f.opts.TLS == nil {
		return tcp
	}
	cfg := f.opts.TLS.Clone()
	orString(&cfg.ServerName, host)
	return tls.Client(tcp, cfg)
}

// settle reads all to their end and notes how each was told of it.
func (s *stuckReaders) settle(limit time.Duration) {
	var mu sync.Mutex
	var wait sync.WaitGroup
	for _, nc := range s.conns {
		wait.Go(func() {
			code, n := readToEnd(nc, limit)
			mu.Lock()
			defer mu.Unlock()
			s.ends[code]++
			s.bytes += n
		})
	}
	wait.Wait()
}

// readToEnd says with which close code a socket ended, "open" when it did not.
func readToEnd(s stuckReader, limit time.Duration) (code string, n int64) {
	_ = s.tcp.SetReadBuffer(1 << 20) // it only takes longer without
	if err := s.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return "1006", 0
	}
	for {
		h, err := ws.ReadHeader(s.r)
		if err != nil {
			return endOf(err), n
		}
		if h.OpCode != ws.OpClose {
			k, err := io.CopyN(io.Discard, s.r, h.Length)
			n += k
			if err != nil {
				return endOf(err), n
			}
			continue
		}
		b := make([]byte, h.Length)
		if _, err := io.ReadFull(s.r, b); err != nil || len(b) < 2 {
			return "1005", n
		}
		return strconv.Itoa(int(b[0])<<8 | int(b[1])), n
	}
}

// endOf tells an end without a close frame from a socket that is still open.
func endOf(err error) string {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "open"
	}
	return "1006"
}

func (s *stuckReaders) close() {
	for _, nc := range s.conns {
		_ = nc.tcp.Close() // only read from; TLS would first write to whom nobody reads
	}
}
