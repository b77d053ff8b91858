package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fastjson"

	"github.com/daisi/daisi-ws/loop"
)

// Login is one socket to open.
type Login struct {
	User *User
	Door int // index of the door
	Mode ChatMode

	Leave bool // the user's former socket is ended first
}

// LoginPace is how fast a Fleet logs in.
type LoginPace struct {
	Rate     float64       // a second, by schedule; 0: as fast as Workers allow
	Together bool          // with Rate 0: all are due at once, so the last one's time holds its wait for a worker
	Workers  int           // logins under way at once
	Timeout  time.Duration // of one attempt, until the session is live
	Retries  int           // after 429 and 503, no earlier than they ask for
}

// LoginTime is how long a login took to `ready`.
type LoginTime struct {
	hint     uint32        // spreads writers
	FromDue  time.Duration // from the instant when it was due by the pace
	FromSent time.Duration // from the first byte of the attempt that came through
}

// LoginStats says how logins went.
type LoginStats struct {
	Asked   int64            `json:"asked"`
	OK      int64            `json:"ok"`
	Retries int64            `json:"retries"`
	Refused map[string]int64 `json:"refused,omitempty"` // by status and code, retried ones too
	Failed  map[string]int64 `json:"failed,omitempty"`  // without an answer, by cause; at most 16 kinds
	Seconds float64          `json:"seconds"`
}

// usual is what most of those that did not come through met with.
func (s *LoginStats) usual() (what string) {
	most := int64(0)
	for _, m := range []map[string]int64{s.Refused, s.Failed} {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if m[k] > most {
				most, what = m[k], k
			}
		}
	}
	return what
}

// maxCauses bounds the table of causes: their text may hold ports.
const maxCauses = 16

type loginTally struct {
	ok, retries atomic.Int64
	mu          sync.Mutex
	refused     map[string]int64
	failed      map[string]int64
}

// Login opens the sockets by the pace and returns when each is live or failed;
// failures are counted, not returned. each, if not nil, hears of every login
// that came through (any goroutine). Error: ctx ended.
func (f *Fleet) Login(ctx context.Context, o *Oracle, list []Login, pace LoginPace, each func(LoginTime)) (LoginStats, error) {
	tally := &loginTally{refused: make(map[string]int64), failed: make(map[string]int64)}
	f.asked.Add(int64(len(list)))
	schedule := Pacer{Start: time.Now(), Rate: pace.Rate}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(max(pace.Workers, 1), len(list)) {
		workers.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(list) && ctx.Err() == nil; i = next.Add(1) - 1 {
				due := schedule.Due(int(i))
				if pace.Rate > 0 && Wait(ctx, due) != nil {
					return
				}
				if pace.Rate <= 0 && !pace.Together {
					due = time.Now()
				}
				took, err := f.attempts(ctx, o, list[i], pace, tally)
				if err != nil {
					tally.fail(err)
					continue
				}
				tally.ok.Add(1)
				f.logins.Add(1)
				through := LoginTime{hint: uint32(i), FromDue: time.Since(due), FromSent: took}
				f.login.Record(through.hint, through.FromDue)
				f.pulse.login.Record(through.FromDue)
				f.loginRaw.Record(through.hint, took)
				if each != nil {
					each(through)
				}
			}
		})
	}
	workers.Wait()
	return LoginStats{
		Asked: min(next.Load(), int64(len(list))), OK: tally.ok.Load(), Retries: tally.retries.Load(),
		Refused: tally.refused, Failed: tally.failed, Seconds: time.Since(schedule.Start).Seconds(),
	}, ctx.Err()
}

// attempts logs in, again after an answer that says so.
func (f *Fleet) attempts(ctx context.Context, o *Oracle, l Login, pace LoginPace, tally *loginTally) (time.Duration, error) {
	if l.Leave {
		if err := l.User.leave(ctx); err != nil {
			return 0, err
		}
	}
	for try := 0; ; try++ {
		began := time.Now()
		err := f.once(ctx, o, l, pace.Timeout)
		if err == nil {
			return time.Since(began), nil
		}
		f.failed.Add(1)
		var refusal *loop.DialError
		if !errors.As(err, &refusal) {
			return 0, err
		}
		tally.refuse(refusal)
		again := refusal.Status == http.StatusServiceUnavailable || refusal.Status == http.StatusTooManyRequests
		if !again || try >= pace.Retries {
			return 0, err
		}
		tally.retries.Add(1)
		if err := Wait(ctx, time.Now().Add(retryAfter(refusal.Header))); err != nil {
			return 0, err
		}
	}
}

// retryAfter is what the answer asks for, or a second, and up to half as much
// again, so that those refused together do not come back together.
func retryAfter(h http.Header) time.Duration {
	d := time.Second
	if s, err := strconv.Atoi(h.Get("Retry-After")); err == nil && s >= 0 && s <= 60 {
		d = max(time.Duration(s)*time.Second, 50*time.Millisecond)
	}
	return d + time.Duration(rand.Int64N(int64(d)/2))
}

// once dials and waits until the session is live.
func (f *Fleet) once(ctx context.Context, o *Oracle, l Login, timeout time.Duration) error {
	p := l.User.Page
	token, err := f.opts.Mint(p.Company, p.Agent, l.User.Name)
	if err != nil {
		return fmt.Errorf("mint token: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	n := f.next.Add(1)
	done := make(chan error, 1)
	c := &client{fleet: f, watch: o.Watch(l.User, f.opts.Doors[l.Door]), user: l.User, mode: l.Mode, door: uint16(l.Door), hint: n, login: done}
	conn, err := f.dial(ctx, c, f.target(l, token, ""))
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
		return fmt.Errorf("await ready: %w", err)
	}
	return nil
}

// dial opens c's socket at its door.
func (f *Fleet) dial(ctx context.Context, c *client, target string) (*loop.Conn, error) {
	return f.engine.Dial(ctx, loop.DialOptions{
		Addr: f.opts.Doors[c.door], LocalAddr: f.source(c.hint), TLS: f.opts.TLS,
		URL: target, Header: http.Header{"X-Api-Key": {f.opts.APIKey}},
	}, c)
}

// target is the URL of a login; point is where it resumes, "" nowhere.
func (f *Fleet) target(l Login, token, point string) string {
	p := l.User.Page
	q := url.Values{"token": {token}}
	if f.returns != nil {
		q.Set("resume", point) // also at first, so that it is told what it needs to know
	}
	if l.Mode == ChatQuery && l.User.Chat != 0 {
		q.Set("chat", p.Topics[l.User.Chat].Chat)
	}
	scheme := "ws"
	if f.opts.TLS != nil {
		scheme = "wss"
	}
	return scheme + "://" + f.opts.Doors[l.Door] + "/ws/" + url.PathEscape(p.Company) + "/" + url.PathEscape(p.Agent) + "?" + q.Encode()
}

func (t *loginTally) refuse(e *loop.DialError) {
	code := fastjson.GetString(e.Body, "code")
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused[fmt.Sprintf("%d %s", e.Status, code)]++
}

func (t *loginTally) fail(err error) {
	if refusal := (*loop.DialError)(nil); errors.As(err, &refusal) {
		return // counted as an answer
	}
	cause := err.Error()
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		cause = op.Op + ": " + op.Err.Error() // without the addresses
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.failed[cause]; !ok && len(t.failed) >= maxCauses {
		cause = "other"
	}
	t.failed[cause]++
}
