package bench

import (
	"encoding/json"
	"time"
)

// What guide and workers say to each other over NATS, as JSON. Subjects, below
// crewSubject and the crew's name:
//
//	hire          the guide asks who is free; workers answer with a crewOffer
//	w.<worker>    to one worker: what time it is, or a crewJob
//	j.<job>.meet  a worker has come to a point (request; the answer is the go)
//	j.<job>.row   a worker's Sample, each second: the sign that it lives
//	j.<job>.beat  the guide lives; with a text: the run is over, and why
//	j.<job>.end   a worker's report, in pieces
const crewSubject = "daisi.bench."

// Times of the crew.
const (
	crewBeat    = time.Second
	crewLost    = 20 * time.Second // without a word for so long: it is lost; processes that share cores wait for them
	clockProbes = 16               // of which the one with the shortest way counts
	pieceSize   = 256 << 10        // of a report in one message
	crewVersion = 1
)

// crewOffer is what a free worker says of itself.
type crewOffer struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	Host    string `json:"host"`
	PID     int    `json:"pid"`
	Cores   int    `json:"cores"`
	Files   uint64 `json:"files"` // descriptors it may have
	Commit  string `json:"commit"`
}

// crewRequest goes to one worker.
type crewRequest struct {
	Clock bool     `json:"clock,omitempty"` // tell the time
	Job   *crewJob `json:"job,omitempty"`
}

// crewAnswer is what it says.
type crewAnswer struct {
	Now   int64  `json:"now"` // its clock, unix nanoseconds
	Error string `json:"error,omitempty"`
}

// crewJob is one worker's share of a run.
type crewJob struct {
	ID       string          `json:"id"` // of the run
	Scenario string          `json:"scenario"`
	Options  json.RawMessage `json:"options"` // the scenario's struct, without secrets
	Run      uint64          `json:"run"`
	Seed     uint64          `json:"seed"`
	Company  string          `json:"company"`
	Part     Part            `json:"part"`
	Offset   int64           `json:"offset"` // worker's clock less the guide's, nanoseconds
	Lost     time.Duration   `json:"lost"`   // without a word of the guide for so long it gives up
}

// crewPoint is a worker that has come to a point.
type crewPoint struct {
	Worker int             `json:"worker"`
	Point  string          `json:"point"`
	Mine   json.RawMessage `json:"mine"`
}

// crewGo lets it go on.
type crewGo struct {
	Result json.RawMessage `json:"result,omitempty"`
	At     int64           `json:"at"` // by the worker's clock, for all at the same instant
	Error  string          `json:"error,omitempty"`
}

// crewRow is a sign of life.
type crewRow struct {
	Worker int    `json:"worker"`
	Sample Sample `json:"sample"`
	Phase  string `json:"phase"`
}

// crewPiece is a piece of a worker's report.
type crewPiece struct {
	Worker int    `json:"worker"`
	N      int    `json:"n"`
	Of     int    `json:"of"`
	Bytes  []byte `json:"bytes"`
}

// Worker is one of the processes that bore the load.
type Worker struct {
	Host   string        `json:"host"`
	PID    int           `json:"pid"`
	Cores  int           `json:"cores"`
	Offset time.Duration `json:"clock_offset"`   // its clock less the guide's
	Way    time.Duration `json:"round_trip"`     // of the probe that told so
	Lost   string        `json:"lost,omitempty"` // in which phase it was last heard of
	CPU    float64       `json:"cpu"`            // share of its GOMAXPROCS at the busiest
	Lag    float64       `json:"lag_p99"`        // of its own scheduling, seconds
}
