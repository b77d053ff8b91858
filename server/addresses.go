package server

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	"github.com/daisi/daisi-ws/loop"
)

// addresses caps the connections of one address, of IPv6 of a /64 (network says
// why). It is off unless configured,
// for a proxy is one address. Trusted proxies are not capped themselves: the
// clients they speak for are, once there is a request that names them.
type addresses struct {
	// Static after newAddresses.
	limit   int // 0: off, then nothing below is used
	trusted []netip.Prefix

	mu sync.Mutex
	// mu guards the following.
	pending  map[netip.Addr]int // accepted, neither closed nor adopted
	sessions map[netip.Addr]int
	owners   map[*loop.Conn]owner        // what sessions is made of
	moved    map[netip.AddrPort]struct{} // connections of sessions, still to be released
}

// owner is whom a session counts for.
type owner struct {
	ip   netip.Addr
	from netip.AddrPort // the connection it came with, counted as pending before
}

func newAddresses(o HTTPOptions) (*addresses, error) {
	a := &addresses{
		limit: o.MaxConnsPerIP, pending: map[netip.Addr]int{},
		sessions: map[netip.Addr]int{}, owners: map[*loop.Conn]owner{},
		moved: map[netip.AddrPort]struct{}{},
	}
	for _, s := range o.TrustedProxies {
		p, err := parsePrefix(s)
		if err != nil {
			return nil, err
		}
		a.trusted = append(a.trusted, p)
	}
	return a, nil
}

// accept counts a connection of addr, false when that would be too many.
func (a *addresses) accept(addr net.Addr) bool {
	ip := addrIP(addr)
	if a.limit == 0 || a.proxy(ip) {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	ip = network(ip)
	if a.pending[ip]+a.sessions[ip] >= a.limit {
		return false
	}
	a.pending[ip]++
	return true
}

// released forgets a connection that accept let in.
func (a *addresses) released(addr net.Addr) {
	ip := addrIP(addr)
	if a.limit == 0 || a.proxy(ip) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	from := addrPort(addr)
	if _, ok := a.moved[from]; ok { // it is counted as a session
		delete(a.moved, from)
		return
	}
	less(a.pending, network(ip))
}

// enter counts the session of c, false when its address has too many. It takes
// the place of its connection.
func (a *addresses) enter(c *loop.Conn, r *http.Request) bool {
	if a.limit == 0 {
		return true
	}
	ip := a.client(r)
	if a.proxy(ip) { // which names nobody
		return true
	}
	o := owner{ip: network(ip)}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sessions[o.ip] >= a.limit {
		return false
	}
	if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if ip := network(from.Addr()); !a.proxy(from.Addr()) && a.pending[ip] > 0 {
			o.from = from
			a.moved[from] = struct{}{}
			less(a.pending, ip)
		}
	}
	a.sessions[o.ip]++
	a.owners[c] = o
	return true
}

// leave forgets the session of c, if it was counted.
func (a *addresses) leave(c *loop.Conn) {
	if a.limit == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if o, ok := a.owners[c]; ok {
		delete(a.owners, c)
		less(a.sessions, o.ip)
		if _, ok := a.moved[o.from]; ok { // the login failed; its connection is still there
			delete(a.moved, o.from)
			a.pending[network(o.from.Addr())]++
		}
	}
}

// less keeps no zeros: addresses come and go for ever.
func less(m map[netip.Addr]int, ip netip.Addr) {
	if m[ip]--; m[ip] <= 0 {
		delete(m, ip)
	}
}

// client is where r comes from: of X-Forwarded-For the last address that no
// trusted proxy has, since anybody can put anything in front of it.
func (a *addresses) client(r *http.Request) netip.Addr {
	ip := netip.Addr{}
	if p, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		ip = p.Addr().Unmap()
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && a.proxy(ip); i-- {
		next, err := parseHop(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		ip = next.Unmap()
	}
	return ip
}

// parseHop reads an address; some proxies write its port behind it.
func parseHop(s string) (netip.Addr, error) {
	if p, err := netip.ParseAddrPort(s); err == nil {
		return p.Addr(), nil
	}
	return netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
}

// proxy says whether ip may speak for others.
func (a *addresses) proxy(ip netip.Addr) bool {
	for _, p := range a.trusted {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

func addrPort(addr net.Addr) netip.AddrPort {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		from := tcp.AddrPort()
		return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	}
	return netip.AddrPort{}
}

func addrIP(addr net.Addr) netip.Addr { return addrPort(addr).Addr() }
