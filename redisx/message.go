package redisx

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/daisi/daisi-ws/session"
)

// message is what goes over a kill channel: a kill, or its answer. As text:
//
//	1 K ID FROM EPOCH CONN COMPANY AGENT USER
//	1 A ID FROM
//
// 1 is the version; ids are escaped, so there are spaces only between fields.
type message struct {
	answer bool
	id     uint64        // the asker's count; an answer repeats it
	from   session.Owner // also names the channel to answer on
	key    session.Key
	epoch  uint64 // sessions of key below it must end
	conn   uint64 // the newcomer's, for logs
}

func (m *message) String() string {
	if m.answer {
		return "1 A " + decimal(m.id) + " " + escape(string(m.from))
	}
	return strings.Join([]string{
		"1 K", decimal(m.id), escape(string(m.from)), decimal(m.epoch), decimal(m.conn),
		escape(m.key.Company), escape(m.key.Agent), escape(m.key.User),
	}, " ")
}

var errMessage = errors.New("not a kill message of version 1")

func parseMessage(s string) (m message, err error) {
	f := strings.Split(s, " ")
	kill := len(f) == 9 && f[1] == "K"
	m.answer = len(f) == 4 && f[1] == "A"
	if f[0] != "1" || !kill && !m.answer {
		return m, errMessage
	}
	if m.id, err = strconv.ParseUint(f[2], 10, 64); err != nil {
		return m, fmt.Errorf("read id of a kill message: %w", err)
	}
	if m.from = session.Owner(unescape(f[3])); m.from == "" {
		return m, errMessage
	}
	if m.answer {
		return m, nil
	}
	if m.epoch, err = strconv.ParseUint(f[4], 10, 64); err != nil {
		return m, fmt.Errorf("read epoch of a kill message: %w", err)
	}
	if m.conn, err = strconv.ParseUint(f[5], 10, 64); err != nil {
		return m, fmt.Errorf("read conn of a kill message: %w", err)
	}
	m.key = session.Key{Company: unescape(f[6]), Agent: unescape(f[7]), User: unescape(f[8])}
	return m, nil
}
