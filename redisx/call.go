package redisx

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// ErrClosed ends calls that Run left behind, and refuses those that come later.
var ErrClosed = errors.New("redis client closed")

// patience is how long a call without a context of its own is repeated.
const patience = 2 * time.Second

// call is one script call on its way through a lane. Whoever makes it fills it
// in and gives it to lane.put; from then on it is the lane's, until done is
// called or ended is closed.
type call struct {
	n      int
	script *script
	args   []any  // EVALSHA, hash, number of keys, keys, arguments
	edge   int    // index in args of the edge's number, 0: no edge
	lazy   int    // index in args of whether the edge may be left as it is, 0: not asked
	weight int    // keys
	rev    bool   // wants the version of the revocations with it
	ask    string // where a moving slot told us to ask, empty: its master

	ctx  context.Context // gives up when it ends, nil: at due
	due  time.Time
	done func(reply string, err error) // nil: ended is closed instead

	over    bool // finished
	ended   chan struct{}
	reply   string
	version uint64 // of the revocations
	err     error
}

// newCall begins the arguments; the caller appends exactly keys keys, then at
// most args arguments.
func newCall(s *script, n, keys, args int) *call {
	k := &call{n: n, script: s, weight: keys, args: make([]any, 3, 3+keys+args)}
	k.args[0], k.args[1], k.args[2] = "evalsha", s.sha, keys
	return k
}

func (k *call) add(v ...any) { k.args = append(k.args, v...) }

// addNumber leaves room for the number the lane gives an edge.
func (k *call) addNumber() {
	k.edge = len(k.args)
	k.args = append(k.args, nil)
}

// addLazy leaves room for the lane's word whether an edge may be left as it is.
func (k *call) addLazy() {
	k.lazy = len(k.args)
	k.args = append(k.args, nil)
}

func (k *call) expired(now time.Time) error {
	if k.ctx != nil {
		return k.ctx.Err()
	}
	if now.After(k.due) {
		return context.DeadlineExceeded
	}
	return nil
}

func (k *call) finish() {
	if k.done != nil {
		k.done(k.reply, k.err)
		return
	}
	close(k.ended)
}

// do queues k and waits for its end, or the context's: then the outcome is
// unknown.
func (l *lane) do(ctx context.Context, k *call) error {
	k.ctx, k.ended = ctx, make(chan struct{})
	if err := l.put(k); err != nil {
		return fmt.Errorf("%s in partition %d: %w", k.script.name, k.n, err)
	}
	select {
	case <-k.ended:
		if k.err != nil {
			return fmt.Errorf("%s in partition %d: %w", k.script.name, k.n, k.err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s in partition %d, outcome unknown: %w", k.script.name, k.n, ctx.Err())
	}
}

// later queues k for done, which a lane's goroutine calls.
func (l *lane) later(k *call, done func(reply string, err error)) error {
	k.due, k.done = time.Now().Add(patience), done
	return l.put(k)
}

// verdict is what to do about the error of one call.
type verdict uint8

const (
	answered verdict = iota
	failed           // by its own fault: repeating won't help
	again            // later: Redis can't now
	unloaded         // again, when the scripts are loaded
	broken           // again, on another connection; it may have been executed
)

// passing are error codes that pass by themselves: a slot moves, a replica
// becomes master, a disk gets room.
var passing = [...]string{
	"TRYAGAIN", "MOVED", asking, "CLUSTERDOWN", "LOADING", "READONLY", "MASTERDOWN", "NOREPLICAS",
	"BUSY", "MISCONF", "OOM", "ERR max number of clients",
}

const asking = "ASK "

// askedTo reads the address of "ASK SLOT HOST:PORT".
func askedTo(err error) string {
	if err == nil || !strings.HasPrefix(err.Error(), asking) {
		return ""
	}
	_, addr, _ := strings.Cut(err.Error()[len(asking):], " ")
	return addr
}

func judge(err error) verdict {
	if err == nil {
		return answered
	}
	var reply redis.Error
	if !errors.As(err, &reply) {
		return broken
	}
	text := reply.Error()
	if strings.HasPrefix(text, "NOSCRIPT") {
		return unloaded
	}
	for _, code := range passing {
		if strings.HasPrefix(text, code) {
			return again
		}
	}
	return failed
}
