package loop

// loginStack is what a login needs of its goroutine's stack, in bytes.
const loginStack = 9 << 10

// growStack has the stack of its caller's goroutine grown in one step, while
// there is little on it. A goroutine of net/http begins with 2 KiB, and doubles
// and copies it all three times on its way down to Redis and back.
//
//go:noinline
func growStack(i int) byte {
	var room [loginStack]byte
	return room[i]
}
