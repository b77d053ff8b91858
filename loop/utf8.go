package loop

import "unicode/utf8"

// utf8Stream validates text that comes in pieces. Its zero value is the start
// of a message.
type utf8Stream struct {
	tail [utf8.UTFMax]byte // start of a rune that the next piece ends
	n    uint8
}

// write takes the next piece; false: no continuation can make the text valid.
func (u *utf8Stream) write(p []byte) bool {
	for u.n > 0 && len(p) > 0 {
		u.tail[u.n] = p[0]
		u.n++
		p = p[1:]
		if utf8.FullRune(u.tail[:u.n]) {
			if r, size := utf8.DecodeRune(u.tail[:u.n]); r == utf8.RuneError && size == 1 {
				return false
			}
			u.n = 0
		}
	}
	cut := len(p)
	for i := len(p) - 1; i >= 0 && i >= len(p)-3; i-- {
		if utf8.RuneStart(p[i]) {
			if !utf8.FullRune(p[i:]) {
				cut = i
			}
			break
		}
	}
	if !utf8.Valid(p[:cut]) {
		return false
	}
	u.n += uint8(copy(u.tail[u.n:], p[cut:]))
	return true
}

// whole says whether the text may end here.
func (u *utf8Stream) whole() bool { return u.n == 0 }

// trimUTF8 cuts s to at most n bytes, at a rune's edge.
func trimUTF8(s string, n int) string {
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
