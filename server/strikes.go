package server

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// strikes remembers which addresses failed to prove who they are: with a wrong
// key, or with what is no token of ours. Success costs nothing and forgives
// nothing. An address may fail so often a minute; what it fails beyond is
// answered 429. Who then comes with good credentials is let in all the same,
// for a proxy or a whole office is one address, and one bad client there must
// not shut the others out; but operators' keys are not even looked at.
//
// Two generations of bounded maps: when the young one is full or a minute old
// it becomes the old one, so nobody can make this grow.
type strikes struct {
	// Static after newStrikes.
	burst int64                          // failures at once
	each  int64                          // ns until one is forgiven
	from  func(*http.Request) netip.Addr // whom a request comes from

	mu sync.Mutex
	// mu guards the following: when all is forgiven, in ns of monotonic.
	young, old map[netip.Addr]int64
	turned     int64
}

// Bounds of a generation.
const (
	maxStruck  = 8192 // addresses
	strikeTime = time.Minute
)

func newStrikes(perMinute int, from func(*http.Request) netip.Addr) *strikes {
	return &strikes{
		burst: int64(perMinute), each: int64(strikeTime) / int64(max(perMinute, 1)), from: from,
		young: map[netip.Addr]int64{}, old: map[netip.Addr]int64{},
	}
}

// network is what counts as one address: of IPv6 a /64, for anybody who has one
// such address has all of them.
func network(ip netip.Addr) netip.Addr {
	if !ip.Is6() || ip.Is4In6() {
		return ip.Unmap()
	}
	p, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return ip
	}
	return p.Addr()
}

// add counts a failure of ip; more than zero: it has too many, and is to come
// back after so many seconds.
func (s *strikes) add(ip netip.Addr, now int64) (retry int) {
	ip = network(ip)
	s.mu.Lock()
	defer s.mu.Unlock()
	due := max(s.due(ip, now), now)
	if due-now > s.each*(s.burst-1) {
		return s.seconds(due - now)
	}
	if len(s.young) >= maxStruck || now-s.turned > int64(strikeTime) {
		s.old, s.young, s.turned = s.young, map[netip.Addr]int64{}, now
	}
	s.young[ip] = due + s.each
	return 0
}

// over is add without counting.
func (s *strikes) over(ip netip.Addr, now int64) (retry int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if left := s.due(network(ip), now) - now; left > s.each*(s.burst-1) {
		return s.seconds(left)
	}
	return 0
}

// due is when all of ip is forgiven; mu is held.
func (s *strikes) due(ip netip.Addr, now int64) int64 {
	if due, ok := s.young[ip]; ok {
		return due
	}
	if due, ok := s.old[ip]; ok {
		return due
	}
	return now
}

// seconds until the next failure is forgiven, at least one, and spread.
func (s *strikes) seconds(left int64) int {
	return int((left-s.each*(s.burst-1))/int64(time.Second)) + retryAfter()
}

// struck counts f, a refusal of r, if it is one of credentials that may have
// been guessed, and gives the answer.
func (e *edge) struck(r *http.Request, f fault) fault {
	if f.Reason != session.ReasonAPIKey && f.Reason != session.ReasonToken {
		return f
	}
	if retry := e.strikes.add(e.strikes.from(r), monotonic()); retry > 0 {
		return e.tooMany(retry)
	}
	return f
}

func (e *edge) tooMany(retry int) fault {
	e.m.refused[gateFailures].Inc()
	f := faultOf(session.ReasonRate, "too many failed attempts of this address")
	f.Retry = retry
	return f
}

// keyed is the way to endpoints that want a key, but for logins: a wrong one
// counts, and after too many none is looked at.
func (e *edge) keyed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/ws/") || givenKey(r, r.URL.Query()) == "" {
			next.ServeHTTP(w, r)
			return
		}
		ip := e.strikes.from(r)
		if retry := e.strikes.over(ip, monotonic()); retry > 0 {
			e.tooMany(retry).write(w)
			return
		}
		k := &keyWriter{ResponseWriter: w}
		next.ServeHTTP(k, r)
		if k.wrong {
			e.strikes.add(ip, monotonic())
		}
	})
}

// keyWriter learns from the answer that the key was wrong.
type keyWriter struct {
	http.ResponseWriter
	wrong bool
}

// Unwrap is for http.ResponseController.
func (k *keyWriter) Unwrap() http.ResponseWriter { return k.ResponseWriter }
