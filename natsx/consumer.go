package natsx

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// How a consumer is pulled. A pull stands always, so an event goes out the
// moment it is stored; the next is asked for when half of one is used up.
const (
	pullBatch   = 512
	pullExpires = 30 * time.Second
	// pullHeartbeat is slow: each wakes both sides, and 64 readers get each. A
	// deaf consumer is found by asking the leader (Reader.Owes), not by them.
	pullHeartbeat = 5 * time.Second
	// chanSize holds what two pulls can bring, and their heartbeats.
	chanSize = 2*pullBatch + 256
	// inactive is after how long without a pull the server drops a consumer.
	inactive = 10 * time.Second
	// silence is how long a consumer may say nothing: two heartbeats.
	silence = 11 * time.Second
	// onItsWay is how long an event may take from the stream to here, usually.
	onItsWay = 100 * time.Millisecond
	// lived is how old a consumer must be to be followed by another at once.
	lived = time.Second
	// answer is how long it may take to be made.
	answer = 2 * time.Second
	// readBatch and readBytes bound what one Next or one chunk of Read returns.
	readBatch = 256
	readBytes = 1 << 20
)

// Last tokens of a consumer's reply subjects.
const (
	replyMade = ".c"
	replyInfo = ".i"
	replyPull = ".p"
)

// Statuses of JetStream.
const (
	statusHeartbeat = "100"
	statusTimeout   = "408"
	statusConflict  = "409"

	tooBig = "Message Size Exceeds MaxBytes"
)

// pullRequests are the two requests ever sent, encoded once.
type pullRequests struct {
	usual []byte // up to pullBatch messages, bounded in bytes
	big   []byte // one message of any size
}

func newPullRequests(maxEvent int) pullRequests {
	usual, _ := json.Marshal(config{ // of numbers only: can't fail
		"batch": pullBatch, "max_bytes": max(2<<20, maxEvent+16<<10),
		"expires": pullExpires, "idle_heartbeat": pullHeartbeat,
	})
	big, _ := json.Marshal(config{"batch": 1, "expires": pullExpires, "idle_heartbeat": pullHeartbeat})
	return pullRequests{usual: usual, big: big}
}

// phase of a consumer.
type phase uint8

const (
	creating phase = iota // waits for the answer of CONSUMER.CREATE
	checking              // waits for STREAM.INFO: is it still our incarnation?
	pulling
)

// consumer is one life of a Reader's ordered consumer. It dies of the first
// thing that is not as it should be.
type consumer struct {
	nc         *nats.Conn
	reconnects uint64 // of the client when it was made
	name       string
	inbox      string
	sub        *nats.Subscription
	ch         chan *nats.Msg

	phase phase
	born  time.Time
	heard time.Time // last sign of life
	seq   uint64    // its own sequence of the last message
	asked int       // messages asked for that did not come
	owed  uint64    // the leader's last of the partition when something seemed to be missing
	big   bool      // next message is larger than a usual pull may bring
}

// newConsumer subscribes and asks for a consumer of filter from start on.
func newConsumer(c *Client, nc *nats.Conn, filter string, start uint64) (*consumer, error) {
	now := time.Now()
	k := &consumer{
		nc: nc, reconnects: c.reconnects.Load(), name: "dws_" + newID(), inbox: nc.NewInbox(),
		ch: make(chan *nats.Msg, chanSize), born: now, heard: now,
	}
	var err error
	if k.sub, err = nc.ChanSubscribe(k.inbox+".*", k.ch); err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	req, err := json.Marshal(config{
		"stream_name": c.o.EventsStream, "action": "create",
		"config": config{
			"name": k.name, "filter_subject": filter,
			"deliver_policy": "by_start_sequence", "opt_start_seq": start,
			"ack_policy": "none", "replay_policy": "instant",
			"inactive_threshold": inactive, "num_replicas": 1, "mem_storage": true,
		},
	})
	if err == nil {
		err = nc.PublishRequest(apiPrefix+"CONSUMER.CREATE."+c.o.EventsStream+"."+k.name+"."+filter, k.inbox+replyMade, req)
	}
	if err != nil {
		_ = k.sub.Unsubscribe() // the connection has gone, and the subscription with it
		return nil, fmt.Errorf("ask for a consumer: %w", err)
	}
	return k, nil
}

// pull keeps enough messages asked for.
func (k *consumer) pull(c *Client) error {
	if k.asked > pullBatch/2 || k.big && k.asked > 0 {
		return nil
	}
	req, n := c.pull.usual, pullBatch
	if k.big {
		req, n, k.big = c.pull.big, 1, false
	}
	k.asked += n
	return k.nc.PublishRequest(apiPrefix+"CONSUMER.MSG.NEXT."+c.o.EventsStream+"."+k.name, k.inbox+replyPull, req)
}

// status reads what is no event; it says whether the consumer is well.
func (k *consumer) status(m *nats.Msg) bool {
	switch m.Header.Get("Status") {
	case statusHeartbeat:
		// What it sent last is what came last, or something was lost.
		seq, ok := parseNumber(m.Header.Get("Nats-Last-Consumer"))
		return ok && seq == k.seq
	case statusTimeout, statusConflict:
		// A pull that ends (its time, messages or bytes are used up) tells how
		// many messages it still had room for; other refusals don't.
		left, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages"))
		if err != nil {
			return false
		}
		k.asked -= left
		if left == pullBatch && m.Header.Get("Description") == tooBig {
			k.big = true // not even one message fitted
		}
		return true
	}
	return false
}

// end gives everything back. The server need not hear of it: it drops the
// consumer after a while.
func (k *consumer) end(c *Client) {
	_ = k.sub.Unsubscribe() // fails only where the connection has gone
	_ = k.nc.Publish(apiPrefix+"CONSUMER.DELETE."+c.o.EventsStream+"."+k.name, nil)
}

// delivered is what a consumer's message says in its reply subject.
type delivered struct {
	stream, consumer uint64 // sequences
	stamp            int64  // when our stream stored it, unix nanoseconds
	pending          uint64 // messages that wait behind it
}

// parseReply reads $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.
// <consumer seq>.<stamp>.<pending>, or the same with domain and account hash
// before the stream, and possibly more after it.
func parseReply(reply string) (d delivered, ok bool) {
	s, ok := strings.CutPrefix(reply, "$JS.ACK.")
	if !ok {
		return d, false
	}
	skip := 3
	if strings.Count(s, ".") >= 8 {
		skip = 5
	}
	for range skip {
		if _, s, ok = strings.Cut(s, "."); !ok {
			return d, false
		}
	}
	var n [4]uint64
	for i := range n {
		var tok string
		tok, s, _ = strings.Cut(s, ".")
		if n[i], ok = parseNumber(tok); !ok {
			return d, false
		}
	}
	return delivered{stream: n[0], consumer: n[1], stamp: int64(n[2]), pending: n[3]}, true
}

// parseNumber reads 1 to 19 digits.
func parseNumber(s string) (n uint64, ok bool) {
	if len(s) == 0 || len(s) > 19 {
		return 0, false
	}
	for i := range len(s) {
		d := s[i] - '0'
		if d > 9 {
			return 0, false
		}
		n = n*10 + uint64(d)
	}
	return n, true
}
