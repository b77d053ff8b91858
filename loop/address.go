package loop

import (
	"net"
	"net/netip"
	"reflect"
	"unsafe"

	"github.com/lesismal/nbio"
)

// address is a net.Addr of 32 bytes; net.TCPAddr keeps 80 and more alive.
type address netip.AddrPort

func (a *address) Network() string { return "tcp" }
func (a *address) String() string  { return (*netip.AddrPort)(a).String() }

// addrFields reaches the two addresses that nbio keeps of a connection, a fifth
// of what an idle one costs, to put smaller ones there. They are private: when
// they are not where and what they should be, there is no addrFields (nil), and
// nbio's stay.
type addrFields struct {
	local, remote uintptr // offsets in nbio.Conn
}

func findAddrFields() *addrFields {
	t := reflect.TypeFor[nbio.Conn]()
	addr := reflect.TypeFor[net.Addr]()
	local, ok1 := t.FieldByName("lAddr")
	remote, ok2 := t.FieldByName("rAddr")
	if !ok1 || !ok2 || local.Type != addr || remote.Type != addr {
		return nil
	}
	return &addrFields{local.Offset, remote.Offset}
}

// addresses replaces the addresses of nb, which no poller knows yet: the peer's
// by a small one, ours by none, for nobody asks for it.
func (e *Engine) addresses(nb *nbio.Conn) {
	tcp, ok := nb.RemoteAddr().(*net.TCPAddr)
	if !ok || e.addrs == nil {
		return
	}
	ap := tcp.AddrPort()
	small := address(netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
	*(*net.Addr)(unsafe.Add(unsafe.Pointer(nb), e.addrs.remote)) = &small
	*(*net.Addr)(unsafe.Add(unsafe.Pointer(nb), e.addrs.local)) = nil
}
