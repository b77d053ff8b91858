package natsx

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Names in our stream's metadata.
const (
	metaID         = "dws_stream_id"
	metaPartitions = "dws_partitions"
	metaSource     = "dws_source" // Created of the publisher's stream when sources were set up, "" while it was missing
)

// Subjects of the publisher, and of our stream.
const (
	publisherSubjects = "websocket.>"
	publisherPrefix   = "websocket."
	sourceSubjects    = "websocket.*.*.>"
	eventsPrefix      = "dws."
)

// Stream is one incarnation of our events stream.
type Stream struct {
	ID          string
	Partitions  int
	First, Last uint64 // sequences stored, when last looked at; First = Last+1 when it is empty
}

type transform struct {
	Src  string `json:"src"`
	Dest string `json:"dest"`
}

type source struct {
	Name       string      `json:"name"`
	StartSeq   uint64      `json:"opt_start_seq,omitempty"`
	StartTime  *time.Time  `json:"opt_start_time,omitempty"`
	Transforms []transform `json:"subject_transforms"`
}

// source of our stream. It starts at since, or with the first message.
func (c *Client) source(partitions int, since *time.Time) source {
	s := source{Name: c.o.Stream, StartTime: since, Transforms: []transform{{
		Src:  sourceSubjects,
		Dest: eventsPrefix + "{{partition(" + strconv.Itoa(partitions) + ",1,2)}}.{{wildcard(1)}}.{{wildcard(2)}}.>",
	}}}
	if since == nil {
		s.StartSeq = 1
	}
	return s
}

type config map[string]any

// createPublisher makes the publisher's stream.
func (c *Client) createPublisher(ctx context.Context) error {
	err := c.call(ctx, "STREAM.CREATE."+c.o.Stream, config{
		"name": c.o.Stream, "subjects": []string{publisherSubjects},
		"retention": "limits", "storage": "file", "discard": "old", "num_replicas": max(1, c.o.Replicas),
		"max_age": c.o.MaxAge, "max_bytes": c.o.MaxBytes,
	}, nil)
	if err != nil && !isCode(err, codeStreamExists) {
		return fmt.Errorf("create stream %s: %w", c.o.Stream, c.storage(err))
	}
	return nil
}

// storage says what to change when the server has no room for a stream: it sets
// max_bytes aside when a stream is made, and by default has 75 % of its free disk.
func (c *Client) storage(err error) error {
	if isCode(err, codeNoStorage) {
		err = fmt.Errorf("%w: it must set %d bytes aside for each of our two streams; give the NATS server a larger jetstream max_file_store, or room on its disk", err, c.o.MaxBytes)
	}
	return err
}

// createEvents makes our stream; pub is nil while the publisher's is missing.
// Another pod may be faster, and then its stream counts.
func (c *Client) createEvents(ctx context.Context, pub *streamInfo) error {
	replicas, created, partitions := c.o.Replicas, "", c.o.Partitions
	if cur := c.cur.Load(); cur != nil {
		partitions = cur.partitions // a running cluster can't change its count
	}
	var since *time.Time
	if pub != nil {
		// From now on by the server's clock. Whatever else the publisher's
		// stream holds is older than any of our clients' cursors.
		since, created = &pub.Now, pub.Created.Format(time.RFC3339Nano)
		if replicas == 0 {
			replicas = pub.replicas()
		}
	}
	err := c.call(ctx, "STREAM.CREATE."+c.o.EventsStream, config{
		"name": c.o.EventsStream, "description": "events of " + c.o.Stream + " by partition, made by daisi-ws",
		"retention": "limits", "storage": "file", "discard": "old", "num_replicas": max(1, replicas),
		"max_age": c.o.MaxAge, "max_bytes": c.o.MaxBytes, "allow_direct": true,
		"sources": []source{c.source(partitions, since)},
		"metadata": map[string]string{
			metaID: newID(), metaPartitions: strconv.Itoa(partitions), metaSource: created,
		},
	}, nil)
	if err != nil && !isCode(err, codeStreamExists) {
		return fmt.Errorf("create stream %s: %w", c.o.EventsStream, c.storage(err))
	}
	if err == nil {
		c.m.made.Inc()
		c.o.Log.Info().Str("stream", c.o.EventsStream).Bool("publisher", pub != nil).Msg("events stream made")
	}
	return nil
}

// update changes fields of our stream's configuration and leaves all others
// as they are, those of newer servers too.
func (c *Client) update(ctx context.Context, own *streamInfo, change config, meta map[string]string) error {
	cfg := config{}
	for k, v := range own.Config {
		cfg[k] = v
	}
	for k, v := range change {
		cfg[k] = v
	}
	if meta != nil {
		m := own.metadata()
		for k, v := range meta {
			m[k] = v
		}
		cfg["metadata"] = m
	}
	return c.call(ctx, "STREAM.UPDATE."+c.o.EventsStream, cfg, nil)
}

// resource takes the sources out and puts them in again, for the publisher's
// stream created at created. The server remembers how far it came in which
// incarnation: it goes on there, or begins with the first message.
func (c *Client) resource(ctx context.Context, own *streamInfo, partitions int, created string) error {
	c.m.resourced.Inc()
	if err := c.update(ctx, own, config{"sources": []source{}}, nil); err != nil {
		return fmt.Errorf("take sources out of %s: %w", c.o.EventsStream, err)
	}
	on := config{"sources": []source{c.source(partitions, nil)}, "duplicate_window": 0}
	if err := c.update(ctx, own, on, map[string]string{metaSource: created}); err != nil {
		return fmt.Errorf("put sources into %s: %w", c.o.EventsStream, err)
	}
	c.o.Log.Warn().Str("stream", c.o.Stream).Msg("publisher's stream is a new one; sourcing set up again")
	return nil
}

// limits makes an existing stream's limits those of Options.
func (c *Client) limits(ctx context.Context, own *streamInfo) error {
	var age time.Duration
	var bytes int64
	_ = json.Unmarshal(own.Config["max_age"], &age)     // absent: 0, which differs
	_ = json.Unmarshal(own.Config["max_bytes"], &bytes) // as well
	if age == c.o.MaxAge && bytes == c.o.MaxBytes && string(own.Config["allow_direct"]) == "true" {
		return nil
	}
	err := c.update(ctx, own, config{"max_age": c.o.MaxAge, "max_bytes": c.o.MaxBytes, "allow_direct": true}, nil)
	if err != nil {
		return fmt.Errorf("change limits of %s: %w", c.o.EventsStream, err)
	}
	return nil
}

// described reads our stream's identity from its metadata.
func (c *Client) described(own *streamInfo) (Stream, error) {
	meta := own.metadata()
	p, err := strconv.Atoi(meta[metaPartitions])
	if err != nil || p < 1 || p > maxPartitions || meta[metaID] == "" {
		return Stream{}, fmt.Errorf("stream %s was not made by daisi-ws: its metadata lacks %s or %s; delete it or choose another name",
			c.o.EventsStream, metaID, metaPartitions)
	}
	return Stream{ID: meta[metaID], Partitions: p, First: own.State.FirstSeq, Last: own.State.LastSeq}, nil
}

func newID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
