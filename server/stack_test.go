//go:build !race

package server

import (
	"io"
	"runtime"
	"sync"
	"testing"
)

// Who shows no credentials is not worth a stack of a login's size.
func TestStackOfHalfOpenConnections(t *testing.T) {
	const conns, limit = 400, 10 << 10
	h := newHouse(t, nil)
	each := func(begin func()) int {
		before := stacks()
		for range conns {
			begin()
		}
		return (stacks() - before) / conns
	}
	half := each(func() {
		nc, err := h.tryDial()
		if err != nil {
			t.Fatal(err)
		}
		// The answer to the first request says that its goroutine is at work.
		const requests = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /ws/acme/ag1 HTTP/1.1\r\nHost: x\r\nX-Sl"
		if _, err := io.WriteString(nc, requests); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(nc, make([]byte, len("HTTP/1.1 200 OK"))); err != nil {
			t.Fatal(err)
		}
	})
	var wg sync.WaitGroup
	end := make(chan struct{})
	grown := each(func() {
		ready := make(chan struct{})
		wg.Go(func() {
			growStack(0)
			close(ready)
			<-end
		})
		<-ready
	})
	close(end)
	wg.Wait()
	t.Logf("%d B of stack a half-open connection, %d B where it was grown", half, grown)
	if half > limit {
		t.Errorf("%d B of stack a half-open connection, more than %d", half, limit)
	}
	if grown <= limit {
		t.Errorf("%d B where stacks were grown on purpose: the measure sees nothing", grown)
	}
}

// stacks is what the stacks of all goroutines take, in bytes.
func stacks() int {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.StackInuse)
}
