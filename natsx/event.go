package natsx

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/daisi/daisi-ws/session"
)

// PoisonReason says why a message is no event.
type PoisonReason uint8

// Poison reasons; their names are metric labels.
const (
	notPoison     PoisonReason = iota
	PoisonSubject              // not dws.<N>.<company>.<agent>.<kind>…, or ids that no session can have
	PoisonSize                 // body over MaxEvent
	PoisonBody                 // body is not one JSON object in UTF-8
	poisonReasons
)

func (r PoisonReason) String() string {
	return [poisonReasons]string{"", "subject", "size", "body"}[r]
}

// Subject is the publisher's subject of an event of route r.
func Subject(r session.Route) string { return publisherPrefix + tail(r) }

// EventsSubject is the subject of r in our stream of p partitions. Company,
// agent and kind may be "*" to name all of them in LastOf and ReadSubject;
// then n must be given, else -1 computes it.
func EventsSubject(n, p int, r session.Route) string {
	if n < 0 {
		n = session.Partition(r.Company, r.Agent, p)
	}
	return eventsPrefix + strconv.Itoa(n) + "." + tail(r)
}

// PartitionSubject names all events of partition n.
func PartitionSubject(n int) string { return eventsPrefix + strconv.Itoa(n) + ".>" }

func tail(r session.Route) string {
	s := r.Company + "." + r.Agent + "." + r.Kind
	if r.Chat != "" {
		s += "." + r.Chat
	}
	return s
}

// parseEvent reads a stored message into an event, or says why it is none.
func parseEvent(ev *session.Event, subject string, body []byte, maxEvent int) PoisonReason {
	route, ok := parseSubject(subject)
	if !ok {
		return PoisonSubject
	}
	if len(body) > maxEvent {
		return PoisonSize
	}
	body, ok = jsonObject(body)
	if !ok {
		return PoisonBody
	}
	ev.Route, ev.Body = route, body
	return notPoison
}

// parseSubject reads dws.<N>.<company>.<agent>.<kind>[.<rest>].
func parseSubject(subject string) (session.Route, bool) {
	s, ok := strings.CutPrefix(subject, eventsPrefix)
	if !ok {
		return session.Route{}, false
	}
	if _, s, ok = strings.Cut(s, "."); !ok {
		return session.Route{}, false
	}
	r, ok := session.ParseRoute(s)
	return r, ok && validRoute(r)
}

// validRoute says whether a session could ever have these ids. Anything else
// must not travel on: it is no text for peers, or means something to a key.
func validRoute(r session.Route) bool {
	return session.CheckTenantID("", r.Company) == nil &&
		session.CheckTenantID("", r.Agent) == nil &&
		utf8.ValidString(r.Kind) && len(r.Kind) <= session.MaxID &&
		(r.Chat == "" || session.CheckChat(r.Chat) == nil)
}
