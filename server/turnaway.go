package server

import (
	"fmt"
	"net"
	"net/http"

	"golang.org/x/sys/unix"

	"github.com/daisi/daisi-ws/session"
)

// turnAway answers a connection for which there is no room to wait, before its
// request is parsed: 503, and when to come back. Whoever wanted TLS first is told
// nothing, as a key exchange is what there is no time for.
func (e *edge) turnAway(tcp *net.TCPConn) {
	e.m.refused[gateQueue].Inc()
	if e.certs != nil {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	answer := busyAnswer(retryAfter())
	_ = raw.Control(func(fd uintptr) {
		// What has come is read, or closing would send RST, which may destroy the
		// answer.
		var b [1024]byte
		for range 16 {
			if n, err := unix.Read(int(fd), b[:]); n < len(b) || err != nil {
				break
			}
		}
		_, _ = unix.Write(int(fd), answer) // a new socket has room for it
	})
}

// busyAnswer is what fault.write says of a full login queue.
func busyAnswer(retry int) []byte {
	f := faultOf(session.ReasonOverloaded, "too many logins wait")
	body := append(appendError(nil, f.Code, f.Message, f.Details), '\n')
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nRetry-After: %d\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n%s: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n",
		f.Status, http.StatusText(f.Status), retry, requestIDHeader, newRequestID(), len(body))
	return append([]byte(head), body...)
}
