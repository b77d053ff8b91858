package redistest

import (
	"iter"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Server is one redis-server process. Its methods fail the test that started
// it; they are for that test's goroutines only, one at a time.
type Server struct {
	// URL is what redisx.Options.URL takes, Addr is its host:port. Both stay
	// through Kill and Restart.
	URL, Addr string

	p *process
}

// Start starts a server and returns when it answers. More arguments are those
// of redis-server, such as "--maxmemory", "1mb".
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	base := []string{"--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "no"}
	s := &Server{p: newProcess(tb, append(base, args...)...)}
	s.p.start()
	s.Addr = s.p.addr()
	s.URL = "redis://" + s.Addr + "/0"
	return s
}

// Stop is SIGSTOP: connections stay, nothing is answered.
func (s *Server) Stop() { s.p.tb.Helper(); s.p.signal(syscall.SIGSTOP) }

// Cont is SIGCONT: what was sent meanwhile is executed now.
func (s *Server) Cont() { s.p.tb.Helper(); s.p.signal(syscall.SIGCONT) }

// Kill is kill -9, and waits for the end.
func (s *Server) Kill() { s.p.kill() }

// Restart starts the server again on the same port, after Kill or instead of
// it. With keep it has what it acknowledged; without, it has lost all keys.
func (s *Server) Restart(keep bool) {
	s.p.tb.Helper()
	s.p.kill()
	if !keep {
		if err := os.RemoveAll(filepath.Join(s.p.dir, "appendonlydir")); err != nil {
			s.p.tb.Fatalf("empty the server: %v", err)
		}
	}
	s.p.start()
}

// Flush deletes all keys, as an operator's FLUSHALL would. Scripts stay.
func (s *Server) Flush() { s.p.tb.Helper(); s.p.must("FLUSHALL") }

// Do runs one command and returns its reply: string, int64, []any or nil.
func (s *Server) Do(args ...any) any { s.p.tb.Helper(); return s.p.must(args...) }

// Info is one field of INFO, empty when there is none.
func (s *Server) Info(name string) string { s.p.tb.Helper(); return field(s.p.must("INFO"), name) }

func lines(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range strings.SplitSeq(text, "\n") {
			if !yield(strings.TrimSuffix(line, "\r")) {
				return
			}
		}
	}
}
