package server

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// right is what an endpoint of the internal port asks of whoever calls it.
type right uint8

const (
	mayLook    right = iota // lists, within the scope
	mayLookAll              // what shows all tenants at once
	mayAct                  // changes something, within the scope
	mayActAll               // changes what all tenants share
)

// operator is who called: by the admin key, an admin token, or both. The key
// alone may do all; a token limits to its role and scope, and without the key
// it needs a role to be anybody.
type operator struct {
	grants *session.Grants // nil: all
	by     string          // for audit lines: fingerprint of the key or the admin id, never itself
}

// guarded serves next to those who have the right, and leaves a line about
// everything that is not only a look.
func (e *edge) guarded(method, path string, needs right, next func(http.ResponseWriter, *http.Request, operator)) route {
	return route{method, path, func(w http.ResponseWriter, r *http.Request) {
		who, f := e.operator(r)
		if f == nil {
			f = who.lacks(needs)
		}
		if needs < mayAct {
			if f != nil {
				f.write(w)
				return
			}
			next(w, r, who)
			return
		}
		seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		if f != nil {
			f.write(w) // past seen: a wrong key is counted by what w is
			seen.status = f.Status
		} else {
			next(seen, r, who)
		}
		e.log.Info().Str("request", r.Header.Get(requestIDHeader)).Str("remote", r.RemoteAddr).Str("by", who.by).
			Str("action", method+" "+path).Str("target", seen.target).Int("status", seen.status).Msg("audit")
	}}
}

// statusWriter remembers, for the audit line, what was answered and about whom.
type statusWriter struct {
	http.ResponseWriter
	status int
	target string
}

// WriteHeader notes the status.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// target says in the audit line whom an action is about.
func target(w http.ResponseWriter, whom string) {
	if s, ok := w.(*statusWriter); ok {
		s.target = whom
	}
}

// operator says who calls, or why nobody we know does.
func (e *edge) operator(r *http.Request) (operator, *fault) {
	key := givenKey(r, r.URL.Query())
	token := ""
	if scheme, t, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		token = strings.TrimSpace(t)
	}
	who := operator{by: "nobody"}
	if key != "" || token == "" {
		if f := e.checkAdmin(key); f != nil {
			return who, f
		}
		who.by = "key:" + fingerprint(key)
	}
	if token == "" {
		return who, nil
	}
	claims, f := e.adminToken(r, token)
	if f != nil {
		return who, f
	}
	who.by = "admin:" + fingerprint(claims.AdminID)
	who.grants = e.grants.Of(claims)
	if key == "" && claims.Role == "" {
		return who, refusal(session.ReasonToken, "a token without a role needs the admin key beside it")
	}
	return who, nil
}

// adminToken is the claims of an operator's token.
func (e *edge) adminToken(r *http.Request, token string) (*session.Claims, *fault) {
	if e.env.admins == nil {
		f := faultNotFound.with("no admin token keys are configured, so this is off")
		return nil, &f
	}
	claims, err := e.env.admins.Verify(r.Context(), token)
	switch {
	case errors.Is(err, session.ErrExpired):
		return nil, refusal(session.ReasonExpired, err.Error())
	case err != nil:
		return nil, refusal(session.ReasonToken, err.Error())
	}
	// Not to know what is revoked is no reason to let anybody in.
	var set *session.Revocations
	if core := e.env.core(); core != nil && core.late() == "" {
		set = core.manager.Revocations()
	}
	if set == nil {
		f := refusal(session.ReasonOverloaded, "what is revoked is not known now: only the admin key alone counts")
		f.Retry = retryAfter()
		return nil, f
	}
	if _, revoked := set.Refuses(claims, claims.TokenID(token), time.Now()); revoked {
		return nil, refusal(session.ReasonRevoked, "")
	}
	return claims, nil
}

// lacks is nil when o has the right.
func (o operator) lacks(needs right) *fault {
	switch {
	case needs >= mayAct && (o.grants.Role() == session.RoleViewer || o.grants.ReadOnly()):
		return refusal(session.ReasonDenied, "the token may only look")
	case (needs == mayLookAll || needs == mayActAll) && !o.grants.Unscoped():
		return refusal(session.ReasonDenied, "this is for tokens of every company and agent")
	}
	return nil
}

// sees says whether the session or route of company and agent is in o's scope.
// Admin sessions are seen by those who see all.
func (o operator) sees(company, agent string) bool {
	if company == session.AdminCompany {
		return o.grants.Unscoped()
	}
	return o.grants.Sees(company, agent)
}

// fingerprint stands for a secret or an id where it must not be repeated: four
// bytes of its sha256, enough to tell a handful of keys apart and useless for
// finding one.
func fingerprint(s string) string {
	hash := sha256.Sum256([]byte(s))
	return hex.EncodeToString(hash[:4])
}

// anybody is for handlers to whom it does not matter which operator calls.
func anybody(next http.HandlerFunc) func(http.ResponseWriter, *http.Request, operator) {
	return func(w http.ResponseWriter, r *http.Request, _ operator) { next(w, r) }
}
