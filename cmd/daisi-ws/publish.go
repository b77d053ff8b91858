package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// embeddedNATS is where an embedded server listens when the port is free.
const embeddedNATS = "nats://127.0.0.1:4222"

// publish stores one event in the publisher's stream and prints its place.
func publish(ctx context.Context, c console, args []string) error {
	f := c.flags("publish", "publish [-nats URL] SUBJECT JSON|-")
	url := f.String("nats", "", "NATS server; empty: DWS_NATS_URL, else "+embeddedNATS)
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if f.NArg() != 2 {
		return fmt.Errorf("%w: publish SUBJECT JSON", errUsage)
	}
	subject, body := f.Arg(0), []byte(f.Arg(1))
	if f.Arg(1) == "-" {
		var err error
		if body, err = io.ReadAll(c.in); err != nil {
			return fmt.Errorf("read standard input: %w", err)
		}
	}
	if !json.Valid(body) || !strings.HasPrefix(strings.TrimSpace(string(body)), "{") {
		return fmt.Errorf("%w: an event is a JSON object", errUsage)
	}
	if *url == "" {
		e, err := readEnvironment(c.environ)
		if err != nil {
			return fmt.Errorf("%w:\n%w", errConfig, err)
		}
		*url = e.vars["DWS_NATS_URL"]
	}
	if *url == "" {
		*url = embeddedNATS
	}
	conn, err := nats.Connect(*url, nats.Name("daisi-ws publish"))
	if err != nil {
		return fmt.Errorf("connect to NATS: %w; -nats or DWS_NATS_URL say where it is", err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ack, err := js.Publish(ctx, subject, body)
	if err != nil {
		return fmt.Errorf("publish %s: %w", subject, err)
	}
	_, err = fmt.Fprintf(c.out, "stored in %s as %d\n", ack.Stream, ack.Sequence)
	return err
}
