package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/rs/zerolog"

	"github.com/daisi/daisi-ws/server"
)

// started is what greet needs of a gateway.
type started interface {
	Ready() <-chan struct{}
	PublicAddr() string
}

// greet waits until the gateway is ready and prints what a developer does
// next, made through its own public door.
func greet(ctx context.Context, w io.Writer, g started, o server.Options, log zerolog.Logger) {
	select {
	case <-ctx.Done():
		return // it is ending; Run says why
	case <-g.Ready():
	}
	client := &http.Client{
		Timeout: 5 * time.Second,
		// Our own port on our own machine, under a name the certificate need not have.
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
	}
	page, socket, flag := "http://", "ws://", ""
	if o.TLS.On() {
		page, socket, flag = "https://", "wss://", "-insecure "
	}
	addr := local(g.PublicAddr())
	t, err := askToken(ctx, client, page+addr, o.Auth.MintKey)
	if err != nil {
		log.Error().Err(err).Msg("make a token for development")
		return
	}
	query := url.Values{"x-api-key": {o.Auth.APIKey}, "token": {t}}
	fmt.Fprintf(w, `
ready. Open %s%s/ or log in from a terminal:

./bin/daisi-ws connect %s'%s%s/ws/demo/agent1?%s'

then publish:

./bin/daisi-ws publish -nats %s websocket.demo.agent1.chats '{"hello":"world"}'

`, page, addr, flag, socket, addr, query.Encode(), o.NATS.URL)
}

func askToken(ctx context.Context, client *http.Client, base, key string) (string, error) {
	body := []byte(`{"company_id":"demo","agent_id":"agent1","user_id":"terminal","expires_in_seconds":86400}`)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/generate-token", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("X-API-Key", key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var answer struct{ Token string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&answer); err != nil {
		return "", err
	}
	if answer.Token == "" {
		return "", errors.New("the gateway answered " + resp.Status)
	}
	return answer.Token, nil
}
