package natsx

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// maxDepth of nested arrays and objects in a body. No recursion depends on it
// here; it protects whoever parses the body later.
const maxDepth = 512

// jsonObject returns body without surrounding white space, if it is exactly
// one JSON object (RFC 8259) in valid UTF-8. fastjson's validator recurses
// without bound and takes any bytes within strings, which a WebSocket text
// frame must not carry.
func jsonObject(body []byte) ([]byte, bool) {
	start := skipSpace(body, 0)
	if start == len(body) || body[start] != '{' {
		return nil, false
	}
	end, ok := scanObject(body, start)
	if !ok || skipSpace(body, end) != len(body) {
		return nil, false
	}
	return body[start:end:end], true
}

// scanObject scans the value that begins with '{' at i, and returns where it
// ends. nest holds one bit a level: set for an object.
func scanObject(b []byte, i int) (end int, ok bool) {
	var nest [maxDepth / 64]uint64
	depth := 0
	for {
		// A value begins at i.
		if i, ok = scanOpen(b, i, &nest, &depth); !ok {
			return 0, false
		}
		// A value ended at i: close what ends here too.
		for {
			if depth == 0 {
				return i, true
			}
			i = skipSpace(b, i)
			if i == len(b) {
				return 0, false
			}
			object := nest[(depth-1)/64]>>((depth-1)%64)&1 == 1
			if b[i] == ',' {
				i = skipSpace(b, i+1)
				if object {
					if i, ok = scanName(b, i); !ok {
						return 0, false
					}
				}
				break
			}
			if object != (b[i] == '}') || !object && b[i] != ']' {
				return 0, false
			}
			i++
			depth--
		}
	}
}

// scanOpen scans a value at i up to its end, or, going down, up to the end of
// the first value that holds no other.
func scanOpen(b []byte, i int, nest *[maxDepth / 64]uint64, depth *int) (end int, ok bool) {
	for {
		if i == len(b) {
			return 0, false
		}
		c := b[i]
		if c != '{' && c != '[' {
			return scanScalar(b, i)
		}
		i = skipSpace(b, i+1)
		if i == len(b) {
			return 0, false
		}
		if b[i] == c+2 { // '}' is '{'+2, ']' is '['+2: empty
			return i + 1, *depth < maxDepth
		}
		if *depth == maxDepth {
			return 0, false
		}
		word, bit := *depth/64, uint64(1)<<(*depth%64)
		*depth++
		if c == '[' {
			nest[word] &^= bit
			continue
		}
		nest[word] |= bit
		if i, ok = scanName(b, i); !ok {
			return 0, false
		}
	}
}

// scanName scans "name" : and what space follows.
func scanName(b []byte, i int) (end int, ok bool) {
	if i == len(b) || b[i] != '"' {
		return 0, false
	}
	if i, ok = scanString(b, i+1); !ok {
		return 0, false
	}
	i = skipSpace(b, i)
	if i == len(b) || b[i] != ':' {
		return 0, false
	}
	return skipSpace(b, i+1), true
}

func scanScalar(b []byte, i int) (end int, ok bool) {
	switch b[i] {
	case '"':
		return scanString(b, i+1)
	case 't':
		return scanWord(b, i, "true")
	case 'f':
		return scanWord(b, i, "false")
	case 'n':
		return scanWord(b, i, "null")
	default:
		return scanNumber(b, i)
	}
}

func scanWord(b []byte, i int, word string) (end int, ok bool) {
	end = i + len(word)
	return end, end <= len(b) && string(b[i:end]) == word
}

func scanNumber(b []byte, i int) (end int, ok bool) {
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if i, ok = scanDigits(b, i); !ok {
		return 0, false
	}
	if i < len(b) && b[i] == '.' {
		if i, ok = scanDigits(b, i+1); !ok {
			return 0, false
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		return scanDigits(b, i)
	}
	return i, true
}

func scanDigits(b []byte, i int) (end int, ok bool) {
	start := i
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	return i, i > start
}

// scanString scans from behind the opening quote to behind the closing one.
func scanString(b []byte, i int) (end int, ok bool) {
	for {
		i = skipPlain(b, i)
		if i == len(b) {
			return 0, false
		}
		switch c := b[i]; {
		case c == '"':
			return i + 1, true
		case c == '\\':
			n := escapeLen(b[i:])
			if n == 0 {
				return 0, false
			}
			i += n
		case c < 0x20:
			return 0, false
		default:
			r, n := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && n <= 1 {
				return 0, false
			}
			i += n
		}
	}
}

// skipPlain goes on to the next byte that is a quote, a backslash, a control
// character or no ASCII, eight bytes at a time.
func skipPlain(b []byte, i int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		quote, slash := w^(ones*'"'), w^(ones*'\\')
		// A byte's high bit is set where the byte is special; one above a
		// special byte may be set wrongly, the lowest never is.
		special := (w | (w - ones*0x20) | (quote - ones) | (slash - ones)) & highs
		if special != 0 {
			return i + bits.TrailingZeros64(special)/8
		}
	}
	for i < len(b) && b[i] >= 0x20 && b[i] < utf8.RuneSelf && b[i] != '"' && b[i] != '\\' {
		i++
	}
	return i
}

func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		for _, c := range b[2:6] {
			if c-'0' > 9 && (c|0x20)-'a' > 5 {
				return 0
			}
		}
		return 6
	}
	return 0
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}
