package server

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/valyala/fastjson"

	"github.com/daisi/daisi-ws/session"
)

// verb is the type of a client's message.
type verb uint8

const (
	verbReady verb = iota
	verbSelect
	verbResume
	verbRefresh
)

// command is one message of a client. Nothing in it is lent.
type command struct {
	verb  verb
	ack   bool    // select: answer selected
	chat  *string // select: nil unselects
	point resumePoint
	token string // refresh
}

// size is how many bytes of the client's are in c.
func (c *command) size() int {
	n := len(c.token) + len(c.point.Stream)
	if c.chat != nil {
		n += len(*c.chat)
	}
	return n
}

// resumePoint is where a client stands: all up to Seq of Stream it has.
type resumePoint struct {
	Stream string
	Seq    uint64
}

// maxSeq is the largest number that JavaScript holds exactly.
const maxSeq = 1<<53 - 1

var (
	errJSON    = errors.New("message is no JSON object")
	errType    = errors.New(`"type" must be a string`)
	errPayload = errors.New(`"payload" must be an object`)
	errStream  = errors.New(`"stream" must be the stream id of a ready frame`)
	errSeq     = errors.New(`"seq" must be a whole number from 0 to 9007199254740991`)
)

// parsers are kept from one message to the next; a parser holds what the
// longest message took, and that is bounded by Limits.MaxMessage.
var parsers fastjson.ParserPool

// decode reads a client's message. The error says what to change.
func decode(message []byte) (command, error) {
	p := parsers.Get()
	defer parsers.Put(p)
	// Parse bounds the depth, which ValidateBytes does not; ValidateBytes
	// refuses the junk that Parse lets through. So both, in this order.
	v, err := p.ParseBytes(message)
	if err != nil || v.Type() != fastjson.TypeObject {
		return command{}, errJSON
	}
	if err := fastjson.ValidateBytes(message); err != nil {
		return command{}, errJSON
	}
	name, ok := lentField(v, "type")
	if !ok {
		return command{}, errType
	}
	if string(name) == "ready" { // the commonest, so nothing is copied for it
		return command{verb: verbReady}, nil
	}
	read := decoders[string(name)]
	if read == nil {
		return command{}, fmt.Errorf("unknown type %.64q; known are select_chat, ready, resume and refresh", name)
	}
	payload := v.Get("payload")
	if payload == nil || payload.Type() != fastjson.TypeObject {
		return command{}, errPayload
	}
	return read(payload)
}

// decoders read payloads by type; constant.
var decoders = map[string]func(*fastjson.Value) (command, error){
	"select_chat": decodeSelect,
	"resume":      decodeResume,
	"refresh":     decodeRefresh,
}

// lentField is a string of an object, the parser's own.
func lentField(v *fastjson.Value, name string) ([]byte, bool) {
	field := v.Get(name)
	if field == nil {
		return nil, false
	}
	b, err := field.StringBytes()
	return b, err == nil
}

// textField copies a string out of an object.
func textField(v *fastjson.Value, name string) (string, bool) {
	b, ok := lentField(v, name)
	return string(b), ok
}

func decodeRefresh(payload *fastjson.Value) (command, error) {
	token, ok := lentField(payload, "token")
	if !ok || len(token) == 0 {
		return command{}, errors.New(`"token" must be a string`)
	}
	if len(token) > session.MaxToken {
		return command{}, errors.New(`"token" is longer than a token can be`)
	}
	return command{verb: verbRefresh, token: string(token)}, nil
}

func decodeSelect(payload *fastjson.Value) (command, error) {
	c := command{verb: verbSelect}
	if v := payload.Get("ack"); v != nil {
		ack, err := v.Bool()
		if err != nil {
			return command{}, errors.New(`"ack" must be true or false`)
		}
		c.ack = ack
	}
	v := payload.Get("chat_id")
	if v == nil {
		return command{}, errors.New(`"chat_id" is missing; null unselects`)
	}
	if v.Type() == fastjson.TypeNull {
		return c, nil
	}
	id, err := v.StringBytes()
	if err != nil {
		return command{}, errors.New(`"chat_id" must be a string or null`)
	}
	chat := string(id)
	if err := session.CheckChat(chat); err != nil {
		return command{}, err
	}
	c.chat = &chat
	return c, nil
}

func decodeResume(payload *fastjson.Value) (command, error) {
	stream, ok := textField(payload, "stream")
	if !ok || stream == "" || len(stream) > session.MaxID {
		return command{}, errStream
	}
	v := payload.Get("seq")
	if v == nil {
		return command{}, errSeq
	}
	seq, err := v.Uint64()
	if err != nil || seq > maxSeq {
		return command{}, errSeq
	}
	return command{verb: verbResume, point: resumePoint{stream, seq}}, nil
}

// parseResume reads "<stream>:<seq>", the value of ?resume=. An empty one asks
// for the new frames only.
func parseResume(s string) (*resumePoint, error) {
	if s == "" {
		return nil, nil
	}
	i := strings.LastIndexByte(s, ':')
	if i <= 0 || i > session.MaxID {
		return nil, errStream
	}
	seq, err := strconv.ParseUint(s[i+1:], 10, 64)
	if err != nil || seq > maxSeq {
		return nil, errSeq
	}
	return &resumePoint{s[:i], seq}, nil
}
