package redisx

import (
	"strconv"
	"strings"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// Lives of what is written, where Options don't say otherwise.
const (
	routeTTL     = 300 * time.Second // expiry of an edge; routes are joined again each 100 s
	tombstoneTTL = 300 * time.Second
	selectedTTL  = 7 * 24 * time.Hour
	// fence.lua: 600 s a fence.
)

// Keys of all partitions live under one tag of their own.
const (
	podsKey       = "pods:{dws}"
	revKey        = "rev:{dws}"
	revVersionKey = "rev_version:{dws}"
	revLiftedKey  = "rev_lifted:{dws}"
)

// The name of a key is injective in its parts, whatever bytes ids are made of
// (a test looks): parts are escaped, and kinds differ in prefix or in the
// number of colons.

func incKey(n int) string   { return string(appendTag(append([]byte(nil), "inc:"...), n)) }
func epochKey(n int) string { return string(appendTag(append([]byte(nil), "e:"...), n)) }

func lockKey(n int, k session.Key) string { return string(appendKey(nil, "s:", n, k)) }
func selKey(n int, k session.Key) string  { return string(appendKey(nil, "sel:", n, k)) }

// takeoversKey counts how often the session was taken over; it lives a minute.
func takeoversKey(n int, k session.Key) string { return string(appendKey(nil, "t:", n, k)) }

func fenceKey(n int, company, agent string) string {
	return string(appendFence(nil, n, company, agent))
}

func routeKey(n int, w session.Want) string { return string(appendRoute(nil, n, w)) }

// tokenKey is shared with other programs; hash is hex.
func tokenKey(hash string) string { return "token_cache:" + hash }

func killChannel(o session.Owner) string { return "kill:" + escape(string(o)) }

// appendTag appends "{pN}", which decides the slot of a key.
func appendTag(b []byte, n int) []byte {
	b = append(b, "{p"...)
	b = strconv.AppendInt(b, int64(n), 10)
	return append(b, '}')
}

func appendKey(b []byte, prefix string, n int, k session.Key) []byte {
	b = appendTag(append(b, prefix...), n)
	b = appendEscaped(append(b, ':'), k.Company)
	b = appendEscaped(append(b, ':'), k.Agent)
	return appendEscaped(append(b, ':'), k.User)
}

func appendFence(b []byte, n int, company, agent string) []byte {
	b = appendTag(append(b, "f:"...), n)
	b = appendEscaped(append(b, ':'), company)
	return appendEscaped(append(b, ':'), agent)
}

func appendRoute(b []byte, n int, w session.Want) []byte {
	b = appendTag(append(b, "r:"...), n)
	if w == session.AdminWant() {
		return append(append(b, ':'), session.AdminCompany...)
	}
	b = appendEscaped(append(b, ':'), w.Company)
	b = appendEscaped(append(b, ':'), w.Agent)
	if w.Chat == "" {
		return append(b, ":chats"...)
	}
	return appendEscaped(append(b, ":messages:"...), w.Chat)
}

const upperHex = "0123456789ABCDEF"

func special(c byte) bool { return c <= 0x20 || c == '%' || c == ':' || c == '{' || c == '}' }

// appendEscaped escapes what separates parts of a key, what Redis reads a hash
// tag from, and spaces and control bytes, which separate parts of values.
func appendEscaped(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; special(c) {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

func escape(s string) string {
	for i := 0; i < len(s); i++ {
		if special(s[i]) {
			return string(appendEscaped(make([]byte, 0, len(s)+8), s))
		}
	}
	return s
}

// unescape is the inverse of escape; what escape never wrote is left alone.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b = append(b, byte(v))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}
