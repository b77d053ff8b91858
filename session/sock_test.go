package session

import (
	"slices"
	"sync"
	"time"
)

// sock is a socket that remembers.
type sock struct {
	slow time.Duration // until its close frame is out; below 0: never

	mu   sync.Mutex
	said []string
	code uint16
}

func (s *sock) Close(code uint16, _ string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.code == 0 {
		s.code = code
	}
}

func (s *sock) CloseThen(code uint16, reason string, sent func()) {
	s.Close(code, reason)
	switch {
	case s.slow == 0:
		sent()
	case s.slow > 0:
		time.AfterFunc(s.slow, sent)
	}
}

func (s *sock) say(f string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, f)
}

func (s *sock) heard() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.said)
}

func (s *sock) closed() uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.code
}
