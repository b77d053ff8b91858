package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Pauses of clients that come back.
const (
	returnSpread = 500 * time.Millisecond // after a cut nobody announced
	returnAgain  = 100 * time.Millisecond // after a door that did not open
)

// returns are clients whose socket ended and that come back with ?resume.
type returns struct {
	clients chan *client // has room for all
	forget  bool         // they do not say where they stand
	away    atomic.Int64 // those without a socket
	took    Hist         // from the end of a socket to ready

	mu     sync.Mutex
	second map[int64]int64 // mu; attempts by unix second
}

// Resume has clients whose socket is ended by the server, or lost, come back: at
// the time that the server told them, at another door, with ?resume=<stream>:<seq>
// of what they have. Call it before the first login; room is how many sockets
// there will be; who forgets comes back without a place. ComeBack does the work.
func (f *Fleet) Resume(room int, forget bool) {
	f.returns = &returns{clients: make(chan *client, room), forget: forget, second: make(map[int64]int64)}
}

// Away is how many clients are between two sockets.
func (f *Fleet) Away() int { return int(f.returns.away.Load()) }

// ComeBack logs in who was cut off, workers of them at once, until ctx ends.
// Each tries until it is in.
func (f *Fleet) ComeBack(ctx context.Context, workers int, timeout time.Duration) {
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case c := <-f.returns.clients:
					f.comeBack(ctx, c, timeout)
				}
			}
		})
	}
	group.Wait()
}

func (f *Fleet) comeBack(ctx context.Context, c *client, timeout time.Duration) {
	r := f.returns
	c.mu.Lock()
	due, since := c.due, c.away
	c.mu.Unlock()
	if wait := time.Until(due); wait > 0 { // its turn is later, and this worker's not
		if Wait(ctx, time.Now().Add(min(wait, 5*time.Millisecond))) == nil {
			r.clients <- c
		}
		return
	}
	c.door = uint16((int(c.door) + 1) % len(f.opts.Doors))
	r.count()
	if c.resume(ctx, timeout) != nil {
		c.mu.Lock()
		c.due = time.Now().Add(returnAgain + rand.N(returnAgain))
		c.mu.Unlock()
		r.clients <- c
		return
	}
	r.took.Record(c.hint, time.Since(since))
	r.away.Add(-1)
}

// add takes a client whose socket has ended. It comes from a poller.
func (r *returns) add(c *client) {
	now := time.Now()
	c.mu.Lock()
	if c.away = now; c.due.Before(now) {
		c.due = now.Add(rand.N(returnSpread))
	}
	c.mu.Unlock()
	r.away.Add(1)
	r.clients <- c
}

func (r *returns) count() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.second[time.Now().Unix()]++
}

// busiest is the highest number of attempts in a second, and all of them.
func (r *returns) busiest() (most, all int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.second {
		most, all = max(most, n), all+n
	}
	return most, all
}

// resume logs the session in again at its door, from where it stands, and
// waits until it is ready. Only while it has no socket.
func (c *client) resume(ctx context.Context, timeout time.Duration) error {
	f, p := c.fleet, c.user.Page
	token, err := f.opts.Mint(p.Company, p.Agent, c.user.Name)
	if err != nil {
		return fmt.Errorf("mint token: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	done := make(chan error, 1)
	c.mu.Lock()
	c.state, c.login, c.back = clientDialled, done, true
	c.mu.Unlock()
	point := c.watch.Point()
	if f.returns.forget {
		point = ""
	}
	conn, err := f.dial(ctx, c, f.target(Login{User: c.user, Door: int(c.door)}, token, point))
	if err != nil {
		return err
	}
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		conn.Close(1000, "")
		c.awaitEnd()
		return fmt.Errorf("await ready: %w", err)
	}
	return nil
}

// awaitEnd waits for the last word of a socket that was given up, so that it
// is not taken for the next one's.
func (c *client) awaitEnd() {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		c.mu.Lock()
		ended := c.state == clientClosed
		c.mu.Unlock()
		if ended {
			return
		}
	}
}

func (c *client) cursor(f frame) {
	var p readyPayload
	if err := json.Unmarshal(f.Payload, &p); err != nil {
		c.fleet.junk.Add(1)
		return
	}
	c.watch.Stands("", p.Seq)
}

func (c *client) draining(f frame, now time.Time) {
	var p drainingPayload
	if err := json.Unmarshal(f.Payload, &p); err != nil {
		c.fleet.junk.Add(1)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due = now.Add(time.Duration(p.After) * time.Millisecond)
}

// Stands notes where the server said that the session stands; an empty stream
// is the one before.
func (w *Watch) Stands(stream string, seq uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if stream != "" && stream != w.stream {
		w.stream, w.place, w.seq = stream, 0, 0
	}
	w.place = max(w.place, seq)
}

// Point is where a resume of this session begins: "<stream>:<seq>".
func (w *Watch) Point() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stream + ":" + strconv.FormatUint(max(w.place, w.seq), 10)
}
