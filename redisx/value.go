package redisx

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/daisi/daisi-ws/session"
)

// parseLock reads "EPOCH CONN SETTLED OWNER", as scripts answer a lock.
func parseLock(s string) (*session.Lock, error) {
	f := strings.Split(s, " ")
	if len(f) != 4 {
		return nil, fmt.Errorf("read lock %q: %d fields, want 4", s, len(f))
	}
	epoch, err := strconv.ParseUint(f[0], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read epoch of lock %q: %w", s, err)
	}
	conn, err := strconv.ParseUint(f[1], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read conn of lock %q: %w", s, err)
	}
	return &session.Lock{Owner: session.Owner(unescape(f[3])), Conn: conn, Epoch: epoch, Settled: f[2] == "1"}, nil
}

// staleAnswer recognizes "S INC", which every script that compares the
// incarnation may answer.
func staleAnswer(reply string) (inc string, stale bool) { return strings.CutPrefix(reply, "S ") }

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

func decimal(u uint64) string { return strconv.FormatUint(u, 10) }
