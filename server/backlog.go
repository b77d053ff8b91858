package server

import (
	"context"
	"strings"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/natsx"
	"github.com/daisi/daisi-ws/session"
)

// backlog is what one session would be given now: its agent's subjects and the
// one chat it has selected, as far as its token allows.
type backlog struct {
	env      *replayEnv
	s        *session.Session[*loop.Conn]
	chat     string
	subjects []string // to read; in which order does not matter
	most     int      // events read in one go, whether owed or not
}

// all are the subjects that hold what is owed, without wildcards where the
// token names kinds.
func (b *backlog) all() []string {
	key, kinds := b.s.Key(), b.s.Grants().Kinds()
	subject := func(kind, chat string) string {
		return natsx.EventsSubject(b.s.Partition(), b.env.partitions, session.Route{Company: key.Company, Agent: key.Agent, Kind: kind, Chat: chat})
	}
	var list []string
	if kinds&session.KindBitOther != 0 {
		list = append(list, subject("*", ""))
	} else {
		for _, kind := range []string{session.KindChats, session.KindAgents, session.KindContacts} {
			if kinds&session.KindOf(kind) != 0 {
				list = append(list, subject(kind, ""))
			}
		}
	}
	if kinds&session.KindBitMessages != 0 && isSubject(b.chat) {
		list = append(list, subject(session.KindMessages, b.chat))
	}
	return list
}

// isSubject says whether anything can be stored under a chat id: it is the end
// of a subject, which has no spaces and no empty tokens.
func isSubject(chat string) bool {
	return chat != "" && !strings.Contains(chat, " ") && !strings.Contains("."+chat+".", "..")
}

// read hands f every owed event in (after, upto], in order per subject only.
func (b *backlog) read(ctx context.Context, after, upto uint64, each func(*session.Event) error) error {
	events := 0
	for _, subject := range b.subjects {
		err := b.env.stream.ReadSubject(ctx, subject, after, upto, func(list []session.Event) error {
			if events += len(list); events > b.most {
				return &gapError{reasonEvents}
			}
			for i := range list {
				if !b.owed(list[i].Route) {
					continue
				}
				if err := each(&list[i]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// owed is asked of every event, whatever its subject was asked for by: a chat
// id may look like a wildcard.
func (b *backlog) owed(r session.Route) bool {
	key := b.s.Key()
	if r.Company != key.Company || r.Agent != key.Agent || !b.s.Grants().Receive(r.Kind, r.Chat) {
		return false
	}
	return r.Kind != session.KindMessages || r.Chat == b.chat
}
