package natsx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// Errors that callers tell apart.
var (
	// ErrIdle says that there was nothing to read for a while.
	ErrIdle = errors.New("nothing to read")
	// ErrStream says that the events stream is another one now: begin anew
	// with what Client.Stream says.
	ErrStream = errors.New("events stream is another one now")
	// ErrNotConnected says that there is no connection to NATS.
	ErrNotConnected = errors.New("not connected to NATS")
)

// TrimmedError says that the stream may have dropped events of (Pos, First)
// before they were read. All up to Pos were handed over, none after it;
// reading goes on at First.
type TrimmedError struct {
	Pos, First uint64
}

func (e *TrimmedError) Error() string {
	return fmt.Sprintf("events after %d and before %d are no longer stored", e.Pos, e.First)
}

// Codes of JetStream API errors.
const (
	codeStreamNotFound = 10059
	codeStreamExists   = 10058
	codeNoMessage      = 10037
	codeNoStorage      = 10047
)

const (
	apiPrefix  = "$JS.API."
	apiTimeout = 5 * time.Second
	// deafAfter is how long the server may hear nothing of the publisher's
	// stream, which beats once a second.
	deafAfter = 5 * time.Second
)

// apiError is how the server refuses.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrCode) }

func isCode(err error, code int) bool {
	var e *apiError
	return errors.As(err, &e) && e.ErrCode == code
}

// call asks the JetStream API and decodes the answer into resp, unless nil.
func (c *Client) call(ctx context.Context, subject string, req, resp any) error {
	body, err := c.ask(ctx, subject, req)
	if err != nil {
		return err
	}
	var refusal struct{ Error *apiError }
	if err := json.Unmarshal(body, &refusal); err != nil {
		return fmt.Errorf("decode answer of %s: %w", subject, err)
	}
	if refusal.Error != nil {
		return fmt.Errorf("call %s: %w", subject, refusal.Error)
	}
	if resp == nil {
		return nil
	}
	if err := json.Unmarshal(body, resp); err != nil {
		return fmt.Errorf("decode answer of %s: %w", subject, err)
	}
	return nil
}

// ask sends req as JSON and returns the answer as it is, within ctx and 5 s.
func (c *Client) ask(ctx context.Context, subject string, req any) ([]byte, error) {
	nc := c.conn()
	if nc == nil {
		return nil, ErrNotConnected
	}
	body := []byte(nil)
	if req != nil {
		var err error
		if body, err = json.Marshal(req); err != nil {
			return nil, fmt.Errorf("encode request of %s: %w", subject, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	m, err := nc.RequestWithContext(ctx, apiPrefix+subject, body)
	if err != nil {
		c.m.apiErrors.Inc()
		return nil, fmt.Errorf("call %s: %w", subject, err)
	}
	return m.Data, nil
}

// streamInfo is what we need of STREAM.INFO.
type streamInfo struct {
	Config  map[string]json.RawMessage `json:"config"`
	Created time.Time                  `json:"created"`
	State   struct {
		FirstSeq uint64 `json:"first_seq"`
		LastSeq  uint64 `json:"last_seq"`
	} `json:"state"`
	Now     time.Time `json:"ts"` // the server's clock
	Sources []struct {
		Name   string        `json:"name"`
		Lag    uint64        `json:"lag"`
		Active time.Duration `json:"active"` // since it was last heard of; -1: never
		Error  *apiError     `json:"error"`
	} `json:"sources"`
}

// sourcing says what keeps our stream from following the publisher's.
func (i *streamInfo) sourcing() error {
	for _, s := range i.Sources {
		if s.Error != nil {
			return fmt.Errorf("source stream %s: %w", s.Name, s.Error)
		}
		if s.Active > deafAfter {
			return fmt.Errorf("source stream %s was not heard of for %s", s.Name, s.Active.Round(time.Second))
		}
	}
	return nil
}

func (i *streamInfo) metadata() map[string]string {
	m := map[string]string{}
	_ = json.Unmarshal(i.Config["metadata"], &m) // absent, or not ours
	return m
}

func (i *streamInfo) replicas() int {
	var n int
	_ = json.Unmarshal(i.Config["num_replicas"], &n) // absent: 0
	return n
}

// info asks the stream's leader; nil without error when there is no such
// stream.
func (c *Client) info(ctx context.Context, stream string) (*streamInfo, error) {
	i := &streamInfo{}
	if err := c.call(ctx, "STREAM.INFO."+stream, nil, i); err != nil {
		if isCode(err, codeStreamNotFound) {
			return nil, nil
		}
		return nil, err
	}
	if i.State.FirstSeq == 0 { // never held anything
		i.State.FirstSeq = i.State.LastSeq + 1
	}
	return i, nil
}

// events asks for our stream, which must have this id.
func (c *Client) events(ctx context.Context, id string) (*streamInfo, error) {
	i, err := c.info(ctx, c.o.EventsStream)
	if err != nil {
		return nil, err
	}
	if i == nil || i.metadata()[metaID] != id {
		c.nudge()
		return nil, ErrStream
	}
	return i, nil
}

// conn is the connection while it stands, else nil.
func (c *Client) conn() *nats.Conn {
	if nc := c.nc.Load(); nc != nil && nc.IsConnected() {
		return nc
	}
	return nil
}
