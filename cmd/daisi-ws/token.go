package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// token mints and looks at tokens with the keys of this environment, or asks
// a running gateway to revoke.
func token(ctx context.Context, c console, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: token mint, inspect, revoke, lift or revocations", errUsage)
	}
	switch args[0] {
	case "mint":
		return mint(c, args[1:])
	case "inspect":
		return inspect(c, args[1:])
	case "revoke", "lift":
		return revoke(ctx, c, args[0], args[1:])
	case "revocations":
		return revocations(ctx, c, args[1:])
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
	f := c.flags("token mint", "token mint -company C -agent A -user U [-expires 1h] [limits] | -admin ID [-restrict C] [-company C] [-agent A] [-role viewer|operator]")
	company := f.String("company", "", "company id; for an admin: the subscribed one, empty is any")
	agent := f.String("agent", "", "agent id; for an admin: the subscribed one, empty is any")
	user := f.String("user", "", "user id")
	admin := f.String("admin", "", "admin id: mint an admin token")
	restrict := f.String("restrict", "", "company that the admin is restricted to")
	expires := f.Duration("expires", time.Hour, "life of the token")
	chats := f.String("chats", "", "only these chats: ids or prefixes followed by *, commas between")
	events := f.String("events", "", "only these kinds: chats, messages, agents, contacts, other, commas between")
	readOnly := f.Bool("read-only", false, "may change nothing that outlives its session")
	role := f.String("role", "", "viewer or operator: what an admin's token may do at the admin API")
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
	claims.Chats, claims.Events, claims.ReadOnly, claims.Role = list(*chats), list(*events), *readOnly, *role
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

// list splits what commas separate, nil for nothing.
func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
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
		claims, err := ring.Open(args[0])
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
	issued := ""
	if !claims.IssuedAt.IsZero() {
		issued = claims.IssuedAt.UTC().Format(time.RFC3339Nano)
	}
	kid := claims.KID
	if claims.Bare && kid != "" {
		kid += " (the token does not say it)"
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
		{"read_only", map[bool]string{true: "true"}[claims.ReadOnly]},
		{"role", claims.Role},
		{"issued_at", issued},
		{"jti", claims.JTI},
		{"kid", kid},
	} {
		if row[1] != "" {
			if _, err := fmt.Fprintf(w, "%-19s %s\n", row[0], row[1]); err != nil {
				return err
			}
		}
	}
	return nil
}
