package bench

import "time"

// Breach is one way in which a promise can be broken. The names in reports,
// thresholds and findings come from this block alone.
type Breach uint8

// All breaches.
const (
	Lost        Breach = iota // owed to a session, never given, never told
	Repeated                  // given twice
	Disordered                // given after a later one, or with a stream seq that fell
	WrongChat                 // messages of a chat the session had not selected
	WrongTenant               // an event of another company or agent
	Damaged                   // bytes differ from what was published
	Forged                    // claims to be of this run, but was never published
	TwoOwners                 // two sockets of one key at once
	Ledger                    // the pods' own count of copies sent is not what came; judged where nobody else uses the cluster and no socket ended
	Unexplained               // a gap frame although nothing was broken and nothing too slow
	breaches
)

var breachNames = [breaches]string{
	Lost: "lost", Repeated: "repeated", Disordered: "out_of_order", WrongChat: "wrong_chat",
	WrongTenant: "wrong_tenant", Damaged: "damaged", Forged: "forged", TwoOwners: "two_owners",
	Ledger: "ledger", Unexplained: "unexplained_gap",
}

// String is the name in reports.
func (b Breach) String() string { return breachNames[b] }

// MaxFindings is how many breaches a report describes one by one; all are
// counted.
const MaxFindings = 64

// Finding describes one breach.
type Finding struct {
	Breach  string    `json:"breach"`
	Company string    `json:"company"`
	Agent   string    `json:"agent"`
	User    string    `json:"user"`
	Pod     string    `json:"pod"`             // door, and the pod's own name when it told one
	Topic   string    `json:"topic,omitempty"` // kind[.chat] of the event
	N       uint32    `json:"n"`               // number on the (company, agent)'s list
	K       uint32    `json:"k"`               // number within the topic
	Seq     uint64    `json:"seq,omitempty"`   // stream seq of the frame
	At      time.Time `json:"at"`
	Detail  string    `json:"detail,omitempty"`
}

// Verdict is what the oracle found in a run.
type Verdict struct {
	Sessions  int64            `json:"sessions"`  // sockets that were ready
	Published int64            `json:"published"` // events in the publisher's list
	Unsure    int64            `json:"unsure"`    // of them: storing not confirmed
	Expected  int64            `json:"expected"`  // copies owed: (event, session), unsure ones excluded
	Received  int64            `json:"received"`  // event frames of this run, all
	Met       int64            `json:"met"`       // owed copies that came
	Told      int64            `json:"told"`      // owed copies replaced by a gap frame or a close
	Foreign   int64            `json:"foreign"`   // event frames of other runs
	Gaps      int64            `json:"gaps"`      // gap frames
	Takeovers int64            `json:"takeovers"` // sockets outranked by a newer one of their key
	Overlaps  int64            `json:"overlaps"`  // of them: told of their end only after the newcomer's ready was seen; judged by takeover alone
	Excused   int64            `json:"excused"`   // of those: while logins took as long as a silent pod is waited for, so no breach
	Breaches  map[string]int64 `json:"breaches"`
	Findings  []Finding        `json:"findings,omitempty"`
}

// Broken says whether any promise was broken.
func (v *Verdict) Broken() bool {
	for _, n := range v.Breaches {
		if n > 0 {
			return true
		}
	}
	return false
}
