package session

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// ErrToken and ErrExpired are what Verify wraps: the first for anything that
// is no valid token of this ring, the second for one that was.
var (
	ErrToken   = errors.New("invalid token")
	ErrExpired = errors.New("token expired")
)

// Purpose keeps user and admin tokens apart; it is part of the AAD of tokens
// with a kid.
type Purpose string

// Purposes.
const (
	PurposeUser  Purpose = "user"
	PurposeAdmin Purpose = "admin"
)

// MaxToken is how long a token may be, in bytes: it bounds what is decoded before
// anything is known about its sender.
const MaxToken = 8 << 10

// Claims is what a token says. Users have Company, Agent and User; admins have
// AdminID and may be limited by the three scope fields ("" or "*": any). The
// lists below them are optional limits; empty means today's rights.
type Claims struct {
	Admin                bool
	Company, Agent, User string

	AdminID, CompanyRestriction        string
	SubscribedCompany, SubscribedAgent string
	Chats, Events                      []string // chat patterns; event kinds
	ReadOnly                           bool
	Role                               string // admins: RoleViewer, RoleOperator
	ExpiresAt                          time.Time
	IssuedAt                           time.Time // milliseconds; zero: the token does not say
	JTI                                string    // id for revocation; tokens with a kid have one
	KID                                string    // key it was sealed with, also where the token does not say; empty: one without a name
	Bare                               bool      // the token does not say its key, and may come without its padding
}

// Key is the session key these claims entitle to.
func (c *Claims) Key() Key {
	if c.Admin {
		return AdminKey(c.AdminID)
	}
	return Key{c.Company, c.Agent, c.User}
}

// limits are the optional claims both plaintexts share.
type limits struct {
	Chats    []string `json:"chats,omitempty"`
	Events   []string `json:"events,omitempty"`
	ReadOnly bool     `json:"read_only,omitempty"`
	Role     string   `json:"role,omitempty"`
	JTI      string   `json:"jti,omitempty"`
	Issued   float64  `json:"iat,omitempty"` // unix seconds, fractions allowed, as in RFC 7519
}

type userPlain struct {
	Company string `json:"company_id"`
	Agent   string `json:"agent_id"`
	User    string `json:"user_id"`
	Expires string `json:"expires_at"`
	limits
}

type adminPlain struct {
	Admin             string `json:"admin_id"`
	Restriction       string `json:"company_id_restriction,omitempty"`
	SubscribedCompany string `json:"subscribed_company_id,omitempty"`
	SubscribedAgent   string `json:"subscribed_agent_id,omitempty"`
	Expires           string `json:"expires_at"`
	limits
}

// plaintext encodes c as it is sealed.
func (c *Claims) plaintext() ([]byte, error) {
	expires := c.ExpiresAt.UTC().Format(time.RFC3339)
	l := limits{c.Chats, c.Events, c.ReadOnly, c.Role, c.JTI, 0}
	if !c.IssuedAt.IsZero() {
		l.Issued = float64(c.IssuedAt.UnixMilli()) / 1000
	}
	if c.Admin {
		return json.Marshal(adminPlain{c.AdminID, c.CompanyRestriction, c.SubscribedCompany, c.SubscribedAgent, expires, l})
	}
	return json.Marshal(userPlain{c.Company, c.Agent, c.User, expires, l})
}

// parseClaims decodes and checks a plaintext. Ids are checked here, so that no
// token, whoever minted it, carries one that a subject or key would trip over.
func parseClaims(purpose Purpose, plain []byte) (Claims, error) {
	var c Claims
	var expires string
	var l limits
	if purpose == PurposeAdmin {
		var p adminPlain
		if err := json.Unmarshal(plain, &p); err != nil {
			return c, fmt.Errorf("decode claims: %w", err)
		}
		c = Claims{Admin: true, AdminID: p.Admin, CompanyRestriction: p.Restriction, SubscribedCompany: p.SubscribedCompany, SubscribedAgent: p.SubscribedAgent}
		expires, l = p.Expires, p.limits
	} else {
		var p userPlain
		if err := json.Unmarshal(plain, &p); err != nil {
			return c, fmt.Errorf("decode claims: %w", err)
		}
		c = Claims{Company: p.Company, Agent: p.Agent, User: p.User}
		expires, l = p.Expires, p.limits
	}
	c.Chats, c.Events, c.ReadOnly, c.Role, c.JTI = l.Chats, l.Events, l.ReadOnly, l.Role, l.JTI
	var err error
	if c.ExpiresAt, err = time.Parse(time.RFC3339, expires); err != nil {
		return c, errors.New("expires_at must be RFC 3339")
	}
	if l.Issued != 0 {
		if l.Issued < 1 || l.Issued > maxIssued {
			return c, errors.New("iat must be unix seconds")
		}
		c.IssuedAt = time.UnixMilli(int64(math.Round(l.Issued * 1000)))
	}
	return c, c.check()
}

// maxIssued keeps iat, in milliseconds, a whole number that a float64 holds.
const maxIssued = 1 << 40

// ahead is how far the clock of whoever minted a token may be before ours.
// Beyond it a token is refused: it would outlive a revocation of its user.
const ahead = time.Minute

// valid says whether the claims count at now.
func (c *Claims) valid(now time.Time) error {
	if !now.Before(c.ExpiresAt) {
		return fmt.Errorf("%w at %s", ErrExpired, c.ExpiresAt.UTC().Format(time.RFC3339))
	}
	if c.IssuedAt.Sub(now) > ahead {
		return fmt.Errorf("%w: issued in the future, at %s", ErrToken, c.IssuedAt.UTC().Format(time.RFC3339))
	}
	return nil
}

func (c *Claims) check() error {
	if err := c.checkLimits(); err != nil {
		return err
	}
	if c.Admin {
		if err := CheckID("admin_id", c.AdminID); err != nil {
			return err
		}
		for _, f := range [][2]string{
			{"company_id_restriction", c.CompanyRestriction}, {"subscribed_company_id", c.SubscribedCompany}, {"subscribed_agent_id", c.SubscribedAgent},
		} {
			if f[1] == "" || f[1] == "*" {
				continue
			}
			if err := CheckTenantID(f[0], f[1]); err != nil {
				return err
			}
		}
		return nil
	}
	if err := CheckTenantID("company_id", c.Company); err != nil {
		return err
	}
	if err := CheckTenantID("agent_id", c.Agent); err != nil {
		return err
	}
	return CheckID("user_id", c.User)
}

// Bounds of the optional claims.
const (
	maxPatterns = 64
	maxKinds    = 16
)

// checkLimits refuses what could be read as more than was meant: an empty list
// (is it nothing, or everything?), and names that are nobody's.
func (c *Claims) checkLimits() error {
	if c.Chats != nil && len(c.Chats) == 0 || len(c.Chats) > maxPatterns {
		return fmt.Errorf("chats must be 1 to %d patterns, or left out", maxPatterns)
	}
	for _, p := range c.Chats {
		if !cleanText(p, MaxChat) {
			return fmt.Errorf("chats: a pattern must be 1-%d bytes of UTF-8 without control characters", MaxChat)
		}
	}
	if c.Events != nil && len(c.Events) == 0 || len(c.Events) > maxKinds {
		return fmt.Errorf("events must be 1 to %d kinds, or left out", maxKinds)
	}
	for _, k := range c.Events {
		if k != KindOther && KindOf(k) == KindBitOther {
			return fmt.Errorf("events must be of %s, %s, %s, %s, %s", KindChats, KindMessages, KindAgents, KindContacts, KindOther)
		}
	}
	if c.Role != "" && (!c.Admin || c.Role != RoleViewer && c.Role != RoleOperator) {
		return fmt.Errorf("role is for admins, and %s or %s", RoleViewer, RoleOperator)
	}
	if c.JTI != "" {
		return CheckID("jti", c.JTI)
	}
	return nil
}

// splitToken takes a token apart: its kid, empty for a bare one, and the
// sealed bytes. Strict, so that no two strings are the same token: no CR or
// LF (which Go's decoder skips), no stray bits, padding whole or absent, and
// none at all after a kid.
func splitToken(token string) (kid string, sealed []byte, err error) {
	if len(token) > MaxToken {
		return "", nil, errors.New("too long")
	}
	if strings.ContainsAny(token, "\r\n") {
		return "", nil, errors.New("line break inside")
	}
	kid, body, ok := strings.Cut(token, ".")
	if !ok {
		kid, body = "", token
	} else if !validKID(kid) {
		return "", nil, errors.New("malformed kid")
	}
	enc := base64.RawURLEncoding
	if kid == "" && strings.HasSuffix(body, "=") {
		enc = base64.URLEncoding
	}
	sealed, err = enc.Strict().DecodeString(body)
	if err != nil {
		return "", nil, fmt.Errorf("decode base64url: %w", err)
	}
	return kid, sealed, nil
}

// joinToken is splitToken's inverse.
func joinToken(kid string, sealed []byte) string {
	if kid == "" {
		return base64.URLEncoding.EncodeToString(sealed)
	}
	return kid + "." + base64.RawURLEncoding.EncodeToString(sealed)
}

func validKID(kid string) bool {
	if kid == "" || len(kid) > 32 {
		return false
	}
	for i := range len(kid) {
		c := kid[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}
