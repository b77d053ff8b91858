package server

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// maxTokenLife bounds expires_in_seconds: ten years.
const maxTokenLife = 10 * 365 * 24 * time.Hour

// userTokenRequest is the body of POST /generate-token.
type userTokenRequest struct {
	Company string `json:"company_id"`
	Agent   string `json:"agent_id"`
	User    string `json:"user_id"`
	Expires int64  `json:"expires_in_seconds"`
}

// adminTokenRequest is the body of POST /admin/generate-token.
type adminTokenRequest struct {
	Admin             string `json:"admin_id"`
	Expires           int64  `json:"expires_in_seconds"`
	Restriction       string `json:"company_id_restriction"`
	SubscribedCompany string `json:"subscribed_company_id"`
	SubscribedAgent   string `json:"subscribed_agent_id"`
}

// mintUser has a key of its own: the one that browsers hold must not make
// tokens for any tenant.
func (e *edge) mintUser(w http.ResponseWriter, r *http.Request) {
	if !e.keys.mint.set {
		faultNotFound.with("no minting key is configured, so this is off").write(w)
		return
	}
	if !e.keys.mint.equal(givenKey(r, r.URL.Query())) {
		faultOf(session.ReasonAPIKey, "minting has a key of its own").write(w)
		return
	}
	var q userTokenRequest
	if !e.readBody(w, r, &q) {
		return
	}
	e.mint(w, e.env.users, q.Expires, session.Claims{Company: q.Company, Agent: q.Agent, User: q.User})
}

func (e *edge) mintAdmin(w http.ResponseWriter, r *http.Request) {
	if f := e.checkAdmin(givenKey(r, r.URL.Query())); f != nil {
		f.write(w)
		return
	}
	if e.env.admins == nil {
		faultNotFound.with("no admin token keys are configured, so this is off").write(w)
		return
	}
	var q adminTokenRequest
	if !e.readBody(w, r, &q) {
		return
	}
	e.mint(w, e.env.admins, q.Expires, session.Claims{
		Admin: true, AdminID: q.Admin, CompanyRestriction: q.Restriction,
		SubscribedCompany: q.SubscribedCompany, SubscribedAgent: q.SubscribedAgent,
	})
}

func (e *edge) mint(w http.ResponseWriter, v *session.Verifier, seconds int64, c session.Claims) {
	if seconds < 1 || seconds > int64(maxTokenLife/time.Second) {
		faultOf(session.ReasonBadRequest, "expires_in_seconds must be 1 to 315360000").write(w)
		return
	}
	c.ExpiresAt = time.Now().Add(time.Duration(seconds) * time.Second)
	token, err := v.Ring().Mint(c)
	if err != nil { // the ids: nothing else can fail
		faultOf(session.ReasonBadRequest, errors.Unwrap(err).Error()).write(w)
		return
	}
	e.m.minted.Inc()
	writeJSON(w, http.StatusOK, map[string]string{"token": token})
}

// readBody reads a JSON object, or answers what is wrong with it. Unknown
// fields pass, for callers of today's service send some.
func (e *edge) readBody(w http.ResponseWriter, r *http.Request, into any) bool {
	return decodeBody(w, json.NewDecoder(http.MaxBytesReader(w, r.Body, e.opts.HTTP.MaxBody)), into)
}

func decodeBody(w http.ResponseWriter, d *json.Decoder, into any) bool {
	err := d.Decode(into)
	if err == nil { // More would pass over a bracket and all behind it
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return true
		} else if err == nil {
			err = errors.New("something follows the object")
		}
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		faultTooLarge.write(w)
		return false
	}
	faultOf(session.ReasonBadRequest, "body must be one JSON object: "+plainError(err)).write(w)
	return false
}

// plainError says what is wrong with a body in terms of the body.
func plainError(err error) string {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) && kind.Field != "" {
		return kind.Field + " must not be a " + kind.Value
	}
	if _, field, ok := strings.Cut(err.Error(), "unknown field "); ok {
		return "there is no field " + field
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return syntax.Error()
	}
	return "it is none, or not complete"
}
