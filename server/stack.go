package server

// loginStack is what a login needs of its goroutine's stack, in bytes.
const loginStack = 9 << 10

// growStack has the stack of its caller's goroutine grown in one step. A
// goroutine of net/http begins with 2 KiB, and would double and copy it all
// several times on its way down to Redis and back. Only for those who have shown
// credentials: a stack is given back at a collection, so one for each connection
// that only began a request would be what an attacker holds of us.
//
//go:noinline
func growStack(i int) byte {
	var room [loginStack]byte
	return room[i]
}
