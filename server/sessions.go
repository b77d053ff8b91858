package server

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// sessionView is a session of this pod as the admin API shows it.
type sessionView struct {
	Company    string  `json:"company"`
	Agent      string  `json:"agent"`
	User       string  `json:"user"`
	Conn       uint64  `json:"conn"`
	Epoch      uint64  `json:"epoch"`
	Partition  int     `json:"partition"`
	State      string  `json:"state"`
	Chat       string  `json:"chat,omitempty"`
	LastSeq    uint64  `json:"last_seq"`
	Floor      uint64  `json:"floor"`
	ConnectedS int64   `json:"connected_s"`
	Expires    string  `json:"expires_at,omitempty"`
	Remote     string  `json:"remote"`
	Queued     int     `json:"queued_bytes"`
	RTT        float64 `json:"rtt_ms,omitempty"`
	NewFrames  bool    `json:"new_frames"`
}

// view adds what the socket knows; not under a shard's lock.
func view(i session.Info[*loop.Conn], now time.Duration) sessionView {
	c := i.Session.Sock()
	v := sessionView{
		Company: i.Key.Company, Agent: i.Key.Agent, User: i.Key.User,
		Conn: i.Session.Conn(), Epoch: i.Epoch, Partition: i.Session.Partition(), State: i.State.String(),
		Chat: i.Chat, LastSeq: i.Last, Floor: i.Floor, ConnectedS: int64((now - i.Since) / time.Second),
		Remote: c.RemoteAddr(), Queued: c.Queued(), RTT: float64(c.RTT()) / float64(time.Millisecond),
		NewFrames: i.Session.Has(session.FlagNewFrames),
	}
	if i.Expires > 0 {
		v.Expires = time.Unix(int64(i.Expires), 0).UTC().Format(time.RFC3339)
	}
	return v
}

// listSessions gives the sessions of this pod that match, in pages: ?next= of
// one answer is ?after= of the next request. The order is that of partition
// and key, so sessions that come or go between two pages do no harm.
func (e *edge) listSessions(w http.ResponseWriter, r *http.Request, who operator) {
	core := e.started(w)
	if core == nil {
		return
	}
	q, limit, f := pageOf(r)
	if f != nil {
		f.write(w)
		return
	}
	after, from, err := readCursor(q.Get("after"), core.partitions)
	if err != nil {
		faultOf(session.ReasonBadRequest, "after must be next of an earlier answer").write(w)
		return
	}
	upto := core.partitions
	if q.Get("company") != "" && q.Get("agent") != "" { // then only one can have it
		n := session.Partition(q.Get("company"), q.Get("agent"), core.partitions)
		from, upto = max(from, n), n+1
	}
	var found []session.Info[*loop.Conn]
	for n := from; n < upto && len(found) <= limit; n++ {
		found = append(found, matching(core, n, q, after, who)...)
	}
	answer := map[string]any{}
	if len(found) > limit {
		found = found[:limit]
		answer["next"] = writeCursor(found[limit-1].Key)
	}
	now := bootTime()
	views := make([]sessionView, len(found))
	for i := range found {
		views[i] = view(found[i], now)
	}
	answer["sessions"] = views
	writeJSON(w, http.StatusOK, answer)
}

// matching are the sessions of partition n behind after that q asks for, by key.
func matching(core *edgeCore, n int, q url.Values, after *session.Key, who operator) []session.Info[*loop.Conn] {
	company, agent, user, chat := q.Get("company"), q.Get("agent"), q.Get("user"), q.Get("chat")
	var found []session.Info[*loop.Conn]
	core.index.Each(n, func(i session.Info[*loop.Conn]) bool {
		if match(company, i.Key.Company) && match(agent, i.Key.Agent) && match(user, i.Key.User) && match(chat, i.Chat) && who.sees(i.Key.Company, i.Key.Agent) {
			found = append(found, i)
		}
		return true
	})
	slices.SortFunc(found, func(a, b session.Info[*loop.Conn]) int { return compareKeys(a.Key, b.Key) })
	if after == nil || after.Partition(core.partitions) != n {
		return found
	}
	return slices.DeleteFunc(found, func(i session.Info[*loop.Conn]) bool { return compareKeys(i.Key, *after) <= 0 })
}

func compareKeys(a, b session.Key) int {
	return cmp.Or(cmp.Compare(a.Company, b.Company), cmp.Compare(a.Agent, b.Agent), cmp.Compare(a.User, b.User))
}

// readCursor gives the key to go on after, and its partition.
func readCursor(s string, partitions int) (after *session.Key, n int, err error) {
	if s == "" {
		return nil, 0, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil, 0, err
	}
	var parts [3]string
	if err := json.Unmarshal(b, &parts); err != nil {
		return nil, 0, err
	}
	after = &session.Key{Company: parts[0], Agent: parts[1], User: parts[2]}
	return after, after.Partition(partitions), nil
}

func writeCursor(k session.Key) string {
	b, _ := json.Marshal([3]string{k.Company, k.Agent, k.User}) // strings can't fail
	return base64.RawURLEncoding.EncodeToString(b)
}

// findSession is the session that the path names, nil after a 404. One out of
// the operator's scope is none.
func (e *edge) findSession(w http.ResponseWriter, r *http.Request, who operator) (*edgeCore, *session.Session[*loop.Conn]) {
	core := e.started(w)
	if core == nil {
		return nil, nil
	}
	key := session.Key{Company: r.PathValue("company"), Agent: r.PathValue("agent"), User: r.PathValue("user")}
	target(w, fmt.Sprintf("%q", key))
	s := core.index.Find(key)
	if s != nil && !who.sees(key.Company, key.Agent) {
		s = nil
	}
	if s == nil {
		faultNotFound.with("no such session on this pod; see /admin/pods for the others").write(w)
	}
	return core, s
}

func (e *edge) showSession(w http.ResponseWriter, r *http.Request, who operator) {
	if core, s := e.findSession(w, r, who); s != nil {
		writeJSON(w, http.StatusOK, view(core.index.Info(s), bootTime()))
	}
}

func (e *edge) killSession(w http.ResponseWriter, r *http.Request, who operator) {
	core, s := e.findSession(w, r, who)
	if s == nil {
		return
	}
	core.manager.Close(s, session.ReasonKilled, "")
	writeJSON(w, http.StatusOK, map[string]any{"killed": true})
}

// bootTime is the clock of session.Info.Since.
func bootTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // session has it, or would not run
	return time.Duration(ts.Nano())
}
