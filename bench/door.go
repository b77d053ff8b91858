package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"
)

// Door publishes through the control door of a bare WebSocket server, one POST
// /broadcast?path=… with one frame a line, where a gateway has NATS. Requests
// are written by schedule and their answers read by another goroutine, so a
// slow server does not slow the schedule down. Like Feed it enters events in the
// Book before it sends them, and one goroutine publishes.
type Door struct {
	// Static after OpenDoor.
	addr string
	book *Book
	nc   net.Conn
	done chan error // the reader's end

	// Owned by the publishing goroutine.
	w    *bufio.Writer
	seq  uint64
	sent int64
	buf  []byte
	body []byte

	answered atomic.Int64
	lag      Hist // sent - due
}

// OpenDoor connects to a control door at host:port. Close ends it.
func OpenDoor(ctx context.Context, book *Book, addr string) (*Door, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to control door %s: %w", addr, err)
	}
	d := &Door{addr: addr, book: book, nc: nc, done: make(chan error, 1), w: bufio.NewWriterSize(nc, 64<<10)}
	go func() { d.done <- d.answers(bufio.NewReader(nc)) }()
	return d, nil
}

// Close disconnects and waits for the reader.
func (d *Door) Close() error {
	err := d.nc.Close()
	if end := <-d.done; !errors.Is(end, net.ErrClosed) {
		err = errors.Join(err, end)
	}
	return err
}

func (d *Door) answers(r *bufio.Reader) error {
	for {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return fmt.Errorf("read answer of control door: %w", err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return fmt.Errorf("read answer of control door: %w", err)
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("control door answered %s", resp.Status)
		}
		d.answered.Add(1)
	}
}

// Send publishes count events of the page's first topic, due at one instant, in
// one request.
func (d *Door) Send(_ context.Context, p *Page, count, size int, due time.Time) error {
	d.body = d.body[:0]
	for range count {
		n, k := p.add(0)
		now := time.Now()
		d.lag.Record(0, now.Sub(due))
		d.seq++
		m := Mark{Run: d.book.Run, Page: p.index, N: n, K: k, Due: due.UnixNano(), Sent: now.UnixNano()}
		d.body = append(d.body, eventHead...)
		d.body = AppendBody(d.body, p, m, size)
		d.body = append(d.body, `,"seq":`...)
		d.body = append(strconv.AppendUint(d.body, d.seq, 10), "}\n"...)
	}
	return d.post("/broadcast?path="+url.QueryEscape("/ws/"+p.Company+"/"+p.Agent), d.body)
}

// Collect lets the server give back what it no longer uses, and waits for that.
func (d *Door) Collect(ctx context.Context) error {
	if err := d.post("/gc", nil); err != nil {
		return err
	}
	return d.Flush(ctx)
}

func (d *Door) post(target string, body []byte) error {
	d.buf = fmt.Appendf(d.buf[:0], "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", target, d.addr, len(body))
	_, err := d.w.Write(append(d.buf, body...))
	if err = errors.Join(err, d.w.Flush()); err != nil {
		return fmt.Errorf("write to control door: %w", err)
	}
	d.sent++
	return nil
}

// Flush waits until every request was answered.
func (d *Door) Flush(ctx context.Context) error {
	for d.answered.Load() < d.sent {
		select {
		case err := <-d.done:
			d.done <- err // for Close
			return err
		default:
		}
		if err := Wait(ctx, time.Now().Add(time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}
