package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/daisi/daisi-ws/session"
)

// tokenLife is how long a token of ours lives: longer than any run.
const tokenLife = 7 * 24 * time.Hour

// localMint mints here, with the user key ring.
func localMint(spec string) (func(company, agent, user string) (string, error), error) {
	if spec == "" {
		return nil, errors.New("nothing to mint tokens with: neither the user key ring (-token-key) nor the key of the endpoint (-mint-key)")
	}
	ring, err := session.ParseKeyRing(session.PurposeUser, spec, true)
	if err != nil {
		return nil, fmt.Errorf("read token keys: %w", err)
	}
	return func(company, agent, user string) (string, error) {
		return ring.Mint(session.Claims{Company: company, Agent: agent, User: user, ExpiresAt: time.Now().Add(tokenLife)})
	}, nil
}

// desk gets tokens from the doors, one a user, and keeps them: those of a round
// of logins before it begins, so that no login waits for its token. Made by
// newDesk, ended by close.
type desk struct {
	// Static after newDesk.
	doors  []string
	scheme string
	key    string
	client *http.Client

	mu     sync.Mutex
	tokens map[session.Key]string
	asked  int
}

// deskTimeout is for one token.
const deskTimeout = 15 * time.Second

func newDesk(o Options) *desk {
	d := &desk{doors: o.Addrs, scheme: "http", key: o.MintKey, tokens: make(map[session.Key]string)}
	t := &http.Transport{MaxIdleConnsPerHost: o.LoginWorkers}
	if o.TLS != nil {
		d.scheme, t.TLSClientConfig = "https", o.TLS.Clone()
		t.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(len(o.Addrs))
	}
	d.client = &http.Client{Transport: t, Timeout: deskTimeout}
	return d
}

// close gives the connections back; a nil desk has none.
func (d *desk) close() {
	if d != nil {
		d.client.CloseIdleConnections()
	}
}

// fill gets the tokens that a round of logins needs and that are not here yet;
// a nil desk needs none.
func (d *desk) fill(ctx context.Context, list []Login, workers int) error {
	if d == nil {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(workers, 1))
	for _, l := range list {
		p := l.User.Page
		if d.kept(session.Key{Company: p.Company, Agent: p.Agent, User: l.User.Name}) != "" {
			continue
		}
		group.Go(func() error {
			_, err := d.ask(ctx, p.Company, p.Agent, l.User.Name)
			return err
		})
	}
	return group.Wait()
}

func (d *desk) kept(k session.Key) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tokens[k]
}

// mint gives a user's token.
func (d *desk) mint(company, agent, user string) (string, error) {
	if token := d.kept(session.Key{Company: company, Agent: agent, User: user}); token != "" {
		return token, nil
	}
	return d.ask(context.Background(), company, agent, user) // within deskTimeout
}

// ask gets one from the next door.
func (d *desk) ask(ctx context.Context, company, agent, user string) (string, error) {
	d.mu.Lock()
	door := d.doors[d.asked%len(d.doors)]
	d.asked++
	d.mu.Unlock()
	body, err := json.Marshal(map[string]any{"company_id": company, "agent_id": agent, "user_id": user, "expires_in_seconds": int64(tokenLife / time.Second)})
	if err != nil {
		return "", fmt.Errorf("ask for a token: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.scheme+"://"+door+"/generate-token", bytes.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("ask for a token: %w", err)
	}
	req.Header.Set("X-API-Key", d.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := d.client.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask for a token: %w", err)
	}
	defer resp.Body.Close()
	var answer struct{ Token, Code, Details string }
	err = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&answer)
	if resp.StatusCode != http.StatusOK || err == nil && answer.Token == "" {
		return "", fmt.Errorf("ask %s for a token: %s %s %s", door, resp.Status, answer.Code, answer.Details)
	}
	if err != nil {
		return "", fmt.Errorf("ask %s for a token: %w", door, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tokens[session.Key{Company: company, Agent: agent, User: user}] = answer.Token
	return answer.Token, nil
}
