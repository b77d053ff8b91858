package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/daisi/daisi-ws/session"
)

// Mark is what the publisher wrote into the body of an event.
type Mark struct {
	Run       uint64
	Page      uint32
	Topic     uint16
	N         uint32 // number within the page
	K         uint32 // number within the topic
	Due, Sent int64  // unix nanoseconds
}

// Why a body could not be taken for one of ours.
var (
	ErrForeign = errors.New("no event of daisi-bench")
	ErrDamaged = errors.New("event differs from what was published")
)

const (
	markHead = `"bench":"1 `
	hashHead = `"hash":"`
	hashLen  = 16
)

// AppendBody appends the publisher's JSON object of one event to dst: padded to
// about size bytes, with a hash over everything before it. Fields that a
// gateway adds at the end of the object are thus no damage.
func AppendBody(dst []byte, p *Page, m Mark, size int) []byte {
	from, t := len(dst), p.Topics[m.Topic]
	dst = append(dst, `{"event_id":"`...)
	dst = appendID(dst, m)
	dst = append(dst, `","event_time":"`...)
	dst = time.Unix(0, m.Due).UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","company_id":`...)
	dst = appendString(dst, p.Company)
	dst = append(dst, `,"agent_id":`...)
	dst = appendString(dst, p.Agent)
	kind := "chat"
	if t.Chat != "" {
		dst = append(dst, `,"chat_id":`...)
		dst = appendString(dst, t.Chat)
	}
	if t.Kind == session.KindMessages {
		kind = "message"
	}
	dst = append(dst, `,"event_type":"`...)
	dst = append(dst, kind...)
	dst = append(dst, `","row_data":{`...)
	dst = appendMark(dst, m)
	const tail = len(`",`) + len(hashHead) + hashLen + len(`"}}`)
	dst = append(dst, `,"pad":"`...)
	for n := size - (len(dst) - from) - tail; n > 0; n-- {
		dst = append(dst, 'a'+byte(n%23))
	}
	dst = append(dst, `",`...)
	sum := xxhash.Sum64(dst[from:])
	dst = append(dst, hashHead...)
	dst = appendHex(dst, sum)
	return append(dst, `"}}`...)
}

// ParseBody reads a body back: ErrForeign without a mark, ErrDamaged when the
// bytes are not those that were published.
func ParseBody(b []byte) (Mark, error) {
	i := bytes.Index(b, []byte(markHead))
	if i < 0 {
		return Mark{}, ErrForeign
	}
	m, ok := parseMark(b[i+len(markHead):])
	if !ok {
		return Mark{}, ErrDamaged
	}
	h := bytes.LastIndex(b, []byte(hashHead))
	if h < 0 || len(b) < h+len(hashHead)+hashLen {
		return m, ErrDamaged
	}
	sum, err := strconv.ParseUint(string(b[h+len(hashHead):h+len(hashHead)+hashLen]), 16, 64)
	if err != nil || sum != xxhash.Sum64(b[:h]) {
		return m, ErrDamaged
	}
	return m, nil
}

func appendID(dst []byte, m Mark) []byte {
	dst = strconv.AppendUint(dst, m.Run, 16)
	dst = append(dst, '-')
	dst = strconv.AppendUint(dst, uint64(m.Page), 10)
	dst = append(dst, '-')
	return strconv.AppendUint(dst, uint64(m.N), 10)
}

func appendMark(dst []byte, m Mark) []byte {
	dst = append(dst, markHead...)
	for _, v := range [...]uint64{m.Run, uint64(m.Page), uint64(m.Topic), uint64(m.N), uint64(m.K), uint64(m.Due), uint64(m.Sent)} {
		dst = strconv.AppendUint(dst, v, 10)
		dst = append(dst, ' ')
	}
	dst[len(dst)-1] = '"'
	return dst
}

func parseMark(b []byte) (Mark, bool) {
	var v [7]uint64
	for i := range v {
		end := byte(' ')
		if i == len(v)-1 {
			end = '"'
		}
		n, digits := uint64(0), 0
		for digits < len(b) && b[digits] >= '0' && b[digits] <= '9' {
			n = n*10 + uint64(b[digits]-'0')
			digits++
		}
		if digits == 0 || digits > 20 || digits == len(b) || b[digits] != end {
			return Mark{}, false
		}
		v[i], b = n, b[digits+1:]
	}
	if v[1] > 1<<32-1 || v[2] > 1<<16-1 || v[3] > 1<<32-1 || v[4] > 1<<32-1 || int64(v[5]) < 0 || int64(v[6]) < 0 {
		return Mark{}, false
	}
	return Mark{Run: v[0], Page: uint32(v[1]), Topic: uint16(v[2]), N: uint32(v[3]), K: uint32(v[4]), Due: int64(v[5]), Sent: int64(v[6])}, true
}

func appendHex(dst []byte, v uint64) []byte {
	const digits = "0123456789abcdef"
	for s := 60; s >= 0; s -= 4 {
		dst = append(dst, digits[v>>s&15])
	}
	return dst
}

// appendString appends s as a JSON string; plain ASCII, the usual id, without
// an allocation.
func appendString(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			j, err := json.Marshal(s)
			if err != nil { // a string always marshals
				panic(fmt.Sprintf("marshal string: %v", err))
			}
			return append(dst, j...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}
