package server

import (
	"net/netip"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/session"
)

func TestStrikes(t *testing.T) {
	ip := netip.MustParseAddr
	second := int64(time.Second)
	s := newStrikes(60, nil)
	for i := range 60 {
		if retry := s.add(ip("192.0.2.1"), 0); retry != 0 {
			t.Fatalf("failure %d: retry after %d", i+1, retry)
		}
	}
	for range 1000 { // what is refused does not count
		if retry := s.add(ip("192.0.2.1"), 0); retry < 1 || retry > 6 {
			t.Fatalf("failure 61: retry after %d", retry)
		}
	}
	if s.over(ip("192.0.2.1"), 0) == 0 || s.over(ip("192.0.2.2"), 0) != 0 {
		t.Error("the wrong address is over")
	}
	if s.add(ip("192.0.2.1"), second+1) != 0 || s.add(ip("192.0.2.1"), second+1) == 0 {
		t.Error("not one a second is forgiven")
	}
	if s.add(ip("::ffff:192.0.2.1"), second+1) == 0 {
		t.Error("an IPv4 address in IPv6 form is another")
	}
	// A /64 is one address, its neighbour another.
	for i := range 61 {
		a := ip("2001:db8:0:1::").As16()
		a[15], a[9] = byte(i), byte(i)
		if over := s.add(netip.AddrFrom16(a), 0) != 0; over != (i == 60) {
			t.Errorf("failure %d of a /64: over %v", i+1, over)
		}
	}
	if s.add(ip("2001:db8:0:2::1"), 0) != 0 {
		t.Error("the neighbouring /64 is over")
	}
}

// However many addresses fail, the table stays bounded, and one that is at it
// all the time is not forgotten for it.
func TestStrikesAreBounded(t *testing.T) {
	s := newStrikes(60, nil)
	loud := netip.MustParseAddr("192.0.2.1")
	for i := range 10 * maxStruck {
		s.add(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 0)
		if i%100 == 0 && i <= 6000 {
			if retry := s.add(loud, 0); (retry != 0) != (i == 6000) {
				t.Fatalf("after %d: retry after %d", i, retry)
			}
		}
		if n := len(s.young) + len(s.old); n > 2*maxStruck {
			t.Fatalf("%d addresses remembered", n)
		}
	}
	s.add(loud, int64(3*strikeTime))
	s.add(loud, int64(6*strikeTime))
	if n := len(s.young) + len(s.old); n > 2 {
		t.Errorf("%d addresses remembered for ever", n)
	}
}

// Only failed attempts slow a client down: wrong keys and tokens are answered
// 429 after so many, good ones are let in all the same; and operators' keys are
// not looked at any more.
func TestFailedAttempts(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Auth.Failures = 5 })
	for i := range 20 { // success counts for nothing
		_ = h.login("ag1", "u"+strconv.Itoa(i), "", nil).nc.Close()
	}
	key := func(k string) map[string]string { return withUpgrade(map[string]string{"X-API-Key": k}) }
	good := "/ws/acme/ag1?token=" + url.QueryEscape(h.token("ag1", "u1"))
	wrong := []call{
		{path: good, header: key("wrong")},
		{path: "/ws/acme/ag1?token=none", header: key(testAPIKey)},
		{path: "/ws/admin?token=none", header: key("wrong")},
		{method: "POST", path: "/generate-token", body: "{}", header: map[string]string{"X-API-Key": "wrong"}},
		{internal: true, path: "/admin/pods", header: map[string]string{"X-API-Key": "wrong"}},
	}
	for i, c := range wrong {
		if status, _, body := h.do(c); status != 401 && status != 403 {
			t.Errorf("failure %d: %d %s", i+1, status, body)
		}
	}
	guessed := append(wrong,
		call{path: "/ws/admin?token=none", header: key(testAdminKey)},
		call{method: "POST", path: "/generate-token", body: "{}", header: map[string]string{"X-API-Key": testMintKey}},
		call{internal: true, path: "/admin/pods", header: map[string]string{"X-API-Key": testAdminKey}})
	for i, c := range guessed {
		status, header, body := h.do(c)
		refusedAs(t, status, header, body, 429, "RateLimitExceeded", "failed attempts")
		if n, err := strconv.Atoi(header.Get("Retry-After")); err != nil || n < 1 || n > 30 {
			t.Errorf("answer %d: Retry-After %q", i, header.Get("Retry-After"))
		}
	}
	h.login("ag1", "u1", "", nil)
	expired := "/ws/acme/ag1?token=" + url.QueryEscape(h.mintFor(session.Claims{
		Company: "acme", Agent: "ag1", User: "u1", ExpiresAt: time.Now().Add(-time.Second),
	}))
	if status, _, body := h.do(call{path: expired, header: key(testAPIKey)}); status != 403 {
		t.Errorf("a token of ours that has expired is no guess: %d %s", status, body)
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if status, _, _ := h.do(call{path: path}); status != 200 {
			t.Errorf("%s: %d", path, status)
		}
	}
}
