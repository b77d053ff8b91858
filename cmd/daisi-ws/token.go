package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// token mints and looks at tokens with the keys of this environment, or asks
// a running gateway to revoke.
func token(ctx context.Context, c console, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: token mint, inspect or revoke", errUsage)
	}
	switch args[0] {
	case "mint":
		return mint(c, args[1:])
	case "inspect":
		return inspect(c, args[1:])
	case "revoke":
		return revoke(ctx, c, args[1:])
	}
	return fmt.Errorf("%w: no command token %q", errUsage, args[0])
}

// ring is the key ring of a purpose; name is the setting it comes from.
func (c console) ring(purpose session.Purpose, name string) (*session.KeyRing, error) {
	e, err := readEnvironment(c.environ)
	if err != nil {
		return nil, fmt.Errorf("%w:\n%w", errConfig, err)
	}
	if e.vars[name] == "" {
		return nil, fmt.Errorf("%w: set %s (or %s_FILE) to the gateway's", errConfig, name, name)
	}
	r, err := session.ParseKeyRing(purpose, e.vars[name], true)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errConfig, name, err)
	}
	return r, nil
}

func mint(c console, args []string) error {
	f := c.flags("token mint", "token mint -company C -agent A -user U [-expires 1h] | -admin ID [-restrict C] [-company C] [-agent A]")
	company := f.String("company", "", "company id; for an admin: the subscribed one, empty is any")
	agent := f.String("agent", "", "agent id; for an admin: the subscribed one, empty is any")
	user := f.String("user", "", "user id")
	admin := f.String("admin", "", "admin id: mint an admin token")
	restrict := f.String("restrict", "", "company that the admin is restricted to")
	expires := f.Duration("expires", time.Hour, "life of the token")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	claims := session.Claims{Company: *company, Agent: *agent, User: *user, ExpiresAt: time.Now().Add(*expires)}
	purpose, name := session.PurposeUser, "DWS_AUTH_TOKEN_KEYS"
	switch {
	case f.NArg() > 0:
		return fmt.Errorf("%w: token mint takes only flags", errUsage)
	case *expires <= 0:
		return fmt.Errorf("%w: -expires must be more than zero", errUsage)
	case *admin != "":
		purpose, name = session.PurposeAdmin, "DWS_AUTH_ADMIN_TOKEN_KEYS"
		claims = session.Claims{
			Admin: true, AdminID: *admin, CompanyRestriction: *restrict,
			SubscribedCompany: *company, SubscribedAgent: *agent, ExpiresAt: claims.ExpiresAt,
		}
	case *company == "" || *agent == "" || *user == "":
		return fmt.Errorf("%w: -company, -agent and -user, or -admin", errUsage)
	}
	ring, err := c.ring(purpose, name)
	if err != nil {
		return err
	}
	t, err := ring.Mint(claims)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.out, t)
	return err
}

// inspect prints the claims of a token of either purpose, expired ones too.
func inspect(c console, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%w: token inspect TOKEN", errUsage)
	}
	var errs []error
	for purpose, name := range map[session.Purpose]string{session.PurposeUser: "DWS_AUTH_TOKEN_KEYS", session.PurposeAdmin: "DWS_AUTH_ADMIN_TOKEN_KEYS"} {
		ring, err := c.ring(purpose, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		// Nothing is expired at the zero time.
		claims, err := ring.Verify(args[0], time.Time{})
		if err != nil {
			errs = append(errs, fmt.Errorf("as a token of purpose %s: %w", purpose, err))
			continue
		}
		return printClaims(c.out, purpose, claims)
	}
	return errors.Join(errs...)
}

func printClaims(w io.Writer, purpose session.Purpose, claims session.Claims) error {
	state := "valid"
	if claims.ExpiresAt.Before(time.Now()) {
		state = "EXPIRED"
	}
	fmt.Fprintf(w, "purpose             %s\nexpires_at          %s (%s)\n", purpose, claims.ExpiresAt.UTC().Format(time.RFC3339), state)
	for _, row := range [][2]string{
		{"company_id", claims.Company},
		{"agent_id", claims.Agent},
		{"user_id", claims.User},
		{"admin_id", claims.AdminID},
		{"company_restriction", claims.CompanyRestriction},
		{"subscribed_company", claims.SubscribedCompany},
		{"subscribed_agent", claims.SubscribedAgent},
		{"chats", strings.Join(claims.Chats, ",")},
		{"events", strings.Join(claims.Events, ",")},
		{"role", claims.Role},
		{"jti", claims.JTI},
		{"kid", claims.KID},
	} {
		if row[1] != "" {
			if _, err := fmt.Fprintf(w, "%-19s %s\n", row[0], row[1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// revoke asks the admin API; the gateway's answer is printed as it is.
func revoke(ctx context.Context, c console, args []string) error {
	f := c.flags("token revoke", "token revoke token|user|company|kid VALUE")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if f.NArg() != 2 {
		return fmt.Errorf("%w: token revoke token|user|company|kid VALUE", errUsage)
	}
	p, err := plan(c.environ)
	if err != nil {
		return err
	}
	if p.made["DWS_AUTH_ADMIN_KEY"] != "" || p.options.Auth.AdminKey == "" {
		return fmt.Errorf("%w: set DWS_AUTH_ADMIN_KEY (or DWS_AUTH_ADMIN_KEY_FILE) to the gateway's", errConfig)
	}
	body, err := json.Marshal(map[string]string{"kind": f.Arg(0), "value": f.Arg(1)})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+local(p.options.Internal.Addr)+"/admin/revocations", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-API-Key", p.options.Auth.AdminKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
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
