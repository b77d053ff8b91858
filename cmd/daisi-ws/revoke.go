package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const revokeSynopsis = "token revoke|lift [-for DURATION] token TOKEN|- | jti ID | hash SHA256 | fingerprint HEX | user COMPANY USER [AGENT] | company ID | admin ID | kid KID [user|admin]"

// revoke has a running gateway revoke something, or lift that, for the whole
// cluster. The gateway's answer is printed as it is.
func revoke(ctx context.Context, c console, verb string, args []string) error {
	f := c.flags("token "+verb, revokeSynopsis)
	life := f.Duration("for", 0, "how long it stands; 0: until it is lifted, a token's until the token expires")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	body, err := revokeBody(c.in, f.Args())
	if err != nil {
		return err
	}
	if *life > 0 && verb == "revoke" {
		body["until"] = time.Now().Add(*life).UTC().Format(time.RFC3339)
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return admin(ctx, c, http.MethodPost, "/admin/"+verb, encoded)
}

// revokeBody is the request's body; a token may come from standard input, since
// a command line is for all to see.
func revokeBody(in io.Reader, args []string) (map[string]string, error) {
	names := map[string][]string{
		"token": {"token"}, "jti": {"jti"}, "hash": {"hash"}, "fingerprint": {"fingerprint"},
		"user": {"company", "user", "agent"}, "company": {"company"}, "admin": {"admin"}, "kid": {"kid", "purpose"},
	}
	least := map[string]int{"user": 2}
	if len(args) == 0 || len(args)-1 > len(names[args[0]]) || len(args)-1 < max(1, least[args[0]]) {
		return nil, fmt.Errorf("%w: %s", errUsage, revokeSynopsis)
	}
	kind, values := args[0], args[1:]
	body := map[string]string{"kind": kind}
	switch kind {
	case "jti", "hash", "fingerprint":
		body["kind"] = "token"
	case "token":
		if values[0] == "-" {
			b, err := io.ReadAll(io.LimitReader(in, 64<<10))
			if err != nil {
				return nil, fmt.Errorf("read token: %w", err)
			}
			values = []string{strings.TrimSpace(string(b))}
		}
	}
	for i, v := range values {
		body[names[kind][i]] = v
	}
	return body, nil
}

func revocations(ctx context.Context, c console, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: token revocations", errUsage)
	}
	return admin(ctx, c, http.MethodGet, "/admin/revocations?limit=1000", nil)
}

// admin asks the admin API of the gateway that this environment is of.
func admin(ctx context.Context, c console, method, path string, body []byte) error {
	p, err := plan(c.environ)
	if err != nil {
		return err
	}
	if p.made["DWS_AUTH_ADMIN_KEY"] != "" || p.options.Auth.AdminKey == "" {
		return fmt.Errorf("%w: set DWS_AUTH_ADMIN_KEY (or DWS_AUTH_ADMIN_KEY_FILE) to the gateway's", errConfig)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+local(p.options.Internal.Addr)+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-API-Key", p.options.Auth.AdminKey)
	// The key is for this address alone: no proxy is told it, no redirect followed.
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the gateway answered %s: %s", resp.Status, bytes.TrimSpace(answer))
	}
	_, err = c.out.Write(answer)
	return err
}

// local is where this machine reaches a listener of addr.
func local(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
