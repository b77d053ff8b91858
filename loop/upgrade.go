package loop

import (
	"crypto/sha1" //nolint:gosec // RFC 6455 names it
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// CheckUpgrade says whether r asks for a WebSocket as RFC 6455 wants it, and
// returns its key. The error says what is wrong; nothing was hijacked.
func CheckUpgrade(r *http.Request) (key string, err error) {
	switch {
	case r.Method != http.MethodGet:
		return "", fmt.Errorf("check upgrade: method %s, not GET", r.Method)
	case !r.ProtoAtLeast(1, 1) || r.ProtoMajor != 1:
		return "", fmt.Errorf("check upgrade: %s, not HTTP/1.1", r.Proto)
	case !hasToken(r.Header, "Connection", "upgrade"):
		return "", errors.New("check upgrade: no Connection: Upgrade")
	case !hasToken(r.Header, "Upgrade", "websocket"):
		return "", errors.New("check upgrade: no Upgrade: websocket")
	case r.Header.Get("Sec-Websocket-Version") != "13":
		return "", errors.New("check upgrade: Sec-WebSocket-Version is not 13")
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return "", errors.New("check upgrade: request has a body")
	}
	keys := r.Header["Sec-Websocket-Key"]
	if len(keys) != 1 {
		return "", fmt.Errorf("check upgrade: %d Sec-WebSocket-Key, not 1", len(keys))
	}
	key = strings.TrimSpace(keys[0])
	if b, err := base64.StdEncoding.DecodeString(key); err != nil || len(b) != 16 {
		return "", errors.New("check upgrade: Sec-WebSocket-Key is not 16 bytes in base64")
	}
	return key, nil
}

// hasToken looks for token in a comma-separated header, whatever its case.
func hasToken(h http.Header, name, token string) bool {
	for _, v := range h[http.CanonicalHeaderKey(name)] {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// UpgradeResponse is the 101 for key, with the subprotocol unless it is empty.
// Line breaks in values of extra are replaced by spaces.
func UpgradeResponse(key, subprotocol string, extra http.Header) []byte {
	b := make([]byte, 0, 256)
	b = append(b, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	b = append(b, acceptKey(key)...)
	b = append(b, "\r\n"...)
	if subprotocol != "" {
		b = appendField(b, "Sec-WebSocket-Protocol", subprotocol)
	}
	for name, values := range extra {
		for _, v := range values {
			b = appendField(b, name, v)
		}
	}
	return append(b, "\r\n"...)
}

var breaks = strings.NewReplacer("\r", " ", "\n", " ")

func appendField(b []byte, name, value string) []byte {
	b = append(b, breaks.Replace(name)...)
	b = append(b, ": "...)
	b = append(b, breaks.Replace(value)...)
	return append(b, "\r\n"...)
}

func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + acceptGUID)) //nolint:gosec // RFC 6455 names it
	return base64.StdEncoding.EncodeToString(sum[:])
}
