package loop

import (
	"reflect"
	"unsafe"

	"github.com/lesismal/nbio"
	"golang.org/x/sys/unix"
)

// afterClose is how many bytes are still read from a client when its socket is
// closing, beside one message of the longest: what was on its way, and its
// close frame behind that. What nbio reads in one round more is a MiB.
const afterClose = 64 << 10

// pollFields reaches what nbio keeps of a descriptor that it watches. They are
// private: when they are not where and what they should be, there is no
// pollFields (nil), and what comes in is read and thrown away.
type pollFields struct {
	poller, writes uintptr // offsets in nbio.Conn: of *poller, of "EPOLLOUT is asked for"
	epoll          uintptr // offset in nbio's poller: the epoll descriptor
}

func findPollFields() *pollFields {
	t := reflect.TypeFor[nbio.Conn]()
	p, ok1 := t.FieldByName("p")
	w, ok2 := t.FieldByName("isWAdded")
	if !ok1 || !ok2 || p.Type.Kind() != reflect.Pointer || p.Type.Elem().Kind() != reflect.Struct || w.Type.Kind() != reflect.Bool {
		return nil
	}
	fd, ok := p.Type.Elem().FieldByName("epfd")
	if !ok || fd.Type.Kind() != reflect.Int {
		return nil
	}
	return &pollFields{poller: p.Offset, writes: w.Offset, epoll: fd.Offset}
}

// mutes says whether n more bytes of a closing client are more than it may still
// send. A client's Conn hears its server out, who may have much on its way.
func (c *Conn) mutes(n int) bool {
	if !c.isServer() || !c.is(flagClosing) {
		return false
	}
	c.shard.mu.Lock()
	defer c.shard.mu.Unlock()
	if c.end == nil {
		return false // dead, and nothing ended it
	}
	c.end.heard += n
	return c.end.heard > afterClose+c.engine().opts.MaxMessage
}

// mute stops reading c until its socket is closed, by its peer or at the
// deadline: a peer that never stops would keep its poller busy for as long. To
// close at once would reset the connection, which could destroy the close frame
// before it is read; a window that is full stops the peer as well. nbio listens
// again whenever writes begin or cease to wait, and the next bytes mute it again.
// Only the poller calls it.
func (c *Conn) mute() {
	f := c.engine().polls
	if f == nil {
		return
	}
	c.nb.Lock()
	defer c.nb.Unlock()
	if closed, _ := c.nb.IsClosed(); closed {
		return
	}
	ev := unix.EpollEvent{Fd: int32(c.nb.Hash()), Events: unix.EPOLLERR | unix.EPOLLHUP | unix.EPOLLRDHUP}
	if *(*bool)(unsafe.Add(unsafe.Pointer(c.nb), f.writes)) {
		ev.Events |= unix.EPOLLOUT
	}
	poller := *(*unsafe.Pointer)(unsafe.Add(unsafe.Pointer(c.nb), f.poller))
	_ = unix.EpollCtl(*(*int)(unsafe.Add(poller, f.epoll)), unix.EPOLL_CTL_MOD, c.nb.Hash(), &ev) // an error: it goes on to be read
}
